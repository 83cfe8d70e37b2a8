"""Labelled images that a teacher is judged on: held out until its last labels are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from headstart.methods.base import GivenLabels
from headstart.pseudolabels.labelling import Detections, agreement, average_precision
from headstart.views.draws import Purpose, draws

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
        """A share of them, drawn from `seed`; none where they would be too few to tell from.

        Of every class as many images stay as are held out, at least: the last image of a class is learnt from.
        """
        number = round(share * len(given.rows))
        random = draws(seed, Purpose.HELD_OUT)
        held: list[int] = []
        if number >= LEAST:
            owner, _, labels = given.labels.of(given.rows)
            shown: dict[int, set[int]] = {}
            for place, label in zip(owner.tolist(), labels.tolist(), strict=True):
                shown.setdefault(place, set()).add(label)
            free = {label: count // 2 for label, count in Counter(chain(*shown.values())).items()}
            for place in torch.randperm(len(given.rows), generator=random).tolist():
                classes = shown.get(place, set())
                if len(held) < number and all(free[label] for label in classes):
                    held.append(place)
                    free.update({label: free[label] - 1 for label in classes})
        chosen = torch.zeros(len(given.rows), dtype=torch.bool)
        chosen[held if len(held) >= LEAST else []] = True
        return cls(given, given.rows[chosen], given.rows[~chosen])

    @property
    def boxes(self) -> int:
        """How many are labelled on these images."""
        return len(self.given.labels.of(self.rows)[0])

    def told(self) -> str:
        """What a user should know of them, in a sentence; "" where there are none."""
        if not len(self.rows):
            return ""
        return (
            f"{len(self.rows):,} of {len(self.given.rows):,} labelled images are held out to judge the teacher on; "
            "held_out=0 learns from all of them"
        )

    def some(self) -> Tensor:
        """int64 ``(S,)``, rising: `MOST` of the images at most, from all over them."""
        return self.rows[:: max(1, -(-len(self.rows) // MOST))]

    def who_names(
        self, naming: str, found: Callable[[list[int], bool], Detections], unless: str = "network"
    ) -> dict[str, Any]:
        """Which way of naming is taken, and how precise each is where that decided.

        A detector with few labels a class only spoils what a network says, and one with many adds to it: which of
        them this is only labels tell that neither has learnt from (EXPERIMENTS.md, "Who names best").

        Args:
            naming: ``network``, ``both``, or ``auto``: whichever is more precise here.
            found: What is found on the images at some rows, named by both or by the network alone.
            unless: Who names where these images are too few to tell: both, where the detector was taught the classes
                by more than the labels at hand.

        Returns:
            ``named_by``, network or both; ``naming_precision``, of each way, where they were compared.
        """
        if naming != "auto":
            return {"named_by": naming}
        if self.boxes < NAMED_FROM:
            return {"named_by": unless}
        rows = self.some().tolist()
        precision = {name: self._precision(found(rows, name == "both")) for name in ("network", "both")}
        named_by = max(precision, key=precision.__getitem__)  # the network where they are equal
        return {"named_by": named_by, "naming_precision": precision}

    def _precision(self, found: Detections) -> float:
        rows = self.some()
        owner, boxes, labels = self.given.labels.of(rows)
        return average_precision(found.on(rows).within, rows[owner], boxes, labels)

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
