from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from headstart.comparison.statistics import (
    bootstrap,
    detectable,
    epochs_to_reach,
    paired,
    power,
    seeds_needed,
    t_probability,
    t_quantile,
)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100, 999])
def test_students_t_is_scipys(degrees: int) -> None:
    for probability in (0.6, 0.9, 0.975, 0.995):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)
    for value in (0.0, 0.5, 2.0, 12.7):
        assert t_probability(value, degrees) == pytest.approx(stats.t.cdf(value, degrees), abs=1e-12)


def test_an_interval_worked_out_by_hand() -> None:
    # mean 0.03; deviations -0.01, 0, 0.01: variance 0.0002 / 2, standard error 0.01 / sqrt(3); t(0.975, 2) = 4.302653
    found = paired([0.02, 0.03, 0.04])
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (found.mean, found.t_low, found.t_high) == pytest.approx((0.03, 0.03 - half, 0.03 + half), abs=1e-8)
    assert (found.verdict, found.seeds_needed) == ("better", None)
    assert paired([-0.02, -0.03, -0.04]).verdict == "worse"


def test_intervals_are_scipys() -> None:
    values = np.random.default_rng(1).normal(0.01, 0.02, 7)
    found = paired(values.tolist())
    expected = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert (found.t_low, found.t_high) == pytest.approx(expected, rel=1e-9)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=3).confidence_interval
    # The 2.5 % quantile of 10,000 draws is known to about a fortieth of their spread.
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx(tuple(theirs), abs=0.1 * stats.sem(values))
    assert (found.t_low > 0) == (stats.ttest_1samp(values, 0).pvalue < 0.05 and values.mean() > 0)


def test_the_bootstrap_of_three_values_is_that_of_all_27_resamples() -> None:
    values = [0.01, 0.02, 0.06]  # the lowest and the highest mean have a share of 1 / 27 each, more than 2.5 %
    means = [np.mean(one) for one in itertools.product(values, repeat=3)]
    assert bootstrap(values) == pytest.approx(np.quantile(means, [0.025, 0.975], method="inverted_cdf"), abs=1e-9)


def test_the_bootstrap_is_always_the_same_and_within_the_values() -> None:
    values = [0.01, 0.05, 0.03, -0.02]
    assert bootstrap(values) == bootstrap(values)
    low, high = bootstrap(values)
    assert -0.02 <= low < sum(values) / 4 < high <= 0.05


def scipys_power(effect: float, seeds: int) -> float:
    """The tail of SciPy's noncentral t distribution beyond the critical value."""
    return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, effect * math.sqrt(seeds)))


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10, 31, 300, 1000])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 1.0, 3.0])
def test_power_is_scipys(effect: float, seeds: int) -> None:
    assert power(effect, seeds) == pytest.approx(scipys_power(effect, seeds), abs=1e-4)


@pytest.mark.parametrize(("mean", "deviation"), [(0.01, 0.02), (0.02, 0.01), (-0.005, 0.03)])
def test_the_seeds_that_are_named_have_a_power_of_80_percent(mean: float, deviation: float) -> None:
    needed = seeds_needed(mean, deviation, seeds=2)
    assert needed is not None
    effect = abs(mean) / deviation
    assert scipys_power(effect, needed) >= 0.8 > scipys_power(effect, needed - 1)
    # The same by simulation: in how many of 20,000 comparisons the interval lies on the right side of zero.
    drawn = np.random.default_rng(0).normal(mean, deviation, (20_000, needed))
    half = stats.t.ppf(0.975, needed - 1) * drawn.std(axis=1, ddof=1) / math.sqrt(needed)
    shown = (np.sign(mean) * drawn.mean(axis=1) > half).mean()
    # Four standard errors of a share of 20,000; with few seeds a step of one seed is more than that.
    assert shown == pytest.approx(scipys_power(effect, needed), abs=4 * math.sqrt(0.8 * 0.2 / 20_000))
    assert shown > 0.785


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_what_the_seeds_at_hand_can_show(seeds: int) -> None:
    assert scipys_power(detectable(0.02, seeds) / 0.02, seeds) == pytest.approx(0.8, abs=1e-3)


def test_an_inconclusive_difference_says_how_many_seeds_it_takes() -> None:
    # Differences 1, -1, 3 points: mean 1, deviation 2, half a deviation.
    found = paired([0.01, -0.01, 0.03])
    assert found.verdict == "inconclusive"
    assert found.seeds_needed == 34
    assert scipys_power(0.5, 34) >= 0.8 > scipys_power(0.5, 33)
    assert found.detectable == pytest.approx(detectable(0.02, 3))


def test_what_no_seeds_can_show() -> None:
    assert paired([0.01, -0.01]).seeds_needed is None, "a mean of zero"
    assert seeds_needed(1e-6, 0.1, 3) is None
    single = paired([0.2])
    assert (single.mean, single.t_low, single.bootstrap_low, single.verdict) == (0.2, None, None, "inconclusive")


@pytest.mark.parametrize("value", [0.0, 0.02, -0.02])
@pytest.mark.parametrize("seeds", [2, 5])
def test_differences_that_are_equal_in_all_seeds_have_no_interval(value: float, seeds: int) -> None:
    found = paired([value] * seeds)
    assert (found.mean, found.verdict) == (value, "inconclusive")
    assert (found.t_low, found.t_high, found.bootstrap_low, found.seeds_needed, found.detectable) == (None,) * 5


def test_epochs_to_reach() -> None:
    assert epochs_to_reach([0.1, 0.2, 0.3, 0.25], 0.2) == 2
    assert epochs_to_reach([0.1, 0.2], 0.21) is None
