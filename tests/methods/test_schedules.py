from __future__ import annotations

import math

import pytest
from lightly.utils.scheduler import cosine_schedule

from headstart.methods.schedules import Progress, cosine, learning_rate, linear


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_cosine_equals_lightlys(steps: int) -> None:
    for step in range(steps):
        assert cosine(step, steps, 0.996, 1.0) == pytest.approx(cosine_schedule(step, steps, 0.996, 1.0), abs=1e-12)


def test_cosine_by_hand() -> None:
    assert [cosine(step, 5, 0.0, 1.0) for step in (0, 2, 4, 9)] == pytest.approx([0, 0.5, 1, 1])


def test_linear_by_hand() -> None:
    assert [linear(step, 4, 1.0, 3.0) for step in (0, 1, 2, 4, 5)] == pytest.approx([1, 1.5, 2, 3, 3])


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(Progress(step, 10, 0.0), 1.0, 0.2, "cosine") for step in range(10)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[5] == pytest.approx((math.cos(math.pi * 3 / 7) + 1) / 2)
    assert rates[-1] == 0.0
    assert learning_rate(Progress(9, 10, 0.0), 1.0, 0.2, "constant") == 1.0


def test_a_straight_line_to_a_hundredth_by_hand() -> None:
    """Two steps of warm-up, then eight that fall by 0.99 / 8 each; as Ultralytics' trainer, whose line ends after the
    last epoch."""
    rates = [learning_rate(Progress(step, 10, 0.0), 2.0, 0.2, "linear") for step in (0, 1, 2, 3, 6, 9)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 2 * (1 - 0.99 / 8), 2 * 0.505, 2 * (1 - 7 * 0.99 / 8)])
    ultralytics = [max(1 - epoch / 8, 0) * (1.0 - 0.01) + 0.01 for epoch in range(8)]
    assert [learning_rate(Progress(step, 8, 0.0), 1.0, 0.0, "linear") for step in range(8)] == pytest.approx(
        ultralytics
    )
