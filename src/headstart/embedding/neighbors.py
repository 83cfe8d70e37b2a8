"""Near-duplicates: images much nearer to each other than what else is near anything in the pool."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Features = npt.NDArray[np.float32]
NEIGHBORS = 8
"""Nearest images that are looked at of each: of a larger group of copies not all pairs are listed."""
OTHERS = 5
"""The neighbor whose distance says what is usual in the pool: the first ones may be copies."""
NEARER = 0.3
"""Distance of near-duplicates, as a share of what is usual in the pool."""
FEWEST = 20
"""Images from which on a pool says what is usual."""
_BLOCK = 4096


class Nearest(NamedTuple):
    """Of every image the nearest others, the nearest first: rows ``(N, K)`` and distances ``(N, K)``."""

    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


def nearest(features: Features, device: torch.device | str = "cpu") -> Nearest:
    """The nearest others of each image, by Euclidean distance; block by block, so that memory stays small.

    Args:
        features: ``(N, D)``, may lie in a file.
        device: Where to compute.
    """
    total, count = len(features), min(NEIGHBORS, len(features) - 1)
    rows = np.zeros((total, max(count, 0)), np.int64)
    distances = np.full((total, max(count, 0)), np.inf, np.float32)
    for begin in range(0, total if count > 0 else 0, _BLOCK):
        some = torch.from_numpy(np.array(features[begin : begin + _BLOCK])).to(device)
        best = torch.full((len(some), count), math.inf, device=device)
        place = torch.zeros((len(some), count), dtype=torch.int64, device=device)
        for start in range(0, total, _BLOCK):
            others = torch.from_numpy(np.array(features[start : start + _BLOCK])).to(device)
            # Not by a product of matrices, whose rounding is as large as the distance of copies.
            far = torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist")
            if start == begin:
                far.fill_diagonal_(math.inf)
            numbers = torch.arange(start, start + len(others), device=device).expand(len(some), -1)
            joined, numbered = torch.cat([best, far], 1), torch.cat([place, numbers], 1)
            best, order = joined.topk(count, dim=1, largest=False)
            place = numbered.gather(1, order)
        rows[begin : begin + len(some)], distances[begin : begin + len(some)] = place.cpu(), best.cpu()
    return Nearest(rows, distances)


def threshold(near: Nearest) -> float | None:
    """The distance below which two images of this pool are near-duplicates; None for a pool too small to say.

    `NEARER` times the median distance of an image to its `OTHERS`-th neighbor: a recording, whose frames are all alike,
    has a small one, a pool of many places a large one.
    """
    if len(near.rows) < FEWEST:
        return None
    return NEARER * float(np.median(near.distances[:, OTHERS - 1]))


def duplicates(near: Nearest, below: float) -> list[tuple[int, int, float]]:
    """Pairs (row, other row, distance) that are nearer than `below`, or equal, the nearest first; each pair once."""
    found: dict[tuple[int, int], float] = {}
    one, place = np.nonzero(near.distances <= below)
    for row, at in zip(one.tolist(), place.tolist(), strict=True):
        pair = sorted((row, int(near.rows[row, at])))
        found[pair[0], pair[1]] = float(near.distances[row, at])
    return [(row, other, far) for (row, other), far in sorted(found.items(), key=lambda item: (item[1], item[0]))]
