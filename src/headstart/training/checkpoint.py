"""The complete state of a pretraining: save, load, verify.

A checkpoint holds tensors and plain values only, so that it loads without unpickling code (``weights_only=True``), and
a checksum of its bytes: torch looks at none, and would load what a failing disk has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.detectors.handback import shorten
from headstart.errors import RunError, UserError
from headstart.files import check_seal, seal, write_atomically
from headstart.reading import looked_at

FORMAT = 2
"""2 has a checksum; 1, of versions before 0.2, has none."""
DAMAGED = ".damaged"
"""What the name of a checkpoint that cannot be gone on from ends with, until a new one is written."""
_NAME = re.compile(r"step-(\d+)\.pt")


def save(folder: Path, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` as ``step-<step>.pt`` and remove all but the newest `keep`.

    Args:
        folder: The ``checkpoints`` folder of a run.
        state: Must have ``step``; tensors, numbers, strings, lists and dicts.
        keep: How many to keep; the second is there in case that the newest cannot be read.

    Raises:
        UserError: Full disk, no permission; or a tensor holds NaN or +infinity. The earlier checkpoints are kept then.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    if broken := _broken(state):
        what = f"the state at step {state['step']} holds NaN or infinity and is not saved: {shorten(broken)}"
        raise RunError(what, where=str(folder), hint="start again with overwrite=true and a lower rate")
    content = {"format": FORMAT, **state}

    def write(temporary: Path) -> None:
        torch.save(content, temporary)
        seal(temporary)

    write_atomically(path, write)
    for old in [*_all(folder)[:-keep], *folder.glob(f"*{DAMAGED}")]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[dict[str, Any], dict[Path, str]]:
    """The newest good checkpoint in `folder`, and what was found in those after it.

    Returns:
        Its content, on the CPU; and newer checkpoints that are damaged, each with what is wrong, in words.

    Raises:
        UserError: There is none, or none is whole.
        RunError: One cannot be read now: storage or memory gave out, and whether it is whole is not known.
    """
    paths = _all(folder)
    if not paths:
        raise UserError(
            "there is no checkpoint to go on from", where=str(folder), hint="start again with overwrite=true"
        )
    damaged: dict[Path, str] = {}
    for path in reversed(paths):
        try:
            with looked_at(path):
                return _read(path), damaged
        except ValueError as error:
            damaged[path] = str(error)
    listed = "; ".join(f"{path.name} ({reason})" for path, reason in damaged.items())
    what = f"no checkpoint of this run is whole: {listed}"
    raise UserError(what, where=str(folder), hint="bring back a copy of one, or start again with overwrite=true")


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` has a checkpoint, in order, whole or not; other files there are none of ours."""
    return [int(path.stem.rpartition("-")[2]) for path in _all(folder)]


def set_aside(damaged: dict[Path, str]) -> list[str]:
    """Give checkpoints that are damaged another name, so that none is taken for the newest again; a sentence each."""
    for path in damaged:
        with suppress(OSError):  # where it stays, it is found again
            path.replace(path.with_name(path.name + DAMAGED))
    return [f"checkpoint {path.name} is damaged and is not used: {reason}" for path, reason in damaged.items()]


def _read(path: Path) -> dict[str, Any]:
    sealed = check_seal(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    version = state.get("format")
    if version not in (1, FORMAT):
        raise ValueError(f"it has format {version}, this version of headstart reads 1 and {FORMAT}")
    if version == FORMAT and not sealed:
        raise ValueError("its checksum is missing")
    if broken := _broken(state):
        raise ValueError(f"it holds NaN or infinity in {shorten(broken)}")
    return state


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _tensors(part, f"{name}.{key}".lstrip("."))


def _broken(state: Any) -> list[str]:
    """Names of the tensors that hold NaN or +infinity (a mask may hold -infinity); a device is waited for once."""
    found: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in _tensors(state, ""):
        if tensor.is_floating_point():
            found.setdefault(tensor.device, []).append((name, (tensor < torch.inf).all()))
    whole = [(name, fine) for one in found.values() for name, fine in zip(*_listed(one), strict=True)]
    return [name for name, fine in whole if not fine]


def _listed(flags: list[tuple[str, Tensor]]) -> tuple[list[str], list[bool]]:
    return [name for name, _ in flags], torch.stack([flag for _, flag in flags]).tolist()


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))
