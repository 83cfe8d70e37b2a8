"""Which class a box shows, by a trained network that has seen far more things than there are labels.

A detector that learns from few labels finds more than it can name: on FOD-A with 297 labels it has a box for 95 of 100
objects, for 80 of them with the right class and a score to trust, and a linear classifier on the features of an
ImageNet network names 96 of 100 of these boxes rightly (EXPERIMENTS.md). So the detector says where something is, and
such a classifier what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import rank_of
from headstart.pseudolabels.labelling import Detections, best_overlaps
from headstart.pseudolabels.looks import AT_ONCE, SIDE, features, squares
from headstart.teachers.base import Teacher
from headstart.views.resize import GRAY

AREA = (4 * SIDE) ** 2
"""Pixels of an image from which boxes are cut, at most: one of a fortieth of the image's side is not enlarged much."""
LEAST_SCORE = 0.02
"""Score from which a detector's box is looked at; below are few objects and many that are none."""
LEARNT_FROM = [(margin, mirrored) for margin in (1.0, 1.2, 1.5, 2.0) for mirrored in (False, True)]
NAMED_BY = [(1.2, False), (1.5, True)]
"""Margin of the square around a box, and whether it is mirrored: of labelled boxes, and of those to be named. Where a
mirror makes another class of it, none is."""
APART = 0.3
"""Intersection over union with every labelled box below which a detector's box shows none of the objects."""
BESIDE = 7
"""Boxes of a detector on a labelled image, beyond as many as it has objects, among which those are that show none."""
_SCALE, _DECAY, _STEPS = 10.0, 1e-4, 300


@dataclass(frozen=True)
class Looks:
    """How boxes look that somebody has named.

    Attributes:
        features: float ``(N, C)``, several of each box.
        labels: int64 ``(N,)``: the class; the number of classes for what is no object.
    """

    features: Tensor
    labels: Tensor


