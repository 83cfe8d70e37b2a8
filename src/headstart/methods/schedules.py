"""Learning rate, EMA momentum, temperature: pure functions of the step."""

from __future__ import annotations

import math
from typing import NamedTuple

LAST = 0.01
"""Share of the highest rate at which a straight line ends (Ultralytics' `lrf`)."""


class Progress(NamedTuple):
    """Where a training stands at the beginning of a step.

    Attributes:
        step: Steps done, from 0.
        steps: Steps in all.
        epoch: Passes over the images done, a fraction: images seen / images.
        part: Of the batch, which `accumulate=` takes in parts, from 0.
    """

    step: int
    steps: int
    epoch: float
    part: int = 0


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step ``steps - 1``, `end` from there on.

    The same values as ``lightly.utils.scheduler.cosine_schedule``.
    """
    if steps <= 1 or step >= steps - 1:
        return end
    return end - (end - start) * (math.cos(math.pi * step / (steps - 1)) + 1) / 2


def linear(step: int, steps: int, start: float, end: float) -> float:
    """A line from `start` at step 0 to `end` at step `steps`, `end` from there on."""
    return end if steps <= 0 or step >= steps else start + (end - start) * step / steps


def learning_rate(progress: Progress, peak: float, warmup: float, schedule: str) -> float:
    """Learning rate of a step: a linear warm-up over `warmup` (share of the steps), then `schedule`.

    Args:
        progress: Where the training stands.
        peak: The highest rate.
        warmup: Share of the steps in [0, 1]; its first step already has a rate above 0.
        schedule: ``constant``; ``cosine``: to 0 at the last step, unless that is the only one; ``linear``: in a
            straight line, as Ultralytics trains, of which a hundredth would be left after the last step.
    """
    rising = round(warmup * progress.steps)
    if progress.step < rising:
        return peak * (progress.step + 1) / rising
    if schedule == "linear":
        return linear(progress.step - rising, progress.steps - rising, peak, LAST * peak)
    if schedule == "constant" or progress.steps - rising <= 1:  # a cosine of one step would be its end, 0
        return peak
    return cosine(progress.step - rising, progress.steps - rising, peak, 0.0)
