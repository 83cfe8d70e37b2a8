"""Histograms of oriented gradients as a teacher: ``teacher=hog``. No weights, no download.

After Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005: unsigned gradients of the
color where they are strongest, nine directions in cells of 8 pixels, blocks of two by two cells normalized by L2-Hys.
It tells rigid things of one upright shape apart (signs, printed symbols, parts on a belt). Turned by any angle, or when
texture and color matter, a trained network knows far more: of six kinds of defects on circuit boards it names 58 %
rightly, an ImageNet network 91 % (EXPERIMENTS.md).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.errors import UserError
from headstart.teachers.base import Teacher, TeacherSource

NAME = "hog"
CELL = 8
"""Pixels a side of a cell."""
DIRECTIONS = 9
"""Bins of the half circle: a dark thing on light ground has the gradients of a light one on dark ground."""
SIDE = 64
"""Pixels a side to which an image is resized that is described as a whole: 7 by 7 blocks, 1,764 numbers."""
_AT_MOST, _SMALL = 0.2, 1e-4


class Gradients(Teacher):
    """See the module; its one map has the block that begins at each cell, ``(B, 36, h, w)``."""

    name = NAME
    widths = (4 * DIRECTIONS,)
    strides = (float(CELL),)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Teacher`; the border is repeated where an image ends within a block."""
        height, width = (-(-side // CELL) * CELL for side in images.shape[-2:])
        missing = (0, width - images.shape[3], 0, height - images.shape[2])
        with torch.autocast(images.device.type, enabled=False):
            cells = _cells(functional.pad(images.float(), missing, mode="replicate"))
            return [_blocks(functional.pad(cells, (0, 1, 0, 1), mode="replicate"))]

    @property
    def described(self) -> int:
        """See `Teacher`."""
        return (SIDE // CELL - 1) ** 2 * 4 * DIRECTIONS

    def describe(self, images: Tensor) -> Tensor:
        """See `Teacher`: where which gradients are, not their mean, tells shapes apart."""
        with torch.autocast(images.device.type, enabled=False):
            sides = (SIDE, SIDE)
            small = functional.interpolate(images.float(), sides, mode="bilinear", antialias=True, align_corners=False)
            return _blocks(_cells(small)).flatten(1)


def _cells(images: Tensor) -> Tensor:
    """Mean strength of the gradients of each direction in each cell, ``(B, 9, h / 8, w / 8)``."""
    framed = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]
    down = framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1]
    strongest = (across.square() + down.square()).max(1, keepdim=True)
    across, down = across.gather(1, strongest.indices), down.gather(1, strongest.indices)
    strength = strongest.values.sqrt()
    # Each gradient is shared by the two directions that it lies between.
    turn = torch.atan2(down, across).remainder(math.pi) * (DIRECTIONS / math.pi)
    below = turn.floor()
    share, first = turn - below, below.long() % DIRECTIONS
    found = torch.zeros(len(images), DIRECTIONS, *images.shape[2:], device=images.device)
    found.scatter_add_(1, first, strength * (1 - share))
    found.scatter_add_(1, (first + 1) % DIRECTIONS, strength * share)
    return functional.avg_pool2d(found, CELL)


def _blocks(cells: Tensor) -> Tensor:
    """Every two by two cells, normalized together, ``(B, 36, h - 1, w - 1)``."""
    height, width = cells.shape[2] - 1, cells.shape[3] - 1
    blocks = functional.unfold(cells, 2).unflatten(2, (height, width))  # type: ignore[no-untyped-call]
    limited = _normalized(blocks).clamp(max=_AT_MOST)
    return _normalized(limited)


def _normalized(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(1, keepdim=True) + _SMALL).sqrt()


def accepts(teacher: Any) -> bool:
    """See `headstart.teachers.load`."""
    return isinstance(teacher, str) and teacher == NAME


def check(source: TeacherSource) -> list[UserError]:
    """See `headstart.teachers.load`."""
    return source.useless(("weights", "mean", "std"), f"{NAME} has no weights, and takes images as they are")


def load(source: TeacherSource, neck: bool) -> Gradients:
    """See `headstart.teachers.load`."""
    return Gradients()
