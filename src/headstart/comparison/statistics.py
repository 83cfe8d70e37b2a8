"""Is a difference real? Paired differences, their intervals, and how many seeds it would take to show them.

Written out here, so that a report can be drawn with the packages that headstart has anyway; checked against SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
"""Chance of showing a difference that is real, for which numbers of seeds and sizes of differences are given."""
RESAMPLES = 10_000
MOST_SEEDS = 1000
"""More seeds than this are not worth naming."""

Verdict = Literal["better", "worse", "inconclusive"]


@dataclass(frozen=True)
class Paired:
    """What the paired differences of two starts come to, in shares of 1.

    Attributes:
        differences: One a seed: start minus reference.
        mean: Their mean.
        t_low: Lower end of the 95 % t interval of the mean; None for a single seed, and where all seeds agree exactly.
        t_high: Upper end.
        bootstrap_low: Lower end of the 95 % percentile bootstrap interval; None where there is no t interval.
        bootstrap_high: Upper end.
        verdict: ``better``, ``worse`` or ``inconclusive``, by the t interval.
        seeds_needed: Where it is inconclusive: seeds with which a difference of this mean and spread would be shown
            with a power of 80 %; None where it is conclusive, without an interval, and above `MOST_SEEDS`.
        detectable: The mean difference that so many seeds of this spread show with a power of 80 %; None without an
            interval.
    """

    differences: tuple[float, ...]
    mean: float
    t_low: float | None
    t_high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    verdict: Verdict
    seeds_needed: int | None
    detectable: float | None


def paired(differences: Sequence[float]) -> Paired:
    """Judge paired differences, one a seed; at least one.

    Differences that are the same in every seed have no interval: one of no width would claim a certainty that a few
    seeds cannot give.
    """
    values = tuple(float(value) for value in differences)
    mean = math.fsum(values) / len(values)
    if len(set(values)) < 2:
        return Paired(values, mean, None, None, None, None, "inconclusive", None, None)
    deviation, seeds = spread(values), len(values)
    half = t_quantile(0.5 + CONFIDENCE / 2, seeds - 1) * deviation / math.sqrt(seeds)
    low, high = mean - half, mean + half
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "inconclusive"
    needed = seeds_needed(mean, deviation, seeds) if verdict == "inconclusive" else None
    return Paired(values, mean, low, high, *bootstrap(values), verdict, needed, detectable(deviation, seeds))


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
    """The least number of seeds, above `seeds`, that show a difference with a power of 80 % in a paired t test.

    Args:
        mean: The difference, taken to be real.
        deviation: Its standard deviation over seeds; above 0.
        seeds: Seeds that there are.

    Returns:
        None where it is more than `MOST_SEEDS`.
    """
    effect = abs(mean) / deviation
    low, high = seeds, MOST_SEEDS
    if seeds >= MOST_SEEDS or power(effect, MOST_SEEDS) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= POWER else (middle, high)
    return high


def detectable(deviation: float, seeds: int) -> float:
    """The difference that `seeds` seeds show with a power of 80 %; 2 seeds or more, in the unit of `deviation`."""
    return _least_effect(seeds) * deviation


@lru_cache
def _least_effect(seeds: int) -> float:
    """The same in standard deviations, by bisection."""
    low, high = 0.0, 1.0
    while power(high, seeds) < POWER:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds) >= POWER else (middle, high)
    return high


def power(effect: float, seeds: int) -> float:
    """The chance that the 95 % t interval of so many paired differences lies on the right side of zero.

    That is P((Z + d) / S > t) with Z standard normal, d = effect * sqrt(n) and S^2 = chi^2 / (n - 1): the tail of the
    noncentral t distribution, here the mean of Phi(d - t S) over the density of S, summed on a grid.

    Args:
        effect: Mean of the differences in their standard deviations, 0 or more.
        seeds: 2 or more.
    """
    degrees = seeds - 1
    critical = t_quantile(0.5 + CONFIDENCE / 2, degrees)
    reach = 8 / math.sqrt(2 * degrees)  # S lies around 1 with a deviation of about 1 / sqrt(2 degrees)
    low, high = max(1 - reach, 0.0), 1 + reach
    s = low + (high - low) * (np.arange(600) + 0.5) / 600
    logged = (degrees - 1) * np.log(s) - degrees * s**2 / 2
    weights = np.exp(logged - logged.max())
    phi = np.array([NormalDist().cdf(value) for value in effect * math.sqrt(seeds) - critical * s])
    return float((weights * phi).sum() / weights.sum())


@lru_cache
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
