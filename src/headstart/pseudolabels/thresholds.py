"""The score from which what a teacher finds counts as an object, for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.images.class_names import told_apart
from headstart.pseudolabels.labelling import Detections

KEEP = 0.4
"""Score that decides how many boxes of all classes together are kept, and the threshold where nothing tells another."""
LEAST, MOST = 0.2, 0.7
"""Range of the thresholds. Of what a detector of few labels scores 0.2 to 0.4 some four of ten are right (FOD-A,
EXPERIMENTS.md); from 0.7 on Unbiased Teacher (Liu et al., 2021, arXiv 2102.09480) keeps all."""
PRIOR = 10.0
"""Labels of a class at which its share of them counts for half: ten tell a share to about a third of it."""


class Keep:
    """From which score the boxes of a teacher are kept.

    Args:
        keep: The score, or ``class`` for `thresholds`.
        names: Of the classes.
        known: int64: classes of all labels that the user gives.
        unlabelled: int64: rows of the unlabelled images.
    """

    def __init__(self, keep: float | Literal["class"], names: Sequence[str], known: Tensor, unlabelled: Tensor) -> None:
        self._keep, self._names, self._unlabelled = keep, told_apart(names), unlabelled
        self._known = torch.bincount(known, minlength=len(names))

    def of(self, found: Detections, taken: Mapping[str, Any]) -> float | Tensor:
        """The score, or one for each class, float64 ``(C,)``, fitted to what was found on unlabelled images.

        Labelled images alone, which may have been learnt by heart, tell none: then it is that of the pass `taken`.

        Args:
            found: What is to be kept, or not.
            taken: The pass whose labels are learnt from (`headstart.pseudolabels.history.History.taken`).
        """
        if self._keep != "class":
            return self._keep
        new = found.on(self._unlabelled).within
        if taken and not len(new.looked):
            return torch.tensor([taken["keep"][name] for name in self._names], dtype=torch.float64)
        return thresholds(new, self._known)


def thresholds(found: Detections, known: Tensor) -> Tensor:
    """The score of each class from which boxes are kept: the classes share what one threshold keeps as labels do.

    One threshold gives a class that few labels show fewer pseudo-labels than it has objects, since its scores are
    low, and a student that learns from them finds it less still. So the thresholds are chosen by the number of boxes
    that they keep: as many in all as `KEEP` keeps, of each class in proportion to its labels on the labelled images.
    That is distribution alignment (Berthelot et al., "ReMixMatch", 2020, arXiv 1911.09785), as Chen et al. have it for
    detection ("Label Matching Semi-Supervised Object Detection", 2022, arXiv 2206.06608); but for the number in all,
    which here is the teacher's: labelled images seldom are without objects, others often.

    Why not otherwise, with some ten labels a class:

    - A precision on known labels needs labels that were not trained on. Those that were are learnt by heart: nearly all
      have a score near 1. Of ten a class one is held out, or none.
    - A mixture of two Gaussians for each class (Wang et al., "Consistent-Teacher", 2022, arXiv 2209.01589) needs no
      labels, but two modes: where all boxes of a class are right, or all wrong, it cuts the one there is in two.
    - The number of boxes over a high score, as in "FlexMatch" (Zhang et al., 2021, arXiv 2110.08263), takes a class
      that is rare for one that is not learnt yet.

    Few labels tell a share roughly. With e labels of a class where the teacher's shares would have it, and n that there
    are, (e + n) / 2 against `PRIOR` decides how far its number moves from the teacher's to that of the labels; and
    whatever the numbers say, a threshold stays between `LEAST` and `MOST`. What lies below is left open, not taught as
    background: a threshold that is too high costs labels, one that is too low teaches wrong ones.

    It rests on labelled images that show the classes about as often as the others do.

    Args:
        found: What a teacher finds on unlabelled images, down to low scores.
        known: int64 ``(C,)``: labels of each class on the labelled images.

    Returns:
        float64 ``(C,)``.
    """
    found = found.those(found.scores >= LEAST)
    kept = torch.bincount(found.labels[found.scores >= KEEP], minlength=len(known))
    chosen = torch.full((len(known),), KEEP, dtype=torch.float64)
    if not int(kept.sum()) or not int(known.sum()):
        return chosen
    numbers = aligned(kept, known)
    for label, (number, before) in enumerate(zip(numbers.tolist(), kept.tolist(), strict=True)):
        if number != before:
            scores = found.scores[found.labels == label].sort(descending=True).values.double()
            edge = MOST if number == 0 else float(scores[number - 1]) if number <= len(scores) else LEAST
            chosen[label] = min(MOST, max(LEAST, edge))
    return chosen


def aligned(kept: Tensor, known: Tensor) -> Tensor:
    """How many boxes of each class to keep: moved from what a teacher keeps towards the shares of labels.

    Args:
        kept: int64 ``(C,)``: boxes that the teacher keeps, not all 0.
        known: int64 ``(C,)``: labels, not all 0.

    Returns:
        int64 ``(C,)``.
    """
    labels_a_box = known.sum().double() / kept.sum()
    expected = kept * labels_a_box
    middle = (expected + known) / 2
    moved = expected + (known - expected) * middle / (middle + PRIOR)
    return (moved / labels_a_box).round().long()
