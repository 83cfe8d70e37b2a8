"""How many steps fit into a time budget: measured on this machine, with these images, before the run begins."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from headstart.errors import UserError
from headstart.images.loader import ImageLoader
from headstart.methods.schedules import Progress
from headstart.run.display import duration
from headstart.training.step import Step, unchanged

WARMUP = 2
"""Steps that are not timed: memory is laid out, kernels are chosen, loader processes start."""
LEAST, MOST = 4, 30
"""Steps that are timed."""
SHARE = 0.05
"""Of the budget that measuring may take."""
MARGIN = 0.95
"""Of the budget for steps; the rest is for checkpoints, the hand-back and the report."""
SEARCH = 0.3
"""Of the budget that a search for objects before the first step may take."""


@dataclass(frozen=True)
class Pace:
    """Seconds that a step takes, images and views included.

    Attributes:
        first: In the first epoch, when images are read and decoded.
        later: In later epochs, when a cache has them; as `first` without one.
        epoch: Steps of the first epoch that will still be read at the pace of `first`.
    """

    first: float
    later: float
    epoch: float = math.inf

    def steps(self, seconds: float) -> int:
        """Whole steps that fit into so many seconds."""
        reading = self.first * self.epoch
        if seconds <= reading:
            return int(seconds / self.first)
        return int(self.epoch + (seconds - reading) / self.later)


def steps_within(budget: float, pace: Pace, spent: float = 0.0) -> int:
    """Steps that fit into a time budget.

    Args:
        budget: Seconds.
        pace: Of the steps.
        spent: Seconds of the budget that are gone.

    Raises:
        UserError: None fits.
    """
    steps = pace.steps(MARGIN * budget - spent)
    if steps < 1:
        needed = (spent + (LEAST + WARMUP) * pace.first) / MARGIN
        what = f"{duration(budget)} is too short: a step takes {pace.first:.2g} s, what comes before {duration(spent)}"
        raise UserError(what, where="budget", hint=f"give {duration(needed)} or more, or steps=")
    return steps


def measure(step: Step, loader: ImageLoader, *, budget: float, epoch: float, cached: bool) -> Pace:
    """Time the very steps that the run will take; the method is afterwards as it was.

    Args:
        step: Of the run's method, and of no further use.
        loader: From step 0, for `WARMUP` + `MOST` steps; through the run's cache.
        budget: Seconds; measuring ends after `SHARE` of them once `LEAST` steps are timed.
        epoch: Steps of an epoch.
        cached: Whether a cache keeps what is read: the same batches are then timed once more.
    """
    with unchanged(step.method):
        first, taken = _timed(step, loader, MOST, budget)
        later = _timed(step, loader, LEAST, budget)[0] if cached and taken < epoch else first
    return Pace(first, min(first, later), epoch if cached else math.inf)


def _timed(step: Step, loader: ImageLoader, most: int, budget: float) -> tuple[float, int]:
    """Seconds a step, and how many were timed."""
    began, ends = time.perf_counter(), [0.0]
    for number, batch in enumerate(loader):
        # A step of the run's middle: neither its learning rate nor what is frozen at its start changes what it takes.
        progress = Progress(number, 1_000_000, 0.0)
        views = step.views(batch.to(step.fabric.device), progress)
        float(step(views, progress).detach())  # waits for the device
        ends.append(time.perf_counter() - began)
        if len(ends) > WARMUP + most or (len(ends) > WARMUP + LEAST and ends[-1] > SHARE * budget):
            break
    loader.close()
    warm = min(WARMUP, len(ends) - 2)
    return (ends[-1] - ends[warm]) / (len(ends) - 1 - warm), len(ends) - 1
