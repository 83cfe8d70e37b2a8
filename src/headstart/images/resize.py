"""Decoded images made smaller, by area averaging."""

from __future__ import annotations

from math import sqrt

import cv2
import torch
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
    small: Pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small[..., None] if small.ndim < image.ndim else small  # of one channel OpenCV drops the axis
