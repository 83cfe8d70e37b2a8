"""The complete state of a pretraining: save, load, verify.

A checkpoint holds tensors and plain values only, so that it loads without unpickling code (``weights_only=True``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from headstart.errors import UserError
from headstart.files import write_atomically

FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.pt")


def save(folder: Path, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` as ``step-<step>.pt`` and remove all but the newest `keep`.

    Args:
        folder: The ``checkpoints`` folder of a run.
        state: Must have ``step``; tensors, numbers, strings, lists and dicts.
        keep: How many to keep; the second is there in case that the newest cannot be read.

    Raises:
        UserError: Full disk, no permission. The earlier checkpoints are kept then.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    content = {"format": FORMAT, **state}
    write_atomically(path, lambda temporary: torch.save(content, temporary))
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load(folder: Path) -> dict[str, Any]:
    """The newest readable checkpoint in `folder`, on the CPU.

    Raises:
        UserError: There is none, or none can be read.
    """
    paths = _all(folder)
    if not paths:
        raise UserError(
            "there is no checkpoint to go on from", where=str(folder), hint="start again with overwrite=true"
        )
    reasons = []
    for path in reversed(paths):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state.get("format") != FORMAT:
                raise ValueError(f"format {state.get('format')}, not {FORMAT}")
            return state
        except Exception as error:  # a torn zip file raises whatever its damage provokes
            reasons.append(f"{path.name} ({type(error).__name__})")
    raise UserError(
        f"no checkpoint can be read: {', '.join(reasons)}", where=str(folder), hint="start again with overwrite=true"
    )


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))
