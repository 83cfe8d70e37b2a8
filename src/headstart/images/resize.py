"""Decoded images made smaller, bilinear and anti-aliased, as torchvision and Pillow do."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headstart.images.depth import Pixels


def within_area(image: Pixels, most: int) -> Pixels:
    """`image` with at most `most` pixels, aspect kept; itself where it is small enough."""
    height, width = image.shape[:2]
    if height * width <= most:
        return image
    scale = sqrt(most / (height * width))
    new_height, new_width = max(1, int(height * scale)), max(1, int(width * scale))
    if new_height * new_width > most:  # a line of pixels: the short side cannot shrink with the long one
        new_height, new_width = min(new_height, most), min(new_width, most)
    return _resized(image, new_height, new_width)


def within_side(image: Pixels | Tensor, most: int) -> Pixels | Tensor:
    """`image` with no side longer than `most`, aspect kept; itself where it is small enough."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= most:
        return image
    new_height, new_width = (max(1, side * most // longest) for side in (height, width))
    if isinstance(image, Tensor):  # on a device, where such images are rare
        small = _resized(image.cpu().numpy(), new_height, new_width)
        return torch.from_numpy(small).to(image.device)
    return _resized(image, new_height, new_width)


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    # A third of what OpenCV's area averaging takes: torch has a vectorised kernel for up to four interleaved channels.
    own = np.require(image, requirements=["C", "W"])  # a store maps for reading only, of which torch would warn
    planes = torch.from_numpy(own).permute(2, 0, 1)[None]
    small = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    found: Pixels = small[0].permute(1, 2, 0).contiguous().numpy()
    return found
