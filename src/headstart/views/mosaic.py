"""Mosaics: windows into four images that meet, with the boxes of their objects, made on the training device.

The augmentation that Ultralytics trains its detectors with (Bochkovskiy et al., "YOLOv4", 2020, arXiv 2004.10934), here
for a whole batch at once: objects stand beside others, at other sizes, and cut by borders. Where a batch is split over
several processes, the four come from any of them, and each process makes its part of the mosaics of the joined batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from headstart import ranks
from headstart.views.boxes import area, to_view
from headstart.views.resize import GRAY
from headstart.views.spec import View, ViewSpec

_LEAST_SIDE, _LEAST_SHARE = 2.0, 0.1  # pixels, and share of its area that a box must keep when it is cut


def mosaics(
    images: Tensor,
    owner: Tensor,
    boxes: Tensor,
    labels: Tensor,
    random: torch.Generator,
    zoom: tuple[float, float] = (0.5, 1.5),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A mosaic for every four images of a batch, that of all processes, in which each stands once.

    Args:
        images: float ``(B, 3, S, S)``, as many in every process; of a B that is no multiple of 4, some stand in two
            mosaics.
        owner: int64 ``(N,)``, on the CPU as boxes and labels, or a GPU would have to be waited for: the image of each
            object.
        boxes: float ``(N, 4)`` in pixels: x0, y0, x1, y1.
        labels: int64 ``(N,)``; below 0 where a place is left open.
        random: Of the CPU, in the same state in every process; moved on by the same amount on any device.
        zoom: Least and greatest magnification of the four images.

    Returns:
        The same for this process's ``ceil(B / 4)`` mosaics; objects that are cut away nearly or wholly are left out, of
        places that are left open what is in view stays.
    """
    size, device = images.shape[-1], images.device
    number, every = shown(len(images)) * ranks.world(), len(images) * ranks.world()
    order = torch.randperm(every, generator=random)
    tiles = order.repeat(-(-4 * number // every))[: 4 * number]
    low, high = zoom
    gain = low + (high - low) * torch.rand(number, 1, generator=random)
    middle = size * (0.5 + torch.rand(number, 2, generator=random))
    corner = middle - size / gain / 2

    four = ranks.take(images, tiles)
    owner, boxes, labels = joined(owner, boxes, labels, len(images))
    tiles, gain, corner = (ranks.own(one) for one in (tiles.reshape(number, 4), gain, corner))
    number, channels = len(tiles), images.shape[1]
    canvas = images.new_empty(number, channels, 2, size, 2, size)
    four = four.view(number, 2, 2, channels, size, size).permute(0, 3, 1, 4, 2, 5)
    torch.sub(four, GRAY, out=canvas)  # what lies outside of the canvas is read as 0
    canvas = canvas.view(number, channels, 2 * size, 2 * size)
    rois = torch.cat([torch.arange(number)[:, None], corner, corner + size / gain], 1)
    # Bilinear between four pixels, as Ultralytics warps its mosaics: finer sampling costs four times as much.
    made = roi_align(canvas, rois.to(device), size, sampling_ratio=1, aligned=True).add_(GRAY)

    place, tile, which = (tiles[:, :, None] == owner[None, None]).nonzero().unbind(1)
    shift = torch.stack([tile % 2, tile // 2], 1) * size
    moved = ((boxes[which].reshape(-1, 2, 2) + (shift - corner[place])[:, None]) * gain[place][:, None]).flatten(1)
    labels = labels[which]
    moved, kept = clipped(moved, size, labels)
    return made, place[kept], moved[kept], labels[kept]


def unmixed(images: Tensor, owner: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As many images as `mosaics` would make, the first ones of the batch of all processes, as they are.

    Arguments and what is returned are as there.
    """
    first = torch.arange(shown(len(images)) * ranks.world())
    owner, boxes, labels = joined(owner, boxes, labels, len(images))
    images, first = ranks.take(images, first), ranks.own(first)
    kept = (owner >= first[0]) & (owner <= first[-1])
    return images, owner[kept] - first[0], boxes[kept], labels[kept]


def shown(images: int) -> int:
    """A quarter, rounded up: four images make one mosaic, and steps without mosaics are as large."""
    return -(-images // 4)


def joined(owner: Tensor, boxes: Tensor, labels: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """The objects on the images of all processes, each of which has so many `images`, and any number of objects."""
    owners, others, named = zip(*ranks.of_all((owner + ranks.rank() * images, boxes, labels)), strict=True)
    return torch.cat(owners), torch.cat(others), torch.cat(named)


def detection_view(
    imgsz: int, scale: tuple[float, float], *, letterbox: float, jitter: float, flip: float = 0.5
) -> ViewSpec:
    """One view, as near to a detector's training as crops come: colors and shapes tell objects apart.

    It is sampled as detectors are shown images: on circuit boards one that had learnt from smoothed images drew its
    boxes a tenth too small on others (EXPERIMENTS.md, "Boxes that are too small").
    """
    colors: dict[str, Any] = {"brightness": 0.4, "contrast": 0, "saturation": 0.7, "hue": 0.015}
    seen: dict[str, Any] = {"flip": flip, "letterbox": letterbox, "jitter": jitter, "gray": 0, "blur": 0}
    return ViewSpec("view", imgsz, scale, (0.9, 1.1), sampling="sharp", **colors, **seen)


def whole(spec: ViewSpec) -> ViewSpec:
    """The same view of the whole image, as detectors are shown images: on a gray square where it is none itself."""
    return replace(spec, scale=(1.0, 1.0), ratio=(1.0, 1.0), letterbox=1.0)


def boxes_in_view(view: View, owner: Tensor, shares: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of the images in pixels of a view, cut at its borders, on the CPU, and bool ``(N,)``: worth keeping.

    Args:
        view: Of a batch.
        owner: int64 ``(N,)``: place in the batch of the image of each box.
        shares: ``(N, 4)``: x0, y0, x1, y1 as shares of the image's sides.
        labels: int64 ``(N,)``; below 0 where a place is left open.
    """
    assert view.sizes is not None
    size = view.images.shape[-1]
    boxes = shares * view.sizes.flip(1).float().repeat(1, 2)[owner]
    crop, flipped = view.boxes.cpu()[owner], view.flipped.cpu()[owner]
    return clipped(to_view(boxes[:, None], crop, flipped, size)[:, 0], size, labels)


def clipped(boxes: Tensor, size: int, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes ``(N, 4)`` cut at the borders of an image of ``size`` pixels a side, and bool ``(N,)``: worth keeping.

    Too little is left of an object to be told as one, but of a place that is left open (its label is below 0) all that
    is in view: what was there before the cut may be in it whole.
    """
    inside = boxes.clamp(0, size)
    large = (inside[:, 2:] - inside[:, :2] >= _LEAST_SIDE).all(1)
    told = large & (area(inside) >= _LEAST_SHARE * area(boxes))
    return inside, told | ((labels < 0) & (area(inside) > 0))
