"""The options of a comparison, each declared once, and the starts and label budgets that they name.

Nothing here imports torch, so that ``--help`` and a misspelt key are answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from headstart.comparison.finetune import OPTIMIZERS, OWN, extra_problems, optimizer_problems, ultralytics_arguments
from headstart.errors import UserError, did_you_mean
from headstart.settings import Options, resolve_options

RESERVED = ("scratch", "coco", "coco-backbone")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def split(value: Any) -> Any:
    """``"a,b"`` as ``["a", "b"]``; a single number as a list of one; anything else as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]").split(",") if part.strip()]
    return [value] if isinstance(value, (int, float, Path)) and not isinstance(value, bool) else value


def _texts(value: Any) -> Any:
    """A list of texts; paths and numbers among them are written out."""
    found = split(value)
    return [str(one) if isinstance(one, (int, Path)) else one for one in found] if isinstance(found, list) else found


def _seeds(value: Any) -> Any:
    """A count (3 means 0, 1, 2) or the seeds themselves."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else split(value)


Texts = Annotated[list[str], BeforeValidator(_texts)]
Rates = Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(split)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], BeforeValidator(_seeds)]


class CompareSettings(Options):
    """What a comparison needs to know. Every fine-tuning in it differs from its neighbours in the start alone."""

    data: str = Field(description="Ultralytics dataset YAML: train is the labelled pool that the budgets are cut from")
    model: str = Field("yolo11n", description="the detector of every start: the name of its YAML")
    starts: Texts = Field(
        ["scratch", "coco"],
        description="what to compare: scratch, coco, coco-backbone, checkpoints or run folders; name=path names one, "
        "coco=path.pt says where the COCO weights are",
    )
    labels: Texts = Field(["10%", "100%"], description="label budgets: shares of the labelled images, or counts")
    seeds: Seeds = Field([0, 1, 2], description="how many seeds, or the seeds themselves as [0, 1, 2]")
    epochs: int | None = Field(None, ge=1, description="epochs of every fine-tuning (this or steps; default: 100)")
    steps: int | None = Field(
        None, ge=1, description="least optimizer steps of every fine-tuning: whole epochs, as many at each budget"
    )
    imgsz: int = Field(640, ge=32, le=4096, description="side of the images, pixels")
    batch: int = Field(16, ge=1, description="images a step")
    optimizer: str = Field("AdamW", description=f"optimizer of every fine-tuning: {', '.join(OPTIMIZERS)}")
    lr: Rates = Field(
        [1e-3, 3e-4, 3e-3],
        description="learning rates; of several, each start gets the one that does best on a validation part of its "
        "labelled images (the first where they are equal); one alone saves the search",
    )
    lr_val: float = Field(0.2, gt=0, lt=1, description="share of the labelled images that the rate is chosen on")
    split: Literal["val", "test"] = Field("val", description="part of the dataset that the figures are measured on")
    unlabelled: str | list[str] | None = Field(
        None, description="images that the starts were pretrained on, where no run folder says so: looked at for leaks"
    )
    longer: Annotated[Literal["auto", "true", "false"], BeforeValidator(lambda v: str(v).lower())] = Field(
        "auto",
        description="one longer scratch run that gets the time that pretraining took: auto where a run folder tells it",
    )
    device: str = Field("auto", description="auto (every GPU, else CPU), cpu, mps, a GPU's index, or several as 0,1")
    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="fine-tunings side by side: auto is one a GPU, and on a CPU as many as cores and memory carry",
    )
    workers: int = Field(4, ge=0, description="processes that load images, each fine-tuning (none on a CPU)")
    out: str | None = Field(None, description="folder of the comparison; by default runs/compare/<data>-<model>")
    plan: bool = Field(False, description="print the cells, their cost and time from a short probe, and train nothing")
    overwrite: bool = Field(False, description="replace the comparison in out=")
    pictures: int = Field(6, ge=0, le=24, description="test images on which the detections of all starts are shown")
    report: bool = Field(True, description="draw report.html at the end")
    extra: dict[str, Any] = Field({}, description="more arguments of Ultralytics' train; single ones as key=value")


class Start(NamedTuple):
    """One start as the user named it: its name, ``scratch``, ``coco``, ``coco-backbone`` or ``checkpoint``, its path.

    The path of ``scratch`` is empty; published COCO weights are named and not yet on disk.
    """

    name: str
    kind: str
    path: str


class Budget(NamedTuple):
    """A label budget: its name for people, and the share or count that it means."""

    name: str
    share: float | None
    number: int | None

    def images(self, pool: int) -> int:
        """How many of `pool` labelled images; at least one."""
        return self.number if self.number is not None else max(1, round((self.share or 0) * pool))

    @property
    def key(self) -> str:
        """The name as a part of a file name."""
        return self.name.replace("%", "pc")


def resolve(options: Mapping[str, Any]) -> CompareSettings:
    """Complete and valid settings.

    Arguments of Ultralytics' ``train`` that are no options of ours (``close_mosaic=0``) go into ``extra``.

    Raises:
        UserError: Every problem together.
    """
    known = {*CompareSettings.model_fields, "cfg"}
    theirs = set(ultralytics_arguments()) - set(OWN) if set(options) - known else set()
    ours = {key: value for key, value in options.items() if key in known or key not in theirs}
    others = {key: value for key, value in options.items() if key not in ours}
    if others:
        ours["extra"] = {**dict(options.get("extra") or {}), **others}
    return resolve_options(CompareSettings, ours, "compare", _check)


def parse_starts(words: list[str], model: str) -> tuple[list[Start], list[UserError]]:
    """The starts that `words` name, and what is wrong with them: names given twice, paths that do not exist."""
    problems: list[UserError] = []
    starts = [start for word in words if (start := _parse_start(word, model, problems))]
    for name in sorted({start.name for start in starts if [other.name for other in starts].count(start.name) > 1}):
        problems.append(UserError(f"{name!r} is there twice", where="starts", hint="name them: first=a.pt,second=b.pt"))
    if problems:
        return [], problems
    given = next((start.path for word, start in zip(words, starts, strict=True) if word.startswith("coco=")), None)
    alone = next((s.path for w, s in zip(words, starts, strict=True) if w.startswith("coco-backbone=")), given)
    weights = {"coco": given or alone, "coco-backbone": alone}
    return [start._replace(path=weights.get(start.kind) or start.path) for start in starts], []


def _parse_start(word: str, model: str, problems: list[UserError]) -> Start | None:
    """One start: ``scratch``, ``coco``, ``coco=weights.pt``, ``runs/a``, ``ssl=runs/a/headstart.pt``."""
    name, equals, path = word.partition("=")
    named = bool(equals) and _NAME.fullmatch(name) is not None
    if not named:
        name, path = "", word
    if path in RESERVED and not named:
        published = "" if path == "scratch" else f"{_stem(model)}.pt"
        return Start(path, path, published)
    file = Path(path) / "headstart.pt" if Path(path).is_dir() else Path(path)
    if name == "scratch":
        problems.append(UserError("starts from random weights, not from a file", where="starts", hint="rename it"))
    elif not path or not file.is_file():
        hint = did_you_mean(path, RESERVED) or "give a .pt checkpoint, or the out= folder of a finished pretraining"
        problems.append(UserError(f"{str(file) if path else word!r} does not exist", where="starts", hint=hint))
    elif file.suffix != ".pt":
        problems.append(UserError(f"{file} is no .pt checkpoint", where="starts"))
    else:
        stem = file.resolve().parent.name if file.name == "headstart.pt" else file.stem
        clean = re.sub(r"[^A-Za-z0-9_.+-]", "-", name or stem).lstrip("_.+-") or "checkpoint"
        return Start(clean, name if name in RESERVED else "checkpoint", str(file.resolve()))
    return None


def parse_budgets(words: list[str]) -> tuple[list[Budget], list[UserError]]:
    """The label budgets (``5%`` a share, ``200`` a count), and what is wrong with them."""
    budgets, problems = [], []
    for word in words:
        text = word.strip()
        share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
        if share and 0 < float(share[1]) <= 100:
            budgets.append(Budget(f"{float(share[1]):g}%", float(share[1]) / 100, None))
        elif text.isdigit() and int(text) > 0:
            budgets.append(Budget(str(int(text)), None, int(text)))
        else:
            hint = "give shares such as 10%, or counts such as 200"
            problems.append(UserError(f"{word!r} is no label budget", where="labels", hint=hint))
    if len(set(budgets)) < len(budgets):
        problems.append(UserError("a budget is there twice", where="labels"))
    return budgets, problems


def _stem(model: str) -> str:
    return Path(model).name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".pt")


def model_yaml(model: str) -> str:
    """The YAML that `model` means; ``yolo11n.pt`` is taken for its architecture."""
    return model if Path(model).suffix in (".yaml", ".yml") else f"{_stem(model)}.yaml"


def _check(given: Mapping[str, Any]) -> list[UserError]:
    """Problems that the types do not show; nothing is read or built."""
    # Imported here: they import torch.
    from headstart.comparison.dataset import shipped
    from headstart.detectors.ultralytics.model_files import check_name, is_yaml

    problems: list[UserError] = []
    model = str(given["model"])
    if not (is_yaml(model_yaml(model)) and check_name(model_yaml(model)) is None):
        problem = check_name(model_yaml(model)) or UserError(f"{model} is no model YAML", where="model")
        problems.append(UserError(problem.what, where="model", hint=problem.hint))
    problems += parse_starts(_list(_texts(given["starts"])), model)[1]
    problems += parse_budgets(_list(_texts(given["labels"])))[1]
    problems += [*_check_lists(given), *optimizer_problems(str(given["optimizer"]))]
    problems += extra_problems(given["extra"]) if isinstance(given["extra"], dict) else []
    if given.get("epochs") is not None and given.get("steps") is not None:
        problems.append(UserError("give one of the two, not both", where="epochs, steps"))
    data = given.get("data")
    if isinstance(data, str) and Path(data).suffix not in (".yaml", ".yml"):
        problems.append(UserError(f"{data} is no dataset YAML", where="data", hint="name a .yaml file"))
    elif isinstance(data, str) and not Path(data).is_file() and shipped(data) is None:
        problems.append(UserError(f"{data} does not exist", where="data"))
    return problems


def _check_lists(given: Mapping[str, Any]) -> list[UserError]:
    """Lists that may be neither empty nor hold anything twice."""
    problems = []
    values = {"starts": _texts(given["starts"]), "labels": _texts(given["labels"])}
    values |= {"seeds": _seeds(given["seeds"]), "lr": split(given["lr"])}
    for name, found in values.items():
        if isinstance(found, list) and not found:
            problems.append(UserError("names nothing", where=name))
        elif name in ("seeds", "lr") and len({str(one) for one in _list(found)}) < len(_list(found)):
            problems.append(UserError("holds a value twice", where=name))
    return problems


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
