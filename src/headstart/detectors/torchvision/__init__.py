"""Detectors of torchvision that have a feature pyramid; see `headstart.detectors.find` for what a family has.

``torchvision:NAME`` is a model of ``torchvision.models.detection`` with random weights; a checkpoint that headstart
wrote of one is a state dict that torchvision loads. Torch and torchvision are imported where they are needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.detectors.torchvision import names
from headstart.errors import UserError

if TYPE_CHECKING:
    from headstart.detectors.finetuner import Finetuner
    from headstart.detectors.torchvision.detector import TorchvisionDetector

__all__ = ["accepts", "check", "check_init", "finetuner", "load"]


def accepts(model: Any) -> bool:
    """State dicts that headstart wrote, and live models of torchvision."""
    if isinstance(model, (str, Path)):
        return names.is_ours(Path(model))
    return any(base.__module__.startswith("torchvision.models.detection") for base in type(model).__mro__)


def check(model: Any) -> list[UserError]:
    """What is wrong with `model`, found without importing torch."""
    if not isinstance(model, (str, Path)):
        what = f"a live {type(model).__name__} does not say by which name torchvision builds it"
        hint = "give model=torchvision:NAME, and its state dict as init="
        return [UserError(what, where="model", hint=hint)]
    if names.is_ours(Path(model)):
        return []
    problem = names.check_name(str(model))
    return [problem] if problem else []


def check_init(init: str) -> list[UserError]:
    """What is wrong with a state dict to start from."""
    path = Path(init)
    if path.suffix not in names.SUFFIXES:
        wanted = " or ".join(names.SUFFIXES)
        return [UserError(f"must be a state dict ({wanted}), not {init!r}", where="init")]
    return [] if path.is_file() else [UserError(f"{init} does not exist", where="init")]


def load(model: Any, init: str | Path | None = None) -> TorchvisionDetector:
    """See `headstart.detectors.find.load_detector`."""
    if problems := check(model):
        raise problems[0]
    from headstart.detectors.torchvision.detector import load

    return load(str(model), None if init is None else str(init))


def finetuner() -> Finetuner:
    """How they are fine-tuned: a plain training in the way of torchvision's references."""
    from headstart.detectors.torchvision.finetuning import TorchvisionFinetuner

    return TorchvisionFinetuner()
