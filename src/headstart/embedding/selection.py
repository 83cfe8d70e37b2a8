"""What to label next: k-center greedy, among all images or among those of which a detector is least sure.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1:
the image that is farthest from all that are labelled or chosen is chosen, again and again. Where an uncertainty is
known, the most uncertain images are taken as candidates first, ten times as many as are wanted, as Zhdanov does
("Diverse mini-batch Active Learning", 2019, beta = 10), whose k-means is a k-center here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from headstart.embedding.neighbors import Features

PREFILTER = 10
"""Candidates for each image that is wanted, where an uncertainty is known."""
_BLOCK = 16384
_KNOWN = 1024
"""Labelled images to which a block's distances are held at once."""


class Chosen(NamedTuple):
    """An image to label: its row, and its distance from the nearest one that is labelled or was chosen before."""

    row: int
    distance: float


def k_center(
    features: Features,
    number: int,
    *,
    labelled: Sequence[int] = (),
    candidates: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> list[Chosen]:
    """Choose `number` images, or fewer where what is left equals what was chosen.

    Args:
        features: ``(N, D)``, may lie in a file; read once for each image that is chosen, block by block, and once for
            the labelled ones together.
        number: How many.
        labelled: Rows that are labelled already.
        candidates: Rows to choose from; None for all.
        device: Where to compute.

    Returns:
        In the order in which they were chosen. Without labelled images the first is that nearest to the mean of all,
        at an infinite distance.
    """
    rows = np.asarray(sorted(set(range(len(features)) if candidates is None else candidates) - set(labelled)), np.int64)
    far = np.full(len(rows), np.inf, np.float32)
    if len(labelled):
        far = _nearest(features, rows, np.asarray(sorted(set(labelled)), np.int64), device)
    found: list[Chosen] = []
    while len(found) < min(number, len(rows)):
        at = _middle(features, rows, device) if not found and not len(labelled) else int(far.argmax())
        if far[at] <= 0:
            break
        found.append(Chosen(int(rows[at]), float(far[at])))
        far = np.minimum(far, _distances(features, rows, np.array(features[rows[at]], np.float32), device))
        far[at] = 0.0
    return found


def least_sure(uncertainty: Sequence[float], rows: Sequence[int], number: int) -> list[int]:
    """The `PREFILTER` times `number` most uncertain of `rows`; of equal ones the first."""
    ordered = sorted(rows, key=lambda row: (-uncertainty[row], row))
    return sorted(ordered[: PREFILTER * number])


def _nearest(
    features: Features, rows: npt.NDArray[np.int64], known: npt.NDArray[np.int64], device: torch.device | str
) -> npt.NDArray[np.float32]:
    """Distances of some rows from the nearest of others, block against block: either may be more than memory holds."""
    parts = []
    for at in range(0, len(rows), _BLOCK):
        block = torch.from_numpy(np.asarray(features[rows[at : at + _BLOCK]], np.float32)).to(device)
        far = torch.full((len(block),), torch.inf, device=device)
        for other in range(0, len(known), _KNOWN):
            points = torch.from_numpy(np.asarray(features[known[other : other + _KNOWN]], np.float32)).to(device)
            # Not by products, as torch.cdist does for many points: what is labelled must be at a distance of 0.
            between = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
            far = torch.minimum(far, between.amin(1))
        parts.append(far.cpu())
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)
    return found


def _distances(
    features: Features, rows: npt.NDArray[np.int64], point: Features, device: torch.device | str
) -> npt.NDArray[np.float32]:
    """Distances of some rows from a point."""
    middle = torch.from_numpy(point).to(device)
    parts = [
        (torch.from_numpy(np.asarray(features[rows[at : at + _BLOCK]], np.float32)).to(device) - middle)
        .norm(dim=1)
        .cpu()
        for at in range(0, len(rows), _BLOCK)
    ]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)
    return found


def _middle(features: Features, rows: npt.NDArray[np.int64], device: torch.device | str) -> int:
    """The place among `rows` of the one nearest to their mean."""
    total = np.zeros(features.shape[1], np.float64)
    for at in range(0, len(rows), _BLOCK):
        total += np.asarray(features[rows[at : at + _BLOCK]], np.float64).sum(0)
    return int(_distances(features, rows, (total / len(rows)).astype(np.float32), device).argmin())
