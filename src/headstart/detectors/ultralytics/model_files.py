"""Which model a name or path means: the model YAMLs that Ultralytics ships, the user's own, and checkpoints.

Nothing here imports Ultralytics or torch: a misspelt name is answered at once.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from headstart.errors import UserError, did_you_mean
from headstart.reading import parse_yaml

YAML = (".yaml", ".yml")
_EXPORTED = (".onnx", ".engine", ".torchscript", ".mlpackage", ".tflite", ".pb", ".xml", ".param", ".mnn")
# Names of weights that Ultralytics fetches by itself; the list inside Ultralytics cannot be read without importing it.
_PUBLISHED = re.compile(r"(yolo|rtdetr|fastsam)[\w.-]*\.pt", re.IGNORECASE)
_SCALED = re.compile(r"yolo(?:e-)?v?\d+")


BOXLESS = ("classify", "semantic", "depth")
"""Tasks without boxes; the last layer of such a model has the task in its name."""


@cache
def shipped() -> dict[str, Path]:
    """Every model YAML of the installed Ultralytics, by file name without suffix."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent / "cfg" / "models"
    return {path.stem: path for path in sorted(folder.rglob("*.yaml"))}


@cache
def scales(path: Path) -> tuple[str, ...]:
    """The scales that a model YAML defines, e.g. ("n", "s", "m", "l", "x"); empty where it defines none."""
    found = (parse_yaml(path.read_text(encoding="utf-8")) or {}).get("scales") or {}
    return tuple(str(scale) for scale in found)


def scaled_name(stem: str, scale: str) -> str:
    """The name that gives a YAML's scale, where the name carries it: ("yolo11-seg", "s") -> "yolo11s-seg"."""
    match = _SCALED.match(stem)
    if match is None or stem[match.end() : match.end() + 1] == scale:
        return stem
    return stem[: match.end()] + scale + stem[match.end() :]


@cache
def known_names() -> tuple[str, ...]:
    """Every name of a shipped architecture, scales included."""
    names: set[str] = set()
    for stem, path in shipped().items():
        names |= {scaled_name(stem, scale) for scale in scales(path)} or {stem}
    return tuple(sorted(names))


def is_yaml(model: str) -> bool:
    """Whether `model` means an architecture: a YAML file, or the name of one without a suffix."""
    suffix = Path(model).suffix.lower()
    return suffix in YAML or (not Path(model).is_file() and _find(model) is not None)


def learns_keypoints(model: str) -> bool:
    """Whether an architecture's head gives poses, as Ultralytics tells it: by the name of its last layer."""
    return "pose" in _last_layer(model)


def finds_boxes(model: str) -> bool:
    """Whether an architecture's head gives boxes, by the name of its last layer; also where that is not known."""
    return not any(task in _last_layer(model) for task in BOXLESS)


def _last_layer(model: str) -> str:
    found = _find(model)
    try:
        content: Any = parse_yaml(found.read_text(encoding="utf-8")) if found else None
        return str(content["head"][-1][-2]).lower()
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def yaml_name(model: str) -> str:
    """`model` as Ultralytics takes it, with its suffix."""
    return model if Path(model).suffix.lower() in YAML else f"{model}.yaml"


def check_name(model: str) -> UserError | None:
    """What is wrong with a model's name or path; None where nothing is found without loading it."""
    path, suffix = Path(model), Path(model).suffix.lower()
    if not model.strip():
        return UserError("is empty", where="model", hint="give a model YAML (yolo11n.yaml) or a .pt checkpoint")
    if suffix in YAML or (is_yaml(model) and not path.is_file()):
        return _check_yaml(model)
    if "://" in model:
        return None
    if suffix in _EXPORTED:
        return UserError(f"{model} is an exported model, which cannot be trained", where="model", hint="give its .pt")
    if suffix == ".pt":
        return _check_checkpoint(path)
    if path.is_file():
        return UserError(
            f"{model} is neither a model YAML nor an Ultralytics checkpoint",
            where="model",
            hint="their names end in .yaml and .pt",
        )
    return UserError(f"no model is called {model!r}", where="model", hint=_suggest(path.stem or model, path))


def _check_yaml(model: str) -> UserError | None:
    found = _find(model)
    if found is None:
        return UserError(
            f"no model YAML is called {model!r}", where="model", hint=_suggest(Path(model).stem, Path(model))
        )
    try:
        content = parse_yaml(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return UserError(f"{model} cannot be read as YAML: {error}", where="model")
    if not isinstance(content, dict) or not content.get("backbone") or not content.get("head"):
        dataset = isinstance(content, dict) and "train" in content
        return UserError(
            f"{model} is {'a dataset YAML' if dataset else 'not a model YAML: it has no backbone and head'}",
            where="model",
            hint="give it as data=, and a model YAML such as yolo11n.yaml here" if dataset else None,
        )
    return None


def _check_checkpoint(path: Path) -> UserError | None:
    if path.is_file():
        return None if path.stat().st_size else UserError(f"{path} is empty", where="model")
    if path.is_dir():
        return UserError(f"{path} is a folder, not a checkpoint", where="model")
    if len(path.parts) == 1 and _PUBLISHED.fullmatch(path.name):
        return None  # Ultralytics looks in its weights folder and then downloads it
    return UserError(f"{path} does not exist", where="model", hint=_near(path))


def _find(model: str) -> Path | None:
    """The YAML that Ultralytics would read for `model`, found as it does; None where there is none."""
    path = Path(yaml_name(model))
    # Ultralytics finds yolo11n-seg.yaml as yolo11-seg.yaml, and knows yolov8n6 as yolov8n-p6.
    names = [
        str(path),
        re.sub(r"(\d+)([nslmx])6(.+)?$", r"\1-p6\3", str(path)),
        re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", str(path)),
    ]
    for name in names:
        if Path(name).is_file():
            return Path(name)
        if Path(name).stem in shipped() and len(Path(name).parts) == 1:
            return shipped()[Path(name).stem]
    return None


def _suggest(stem: str, path: Path) -> str | None:
    near = did_you_mean(stem, known_names()) or _near(path)
    return near or "`yolo11n.yaml` is a good first choice"


def _near(path: Path) -> str | None:
    """A file beside `path` whose name is nearly the same."""
    try:
        beside = [one.name for one in path.parent.iterdir() if one.suffix.lower() in (".pt", *YAML)]
    except OSError:
        return f"the folder {path.parent} does not exist" if path.parent != path else None
    return did_you_mean(path.name, beside)
