"""How far a detector's boxes end beside the objects, learnt from labelled images, and its boxes moved by that.

A detector may draw its boxes too small or too large throughout: it has learnt on other pixels than it is shown, or has
not yet unlearnt what a box was where it was trained before. A student would take that for the truth. On circuit boards
(EXPERIMENTS.md, "Boxes that are too small") what it is off by is the same on the images that it has learnt from as on
others, so that these tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headstart.images.loader import PixelBatch
from headstart.pseudolabels.labelling import MATCH, Detections, best_overlaps

IMAGES = 300
"""Labelled images that are looked at, at most."""
LEAST = 50
"""Objects that must be found again on them: of fewer the median is chance."""
_SURE = 0.25  # score from which a box counts as found
_ROUNDS = 20
_SPREAD = 1.4826
"""Standard deviations in the median absolute deviation of a normal distribution."""
_CHANCE = 2.5
"""Standard errors of a median, 1.25 deviations over the root of the number, twice: an end off by less stays."""
_FLAT = 50.0
"""Objects that would speak against any slope: of a few found ones its chance error is large, and large boxes pay it."""


@dataclass(frozen=True)
class BoxEnds:
    """By how much boxes are to be moved.

    Attributes:
        shift: float32 ``(4,)``: of x0, y0, x1, y1, in pixels of the image as the detector is shown it.
        growth: float32 ``(4,)``: likewise, as a share of the box's width (x0, x1) or height.
        most: What that is for a box of middle size, at the end that is moved furthest, in pixels.
    """

    shift: Tensor
    growth: Tensor
    most: float = 0.0

    @classmethod
    def learnt(cls, off: Tensor) -> BoxEnds:
        """From what boxes are off by.

        Args:
            off: What `off_by` gives, of several batches.
        """
        if len(off) < LEAST:
            return cls(torch.zeros(4), torch.zeros(4))
        lines = torch.stack([_line(off[:, 4 + side % 2], off[:, side]) for side in range(4)])
        sides = off[:, 4:].repeat(1, 2)
        typical = (lines[:, 0] + lines[:, 1] * sides.median(0).values).abs()
        spread = _SPREAD * (off[:, :4] - lines[:, 0] - lines[:, 1] * sides).abs().median(0).values
        moves = typical > _CHANCE * spread / len(off) ** 0.5
        return cls(lines[:, 0] * moves, lines[:, 1] * moves, float((typical * moves).max()))

    def record(self) -> dict[str, Any]:
        """By how much, for ``teacher.json`` and the log; empty where nothing is moved."""
        if not self.most:
            return {}
        return {"ends": {"shift": self.shift.tolist(), "growth": self.growth.tolist(), "most": self.most}}

    def moved(self, batch: PixelBatch, found: Detections, imgsz: int) -> Detections:
        """The boxes where the objects end, within their images.

        Args:
            batch: The images.
            found: On them.
            imgsz: Longer side of the images as the detector is shown them, pixels.
        """
        if not len(found.rows) or not self.most:
            return found
        shown = _shown(batch, found.owner(batch), imgsz)
        pixels = found.boxes * shown
        sides = (pixels[:, 2:] - pixels[:, :2]).repeat(1, 2)
        boxes = ((pixels + self.shift + self.growth * sides) / shown).clamp(0, 1)
        whole = (boxes[:, 2:] > boxes[:, :2]).all(1, keepdim=True)
        return replace(found, boxes=torch.where(whole, boxes, found.boxes))


def off_by(batch: PixelBatch, found: Detections, owner: Tensor, boxes: Tensor, imgsz: int) -> Tensor:
    """How far what was found ends beside the labelled boxes.

    Args:
        batch: Labelled images.
        found: On them.
        owner: int64 ``(N,)``: place in the batch of the image of each labelled box.
        boxes: ``(N, 4)``, shares of the image's sides.
        imgsz: Longer side of the images as the detector is shown them, pixels.

    Returns:
        float32 ``(M, 6)``, of the boxes that are a labelled one: what is to be added to x0, y0, x1, y1, and the width
        and height of the box, in pixels as shown.
    """
    found = found.those(found.scores >= _SURE)
    if not len(found.rows) or not len(boxes):
        return torch.zeros(0, 6)
    place = found.owner(batch)
    shown = _shown(batch, place, imgsz)
    best, which = best_overlaps(found.boxes, place, boxes, owner)
    pixels, true = found.boxes * shown, boxes[which] * shown
    told = torch.cat([true - pixels, pixels[:, 2:] - pixels[:, :2]], 1)
    return told[best >= MATCH].float()


def _shown(batch: PixelBatch, place: Tensor, imgsz: int) -> Tensor:
    """float ``(M, 4)``: width, height, width, height of the image at each place of a batch as it is shown."""
    sizes = batch.sizes[place].flip(1).float()
    return (sizes * (imgsz / sizes.amax(1, keepdim=True))).repeat(1, 2)


def _line(sides: Tensor, off: Tensor) -> Tensor:
    """Intercept and slope of the line of least absolute deviations, which a few wrong matches do not bend.

    By least squares with weights that are made anew (Schlossmacher, 1973, doi:10.1080/01621459.1973.10481436).
    """
    middle, spread = sides.double().mean(), sides.double().std().clamp_min(1e-6)
    x = torch.stack([torch.ones_like(sides, dtype=torch.float64), (sides.double() - middle) / spread], 1)
    weight = torch.ones(len(sides), 1, dtype=torch.float64)
    line = torch.zeros(2, dtype=torch.float64)
    for _ in range(_ROUNDS):
        square = x.T @ (weight * x)
        square[1, 1] += _FLAT * weight.mean()
        line = torch.linalg.solve(square, x.T @ (weight[:, 0] * off.double()))
        weight = 1 / (off.double() - x @ line).abs().clamp_min(0.05)[:, None]
    slope = line[1] / spread
    return torch.stack([line[0] - slope * middle, slope]).float()
