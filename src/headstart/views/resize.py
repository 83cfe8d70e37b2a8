"""Crops of a batch of images, resized and mirrored: each image by a crop of its own.

The crop is cut out first and then resized: nothing outside it, padding least of all, has a part in the result. That is
``torchvision.transforms.v2.functional.resized_crop``. A crop may go beyond the image; what lies outside is gray. There
are two ways to it, and which one is faster depends on the device: a CPU resizes one uint8 crop after the other, a GPU
multiplies the whole batch with weight matrices.

Smooth sampling is bicubic and anti-aliased. Sharp sampling is OpenCV's bilinear one, by which Ultralytics scales what
its detectors are trained, validated and used on: it takes four pixels, however many lie between two of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from headstart import machine
from headstart.views.spec import Sampling

GRAY = 114 / 255
"""What is seen outside of images, as in Ultralytics' training."""
_CUBIC = -0.5  # the free parameter of the cubic, as in PIL and torch's anti-aliased resize (Keys, 1981)


def resize_one(
    image: Tensor,
    box: Sequence[int],
    mirrored: bool,
    out: Tensor,
    outside: Sequence[int] = (0, 0, 0, 0),
    sampling: Sampling = "smooth",
) -> None:
    """Resize one crop of one image, on the CPU.

    Args:
        image: uint8 ``(1, 3, H, W)``; fastest with the strides of ``torch.channels_last``.
        box: x0, y0, x1, y1 of the crop in pixels, x1 and y1 not included.
        mirrored: Left to right, after resizing.
        out: float32 ``(1, 3, size, size)``, receives values in [0, 1].
        outside: How much of the box lies left of, above, right of and below the image, in pixels.
        sampling: How it is scaled.
    """
    left, top, right, bottom = box
    if any(outside):
        inner, place = _inside(torch.tensor([box]), torch.tensor([outside]), out.shape[-1])
        (left, top, right, bottom), (x0, y0, x1, y1) = inner[0].tolist(), place[0].long().tolist()
        x0, x1 = (out.shape[-1] - x1, out.shape[-1] - x0) if mirrored else (x0, x1)
        out.fill_(GRAY)
        out = out[:, :, y0:y1, x0:x1]
    if sampling == "sharp":
        rows = image[0].permute(1, 2, 0)[top:bottom, left:right].contiguous().numpy()
        scaled = cv2.resize(rows, (out.shape[3], out.shape[2]), interpolation=cv2.INTER_LINEAR)
        resized = torch.from_numpy(scaled.reshape(*scaled.shape[:2], -1)).permute(2, 0, 1)[None]
    else:  # torch has a vectorised kernel for interleaved channels of uint8; planar ones it would repack far slower
        crop = image[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
        resized = F.interpolate(crop, out.shape[2:], mode="bicubic", antialias=True)
    out.copy_(resized.flip(-1) if mirrored else resized).mul_(1 / 255)


def resize_batch(
    pixels: Tensor,
    boxes: Tensor,
    flipped: Tensor,
    out: Tensor,
    dtype: torch.dtype = torch.float16,
    outside: Tensor | None = None,
    sampling: Sampling = "smooth",
) -> None:
    """Resize a crop of each image, as two batched matrix products.

    Args:
        pixels: uint8 ``(B, 3, H, W)``.
        boxes: int64 ``(B, 4)`` on the CPU: x0, y0, x1, y1 in pixels, x1 and y1 not included.
        flipped: bool ``(B,)`` on the CPU: mirrored left to right.
        out: float32 ``(B, 3, size, size)``, receives values in [0, 1].
        dtype: Of the products. Half precision holds a uint8 exactly and errs by less than half a gray level.
        outside: int64 ``(B, 4)`` on the CPU: how much of each box lies left of, above, right of and below the image.
        sampling: How it is scaled.
    """
    size = out.shape[-1]
    number, channels, height, width = pixels.shape
    beyond = outside is not None and bool(outside.any())
    boxes, place = _inside(boxes, outside, size) if outside is not None and beyond else (boxes, None)
    boxes = machine.sent(boxes.float(), pixels.device)
    left, top, right, bottom = boxes.unbind(1)
    mirrored = machine.sent(flipped, pixels.device)
    place = None if place is None else machine.sent(place, pixels.device)
    across = _weights(left, right, width, size, mirrored, None if place is None else place[:, 0::2], sampling).to(dtype)
    down = _weights(top, bottom, height, size, None, None if place is None else place[:, 1::2], sampling).to(dtype)
    rows = pixels.to(dtype, memory_format=torch.contiguous_format).view(number, channels * height, width)
    narrow = torch.bmm(rows, across.transpose(1, 2)).clamp_(0, 255).view(number, channels, height, size)
    out.copy_((down.unsqueeze(1) @ narrow).clamp_(0, 255)).mul_(1 / 255)
    if place is not None:
        seen = down.float().sum(2).unsqueeze(2) * across.float().sum(2).unsqueeze(1) > 0.5
        out.masked_fill_(~seen.unsqueeze(1), GRAY)


def _inside(boxes: Tensor, outside: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The part of `boxes` that is image, in source pixels, and where it lies in a view of `size` whole pixels."""
    inner = torch.cat([boxes[:, :2] + outside[:, :2], boxes[:, 2:] - outside[:, 2:]], 1)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2).float()
    place = ((inner - boxes[:, :2].repeat(1, 2)).float() * size / sides).round()
    start = place[:, :2].clamp(max=size - 1)  # a strip thinner than a pixel of the view keeps one
    return inner, torch.cat([start, place[:, 2:].maximum(start + 1)], 1)


def _weights(
    start: Tensor,
    end: Tensor,
    extent: int,
    size: int,
    mirrored: Tensor | None = None,
    place: Tensor | None = None,
    sampling: Sampling = "smooth",
) -> Tensor:
    """What each of `extent` source pixels adds to each of `size` target pixels: float32 ``(B, size, extent)``.

    `start` and `end` are float32 ``(B,)``: the part of the axis that is resized; `place` float32 ``(B, 2)``: the target
    pixels that it goes to, by default all. A target row sums to one, one outside of its place to zero.
    """
    start, end = start.view(-1, 1, 1), end.view(-1, 1, 1)
    target = torch.arange(size, device=start.device, dtype=torch.float32).view(1, -1, 1)
    if mirrored is not None:
        target = torch.where(mirrored.view(-1, 1, 1), size - 1 - target, target)
    source = torch.arange(extent, device=start.device, dtype=torch.float32).view(1, 1, -1)
    first, last = (0, size) if place is None else place.view(-1, 2, 1, 1).unbind(1)
    scale = (end - start) / (last - first)
    middle = start + (target - first + 0.5) * scale
    if sampling == "sharp":
        weights = (1 - (source + 0.5 - middle).abs()).clamp_(min=0)
    else:  # when an image shrinks, the cubic is stretched to cover all source pixels that fall on a target pixel
        weights = _cubic((source + 0.5 - middle) / scale.clamp(min=1))
    weights.mul_((source >= start) & (source < end))
    if place is None:
        return weights.div_(weights.sum(2, keepdim=True))
    inside = (target >= first) & (target < last)
    return weights.div_(torch.where(inside, weights.sum(2, keepdim=True), 1.0)).mul_(inside)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel at a distance in (stretched) pixels; zero from 2 on."""
    x = distance.abs_()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8).mul_(x).sub_(4).mul_(_CUBIC)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
