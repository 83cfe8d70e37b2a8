"""Labelled images that a teacher is judged on: held out until its last labels are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.methods.base import GivenLabels
from headstart.pseudolabels.labelling import Detections, agreement, average_precision

LEAST = 10
"""Images below which none are held out: nothing could be told from them."""
MOST = 500
"""Images on which two ways of naming are compared, at most: each way looks at them once more."""
NAMED_FROM = 30
"""Boxes on these images below which the two ways of naming are not told apart."""


@dataclass(frozen=True)
class HeldOut:
    """A part of the labelled images.

    Attributes:
        given: All labels of the user.
        rows: int64 ``(H,)``, rising: the held-out images.
        known: int64 ``(K,)``, rising: the other labelled images.
    """

    given: GivenLabels
    rows: Tensor
    known: Tensor

    @classmethod
    def drawn(cls, given: GivenLabels, share: float, seed: int) -> HeldOut:
        """A share of them, drawn from `seed`; none where they would be too few to tell from."""
        number = round(share * len(given.rows))
        if number < LEAST:
            return cls(given, given.rows[:0], given.rows)
        random = torch.Generator().manual_seed(seed * 1_000_003 + 600_000)
        order = torch.randperm(len(given.rows), generator=random)
        return cls(given, given.rows[order[:number]].sort().values, given.rows[order[number:]].sort().values)

    @property
    def boxes(self) -> int:
        """How many are labelled on these images."""
        return len(self.given.labels.of(self.rows)[0])

    def some(self) -> Tensor:
        """int64 ``(S,)``, rising: `MOST` of the images at most, from all over them."""
        return self.rows[:: max(1, -(-len(self.rows) // MOST))]

    def who_names(self, naming: str, found: Callable[[list[int], bool], Detections]) -> dict[str, Any]:
        """Which way of naming is taken, and how precise each is where that decided.

        A detector with few labels a class only spoils what a network says, and one with many adds to it: which of
        them this is only labels tell that neither has learnt from (EXPERIMENTS.md, "Who names best").

        Args:
            naming: ``network``, ``both``, or ``auto``: whichever is more precise here.
            found: What is found on the images at some rows, named by both or by the network alone.

        Returns:
            ``named_by``, network or both; ``naming_precision``, of each way, where they were compared.
        """
        if naming != "auto" or self.boxes < NAMED_FROM:
            return {"named_by": "both" if naming == "both" else "network"}
        rows = self.some().tolist()
        precision = {name: self._precision(found(rows, name == "both")) for name in ("network", "both")}
        named_by = max(precision, key=precision.__getitem__)  # the network where they are equal
        return {"named_by": named_by, "naming_precision": precision}

    def _precision(self, found: Detections) -> float:
        rows = self.some()
        owner, boxes, labels = self.given.labels.of(rows)
        return average_precision(found.on(rows), rows[owner], boxes, labels)

    def judged(self, sure: Detections) -> dict[str, Any]:
        """How far what is taken for objects agrees with the labels of these images; empty where there are none.

        Args:
            sure: On any images, all of these among them.
        """
        if not len(self.rows):
            return {}
        owner, boxes, labels = self.given.labels.of(self.rows)
        names = self.given.names
        agreed = agreement(sure.on(self.rows), self.rows[owner], boxes, labels, len(names))
        shares = {"precision": agreed.precision, "recall": agreed.recall, "f1": agreed.f1}
        return {**shares, "by_class": agreed.by_class(names)}
