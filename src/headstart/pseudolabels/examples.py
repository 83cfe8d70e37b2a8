"""Which labelled images and boxes a network learns the names of classes from: of many, some of every class."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from headstart.pseudolabels.base import PseudoLabels, rank_of

EACH = 20
"""Images and boxes of a class that come before those of classes with more: a class without any would never be named."""


def some_images(labels: PseudoLabels, known: Tensor, most: int, random: Generator) -> Tensor:
    """So many of the labelled images, drawn: first some that show each class, then any.

    Args:
        labels: Of all images.
        known: int64 ``(K,)``: rows to choose from.
        most: How many.
        random: They are drawn from it.

    Returns:
        int64 ``(most,)`` or fewer, rising.
    """
    order = known[torch.randperm(len(known), generator=random)]
    if len(order) <= most:
        return order.sort().values
    owner, _, classes = labels.of(order)
    shown = torch.unique(torch.stack([owner, classes], 1), dim=0)  # by place in the order, then class
    rank = _rank(shown[:, 1])
    first = shown[rank.argsort(stable=True)][: int((rank < EACH).sum()), 0].tolist()
    places = list(dict.fromkeys([*first, *range(len(order))]))[:most]
    return order[torch.tensor(places)].sort().values


def some_boxes(labels: PseudoLabels, rows: Tensor, most: int, random: Generator) -> PseudoLabels:
    """Which boxes on some images are learnt from: first some of each class, then any, from all images in turn.

    Args:
        labels: Of all images.
        rows: int64 ``(n,)``: of the images.
        most: How many; where each of many classes has one, more.
        random: They are drawn from it.

    Returns:
        The boxes of all images with 1 for those that are chosen, and 0, as labels.
    """
    chosen = torch.zeros(len(labels.labels), dtype=torch.int64)
    owner, taken = labels.places(rows)
    if len(taken) > most:
        order = torch.randperm(len(taken), generator=random)
        order = order[_rank(owner[order]).argsort(stable=True)]  # one of each image, then another of each
        rank, number = _rank(labels.labels[taken[order]]), len(torch.unique(labels.labels[taken]))
        needed = rank < max(1, min(EACH, most // number))
        taken = taken[order[torch.cat([needed.nonzero()[:, 0], (~needed).nonzero()[:, 0]])[: max(most, number)]]]
    chosen[taken] = 1
    return replace(labels, labels=chosen)


def _rank(kind: Tensor) -> Tensor:
    """int64 ``(N,)``: how many of the same kind, int64 ``(N,)`` in any order, come before."""
    order = kind.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = rank_of(kind[order])
    return rank
