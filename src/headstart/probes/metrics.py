"""Is it learning, is it collapsing: measures that need no labels, and pictures of what the network sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.run.health import SPREAD

# -- measures ---------------------------------------------------------------------------------------------------------


def feature_spread(features: Tensor) -> Tensor:
    """How far apart the directions of the features lie: 0 when all images look the same, 1/sqrt(D) at best.

    The standard deviation of the L2-normalized features, averaged over the D dimensions (SimSiam, 2011.10566).

    Args:
        features: (N, D). Fewer than 2 rows have no spread: nan.

    Returns:
        A scalar, float32, detached, on the device of `features`: reading it is the caller's choice of moment.
    """
    if len(features) < 2:
        return torch.tensor(math.nan, device=features.device)
    return functional.normalize(features.detach().float(), dim=1).std(dim=0).mean()


def spread_alarm(dim: int) -> float:
    """The line below which `feature_spread` of `dim` dimensions is an alarm: 0.3/sqrt(dim)."""
    return SPREAD / math.sqrt(dim)


def spread_measures(features: Tensor) -> dict[str, float]:
    """`feature_spread` of features (N, D) and its alarm line, as `headstart.run.health` judges them."""
    return {"feature_spread": float(feature_spread(features)), "spread_alarm": spread_alarm(features.shape[1])}


def teacher_entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the teacher's answers in nats, from 0 to log K.

    Near log K the answer is uniform, near 0 it is a single output: the two ways in which DINO collapses (2104.14294).

    Args:
        logits: (..., K), the teacher's outputs after centering and division by its temperature.

    Returns:
        A scalar, float32, detached, on the device of `logits`.
    """
    log_p = functional.log_softmax(logits.detach().float(), dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()


def rankme(features: Tensor) -> float:
    """Effective number of dimensions that the features use, from 1 to min(N, D) (RankMe, 2210.02885).

    The exponential of the entropy of the singular values, normalized to sum 1. Compare runs of one method only.

    Args:
        features: (N, D), not all zero.
    """
    values = torch.linalg.svdvals(features.detach().to("cpu", torch.float64))
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def nearest_neighbours(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` rows most alike by cosine to every row, itself excluded.

    Args:
        features: (N, D).
        k: Neighbours of each; cut to N - 1.

    Returns:
        Indices int64 (N, k) and cosines float32 (N, k) in [-1, 1], the nearest first.
    """
    directions = functional.normalize(features.detach().float(), dim=1)
    cosines = (directions @ directions.T).clamp(-1, 1).fill_diagonal_(-math.inf)
    best = cosines.topk(max(0, min(k, len(features) - 1)), dim=1)
    return best.indices, best.values


def principal_components(maps: Sequence[Tensor]) -> list[Tensor]:
    """Feature maps as colors: their first three principal components, shared by all the images.

    The same color in two images means a similar feature. Each component is stretched so that its 2nd to 98th
    percentile spans [0, 1]; a component that does not vary is 0.5.

    Args:
        maps: One (C, h, w) an image, the same C; h and w may differ.

    Returns:
        One float32 (h, w, 3) in [0, 1] an image, on the CPU.
    """
    cells = [one.detach().to("cpu", torch.float64).flatten(1).T for one in maps]
    joined = torch.cat(cells)
    center = joined.mean(dim=0)
    variances, vectors = torch.linalg.eigh((joined - center).T @ (joined - center) / len(joined))
    axes = vectors.flip(1)[:, :3]
    # An eigenvector's sign is arbitrary; fixed so that two reports of one run have the same colors.
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    colors = torch.full((len(joined), 3), 0.5, dtype=torch.float64)
    for number, variance in enumerate(variances.flip(0)[:3].tolist()):
        if variance > 1e-12 * (1 + center.square().sum().item()):
            values = (joined - center) @ axes[:, number]
            low, high = values.quantile(0.02), values.quantile(0.98)
            colors[:, number] = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    parts = torch.split(colors.float(), [len(one) for one in cells])
    return [part.reshape(one.shape[1], one.shape[2], 3) for part, one in zip(parts, maps, strict=True)]


# -- the assets of a finished run -------------------------------------------------------------------------------------
