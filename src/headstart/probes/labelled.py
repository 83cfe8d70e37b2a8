"""Labelled boxes for a probe: read where Ultralytics expects them, never trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

SAME_CLASS_OF = 5
"""Neighbors that vote on a box."""
FOLDS = 4
"""Parts of the images, of which each is measured by what was learned from the others."""
BLOCK = 1_024
"""Boxes that are compared with all others at once: all against all of thousands do not fit into memory."""
_IMAGES = 8
"""Images whose boxes are cut out of a map at once: those of all of them take many times what the map does."""


def box_features(maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """What the maps say of each box: averaged over the box on every map, each map's part of length 1, ``(N, sum C)``.

    Args:
        maps: ``(B, C, h, w)`` each.
        boxes: Of each image ``(n, 4)``, x0, y0, x1, y1 as shares of its sides.
    """
    parts = []
    for one in maps:
        scale = torch.tensor([one.shape[-1], one.shape[-2]] * 2, device=one.device)
        means = []
        for at in range(0, len(boxes), _IMAGES):
            placed = [found.to(one.device) * scale for found in boxes[at : at + _IMAGES]]
            means.append(roi_align(one[at : at + _IMAGES].float(), placed, 3, aligned=True).mean((2, 3)))
        parts.append(functional.normalize(torch.cat(means), dim=1))
    return torch.cat(parts, 1)


def knn_accuracy(features: Tensor, classes: Tensor, owner: Tensor, k: int = SAME_CLASS_OF) -> float:
    """Share of boxes whose `k` nearest boxes by cosine, of other images, are mostly of their own class.

    Votes are weighted by the cosine. Chance is the share of the commonest class.

    Args:
        features: ``(N, D)``.
        classes: int64 ``(N,)``.
        owner: int64 ``(N,)``, the image of each box.
        k: Neighbors.

    Returns:
        From 0 to 1; nan with boxes of fewer than two images.
    """
    if len(features) < 2 or bool((owner == owner[0]).all()):
        return math.nan
    direction = functional.normalize(features.float(), dim=1)
    known, classes = torch.unique(classes, return_inverse=True)  # of a class number of millions there is one column
    right, number = 0, len(known)
    for block in torch.split(torch.arange(len(features), device=features.device), BLOCK):
        cosines = (direction[block] @ direction.T).masked_fill_(owner[block, None] == owner[None], -math.inf)
        best = cosines.topk(min(k, len(features) - 1), dim=1)
        votes = torch.zeros(len(block), number, device=features.device)
        # An image of many boxes may leave fewer than k others: what is no neighbor has no vote.
        weights = torch.where(best.values.isfinite(), best.values.clamp_min(0) + 1e-6, 0.0)
        votes.scatter_add_(1, classes[best.indices], weights)
        right += int((votes.argmax(1) == classes[block]).sum())
    return right / len(features)


def linear_accuracy(features: Tensor, classes: Tensor, owner: Tensor, ridge: float = 1.0) -> float:
    """Share of boxes that a linear classifier gets right which never saw their image.

    Ridge regression onto the classes, on standardized features; the images are dealt into `FOLDS` parts in turn, and
    the boxes of each part are measured by a classifier of the others. Chance is the share of the commonest class.

    Args:
        features: ``(N, D)``.
        classes: int64 ``(N,)``.
        owner: int64 ``(N,)``, the image of each box.
        ridge: Penalty, as a share of the number of boxes that are learnt from.

    Returns:
        From 0 to 1; nan with boxes of fewer than two images.
    """
    images, place = torch.unique(owner, return_inverse=True)
    if len(images) < 2:
        return math.nan
    right = 0
    classes = torch.unique(classes, return_inverse=True)[1]
    wanted = functional.one_hot(classes).double()
    for fold in range(min(FOLDS, len(images))):
        measured = place % FOLDS == fold
        known = features[~measured].double()
        mean, std = known.mean(0), known.std(0, correction=0).clamp_min(1e-6)
        known, asked = (known - mean) / std, (features[measured].double() - mean) / std
        middle = wanted[~measured].mean(0)
        answers = asked @ ridge_weights(known, wanted[~measured] - middle, ridge * len(known) + 1e-9) + middle
        right += int((answers.argmax(1) == classes[measured]).sum())
    return right / len(classes)


def ridge_weights(known: Tensor, wanted: Tensor, penalty: float) -> Tensor:
    """Weights ``(D, K)`` of ridge regression, by the smaller of its two systems of equations.

    Args:
        known: ``(N, D)``.
        wanted: ``(N, K)``.
        penalty: On the squares of the weights; above 0.
    """
    boxes, width = known.shape
    if boxes > width:  # as many equations as features; the others grow with the cube of the boxes
        squares = known.T @ known
        squares.diagonal().add_(penalty)
        weights: Tensor = torch.linalg.solve(squares, known.T @ wanted)
        return weights
    grams = known @ known.T
    grams.diagonal().add_(penalty)
    shares: Tensor = torch.linalg.solve(grams, wanted)
    return known.T @ shares
