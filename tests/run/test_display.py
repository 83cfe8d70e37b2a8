from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from headstart.run.display import Display, Filling, duration, time


def shown(cached: float | None, *epochs: float) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    display = Display(steps=len(epochs), console=console, cached=cached)
    for step, epoch in enumerate(epochs, start=1):
        display.update(step, epoch, {"loss": 1.5}, 20.0, [], skipped=0)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_how_far_the_cache_is_while_it_fills() -> None:
    lines = shown(0.5, 0.0, 0.5, 1.0)
    assert [line.endswith(" cached") for line in lines] == [True, True, False]
    assert "50% cached" in lines[0]
    assert "75% cached" in lines[1]


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    assert "25% cached" in shown(0.0, 3.0, 3.25)[1]


@pytest.mark.parametrize("cached", [None, 1.0])
def test_nothing_is_said_where_nothing_is_filled(cached: float | None) -> None:
    assert not any("cached" in line for line in shown(cached, 0.1, 0.2))


def test_outside_a_terminal_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    filling = Filling(console, "finding objects")
    for done in range(1000, 5000, 1000):  # 1,000 images in 20 seconds
        now = done / 50
        filling(done, 4000)
    assert console.file.getvalue() == "finding objects: 2,000 of 4,000 images, 40 s left\n"  # type: ignore[attr-defined]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (45, 200, 7500)] == ["45 s", "3 min 20 s", "2 h 05 min"]
    assert [duration(seconds) for seconds in (0, 0.04, 0.4, 1.2, math.nan)] == [
        *("0 s", "0.0 s", "0.4 s", "1 s", "an unknown time"),
    ]
