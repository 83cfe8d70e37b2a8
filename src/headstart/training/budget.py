"""How many steps fit into a time budget: measured on this machine, with these images, before the run begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from headstart import ranks
from headstart.errors import UserError
from headstart.images.loader import ImageLoader
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.run.display import duration
from headstart.training.step import Step, unchanged

WARMUP = 2
"""Steps that are not timed: memory is laid out, kernels are chosen, loader processes start."""
LEAST, MOST = 4, 30
"""Steps that are timed."""
TRIAL = 10_000
"""Steps of the training of whose phases the first ones are timed: short phases are some steps long, too."""
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


def measure(
    step: Step, loader_of: Callable[[range], ImageLoader], *, budget: float, epoch: float, cached: bool
) -> Pace:
    """Time the very steps that the run will take, some of each phase; the method is afterwards as it was.

    Args:
        step: Of the run's method, and of no further use.
        loader_of: Brings the batches of some steps of a training of `TRIAL` steps, through the run's cache.
        budget: Seconds; measuring ends after `SHARE` of them once `LEAST` steps of each phase are timed.
        epoch: Steps of an epoch.
        cached: Whether a cache keeps what is read: the same batches are then timed once more.

    Returns:
        The mean over the phases, each as long as it is.
    """
    phases = [phase for phase in step.method.phases(TRIAL) if len(phase) > 1]
    length, part = sum(map(len, phases)), budget / len(phases)
    read = kept = 0.0
    with unchanged(step.method):
        for phase in phases:
            steps = tried(phase, WARMUP + MOST, step.method)
            with loader_of(steps) as loader:
                first, taken = _timed(step, loader, steps, MOST, part)
                later = _timed(step, loader, steps, LEAST, part)[0] if cached and taken < epoch else first
            read += first * len(phase) / length
            kept += min(first, later) * len(phase) / length
    return Pace(read, kept, epoch if cached else math.inf)


def tried(phase: range, most: int, method: Method) -> range:
    """Steps of a phase that are timed: the first, but for the very first where more may be done, as in later phases."""
    start = phase.start + (phase.start > 0 or method.long_ahead(Progress(phase.start, TRIAL, 0.0)))
    return range(start, min(start + most, phase.stop))


def _timed(step: Step, loader: ImageLoader, steps: range, most: int, budget: float) -> tuple[float, int]:
    """Seconds a step, and how many were timed."""
    began, ends = time.perf_counter(), [0.0]
    for number, batch in zip(steps, loader, strict=False):
        progress = Progress(number, TRIAL, 0.0)
        views = step.views(batch.to(step.fabric.device), progress)
        float(step(views, progress).detach())  # waits for the device
        ends.append(time.perf_counter() - began)
        enough = len(ends) > WARMUP + most or (len(ends) > WARMUP + LEAST and ends[-1] > SHARE * budget)
        if ranks.from_first(enough):  # all take as many steps, which they take together
            break
    loader.close()
    warm = min(WARMUP, len(ends) - 2)
    return (ends[-1] - ends[warm]) / (len(ends) - 1 - warm), len(ends) - 1
