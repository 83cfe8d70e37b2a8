from __future__ import annotations

import pytest
import torch

from headstart.run.clock import PARTS, Clock, advice, sentence, time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> tuple[Clock, list[float]]:
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return Clock(torch.device("cpu")), now


def test_shares_are_of_the_time_since_the_last_reading(clock: tuple[Clock, list[float]]) -> None:
    watch, now = clock
    for part, seconds in [("wait", 1.0), ("views", 2.0), ("step", 5.0), ("other", 0.5), ("wait", 1.5)]:
        watch.start(part)
        now[0] += seconds
    assert watch.shares() == pytest.approx({"wait": 0.25, "views": 0.2, "step": 0.5, "other": 0.05})
    watch.start("step")
    now[0] += 10.0
    assert watch.shares() == pytest.approx({"wait": 0.0, "views": 0.0, "step": 1.0, "other": 0.0})
    assert watch.overall() == pytest.approx({"wait": 0.125, "views": 0.1, "step": 0.75, "other": 0.025})


def test_nothing_measured_is_no_division_by_zero(clock: tuple[Clock, list[float]]) -> None:
    assert set(clock[0].shares().values()) == {0.0}


@pytest.mark.parametrize(
    ("shares", "facts", "words"),
    [
        ((0.6, 0.1, 0.3, 0.0), {"cache": "off", "device": "cuda:0"}, "waiting 60%: more workers, or cache=disk"),
        ((0.6, 0.1, 0.3, 0.0), {"cache": "disk", "device": "cuda:0"}, "waiting 60%: more workers would help"),
        ((0.0, 0.1, 0.5, 0.4), {}, "save_every"),
        ((0.0, 0.6, 0.4, 0.0), {}, "local crops"),
        ((0.0, 0.1, 0.9, 0.0), {"device": "cpu"}, "only a GPU"),
        ((0.0, 0.1, 0.9, 0.0), {"device": "cuda:0", "precision": "32-true"}, "precision=bf16"),
        ((0.0, 0.1, 0.9, 0.0), {"device": "cuda:0", "precision": "bf16-mixed"}, "a faster GPU"),
    ],
)
def test_advice(shares: tuple[float, ...], facts: dict[str, str], words: str) -> None:
    assert words in advice(dict(zip(PARTS, shares, strict=True)), facts)


def test_sentence() -> None:
    shares = {"wait": 0.031, "views": 0.12, "step": 0.84, "other": 0.009}
    assert sentence(shares) == "time: waiting for images 3 %, views 12 %, step 84 %, other 1 %"
