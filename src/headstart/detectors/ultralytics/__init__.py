"""Every detector that Ultralytics builds from a model YAML; see `headstart.detectors.find` for what a family has.

Ultralytics and torch are imported where they are needed: a misspelt name is answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.detectors.ultralytics import model_files
from headstart.errors import UserError

if TYPE_CHECKING:
    from headstart.detectors.finetuner import Finetuner
    from headstart.detectors.ultralytics.detector import UltralyticsDetector
    from headstart.detectors.ultralytics.handback import load_into

__all__ = ["accepts", "check", "check_init", "finetuner", "load", "load_into"]


def accepts(model: Any) -> bool:
    """Paths, and live objects of Ultralytics."""
    return isinstance(model, (str, Path)) or any(
        base.__module__.startswith("ultralytics.") for base in type(model).__mro__
    )


def check(model: Any) -> list[UserError]:
    """What is wrong with `model`, found without importing Ultralytics."""
    if isinstance(model, (str, Path)):
        problem = model_files.check_name(str(model))
        return [problem] if problem else []
    from torch import nn

    return [] if isinstance(getattr(model, "model", None), nn.Module) else [_not_live(model)]


def check_init(init: str) -> list[UserError]:
    """What is wrong with a checkpoint to start from."""
    problems = [problem.moved("model", "init") for problem in check(init)]
    if not init.endswith(".pt"):
        problems.append(UserError(f"must be a .pt checkpoint, not {init!r}", where="init"))
    return problems


def _not_live(model: Any) -> UserError:
    held = getattr(model, "model", None)
    what = f"it holds the exported model {held}" if isinstance(held, (str, Path)) else "it holds no network"
    return UserError(
        f"this {type(model).__name__} object cannot be trained: {what}", where="model", hint="give its .pt"
    )


def load(model: Any, init: str | Path | None = None) -> UltralyticsDetector:
    """See `headstart.detectors.find.load_detector`."""
    return load_with_channels(model, init, 3)


def load_with_channels(model: Any, init: str | Path | None, channels: int | None) -> UltralyticsDetector:
    """The same for images of so many channels; None for as many as it reads."""
    if problems := check(model):
        raise problems[0]
    from headstart.detectors.ultralytics.detector import load

    return load(model, init, channels)


def live(path: str | Path) -> Any:
    """The Ultralytics object of a checkpoint.

    Raises:
        UserError: It cannot be read, or holds code that is not trusted.
    """
    from headstart.detectors.ultralytics.opening import open_checkpoint
    from headstart.detectors.ultralytics.undisturbed import quiet

    with quiet():
        return open_checkpoint(path)


def finetuner() -> Finetuner:
    """How they are fine-tuned: by Ultralytics' own trainer."""
    from headstart.detectors.ultralytics.finetuning import UltralyticsFinetuner

    return UltralyticsFinetuner()


def __getattr__(name: str) -> Any:
    if name == "load_into":
        from headstart.detectors.ultralytics.handback import load_into

        return load_into
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
