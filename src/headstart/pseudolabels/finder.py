"""A trained detector that labels images before the one that is trained can: of the user's classes, or of others.

One of the user's classes labels as it is. Of one that was taught other things the boxes are taken, as in
`headstart.pseudolabels.search`; what its scores are worth on these images the labelled ones tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from headstart.detectors.base import Detector
from headstart.errors import UserError
from headstart.pseudolabels.base import DetectionHead

_STEPS, _DECAY = 100, 1e-3


class Finder(NamedTuple):
    """What labels images at first.

    Attributes:
        name: For messages.
        network: What its head reads the maps of.
        head: Gives the scores of the user's classes, or of one for any object.
        imgsz: Longer side at which it looks at images, pixels, a multiple of 32.
    """

    name: str
    network: nn.Module
    head: DetectionHead
    imgsz: int

    @property
    def knows_classes(self) -> bool:
        """Whether it knows the user's classes."""
        return not isinstance(self.head, AnyObject)

    @staticmethod
    def needed(finder: Finder | None) -> Finder:
        """The one that is to label now.

        Raises:
            UserError: There is none: the run has labelled before, and has lost its checkpoints.
        """
        if finder is None:
            hint = "start a new run, or again with overwrite=true"
            raise UserError("the labels that this run began with are lost", where="proposals", hint=hint)
        return finder

    def to(self, device: torch.device) -> Finder:
        """The same, whose weights are moved there."""
        return self._replace(network=self.network.to(device), head=self.head.to(device))

    @classmethod
    def of(cls, detector: Detector, names: Sequence[str], imgsz: int) -> Finder:
        """Of a trained detector.

        Args:
            detector: With classes that are among others all of `names`, or without.
            names: The user's classes, by index.
            imgsz: Longer side at which it looks at images, pixels; rounded up to what its maps fit.
        """
        imgsz = detector.fitting(-(-imgsz // 32) * 32)[0]
        own = {name: number for number, name in detector.names.items()}
        if all(name in own for name in names) and len(own) == len(detector.names):
            try:
                head = _SomeClasses(detector.class_head(), [own[name] for name in names])
                return cls(detector.name, detector.trunk(neck=True), head, imgsz)
            except UserError:  # its head is none of boxes with classes; its boxes can be had all the same
                pass
        return cls(detector.name, _Images(detector), AnyObject(detector), imgsz)


class _SomeClasses(DetectionHead):
    """Some classes of a head, in the user's order."""

    def __init__(self, head: DetectionHead, classes: Sequence[int]) -> None:
        super().__init__()
        self.head, self._classes = head, list(classes)

    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `DetectionHead.detections`."""
        boxes, scores = self.head.detections(maps)
        return boxes, scores[..., self._classes]


class _Images(nn.Module):
    """Hands the images on, to a head that is a whole detector; holds its weights."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.module = detector.module

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


class AnyObject(DetectionHead):
    """Boxes of a detector of other classes, with one score: that there is any object of the user's.

    Attributes:
        line: Slope and intercept from the logit of a score to that of the probability; see `learn`.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._detector = detector
        self.line: tuple[float, float] = (1.0, 0.0)

    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `DetectionHead.detections`; `maps` are the images."""
        found = self._detector.propose(maps[0])
        slope, intercept = self.line
        return found[..., :4], torch.sigmoid(slope * _logit(found[..., 4:5]) + intercept)

    def learn(self, scores: Tensor, right: Tensor) -> None:
        """Learn what a score is worth, from what was found on labelled images.

        A detector is little sure of what it was never taught, and finds it: COCO's has a median best score of 0.17 on
        FOD-A. Logistic regression with targets that many boxes take near 0 and 1 and few do not (Platt, "Probabilistic
        Outputs for Support Vector Machines", 1999).

        Args:
            scores: float ``(N,)`` in [0, 1], of the detector itself.
            right: bool ``(N,)``: whether the box is a labelled one.
        """
        hits, total = int(right.sum()), len(right)
        high, low = (hits + 1) / (hits + 2), 1 / (total - hits + 2)
        target = torch.where(right, high, low).double()
        x = torch.stack([_logit(scores.double()), torch.ones(total, dtype=torch.float64)], 1)
        line = torch.tensor([1.0, 0.0], dtype=torch.float64)
        for _ in range(_STEPS):  # Newton's; the slope is drawn to 1, that the scores stay as they are
            chance = torch.sigmoid(x @ line)
            gradient = x.T @ (chance - target) + _DECAY * (line - torch.tensor([1.0, 0.0]))
            curvature = x.T @ ((chance * (1 - chance))[:, None] * x) + _DECAY * torch.eye(2)
            step = torch.linalg.solve(curvature, gradient)
            line = line - step / max(1.0, float(step.abs().max()))  # no leap from where it is flat
            if float(step.abs().max()) < 1e-9:
                break
        self.line = max(0.0, float(line[0])), float(line[1])


def _logit(scores: Tensor) -> Tensor:
    return scores.clamp(1e-6, 1 - 1e-6).logit()
