"""The order of labelled and unlabelled images, which may follow what a teacher labels them as."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.images.mixed import Balance, MixedStream
from headstart.methods.sampling_plan import SamplingPlan
from headstart.methods.schedules import Progress
from headstart.pseudolabels.balance import repeat_factors
from headstart.pseudolabels.base import PseudoLabels

UNLABELLED = 1
"""Place of the unlabelled images among the kinds."""


class ImageOrder:
    """A function of plan, kinds, seed and labels; of unlabelled images those that were there when it was balanced.

    Args:
        plan: How many of each kind a step takes.
        kinds: Rows of the index: labelled images that are not held out, unlabelled ones, all labelled ones.
        balance: Exponent of `repeat_factors`.
        seed: Of the run.
    """

    def __init__(self, plan: SamplingPlan, kinds: tuple[Tensor, Tensor, Tensor], balance: float, seed: int) -> None:
        self._plan, self._kinds, self._balance, self._seed = plan, kinds, balance, seed
        self._stream: MixedStream | None = None
        self._balanced: list[Balance] = []
        self._changed = False

    def stream(self, steps: int, labels: PseudoLabels) -> MixedStream:
        """The images of a run of so many steps; changed in place by `labelled` and `restore`, unless a later one is.

        Args:
            steps: Of the run.
            labels: Those that the user gives, at least.
        """
        repeats = [None if kind == UNLABELLED else self._repeats(rows, labels) for kind, rows in enumerate(self._kinds)]
        rows = [kind.tolist() for kind in self._kinds]
        self._stream = MixedStream(
            rows, lambda step: self._plan.numbers(step, steps), steps, self._seed, repeats=repeats
        )
        self._stream.balance(UNLABELLED, self._balanced)
        return self._stream

    def _repeats(self, rows: Tensor, labels: PseudoLabels) -> list[float] | None:
        if not self._balance:
            return None
        found: list[float] = repeat_factors(labels, rows, self._balance).tolist()
        return found

    def coming(self, progress: Progress, labels: PseudoLabels) -> list[int]:
        """Rows of the unlabelled images that come from this step on until images are labelled anew, rising."""
        stream = self._stream or self.stream(progress.steps, labels)
        return sorted(set(stream.of_kind(UNLABELLED, progress.step, self._plan.until(progress))))

    def labelled(self, progress: Progress, rows: list[int], labels: PseudoLabels) -> None:
        """Have the images that were labelled before this step come as their labels ask for, until the next time.

        From the next step on: the images of this one have been loaded.
        """
        repeats = self._repeats(torch.tensor(rows, dtype=torch.int64), labels)
        if repeats is None or self._stream is None:
            return
        self._change(self._stream, Balance(progress.step + 1, self._plan.until(progress), rows, repeats))

    def only(self, progress: Progress, rows: list[int]) -> None:
        """Have none but these of the unlabelled images come from here to the end of the rounds."""
        if not rows or self._stream is None:
            return
        last = self._plan.between(progress.steps)[1]
        self._change(self._stream, Balance(progress.step + 1, last, rows, [1.0] * len(rows)))

    def _change(self, stream: MixedStream, balance: Balance) -> None:
        self._balanced.append(balance)
        stream.balance(UNLABELLED, self._balanced)
        self._changed = True

    def changed(self) -> bool:
        """Whether `labelled` has changed it since this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def record(self) -> dict[str, Any]:
        """What was changed, for `restore`; empty where nothing was."""
        return {"balanced": [tuple(one) for one in self._balanced]} if self._balanced else {}

    def restore(self, record: dict[str, Any]) -> None:
        """Take what `record` gave; other entries do not matter."""
        self._balanced, self._changed = [Balance(*one) for one in record.get("balanced", ())], False
        if self._stream is not None:
            self._stream.balance(UNLABELLED, self._balanced)
