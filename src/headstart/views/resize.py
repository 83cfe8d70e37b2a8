"""Crops of a batch of images, resized (bicubic, anti-aliased) and mirrored: each image by a crop of its own.

The crop is cut out first and then resized: nothing outside it, padding least of all, has a part in the result. That is
``torchvision.transforms.v2.functional.resized_crop``. There are two ways to it, and which one is faster depends on the
device: a CPU resizes one uint8 crop after the other, a GPU multiplies the whole batch with weight matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CUBIC = -0.5  # the free parameter of the cubic, as in PIL and torch's anti-aliased resize (Keys, 1981)


def resize_one(image: Tensor, box: Sequence[int], mirrored: bool, out: Tensor) -> None:
    """Resize one crop of one image, on the CPU.

    Args:
        image: uint8 ``(1, 3, H, W)``; fastest with the strides of ``torch.channels_last``.
        box: x0, y0, x1, y1 of the crop in pixels, x1 and y1 not included.
        mirrored: Left to right, after resizing.
        out: float32 ``(1, 3, size, size)``, receives values in [0, 1].
    """
    left, top, right, bottom = box
    # torch has a vectorised kernel for three interleaved channels of uint8; planar ones it would repack far slower.
    crop = image[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(crop, out.shape[2:], mode="bicubic", antialias=True)
    out.copy_(resized.flip(-1) if mirrored else resized).mul_(1 / 255)


def resize_batch(
    pixels: Tensor, boxes: Tensor, flipped: Tensor, out: Tensor, dtype: torch.dtype = torch.float16
) -> None:
    """Resize a crop of each image, as two batched matrix products.

    Args:
        pixels: uint8 ``(B, 3, H, W)``.
        boxes: int64 ``(B, 4)`` on the CPU: x0, y0, x1, y1 in pixels, x1 and y1 not included.
        flipped: bool ``(B,)`` on the CPU: mirrored left to right.
        out: float32 ``(B, 3, size, size)``, receives values in [0, 1].
        dtype: Of the products. Half precision holds a uint8 exactly and errs by less than half a gray level.
    """
    size = out.shape[-1]
    number, channels, height, width = pixels.shape
    boxes = boxes.to(pixels.device, torch.float32, non_blocking=True)
    left, top, right, bottom = boxes.unbind(1)
    across = _weights(left, right, width, size, flipped.to(pixels.device, non_blocking=True)).to(dtype)
    down = _weights(top, bottom, height, size).to(dtype)
    rows = pixels.to(dtype, memory_format=torch.contiguous_format).view(number, channels * height, width)
    narrow = torch.bmm(rows, across.transpose(1, 2)).clamp_(0, 255).view(number, channels, height, size)
    out.copy_((down.unsqueeze(1) @ narrow).clamp_(0, 255)).mul_(1 / 255)


def _weights(start: Tensor, end: Tensor, extent: int, size: int, mirrored: Tensor | None = None) -> Tensor:
    """What each of `extent` source pixels adds to each of `size` target pixels: float32 ``(B, size, extent)``.

    `start` and `end` are float32 ``(B,)``: the part of the axis that is resized. A target row sums to one.
    """
    start, end = start.view(-1, 1, 1), end.view(-1, 1, 1)
    target = torch.arange(size, device=start.device, dtype=torch.float32).view(1, -1, 1)
    if mirrored is not None:
        target = torch.where(mirrored.view(-1, 1, 1), size - 1 - target, target)
    source = torch.arange(extent, device=start.device, dtype=torch.float32).view(1, 1, -1)
    scale = (end - start) / size
    middle = start + (target + 0.5) * scale
    # When an image shrinks, the cubic is stretched to cover all source pixels that fall on a target pixel.
    weights = _cubic((source + 0.5 - middle) / scale.clamp(min=1))
    weights.mul_((source >= start) & (source < end))
    return weights.div_(weights.sum(2, keepdim=True))


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel at a distance in (stretched) pixels; zero from 2 on."""
    x = distance.abs_()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8).mul_(x).sub_(4).mul_(_CUBIC)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
