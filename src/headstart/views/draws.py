"""Random numbers of a training: functions of its seed, of the step, and of what they are for.

So that a resumed run draws what an uninterrupted one does, and a draw more for one purpose changes no other.
"""

from __future__ import annotations

from enum import IntEnum

import torch

_SEEDS_APART = 1_000_003
"""Seeds are so far apart that no step of one has the numbers of a step of the next."""
_PARTS_APART = 2**52
"""Parts of a batch are further apart than the numbers of the largest seed, which has 32 bits."""


class Purpose(IntEnum):
    """What numbers are drawn for: how far into those of a seed they begin.

    Where two begin at one place, one of them draws images, once, and the other something else: they have nothing to do
    with each other.
    """

    VIEWS = 0
    REGIONS = 500_000
    NAMER_IMAGES = 500_000
    HELD_OUT = 600_000
    MOSAIC_OR_NOT = 700_000
    CALIBRATION_IMAGES = 700_000
    MOSAICS = 800_000
    MIXUP = 900_000


def draws(seed: int, purpose: Purpose, step: int = 0, part: int = 0) -> torch.Generator:
    """A generator of the CPU, in the same state whenever it is asked for with the same arguments.

    Args:
        seed: Of the run.
        purpose: What is drawn.
        step: From 0.
        part: Of the batch of a step, from 0.
    """
    return torch.Generator().manual_seed(seed * _SEEDS_APART + step + purpose + part * _PARTS_APART)