class BoxClassifier:
    """A linear classifier of boxes into the user's classes, and one more for what is no object.

    Multinomial logistic regression on the features that `teacher` has of squares around boxes.

    Attributes:
        learnt: Mean of the features ``(C,)``, weights ``(C, classes + 1)`` and biases; see `learn`.

    Args:
        teacher: A trained network; moved to the device of the images.
        classes: How many.
        mirrored: Whether a class looks the same in a mirror.
    """

    def __init__(self, teacher: Teacher, classes: int, *, mirrored: bool = True) -> None:
        self.teacher, self.classes = teacher, classes
        self._learnt_from, self._named_by = (
            list(dict.fromkeys((margin, other and mirrored) for margin, other in ways))
            for ways in (LEARNT_FROM, NAMED_BY)
        )
        self.learnt = (torch.zeros(0),) * 3

    def looks(
        self,
        batch: PixelBatch,
        found: Detections,
        owner: Tensor,
        boxes: Tensor,
        labels: Tensor,
        some: Tensor | None = None,
    ) -> Looks:
        """What can be learnt from a batch of labelled images.

        Args:
            batch: The images.
            found: What a detector finds on them, down to low scores: what overlaps no labelled box is no object.
            owner: int64 ``(N,)``, rising: place in the batch of the image of each labelled box.
            boxes: ``(N, 4)``, shares of the image's sides.
            labels: int64 ``(N,)``.
            some: bool ``(N,)``: the labelled boxes that are learnt from; None: all.
        """
        other = found.owner(batch)
        overlap, _ = best_overlaps(found.boxes, other, boxes, owner)
        # Beyond the objects, the best few: what a detector is a little sure of, and wrongly.
        sure = rank_of(other) < torch.bincount(owner, minlength=len(batch.indices))[other] + BESIDE
        apart = (overlap < APART) & sure
        some = torch.ones(len(owner), dtype=torch.bool) if some is None else some
        objects = self._features(batch, owner[some], boxes[some], self._learnt_from)
        nothing = self._features(batch, other[apart], found.boxes[apart], self._named_by)
        none = torch.full((int(apart.sum()) * len(self._named_by),), self.classes)
        return Looks(torch.cat([objects, nothing]), torch.cat([labels[some].repeat(len(self._learnt_from)), none]))

    def learn(self, looks: list[Looks]) -> tuple[Tensor, Tensor, Tensor]:
        """Fit it, from the beginning; what it has learnt."""
        features = torch.cat([one.features for one in looks])
        labels = torch.cat([one.labels for one in looks])
        mean = features.mean(0)
        self.learnt = (mean, *fitted(_centered(features, mean), labels, self.classes + 1))
        return self.learnt

    def named(self, batch: PixelBatch, found: Detections, own: Tensor | None = None) -> Detections:
        """The boxes with the class that it sees, best first within an image.

        The score becomes the geometric mean of the detector's, of its own best class, and of the classifier's
        probability: the one knows best whether there is an object, the other which.

        Args:
            batch: The images.
            found: What a detector finds on them.
            own: Its scores of all classes, ``(M, classes)``: which object it is, is then the product of both; that it
                is one stays with the classifier.
        """
        if not len(found.rows):
            return found
        owner = found.owner(batch)
        features = self._features(batch, owner, found.boxes, self._named_by)
        mean, weight, bias = self.learnt
        with torch.autocast(features.device.type, enabled=False):
            answers = _centered(features, mean) @ weight + bias
        chances = answers.log_softmax(1).view(len(self._named_by), len(owner), -1).mean(0).softmax(1)
        objects = chances[:, : self.classes]
        if own is not None:
            both = objects * own
            objects = both * (objects.sum(1) / both.sum(1).clamp_min(1e-12))[:, None]
        sure, labels = objects.max(1)
        scores = (found.scores * sure).sqrt()
        order = scores.argsort(descending=True, stable=True)
        order = order[owner[order].argsort(stable=True)]
        return replace(
            found,
            rows=found.rows[order],
            boxes=found.boxes[order],
            scores=scores[order],
            labels=labels[order],
        )

    def _features(self, batch: PixelBatch, owner: Tensor, boxes: Tensor, ways: list[tuple[float, bool]]) -> Tensor:
        """Of all boxes one way of looking after the other, float32 ``(len(ways) * N, C)`` on the CPU."""
        if not len(boxes):
            return torch.zeros(0, self.teacher.described)
        self.teacher = self.teacher.to(batch.pixels.device).to(memory_format=torch.channels_last)
        found, waiting = [], []
        for looked in self._squares(batch, owner, boxes, ways):
            waiting.append(looked)
            if sum(map(len, waiting)) >= AT_ONCE:
                found.append(features(self.teacher, torch.cat(waiting)).float())
                waiting = []
        found += [features(self.teacher, torch.cat(waiting)).float()] if waiting else []
        return torch.cat(found)  # not in half precision: autocast to bfloat16 cannot join that

    @staticmethod
    def _squares(batch: PixelBatch, owner: Tensor, boxes: Tensor, ways: list[tuple[float, bool]]) -> Iterator[Tensor]:
        """Squares around the boxes, `AT_ONCE` at a time at most, in the order of `ways` and of the boxes."""
        images, number = torch.unique_consecutive(owner, return_counts=True)
        for margin, mirrored in ways:
            for at, own in zip(images.tolist(), torch.split(boxes, number.tolist()), strict=True):
                height, width = batch.sizes[at].tolist()  # a batch's padding is none of the surroundings
                shifted = batch.pixels[at : at + 1, :, :height, :width].float() / 255 - GRAY
                for some in torch.split(own * torch.tensor([width, height] * 2), AT_ONCE):
                    none = torch.zeros(len(some), dtype=torch.int64, device=shifted.device)
                    looked = squares(shifted, none, some.to(shifted.device), margin)
                    yield looked.flip(3) if mirrored else looked


def _centered(features: Tensor, mean: Tensor) -> Tensor:
    return _SCALE * functional.normalize(features - mean, dim=1)


def fitted(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights ``(C, classes)`` and biases of a multinomial logistic regression, by L-BFGS; float32, on the CPU.

    Args:
        features: float ``(N, C)``.
        labels: int64 ``(N,)``.
        classes: How many; one that no label has gets a low bias.
    """
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = functional.cross_entropy(features @ weight + bias, labels) + _DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
