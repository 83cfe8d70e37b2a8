"""Where views meet: crops that overlap by design, and boxes that two views share.

Pixel coordinates as in `headstart.views.render`: x0, y0, x1, y1 in pixels of the source image, x1 and y1 not included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TRIES = 10  # places drawn for a crop before it is put beside the first one


def meeting(boxes: Tensor, others: Tensor) -> Tensor:
    """The part that each of `boxes` ``(..., 4)`` has in common with its one of `others`; empty parts have no area."""
    corner = torch.maximum(boxes[..., :2], others[..., :2])
    return torch.cat([corner, torch.minimum(boxes[..., 2:], others[..., 2:]).maximum(corner)], -1)


def area(boxes: Tensor) -> Tensor:
    """Areas ``(...)`` of `boxes` ``(..., 4)``."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def shared(boxes: Tensor, others: Tensor) -> Tensor:
    """What `boxes` and `others` have in common, as a share of the smaller one: 0 apart, 1 one inside the other."""
    return area(meeting(boxes, others)) / torch.minimum(area(boxes), area(others))


def widest_overlap(ratio: tuple[float, float]) -> float:
    """The share that two crops within the limits `ratio` of width over height can always have in common.

    Two crops of one area, one as wide and one as narrow as allowed, have the square root of narrow / wide.
    """
    return math.sqrt(ratio[0] / ratio[1])


def draw_together(crops: Tensor, first: Tensor, sizes: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """Move `crops` so that each has at least the share `least` in common with its one of `first`.

    A place is drawn anew until it does, ten times at most; then the crop is put over the first one, with the shorter
    side of both inside the longer one. Widths and heights stay.

    Args:
        crops: int64 ``(N, 4)``.
        first: int64 ``(N, 4)``.
        sizes: ``(N, 2)`` true heights and widths of the images.
        least: Share as of `shared`, at most `widest_overlap`.
        generator: Moved on by the same amount whatever is found.

    Returns:
        int64 ``(N, 4)``.
    """
    extent = crops[:, 2:] - crops[:, :2]
    room = sizes.flip(1) - extent
    uniform = torch.rand(len(crops), _TRIES, 2, generator=generator, dtype=torch.float64)
    corners = (uniform * (room.unsqueeze(1) + 1)).floor().long()
    # The last resort: between the places where the sides are flush, so that nothing of the shorter side sticks out.
    flush = torch.stack([first[:, :2], first[:, 2:] - extent], 1).sort(1).values
    nearest = corners[:, 0].maximum(flush[:, 0]).minimum(flush[:, 1])
    corners = torch.cat([crops[:, None, :2], corners, nearest.unsqueeze(1)], 1)
    places = torch.cat([corners, corners + extent.unsqueeze(1)], 2)
    good = shared(places, first.unsqueeze(1)) >= least
    good[:, -1] = True
    chosen = good.int().argmax(1)
    return places[torch.arange(len(crops)), chosen]


def draw_boxes(
    region: Tensor,
    number: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    least: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Random boxes inside a region of each image.

    Args:
        region: ``(B, 4)`` on the CPU.
        number: Boxes in each.
        scale: Least and greatest side (square root of the area) as a share of the region's; all sizes equally likely
            on a logarithmic scale.
        ratio: Least and greatest width over height, likewise.
        least: ``(B, 2)``: no box is narrower or lower than this, in source pixels, where the region is not.
        generator: Of the CPU.

    Returns:
        float32 ``(B, number, 4)``.
    """
    uniform = torch.rand(len(region), number, 4, generator=generator)
    sides = (region[:, 2:] - region[:, :2]).float().unsqueeze(1)
    size = _between(uniform[..., 0], scale) * sides.prod(-1).sqrt()
    stretch = _between(uniform[..., 1], ratio).sqrt()
    extent = torch.stack([size * stretch, size / stretch], -1).maximum(least.float().unsqueeze(1)).minimum(sides)
    corner = region[:, None, :2].float() + uniform[..., 2:] * (sides - extent)
    return torch.cat([corner, corner + extent], -1)


def to_view(boxes: Tensor, crop: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Boxes in source pixels as boxes in pixels of a view.

    Args:
        boxes: ``(B, N, 4)``.
        crop: ``(B, 4)``, the view's part of the source image.
        flipped: bool ``(B,)``: the view is mirrored left to right.
        size: Height and width of the view.

    Returns:
        float32 ``(B, N, 4)`` with x0 < x1.
    """
    crop = crop.float()
    zoom = size / (crop[:, 2:] - crop[:, :2])
    moved = (boxes.reshape(*boxes.shape[:-1], 2, 2) - crop[:, None, None, :2]) * zoom[:, None, None]
    across, down = moved[..., 0], moved[..., 1]
    across = torch.where(flipped[:, None, None], size - across.flip(-1), across)
    return torch.stack([across, down], -1).flatten(-2)


def _between(uniform: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = math.log(limits[0]), math.log(limits[1])
    return torch.exp(low + (high - low) * uniform)
