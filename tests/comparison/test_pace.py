"""How long trainings and pretrainings take: figures derived by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.comparison.grid import Cell
from headstart.comparison.pace import Pace, Speed, Timed, pace_of, speed_of, time_left
from headstart.detectors.finetuner import Arrival, Epoch, FinetuneResult, measured_epochs
from headstart.run.busy import busy
from headstart.run.folder import RunFolder

ARRIVAL = Arrival(1, 1, 1, (), 1, 1, "", {})


def trained(epochs: int, images: int, tests: int, speed: Speed, warm: float = 0.0) -> Timed:
    """A training of that speed, whose first epoch takes `warm` seconds more."""
    curve, now = [], warm
    for epoch in range(1, epochs + 1):
        now += images * speed.train + (tests * speed.test if epoch in measured_epochs(epochs) else 0.0)
        curve.append(Epoch(epoch, now, 0.1, 0.2))
    result = FinetuneResult(0.1, 0.2, tuple(curve), speed.start + now, Path(), ARRIVAL)
    return Timed(result, images, tests)


def test_a_long_training_is_told_by_a_short_one() -> None:
    """As on FOD-A with 59 labels: nearly all of 25 epochs is for 13 tests; 625 epochs have 20, not 325."""
    speed = Speed(12.0, 0.04, 0.016)  # 2.36 s an epoch, 23.4 s a test of 1,462 images
    short, cell = trained(25, 59, 1462, speed, warm=5.0), Cell("main", "coco-longer", "1%", 0, 0.1, 625, 59)
    found = speed_of([short])
    assert found is not None
    assert (found.start, found.train, found.test) == pytest.approx((12.0, 0.04, 0.016))
    assert found.of(cell, 1462) == pytest.approx(12 + 625 * 2.36 + 20 * 23.392)
    assert short.result.seconds == pytest.approx(12 + 5 + 25 * 2.36 + 13 * 23.392)


def test_where_every_epoch_is_measured_a_test_image_is_a_part_of_another() -> None:
    found = speed_of([trained(4, 100, 50, Speed(5.0, 0.1, 0.04), warm=1.0), trained(1, 100, 50, Speed(3.0, 0.1, 0.04))])
    assert found is not None
    assert (found.start, found.train, found.test) == pytest.approx((4.0, 0.1, 0.04))
    assert speed_of([]) is None


def test_what_is_measured_as_it_is_tells_no_speed() -> None:
    speed, cell = Speed(5.0, 0.1, 0.04), Cell("main", "mine-as-is", "1%", 0, 0.1, 0, 100)
    as_is = Timed(FinetuneResult(0.1, 0.2, (Epoch(0, 2.0, 0.1, 0.2),), 7.0, Path(), ARRIVAL), 100, 50)
    found = speed_of([as_is, trained(40, 100, 50, speed)])
    assert found is not None
    assert (found.start, found.train, found.test) == pytest.approx((5.0, 0.1, 0.04))
    assert found.of(cell, 50) == pytest.approx(5 + 50 * 0.04), "it is tested once"
    assert speed_of([as_is]) is None


@pytest.mark.parametrize(
    ("done", "left", "places", "elapsed", "expected"),
    [
        ([10.0], [10.0, 10.0, 10.0], 2, 10.0, 10.0),  # one that runs beside it has ended, too; 2 x 10 on two places
        ([10.0], [60.0], 2, 10.0, 50.0),  # it runs since the beginning
        ([10.0], [60.0, 60.0, 6.0], 2, 10.0, 58.0),
        ([10.0], [60.0, 60.0], 1, 10.0, 120.0),
        ([40.0], [30.0], 2, 40.0, 1.5),  # longer than expected
        ([10.0], [12.0, 60.0], 1, 10.0, 72.0),
    ],
)
def test_what_is_left(
    done: Sequence[float], left: Sequence[float], places: int, elapsed: float, expected: float
) -> None:
    assert time_left(done, left, places, elapsed) == pytest.approx(expected)


def pretrained(folder: Path, seconds: Sequence[float], told: dict[str, Any] | None, **options: Any) -> Path:
    run = RunFolder.create(folder)
    run.write_settings({"batch": 8, **options}, {"search_seconds": 12.0, "shown": 2})
    for step, now in enumerate(seconds, start=1):
        run.metrics({"step": step, "loss": 1.0, "seconds": now})
    if told:
        run.teacher(told)
    run.close()
    return folder


def test_a_step_at_which_images_are_labelled_is_not_what_a_step_costs(tmp_path: Path) -> None:
    """Eight steps of 0.5 s, 40 s at the fifth for 100 images and the 60 with labels: 0.25 s each."""
    ends = [3.0, 3.5, 4.0, 4.5, 45.0, 45.5, 46.0, 46.5]
    told = {"passes": [{"images": 100}], "labelled": 60, "held_out": 10}
    found = pace_of(pretrained(tmp_path / "a", ends, told, teacher="vit"), 50)
    assert found == (pytest.approx(0.5), 12 / 50, 2, 8, pytest.approx(40.0), pytest.approx(0.25), 100)
    # 1,000 steps, of which the 900 images that were not labelled take 225 s; 40 s for those that were.
    assert found.seconds(1000, 1000) == pytest.approx(500 + 240 + 40 + 225)
    assert found.seconds(50, 1000) == pytest.approx(25 + 240 + 40 + 0.25 * 300), "no more than come in 50 steps of 8"
    # The detector names them itself: of those with labels the held-out ones alone are looked at.
    assert pace_of(pretrained(tmp_path / "b", ends, told), 50).look == pytest.approx(40 / 110)
    plain = pace_of(pretrained(tmp_path / "c", [3.0, 3.5, 4.0, 4.5, 5.1], None), 50)
    assert (plain.step, plain.once, plain.look) == (pytest.approx(0.5), 0, 0)
    assert Pace(0.5, 0.0, 2, 8).seconds(10, 10**6) == 5


@pytest.mark.parametrize(
    ("load", "cores", "words"),
    [(4.1, 2, "the machine is busy: load 4.1 on 2 cores"), (3.0, 2, ""), (2.6, 1, "load 2.6 on 1 core"), (9.0, 8, "")],
)
def test_a_busy_machine_is_said(load: float, cores: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert busy().endswith(words)
    assert bool(busy()) == bool(words)
