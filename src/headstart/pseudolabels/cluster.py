"""Which of the found objects look alike: principal components of their features, whitened, at length 1; k-means.

Objects that look alike get the same number, as in DeepCluster (Caron et al., "Deep Clustering for Unsupervised Learning
of Visual Features", 2018, arXiv 1807.05520).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

SAMPLE = 50_000
"""Objects from which components and centers are computed; the others are only given to the nearest center."""
ROUNDS = 40
"""Of k-means at most."""
_PART = 16_384  # objects whose distances are computed at once


def clustered(features: Sequence[Tensor], clusters: int, components: int, seed: int) -> Tensor:
    """Numbers int64 ``(M,)`` below `clusters`: equal for features that are near each other.

    With fewer objects than clusters every object has a number of its own.

    Args:
        features: ``(M, D)`` in parts of any lengths, which may lie on a disk: all of them are never in memory at once,
            and where one part ends changes nothing.
        clusters: How many.
        components: Principal components that are looked at.
        seed: Of the sample and of where the centers begin.
    """
    number = sum(map(len, features))
    if number <= clusters:
        return torch.arange(number)
    random = torch.Generator().manual_seed(seed)
    sample = _taken(features, torch.randperm(number, generator=random)[:SAMPLE]).float()
    project = _whitening(sample, min(components, sample.shape[1], len(sample) - 1))
    centers = _centers(project(sample), clusters, random)
    return torch.cat([(project(part.float()) @ centers.T).argmax(1) for part in _divided(features, _PART)])


def _taken(features: Sequence[Tensor], places: Tensor) -> Tensor:
    """The features at some `places`, int64 ``(n,)``, of all parts together."""
    taken, first = features[0].new_empty(len(places), features[0].shape[1]), 0
    for part in features:
        inside = (places >= first) & (places < first + len(part))
        taken[inside] = part[places[inside] - first]
        first += len(part)
    return taken


def _divided(features: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """All features in their order, `size` at a time: sums over other numbers of rows may differ in the last bit."""
    rest = features[0][:0]
    for part in features:
        rest = torch.cat([rest, part])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest


class _whitening:  # noqa: N801 - a function with a memory
    """Features to their first principal components, each of variance 1, at length 1."""

    def __init__(self, sample: Tensor, components: int) -> None:
        self.mean = sample.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((sample - self.mean).T.double()))
        values, vectors = values[-components:], vectors[:, -components:]
        # Directions without variance would be blown up to noise.
        self.matrix = (vectors / values.clamp_min(1e-9 * float(values[-1]) + 1e-20).sqrt()).float()

    def __call__(self, features: Tensor) -> Tensor:
        return functional.normalize((features - self.mean) @ self.matrix, dim=1)


def _centers(points: Tensor, number: int, random: torch.Generator) -> Tensor:
    """Centers ``(number, D)`` of length 1 after spherical k-means (Dhillon and Modha, 2001); no cluster stays empty."""
    centers = points[torch.randperm(len(points), generator=random)[:number]]
    before = torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        likeness, nearest = _nearest(points, centers)
        if torch.equal(nearest, before):
            break
        before = nearest
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        empty = (torch.bincount(nearest, minlength=number) == 0).nonzero()[:, 0]
        sums[empty] = points[likeness.argsort()[: len(empty)]]  # where the fit is worst
        centers = functional.normalize(sums, dim=1)
    return centers


def _nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Of every point the cosine with its nearest center, and which that is."""
    parts = [(part @ centers.T).max(1) for part in torch.split(points, _PART)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
