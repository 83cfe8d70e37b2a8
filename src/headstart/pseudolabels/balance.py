"""How often images come, so that those of rare classes come more often."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.pseudolabels.base import PseudoLabels

MOST = 10.0
"""Repeat factor at most: a class that a teacher gives one image of thousands, and wrongly, is not drummed in."""


def repeat_factors(labels: PseudoLabels, rows: Tensor, exponent: float) -> Tensor:
    """How often each of some images comes where one of the most frequent class alone comes once.

    Repeat factor sampling (Gupta et al., "LVIS", 2019, arXiv 1908.03195): a class that a share f of the images shows
    has the factor (t / f) ** exponent, an image the largest of its classes. There the exponent is a half and t a
    constant below which classes are rare; here t is the largest share, and the exponent an option.

    Args:
        labels: Of all images of the index; those that are left open (-1) do not count.
        rows: int64 ``(n,)``: the images.
        exponent: 0: all once; 1: as often as makes the classes about equally frequent.

    Returns:
        float64 ``(n,)``, from 1 to `MOST`; 1 for an image without labels.
    """
    owner, _, classes = labels.of(rows)
    owner, classes = owner[classes >= 0], classes[classes >= 0]
    factors = torch.ones(len(rows), dtype=torch.float64)
    if not len(classes):
        return factors
    images = torch.unique(torch.stack([owner, classes], 1), dim=0)  # a class once an image
    number = torch.bincount(images[:, 1])
    of_class = ((number.max() / number.double()) ** exponent).clamp_max(MOST)
    return factors.scatter_reduce(0, images[:, 0], of_class[images[:, 1]], "amax")
