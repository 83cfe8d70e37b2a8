"""Memory that runs out: what was in use, and what would fit, by what was measured until then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headstart import machine
from headstart.errors import RunError, UserError

_SPARE = 0.9
"""Share of the memory that a suggestion may fill: allocators leave gaps, and steps differ."""
_GRID = 32
"""Sides of views are multiples of this in what is suggested: a detector's coarsest stride."""


class Memory:
    """Looks after the memory of the steps of a training.

    Args:
        device: Where they are computed.
        batch: Images a step.
        imgsz: Side of the largest view in pixels.

    Attributes:
        base: Bytes in use before the first step: network, teacher, cached images.
    """

    def __init__(self, device: torch.device, batch: int, imgsz: int) -> None:
        self.device, self.batch, self.imgsz = device, batch, imgsz
        self.base, _ = self._used()

    @contextmanager
    def explained(self, step: int) -> Iterator[None]:
        """Turn what is raised for want of memory in a step into an error that says what would fit.

        Raises:
            RunError: Memory ran out.
        """
        try:
            yield
        except Exception as error:
            if not machine.is_out_of_memory(error):
                raise
            raise RunError(self._what(step), where="batch", hint=self._hint()) from None

    def _what(self, step: int) -> str:
        used, most = self._used()
        name = "this machine" if self.device.type == "cpu" else str(self.device)
        return (
            f"memory of {name} ran out at step {step}: a step of {self.batch} images of {self.imgsz} pixels needs more "
            f"than the {_gib(most)} that there are ({_gib(used)} were in use)"
        )

    def _hint(self) -> str:
        fits = fitting(self.batch, self.base, *self._used())
        smaller = int(self.imgsz * math.sqrt(fits / self.batch)) // _GRID * _GRID
        size = f", or imgsz={smaller}" if smaller >= _GRID else ""
        if fits < 2:
            return f"use a smaller model or images{size}; imgsz= sets the size of views"
        saved = "; what was saved before is kept"
        return f"batch={fits} should fit{size}{saved}"

    def _used(self) -> tuple[int, int]:
        """Bytes that were in use at most, and bytes there are."""
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            return torch.cuda.max_memory_allocated(self.device), int(total)
        return machine.memory_used(), machine.memory_limit()


def known(error: BaseException) -> UserError | None:
    """The error as one that speaks to the user, if it is one or says that memory ran out; else None."""
    if isinstance(error, UserError):
        return error
    if not machine.is_out_of_memory(error):
        return None
    hint = "use a smaller batch or imgsz, fewer workers, or cache=off; what was saved before is kept"
    return RunError(
        f"memory ran out: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}", hint=hint
    )


def fitting(batch: int, base: int, used: int, most: int) -> int:
    """Images a step that should fit: the largest half, quarter, ... of `batch`, by what was measured.

    Args:
        batch: What did not fit.
        base: Bytes in use before the first step.
        used: Bytes in use at most until memory ran out; what a step really takes is more.
        most: Bytes there are.
    """
    each = max(used - base, 1) / batch
    room = max(0.0, most * _SPARE - base)
    fits = batch // 2
    while fits > 1 and fits * each > room:
        fits //= 2
    return fits


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
