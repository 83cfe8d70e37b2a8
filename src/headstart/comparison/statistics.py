"""Is a difference real? Paired differences, their intervals, and how many seeds it would take to tell.

Written out here, so that a report can be drawn with the packages that headstart has anyway; checked against SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
MOST_SEEDS = 1000
"""More seeds than this are not worth naming."""


@dataclass(frozen=True)
class Paired:
    """What the paired differences of two starts come to.

    Attributes:
        differences: One a seed: start minus reference.
        mean: Their mean.
        t_low: Lower end of the 95 % t interval of the mean; None for a single seed.
        t_high: Upper end.
        bootstrap_low: Lower end of the 95 % percentile bootstrap interval; None for a single seed.
        bootstrap_high: Upper end.
        verdict: ``helped``, ``hurt`` or ``cannot tell``, by the t interval.
        seeds_needed: Where it cannot be told: seeds at which a difference of this mean and spread would be; None where
            it can be told, for a single seed, and where more than `MOST_SEEDS` would be needed.
    """

    differences: tuple[float, ...]
    mean: float
    t_low: float | None
    t_high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    verdict: str
    seeds_needed: int | None


def paired(differences: Sequence[float]) -> Paired:
    """Judge paired differences, one a seed; at least one."""
    values = tuple(float(value) for value in differences)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Paired(values, mean, None, None, None, None, "cannot tell", None)
    half = t_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * spread(values) / math.sqrt(len(values))
    low, high = mean - half, mean + half
    verdict = "helped" if low > 0 else "hurt" if high < 0 else "cannot tell"
    needed = seeds_needed(mean, spread(values), len(values)) if verdict == "cannot tell" else None
    return Paired(values, mean, low, high, *bootstrap(values), verdict, needed)


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample, with n - 1."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of resamples; always the same for the same values.

    With few seeds it is too narrow: three values give it 10 different resamples. It stands beside the t interval for
    those who distrust the normal distribution there.
    """
    drawn = np.random.default_rng(seed).choice(np.asarray(values, np.float64), (RESAMPLES, len(values)))
    low, high = np.quantile(drawn.mean(axis=1), [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def seeds_needed(mean: float, deviation: float, seeds: int) -> int | None:
    """The least number of seeds, above `seeds`, whose t interval around `mean` would leave out zero.

    None where that is more than `MOST_SEEDS`.
    """
    if mean == 0:
        return None
    least = math.floor((NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * deviation / mean) ** 2)  # t is never narrower
    for count in range(max(seeds + 1, least), MOST_SEEDS + 1):
        if t_quantile(0.5 + CONFIDENCE / 2, count - 1) * deviation < abs(mean) * math.sqrt(count):
            return count
    return None


def t_quantile(probability: float, degrees: int) -> float:
    """The value that Student's t falls below with this probability, by bisection of its distribution function.

    Args:
        probability: In (0.5, 1).
        degrees: Degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_probability(middle, degrees) < probability else (low, middle)
    return high


def t_probability(value: float, degrees: int) -> float:
    """The probability that Student's t is below `value` >= 0; whole degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).
    """
    angle = math.atan(value / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if degrees % 2:
        term, total = math.cos(angle), 0.0
        for k in range(3, degrees + 1, 2):
            total += term
            term *= square * (k - 1) / k
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for k in range(2, degrees + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 0.5 + sine * total / 2


def epochs_to_reach(curve: Sequence[float], target: float) -> int | None:
    """The first epoch, from 1, whose value is at least `target`; None where none is."""
    return next((epoch for epoch, value in enumerate(curve, start=1) if value >= target), None)
