"""How an object looks to a trained network: its features of a square around the box."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from headstart.pseudolabels.base import MARGIN
from headstart.teachers.base import Teacher
from headstart.views.resize import GRAY

SIDE = 160
"""Pixels a side to which the square around an object is scaled; none is smaller than a fifth of that."""
AT_ONCE = 64
"""Squares that the network is shown together."""


@torch.no_grad()
def looks_of(network: nn.Module, images: Tensor, owner: Tensor, boxes: Tensor, margin: float = MARGIN) -> Tensor:
    """A network's last map of a square around each box, averaged: length 1, float16 ``(N, C)`` on the CPU.

    Args:
        network: A teacher, or a trunk in evaluation mode, on the device of the images.
        images: float ``(B, 3, H, W)``, RGB in [0, 1]; what lies outside of them is gray.
        owner: int64 ``(N,)``: the image of each box.
        boxes: float ``(N, 4)``: x0, y0, x1, y1 in pixels.
        margin: Side of the square, in longer sides of the box.
    """
    shifted = images - GRAY  # what lies outside of an image is read as 0
    parts = zip(torch.split(owner, AT_ONCE), torch.split(boxes, AT_ONCE), strict=True)
    found = [features(network, squares(shifted, *part, margin)) for part in parts if len(part[0])]
    return torch.cat(found) if found else torch.zeros(0).half()


def squares(shifted: Tensor, owner: Tensor, boxes: Tensor, margin: float) -> Tensor:
    """Squares around boxes, ``(N, 3, SIDE, SIDE)`` in [0, 1], of images from which gray was subtracted."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = ((boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * margin).clamp_min(SIDE / 5)
    around = torch.cat([owner[:, None].to(boxes.dtype), middle - side / 2, middle + side / 2], 1)
    cut: Tensor = roi_align(shifted, around, SIDE, sampling_ratio=2, aligned=True)
    return cut + GRAY


@torch.no_grad()
def features(network: nn.Module, looked: Tensor) -> Tensor:
    """What a teacher says of some squares, or a network's last map, averaged: length 1, float16 ``(N, C)``, CPU."""
    if isinstance(network, Teacher):
        found = network.describe(looked.contiguous(memory_format=torch.channels_last))
    else:
        found = network(looked)[-1].float().mean((2, 3))
    return functional.normalize(found, dim=1).half().cpu()
