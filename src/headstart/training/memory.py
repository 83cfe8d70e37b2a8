"""Memory that runs out: what was in use, and what would fit, by what was measured until then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from headstart import machine
from headstart.errors import RunError, UserError, is_out_of_memory, may_be_out_of_memory

_SPARE = 0.9
"""Share of the memory that a suggestion may fill: allocators leave gaps, and steps differ."""
SHARE = 0.8
"""Share of the free memory that ``batch=auto`` fills: later steps differ, and others use the machine as well."""
FIRST = 8
"""Batch that ``batch=auto`` tries first."""
LEAST = 2
"""The smallest batch: methods compare images, or normalize over them."""
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
        if device.type == "cuda":  # what was tried before the run has taken more, and is gone
            torch.cuda.reset_peak_memory_stats(device)
            self.base = torch.cuda.memory_allocated(device)
        else:
            self.base, _ = self._used()

    @contextmanager
    def explained(self, step: int) -> Iterator[None]:
        """Turn what is raised for want of memory in a step into an error that says what would fit.

        Raises:
            RunError: Memory ran out, or most likely did.
        """
        try:
            yield
        except Exception as error:
            if not may_be_out_of_memory(error):
                raise
            raise RunError(self._what(step, error), where="batch", hint=self._hint()) from None

    def _what(self, step: int, error: Exception) -> str:
        used, most = self._used()
        name = "this machine" if self.device.type == "cpu" else str(self.device)
        images = f"a step of {self.batch} images of {self.imgsz} pixels"
        if not is_out_of_memory(error):
            return (
                f"{images} failed at step {step}: {error}. That is mostly said where memory runs out: {_gib(used)} of "
                f"{_gib(most)} of {name} were in use, and a limit of the system may be lower (ulimit -a)"
            )
        return (
            f"memory of {name} ran out at step {step}: {images} needs more "
            f"than the {_gib(most)} that there are ({_gib(used)} were in use)"
        )

    def _hint(self) -> str:
        fits = fitting(self.batch, self.base, *self._used())
        smaller = int(self.imgsz * math.sqrt(fits / self.batch)) // _GRID * _GRID
        size = f", or imgsz={smaller}" if smaller >= _GRID else ""
        if fits < 2:
            return f"use a smaller model or images{size}; imgsz= sets the size of views"
        saved = "; what was saved before is kept"
        return f"batch={fits} should fit{size}; batch=auto tries what does{saved}"

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
    if not is_out_of_memory(error):
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


@dataclass(frozen=True)
class BatchTrial:
    """What ``batch=auto`` found.

    Attributes:
        batch: Images a step.
        why: In a sentence.
        tried: Images a step -> bytes that steps of them took at most beyond what was in use; None where memory ran out.
        room: Bytes that they might take.
    """

    batch: int
    why: str
    tried: Mapping[int, int | None] = field(default_factory=dict)
    room: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As ``settings.yaml`` keeps it."""
        return {"why": self.why, "room": self.room, "tried": dict(self.tried)}


def try_batches(most: int, room: int, need: Callable[[int], int | None]) -> dict[int, int | None]:
    """Try batches of growing powers of two up to `most`, and not beyond `room`; or smaller ones, where the first is.

    A batch that by those before it would not fit is not tried: to run out of memory may end more than the trial.

    Args:
        most: A power of two.
        room: Bytes.
        need: Takes steps of a batch; the bytes that all tried so far took at most, or None where memory ran out.

    Returns:
        What was tried, with what `need` said.
    """
    batch = min(FIRST, most)
    tried = {batch: need(batch)}
    while batch < most and _fits(tried[batch], room) and expected(tried) <= room:
        batch *= 2
        tried[batch] = need(batch)
    while batch > LEAST and fitting_batch(tried, room) is None:
        batch //= 2
        tried[batch] = need(batch)
    return tried


def fitting_batch(tried: Mapping[int, int | None], room: int) -> int | None:
    """The largest batch that was tried and fits."""
    return max((batch for batch, needed in tried.items() if _fits(needed, room)), default=None)


def expected(tried: Mapping[int, int | None]) -> int:
    """Bytes that twice the largest batch that was tried should take: by the last two, or twice those of the one."""
    *before, last = [needed for _, needed in sorted(tried.items()) if needed is not None]
    return last + 2 * (last - before[-1]) if before else 2 * last


def judged(most: int, why_most: str, tried: Mapping[int, int | None], room: int) -> BatchTrial:
    """The batch to use by what was tried, and why.

    Args:
        most: That was asked for.
        why_most: Why no more, in words.
        tried: As `try_batches` gives it.
        room: Bytes.

    Raises:
        RunError: Not even the smallest fits.
    """
    batch = fitting_batch(tried, room)
    free = f"{_gib(room)} that are {SHARE:.0%} of the free memory"
    if batch is None:
        least = min(tried)
        needed = tried[least]
        what = f"need {_gib(needed)} more than is in use, over the" if needed is not None else "run out of memory:"
        raise RunError(
            f"steps of {least} images {what} {free}", where="batch", hint="use a smaller imgsz, or a smaller model"
        )
    took = f"batch={batch}: its steps take {_gib(tried[batch] or 0)} beyond what is in use"
    if batch == most:
        return BatchTrial(batch, f"{took}, of the {free}; no more, since {why_most}", tried, room)
    more = tried.get(2 * batch, expected(tried))
    larger = "ran out of memory" if more is None else f"take {_gib(more)}, over the {free}"
    expect = "would " if 2 * batch not in tried else ""
    return BatchTrial(batch, f"{took}; those of {2 * batch} images {expect}{larger}", tried, room)


def _fits(needed: int | None, room: int) -> bool:
    return needed is not None and needed <= room


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
