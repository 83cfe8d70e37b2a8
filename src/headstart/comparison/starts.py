"""Every start as a checkpoint with the user's classes, built before the first cell, and what is known of its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.comparison.dataset import Dataset
from headstart.comparison.recipes import CARRIERS, SUFFIXES
from headstart.comparison.start_records import AS_IS, PretrainingFacts
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import Finetuner, StartSettings
from headstart.detectors.handback import PARTS
from headstart.errors import UserError, did_you_mean
from headstart.files import content_hash, write_text
from headstart.paths import located
from headstart.reading import parse_yaml, read_json_lines


@dataclass(frozen=True)
class StartFile:
    """A start's checkpoint for one seed.

    Attributes:
        path: The file.
        sha256: Over names, shapes and values of its tensors.
        parameters: Weights of the model.
        taken: ``{"backbone": [taken from the given weights, tensors in all], "neck": ..., "head": ...}``.
        foreign: Why the given weights are not COCO's published ones, in words; "" where nothing tells that.
        detects: Whether it is a detector of the user's classes before it is fine-tuned.
    """

    path: Path
    sha256: str
    parameters: int
    taken: Mapping[str, Sequence[int]]
    foreign: str = ""
    detects: bool = False


def build_starts(
    starts: Sequence[Start], seeds: Sequence[int], dataset: Dataset, model: str, folder: Path
) -> dict[tuple[str, int], StartFile]:
    """Build the checkpoints ``<start>-seed<seed>.pt``; those that are there and of the same origin are kept.

    What does not come from the start's weights is drawn from the seed, alike for all starts of a seed.

    Returns:
        (start's name, seed) -> its file.

    Raises:
        UserError: Weights that cannot be read, or are of another architecture; every start that has a problem.
    """
    files: dict[tuple[str, int], StartFile] = {}
    problems: list[UserError] = []
    for start in starts:
        for seed in seeds:
            try:
                path = folder / f"{start.name}-seed{seed}.pt"
                files[start.name, seed] = file = build_start(start, seed, dataset, model, path)
                if start.as_is and (why := unclassified(file)):
                    hint = "its classes, and their order, must be those of data, and its network as large as the others"
                    raise UserError(f"{Path(start.path).name} {why}", hint=f"{hint}; to fine-tune it: {start.base}=")
            except UserError as error:
                problems.append(UserError(error.what, where=f"starts: {start.name}", hint=error.hint))
                break
    if problems:
        raise UserError.several(problems)
    sizes = {name: file.parameters for (name, _), file in files.items()}
    if len(set(sizes.values())) > 1:
        what = (
            f"the starts are not of one size: {', '.join(f'{name} {size:,}' for name, size in sizes.items())} weights"
        )
        raise UserError(what, where="starts", hint="this is a bug in headstart: please report it")
    return files


def build_start(start: Start, seed: int, dataset: Dataset, model: str, path: Path) -> StartFile:
    """Build one checkpoint; see `build_starts`.

    Raises:
        UserError: Weights that cannot be read, or are of another architecture.
    """
    record = path.with_suffix(".json")
    origin = {**_origin(start, dataset, model), "seed": seed}
    with suppress(OSError, ValueError, KeyError, TypeError):  # none, or a damaged one: it is built anew
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["origin"] == origin and known["file"] == content_hash(str(path)):
            found = [known[key] for key in ("sha256", "parameters", "taken", "foreign", "detects")]
            return StartFile(path, *found)
    from headstart.detectors.tensors import fingerprint

    settings = StartSettings(
        model,
        dataset.names,
        seed,
        weights=start.path or None,
        parts=("backbone",) if start.kind == "coco-backbone" else PARTS,
        kpt_shape=dataset.others.get("kpt_shape"),
    )
    built = finetuner(model).build_start(settings, path)
    taken = {str(part): [built.taken[part], built.total[part]] for part in built.total}
    detects = built.classified and all(count == total for count, total in taken.values())
    made = StartFile(path, fingerprint(built.state), built.parameters, taken, built.foreign, detects)
    content = {"origin": origin, "sha256": made.sha256, "parameters": made.parameters, "taken": taken}
    content |= {"foreign": made.foreign, "detects": made.detects}
    write_text(record, json.dumps({**content, "file": content_hash(str(path))}, indent=1) + "\n")
    return made


def _origin(start: Start, dataset: Dataset, model: str) -> dict[str, Any]:
    """All that a start's weights follow from, apart from the seed."""
    return {
        "kind": LONGER.get(start.kind, start.kind),
        "model": model,
        "names": list(dataset.names),
        "kpt_shape": dataset.others.get("kpt_shape"),
        "weights": content_hash(start.path) if start.path else "",
        "versions": dict(finetuner(model).versions()),
        "way": _WAY,
    }


def called_coco(start: Start, file: StartFile | None) -> str:
    """Why a start that is called COCO's is not COCO's, in words; "" for the others, and where nothing tells that."""
    return file.foreign if file and LONGER.get(start.kind, start.kind) in ("coco", "coco-backbone") else ""


def unclassified(file: StartFile) -> str:
    """Why a start cannot be measured before it is fine-tuned, in words; "" where it can."""
    return "" if file.detects else "is no detector of the classes of data"


def pretraining_of(start: Start) -> PretrainingFacts | None:
    """What is known of a checkpoint's pretraining: its run folder is the one that it lies in; None without one."""
    if start.kind != "checkpoint" or (settings := _run_settings(start.path)) is None:
        return None
    folder = settings.parent
    try:
        return _facts(folder, parse_yaml(settings.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:  # a field of another type is a ValueError
        hint = "restore it; or copy headstart.pt to another folder and give that: its pretraining is then not known"
        raise UserError(f"cannot be read: {error}", where=str(settings), hint=hint) from error


def _run_settings(path: str) -> Path | None:
    """The settings of the run that wrote a checkpoint; None of a checkpoint that lies in no run folder."""
    file = Path(path).resolve()
    settings = file.parent / "settings.yaml"
    return settings if file.name == "headstart.pt" and settings.is_file() else None


def _facts(folder: Path, content: Any) -> PretrainingFacts:
    options, resolved = dict(content["options"]), dict(content["resolved"])
    data = options.get("data") or []
    shown = resolved.get("shown") or options.get("batch")
    return PretrainingFacts(
        folder=str(folder),
        data=tuple(str(one) for one in (data if isinstance(data, list) else [data])),
        images=resolved.get("images"),
        method=str(options.get("method", "")),
        model=str(options.get("init") or options.get("model", "")),
        steps=resolved.get("steps"),
        shown=shown if isinstance(shown, int) else None,
        search_seconds=resolved.get("search_seconds"),
        seconds=_seconds(folder / "metrics.jsonl"),
        device=str(resolved.get("device", "")),
        fingerprint=str(resolved.get("images_fingerprint") or ""),
        carriers={key: str(options[key]) for key in ("labels", *CARRIERS) if options.get(key)},
        every=options.get("every"),
        imgsz=options.get("imgsz"),
    )


def _seconds(metrics: Path) -> float | None:
    """Time spent by a run, whose ``seconds`` begin anew where it was resumed; None where nothing was logged."""
    total, last = None, 0.0
    for line in read_json_lines(metrics):
        now = line.get("seconds")
        if not isinstance(now, (int, float)):
            continue
        total, last = (total or 0.0) + (now - last if now >= last else now), now
    return None if total is None else round(total, 1)


LONGER = {"scratch-longer": "scratch", "coco-longer": "coco", "checkpoint-longer": "checkpoint"}
"""Kinds of starts that are others fine-tuned for longer: for as many steps in all as the start that takes the most."""
_LONGER = "-longer"
"""What is added to the name of a start for the one that is it, fine-tuned for longer."""
RESERVED = ("scratch", "coco", "coco-backbone", "scratch-longer", "coco-longer")


_WAY = 3
"""Of building starts: those that were built in another way are built anew."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class Start(NamedTuple):
    """One start as the user named it.

    Attributes:
        name: Its name.
        kind: One of `RESERVED`, ``checkpoint``, ``checkpoint-longer`` or ``recipe``.
        path: Of its checkpoint or recipe; empty for random weights. Published COCO weights are named, and perhaps not
            yet on disk.
        as_is: Whether it is measured as it is, without any fine-tuning: it is a detector of the user's classes.
    """

    name: str
    kind: str
    path: str
    as_is: bool = False

    @property
    def longer(self) -> bool:
        """Whether it is another start, fine-tuned for longer."""
        return self.kind in LONGER

    @property
    def base(self) -> str:
        """The name of the start that it is for longer, or as it is; its own for the others."""
        suffix = _LONGER if self.longer else AS_IS if self.as_is else ""
        return self.name.removesuffix(suffix)

    @property
    def tested(self) -> bool:
        """Whether it is made by a pretraining that is put to the test, and not what it is compared with."""
        return self.kind in ("checkpoint", "recipe")


def parse_starts(words: list[str], model: str) -> tuple[list[Start], list[UserError]]:
    """The starts that `words` name, and what is wrong with them: names given twice, paths that do not exist."""
    problems: list[UserError] = []
    trainer = finetuner(model)
    named = [start for word in words if (start := _parse_start(word, model, trainer, []))]
    variants = {f"{start.name}{suffix}": start for start in named for suffix in (_LONGER, AS_IS)}
    starts = [
        start
        for word in words
        if (start := _parse_variant(word, variants, problems) or _parse_start(word, model, trainer, problems))
    ]
    for name in sorted({start.name for start in starts if [other.name for other in starts].count(start.name) > 1}):
        problems.append(UserError(f"{name!r} is there twice", where="starts", hint="name them: first=a.pt,second=b.pt"))
    origins = {start.name: start.path for start in starts if start.kind not in RESERVED}
    for start in starts:
        if start.as_is and origins.get(start.base, start.path) != start.path:
            what = f"{start.name} is {start.base} before it is fine-tuned, and another file is given for it"
            hint = f"leave that file out, or give {start.name} another name"
            problems.append(UserError(what, where="starts", hint=hint))
    if problems:
        return [], problems
    given = next((start.path for word, start in zip(words, starts, strict=True) if word.startswith("coco=")), None)
    alone = next((s.path for w, s in zip(words, starts, strict=True) if w.startswith("coco-backbone=")), given)
    weights = {"coco": given or alone, "coco-backbone": alone, "coco-longer": given or alone}
    known = {start.base for start in starts if start.longer}
    if known and not any(start.tested for start in starts if start.name not in known):
        what = "is fine-tuned for as many steps as a pretrained start takes in all, and there is none"
        name = next(start.name for start in starts if start.longer)
        problems.append(
            UserError(f"{name} {what}", where="starts", hint="add a run folder or a recipe, or leave it out")
        )
        return [], problems
    return [start._replace(path=weights.get(start.kind) or start.path) for start in starts], []


def _parse_variant(word: str, variants: Mapping[str, Start], problems: list[UserError]) -> Start | None:
    """``mine-longer`` or ``mine-as-is``, beside ``mine=weights.pt``; None where the word means something else."""
    if word in RESERVED or Path(word).exists():
        return None
    if word.removesuffix(AS_IS) in RESERVED:
        return _as_is(word, Start(word, "checkpoint", ""), problems)
    base = variants.get(word)
    if base is None or base.kind in RESERVED or base.longer or base.as_is:
        return None
    return _variant(word, base, problems)


def _variant(name: str, base: Start, problems: list[UserError]) -> Start:
    return (_as_is if name.endswith(AS_IS) else _for_longer)(name, base, problems)


def _as_is(name: str, base: Start, problems: list[UserError]) -> Start:
    if name.removesuffix(AS_IS) in RESERVED:
        what = f"{name}: neither random weights nor those called COCO's are measured as they are"
        hint = "recipes, run folders and weights of a detector of your classes can be: mine=weights.pt,mine-as-is"
        problems.append(UserError(what, where="starts", hint=hint))
    return base._replace(name=name, as_is=True)


def _for_longer(name: str, base: Start, problems: list[UserError]) -> Start:
    if base.kind == "recipe" or _run_settings(base.path):
        what = f"{name}: {base.name} is a pretraining, and takes steps of its own"
        hint = "starts that were there before are fine-tuned for longer: scratch, coco, or weights from elsewhere"
        problems.append(UserError(what, where="starts", hint=hint))
    return Start(name, f"checkpoint{_LONGER}", base.path)


def _parse_start(word: str, model: str, trainer: Finetuner, problems: list[UserError]) -> Start | None:
    """One start: ``scratch``, ``coco=weights.pt``, ``runs/a``, ``ssl=runs/a/headstart.pt``, ``mine-longer=mine.pt``."""
    name, equals, path = word.partition("=")
    named = bool(equals) and _NAME.fullmatch(name) is not None
    if not named:
        name, path = "", word
    if path in RESERVED and not named:
        published = "" if LONGER.get(path, path) == "scratch" else trainer.published(model)
        return Start(path, path, published)
    file = Path(path) / "headstart.pt" if Path(path).is_dir() else Path(path)
    if name in ("scratch", "scratch-longer"):
        problems.append(UserError("starts from random weights, not from a file", where="starts", hint="rename it"))
    elif name == "coco-longer":
        problems.append(UserError("starts from the weights of coco", where="starts", hint="name these: coco=path.pt"))
    elif not path or not file.is_file():
        hint = did_you_mean(path, RESERVED)
        hint = hint or "give a .pt checkpoint, the out= folder of a finished pretraining, or a recipe (.yaml)"
        problems.append(UserError(f"{str(file) if path else word!r} does not exist", where="starts", hint=hint))
    elif file.suffix not in trainer.suffixes and (file.suffix not in SUFFIXES or name in RESERVED):
        problems.append(UserError(f"{file} is no {' or '.join(trainer.suffixes)} checkpoint", where="starts"))
    else:
        stem = file.resolve().parent.name if file.name in ("headstart.pt", "settings.yaml") else file.stem
        clean = re.sub(r"[^A-Za-z0-9_.+-]", "-", name or stem).lstrip("_.+-") or "checkpoint"
        if not named and clean in RESERVED:
            what = f"{path} would be called {clean}, which stands for other weights"
            problems.append(UserError(what, where="starts", hint=f"name it: mine={path}"))
            return None
        kind = "recipe" if file.suffix in SUFFIXES else "checkpoint"
        found = Start(clean, name if name in RESERVED else kind, str(located(file)))
        return _variant(clean, found, problems) if named and clean.endswith((_LONGER, AS_IS)) else found
    return None
