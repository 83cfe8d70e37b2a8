"""``method=auto``: method, start, rate and length from what is there, and why, in two lines.

`objects` where there is a trained detector is measured, on one dataset (docs/evidence.md). The other rules are
hypotheses drawn from the literature (docs/methods.md). All are one pure function, `choose`, so that they can be read,
tested and changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.settings.length import default_steps

MANY = 10_000
"""Number of images from which batches are larger."""

_LENGTHS = {"epochs", "steps", "budget"}


@dataclass(frozen=True)
class Situation:
    """What the choice depends on.

    Attributes:
        images: How many there are.
        trained: The model starts from trained weights (a .pt as model= or init=).
        init: The file that they are from, where it is not the model's own.
        teacher: A teacher was given.
        boxes: The detector's head can be trained on boxes alone (the method `objects`).
        device: ``cpu``, ``cuda`` or ``mps``.
        memory: Of the device in GiB; 0 where not known.
    """

    images: int
    trained: bool
    init: str | None
    teacher: bool
    device: Literal["cpu", "cuda", "mps"]
    memory: float = 0.0
    boxes: bool = False


@dataclass(frozen=True)
class Choice:
    """Options for `headstart.settings.resolve`, what the user gave among them, and two lines that say why."""

    options: dict[str, Any]
    why: tuple[str, str]


def choose(found: Situation, given: Mapping[str, Any] | None = None) -> Choice:
    """The recipe for a situation, in which what was given is kept. A pure function."""
    own = {key: value for key, value in (given or {}).items() if value is not None and key != "method"}
    method = "objects" if found.trained and found.boxes else "distill" if found.teacher else "pyramid"
    batch = _batch(found) * (4 if method == "objects" else 1)  # four images make one that the network sees
    options: dict[str, Any] = {"method": method, "batch": batch}
    if not _LENGTHS & own.keys():
        read = int(own.get("batch", batch))
        options["steps"] = default_steps(found.images, read, trained=found.trained, device=found.device)
    # Not left to the rule for init=: a .pt given as model= is trained as well.
    options["lr"] = 2e-4 if found.trained and method != "objects" else 1e-3
    options |= {"imgsz": 160} if found.device == "cpu" else {}
    return Choice({**options, **own}, (_why_method(found, method), _why_length(found, options, own)))


def _batch(found: Situation) -> int:
    if found.device == "cpu":
        return 32
    return 128 if found.images >= MANY and found.memory >= 16 else 64


def _why_method(found: Situation, method: str) -> str:
    if found.init:
        start = f"continued from init={found.init}"
    else:
        start = "continued from the model's own weights" if found.trained else "from random weights"
    why = {
        "distill": "it has a teacher to learn from",
        "objects": "those weights find the objects on which the whole detector is then trained"
        + (", the teacher's features are clustered" if found.teacher else ""),
        "pyramid": "it trains backbone and neck and needs no teacher",
    }
    return f"method={method}, {start}: {why[method]}"


def _why_length(found: Situation, options: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    gentle = options["lr"] < 1e-3
    rate = "gentle, since the weights are trained" if gentle else "full, as in a detector's training"
    rate = rate if found.trained else "full, since the weights are random"
    rate = f"lr={own['lr']}, as given" if "lr" in own else f"lr={options['lr']:g}: {rate}"
    batch = f"{own.get('batch', options['batch'])} for {found.images:,} images"
    if asked := sorted(_LENGTHS & own.keys()):
        return f"{asked[0]}={own[asked[0]]}, as given, in batches of {batch}; {rate}"
    short = ", short because there is no GPU (budget= sets the time)" if found.device == "cpu" else ""
    return f"{options['steps']:,} steps of {batch}{short}; {rate}"


def weights_beside(model: Any) -> str | None:
    """The published weights of a model YAML, where they lie in the current folder: ``yolo11n.pt`` for yolo11n.yaml."""
    if not isinstance(model, str) or not model.endswith((".yaml", ".yml")):
        return None
    path = Path(model).with_suffix(".pt")
    return next((str(one) for one in (path, Path(path.name)) if one.is_file()), None)
