"""Mixup: images of a batch over each other, with the boxes of both, made on the training device.

After Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, arXiv 1710.09412, as Ultralytics has it for
detection: a weight from Beta(32, 32), near a half, and the objects of both images, each as a whole one. Among
pseudo-labelled images an object that the teacher missed then is half as visible (Chen et al., "MixPL", 2023, arXiv
2312.07006).
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart import ranks
from headstart.views.mosaic import joined

_DRAWN = 63
"""The middle one of so many uniform numbers has the distribution Beta(32, 32)."""


def mixed(
    images: Tensor, owner: Tensor, boxes: Tensor, labels: Tensor, random: torch.Generator, share: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some images of a batch, that of all processes, mixed with another one of it, each as it came in.

    Args:
        images: float ``(B, 3, H, W)``, as many in every process; a single one stays as it is.
        owner: int64 ``(N,)``, on the CPU as boxes and labels: the image of each object.
        boxes: float ``(N, 4)`` in pixels.
        labels: int64 ``(N,)``.
        random: Of the CPU, in the same state in every process; moved on by the same amount whatever is drawn.
        share: Probability of an image to be mixed.

    Returns:
        The same, with the objects of the other image after those of its own.
    """
    number = len(images) * ranks.world()
    chosen = torch.rand(number, generator=random) < share
    weight = torch.rand(number, _DRAWN, generator=random).median(1).values
    apart = 1 + (torch.rand(number, generator=random) * (number - 1)).long()
    if number < 2 or not bool(chosen.any()):
        return images, owner, boxes, labels
    weight = torch.where(chosen, weight, 1.0)
    other = (torch.arange(number) + apart) % number
    beneath, (owners, theirs, named) = ranks.take(images, other), joined(owner, boxes, labels, len(images))
    weight, chosen, other = (ranks.own(one) for one in (weight, chosen, other))
    image, which = ((other[:, None] == owners[None]) & chosen[:, None]).nonzero().unbind(1)
    over = weight.to(images.device, images.dtype)[:, None, None, None]
    made = torch.lerp(beneath, images, over)
    return made, torch.cat([owner, image]), torch.cat([boxes, theirs[which]]), torch.cat([labels, named[which]])
