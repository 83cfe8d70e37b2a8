"""How far objects of one class differ in size, and whether mosaics should vary it further.

On photographs an object is near or far, and a detector that sees it larger and smaller than it was labelled learns
what it will meet. Where a camera keeps its distance (boards, scans, microscopes, a belt) sizes hardly differ, and what
is zoomed has edges that no other image has: on DeepPCB mosaics that zoom cost 2 points of mAP50-95, on FOD-A those that
do not 3.7 (EXPERIMENTS.md, "Mosaics that do not zoom").
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.pseudolabels.base import PseudoLabels

ZOOM = 0.5
"""As Ultralytics' ``scale``: mosaics are magnified by 0.5 to 1.5."""
ADDED = 0.308
"""Standard deviation of the logarithm of a magnification that is uniform in [0.5, 1.5]: what mosaics add to sizes."""
LEAST = 30
"""Degrees of freedom from which the spread is believed: it is then known to an eighth."""


def spread(boxes: Tensor, labels: Tensor) -> float | None:
    """The standard deviation of the logarithm of an object's size within its class, over all classes.

    The size is the square root of a box's area, as a share of its image's; 0.1 says that sizes differ by 10 %.

    Args:
        boxes: float ``(N, 4)``: x0, y0, x1, y1 as shares of the image's sides.
        labels: int64 ``(N,)``: classes; -1 for what does not count.

    Returns:
        None where too few objects share their class with another for it to be told.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    known = (labels >= 0) & (sides > 0).all(1)
    sizes, labels = sides[known].double().prod(1).log() / 2, labels[known]
    if not len(labels):
        return None
    number = torch.bincount(labels).clamp(min=1)
    mean = torch.bincount(labels, sizes) / number
    free = len(labels) - int((torch.bincount(labels) > 0).sum())
    return float(((sizes - mean[labels]).square().sum() / free).sqrt()) if free >= LEAST else None


def zoom_of(given: PseudoLabels) -> tuple[float, str]:
    """By how much mosaics are best magnified, and why, as a sentence; "" where labels do not tell."""
    found = spread(given.boxes, given.labels)
    if found is None:
        return ZOOM, ""
    told = f"labelled objects of one class differ in size by {found:.0%}"
    if found < ADDED:
        return 0.0, f"{told}, less than mosaics would magnify them: these keep the size (zoom=0)"
    return ZOOM, f"{told}: mosaics are magnified by {1 - ZOOM} to {1 + ZOOM} (zoom={ZOOM})"
