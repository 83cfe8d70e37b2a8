"""Which kinds of images a step has, labelled and unlabelled ones, and which part of a training it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ranks
from headstart.methods.schedules import Progress
from headstart.views.draws import Purpose, draws
from headstart.views.mosaic import shown

LEAST_SHARE = 0.1
"""Of labelled images in a step, by default. Few images that come often are learnt by heart; on FOD-A, one seed, a
tenth gave 0.750 mAP50 in 1,200 steps, half of each step 0.735 in 2,400 (mAP50-95 0.589 and 0.592, EXPERIMENTS.md)."""
SETTLE, SETTLED_FROM = 0.05, 50
"""Share of the steps on labelled images alone, at the end, and the labelled boxes a class from which there are such by
default: a gain with 137 boxes a class (DeepPCB), none that holds with ten (FOD-A, 5 %), a loss with two (FOD-A, 1 %).
EXPERIMENTS.md, "A last part on whole images"."""
BURN_IN, PASSES = (0.35, 0.65), 350
"""Least and largest share of the steps in burn-in, by default, and how often each labelled image comes until labels
alone are used up: on FOD-A, 20 %, more steps on them brought 2 points after 170 times, none after 340.
EXPERIMENTS.md, "A longer burn-in"."""
_OPTIONS = ("burn_in", "rounds", "labelled", "mosaic", "close_mosaic")


@dataclass(frozen=True)
class SamplingPlan:
    """Burn-in on labelled images, then rounds on both kinds, then a last part on labelled ones; a function of the step.

    Attributes:
        burn_in: Share of the steps, at the start, on labelled images alone; None for so many that each has come
            `PASSES` times, within `BURN_IN`.
        settle: Share of the steps, at the end, on labelled images alone.
        rounds: How often images are labelled between them.
        labelled: Share of labelled images in these steps; None for their share of all, `LEAST_SHARE` at least.
        mosaic: Share of the steps with mosaics.
        close_mosaic: Share of the steps of burn-in and of each round, at the end of it, without them.
        batch: Images of a step with mosaics, in all processes.
        seed: Of the run.
        known: Labelled images that are learnt from before the last part.
        unlabelled: Unlabelled images.
        labelled_at_once: Whether another detector labels them the first time: none waits for burn-in.
    """

    burn_in: float | None
    settle: float
    rounds: int
    labelled: float | None
    mosaic: float
    close_mosaic: float
    batch: int
    seed: int
    known: int
    unlabelled: int
    labelled_at_once: bool = False

    @classmethod
    def of(
        cls,
        settings: Any,
        *,
        batch: int,
        seed: int,
        known: int,
        unlabelled: int,
        classes: Tensor,
        labelled_at_once: bool = False,
    ) -> SamplingPlan:
        """As the options of a method say; the last part, where they do not, by the labelled boxes a class.

        `classes` are those of the labelled boxes, int64 ``(N,)``. One that is only named does not count: a dataset YAML
        may have COCO's 80 names, and labels of three.
        """
        options = {name: getattr(settings, name) for name in _OPTIONS}
        settle = settings.settle
        if settle is None:
            settle = SETTLE if len(classes) >= SETTLED_FROM * max(1, len(torch.unique(classes))) else 0.0
        kinds = {"known": known, "unlabelled": unlabelled}
        return cls(**options, settle=settle, batch=batch, seed=seed, **kinds, labelled_at_once=labelled_at_once)

    def numbers(self, step: int, steps: int) -> tuple[int, int, int]:
        """Labelled images that are not held out, unlabelled ones, labelled ones with those held out."""
        number = self.batch
        if not self.in_mosaics(step, steps):  # as many in every process
            number = ranks.world() * shown(self.batch // ranks.world())
        first, last = self.between(steps)
        if step >= last or not self.label_steps(steps):  # nothing is labelled from here on, or ever
            return 0, 0, number
        if step < first:
            return number, 0, 0
        labelled = round(self._labelled * number)
        if labelled in (0, number):  # of a small batch, or a share near none or all: by turns, so that both kinds come
            labelled = int((step + 1) * self._labelled * number) - int(step * self._labelled * number)
        return labelled, number - labelled, 0

    @property
    def _labelled(self) -> float:
        """Share of labelled images in steps with both kinds."""
        if self.labelled is not None:
            return self.labelled
        return max(LEAST_SHARE, self.known / max(1, self.known + self.unlabelled))

    def between(self, steps: int) -> tuple[int, int]:
        """The first step with unlabelled images, and the first without them again."""
        least = 0 if self.labelled_at_once else 1  # who is to label has to have learnt something
        return min(steps, max(least, round(self._burn_in(steps) * steps))), max(0, steps - round(self.settle * steps))

    def _burn_in(self, steps: int) -> float:
        """Share of so many steps."""
        if self.burn_in is not None:
            return self.burn_in
        if self.labelled_at_once:
            return 0.0
        least, most = BURN_IN
        return min(max(PASSES * self.known / self._images() / max(1, steps), least), most)

    def _images(self) -> float:
        """Of a step, in the mean of a cycle."""
        in_mosaics = (1 - self.close_mosaic) * self.mosaic
        return in_mosaics * self.batch + (1 - in_mosaics) * shown(self.batch)

    def told(self, steps: int) -> str:
        """What so many steps learn from, in words; "" where that is one thing all the time."""
        first, last = self.between(steps)
        if not self.label_steps(steps):
            return ""
        times = first * self._images() / max(1, self.known)
        often = f", each about {times:,.0f} times" if times >= 1.5 else ""
        parts = [f"burn-in: {first:,} steps on {self.known:,} labelled images{often}"] if first else []
        rounds = f" in {self.rounds} rounds" if self.rounds > 1 else ""
        then = f"then {last - first:,}" if first else f"{last:,} steps"
        by = "the labels that are found" if self.labelled_at_once else "the teacher's labels"
        parts += [f"{then} on all images{rounds}, by {by} too"]
        parts += [f"the last {steps - last:,} on labelled ones alone"] if last < steps else []
        return "; ".join(parts)

    def burning(self, progress: Progress) -> bool:
        """Whether a step is one of burn-in, in a training that goes on to unlabelled images."""
        return bool(self.label_steps(progress.steps)) and progress.step < self.between(progress.steps)[0]

    def settling(self, progress: Progress) -> bool:
        """Whether a step is one of the last part, on labelled images alone and whole."""
        return progress.step >= self.between(progress.steps)[1]

    def settles(self, steps: int) -> bool:
        """Whether a training of so many steps has a last part."""
        return self.between(steps)[1] < steps

    def in_mosaics(self, step: int, steps: int) -> bool:
        """Whether the images of a step are put into mosaics."""
        at, length = self._in_cycle(step, steps)
        if at >= (1 - self.close_mosaic) * length or step >= self.between(steps)[1]:
            return False
        if self.mosaic >= 1:
            return True
        random = draws(self.seed, Purpose.MOSAIC_OR_NOT, step)
        return bool(float(torch.rand((), generator=random)) < self.mosaic)

    def label_steps(self, steps: int) -> list[int]:
        """The steps before which images are labelled."""
        first, last = self.between(steps)
        if first >= last or not self.unlabelled or self._labelled == 1:
            return []
        return sorted({first + (last - first) * one // self.rounds for one in range(self.rounds)})

    def until(self, progress: Progress) -> int:
        """The step before which images are labelled anew, or from which none are learnt from, after this one."""
        later = (step for step in self.label_steps(progress.steps) if step > progress.step)
        return next(later, self.between(progress.steps)[1])

    def cycle(self, progress: Progress) -> Progress:
        """Burn-in, every round and the last part have a cycle each.

        Labels by a detector whose rate is still high are worse, and the last part goes on from the best weights.
        """
        step, steps = self._in_cycle(progress.step, progress.steps)
        return progress._replace(step=step, steps=steps)

    def _in_cycle(self, step: int, steps: int) -> tuple[int, int]:
        """Steps of its cycle done, and all of them."""
        ends = sorted({*self.label_steps(steps), self.between(steps)[1], steps} - {0})
        end = next(one for one in ends if one > step)
        start = max((one for one in ends if one <= step), default=0)
        return step - start, end - start
