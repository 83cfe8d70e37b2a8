from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import yaml

from headstart.errors import UserError
from headstart.jobs.pretrain import pretrain
from headstart.methods.schedules import Progress
from headstart.settings import resolve
from headstart.training import budget, checkpoint
from headstart.training.budget import LEAST, Pace, steps_within


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), ("45s", 45), ("1.5h", 5400), ("1h30m", 5400), (" 10M ", 600)]
    + [(wrong, None) for wrong in ("30", "", "m", "0m", "1.2.3m", "30m1h", "-5m", "soon")],
)
def test_times(text: str, seconds: float | None) -> None:
    assert resolve.budget_seconds(text) == seconds


def test_a_budget_that_is_not_a_duration() -> None:
    with pytest.raises(UserError, match="budget: '30' is not a duration"):
        tiny.resolve({"data": "x", "budget": 30})
    with pytest.raises(UserError, match="steps, budget: give one of the two, not both"):
        tiny.resolve({"data": "x", "budget": "3m", "steps": 3})


def test_steps_by_hand() -> None:
    even = Pace(0.5, 0.5)
    assert steps_within(600, even) == 1140  # 95 % of 600 s
    assert steps_within(600, even, spent=20) == 1100
    with pytest.raises(UserError, match=r"budget: 10 s is too short: a step takes 60 s.*\n.*give 6 min 19 s or more"):
        steps_within(10, Pace(60, 60))


def test_a_first_epoch_that_reads_is_slower() -> None:
    """95 s: 20 steps of 1 s read all images, 150 of 0.5 s follow."""
    assert steps_within(100, Pace(1.0, 0.5, epoch=20)) == 20 + 150
    assert steps_within(10, Pace(1.0, 0.5, epoch=20)) == 9


class Batches(list[torch.Tensor]):
    """What a loader brings."""

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class Clock:
    """A step of which each is as long as its phase says, of a method of two phases, and what brings its batches."""

    fabric = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seen = 0.0, []  # type: ignore[var-annotated]
        self.method = torch.nn.Linear(1, 1)
        self.method.phases = lambda steps: [range(6000), range(6000, steps)]  # type: ignore[assignment]
        self.method.long_ahead = lambda progress: False  # type: ignore[assignment]
        monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def views(self, batch: torch.Tensor, progress: Progress) -> list[torch.Tensor]:
        return [batch]

    def __call__(self, views: list[torch.Tensor], progress: Progress) -> torch.Tensor:
        self.seen.append((int(views[0]), progress.step))
        self.now += 1.0 if progress.step < 6000 else 0.25
        return torch.zeros(())

    @staticmethod
    def batches(steps: range) -> Any:
        return Batches(torch.tensor(step) for step in steps)


def test_a_step_of_each_phase_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of ten steps take 1 s, four 0.25 s: 0.7 s a step; the batches are those of the steps."""
    clock = Clock(monkeypatch)
    pace = budget.measure(clock, clock.batches, budget=1e9, epoch=5, cached=False)  # type: ignore[arg-type]
    assert pace == Pace(pytest.approx(0.7), pytest.approx(0.7))  # type: ignore[arg-type]
    assert all(batch == step for batch, step in clock.seen)
    steps = [step for _, step in clock.seen]
    assert steps == [*range(32), *range(6001, 6033)]  # not 6000, at which images may be labelled


def test_phases_share_the_time_for_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 % of 400 s are 20: ten for each phase, which are over after ten steps of 1 s, and more than 32 of 0.25 s."""
    clock = Clock(monkeypatch)
    budget.measure(clock, clock.batches, budget=400, epoch=5, cached=False)  # type: ignore[arg-type]
    assert [step for _, step in clock.seen] == [*range(11), *range(6001, 6033)]


def test_a_budget_sets_the_steps_and_leaves_everything_else_as_it_was(image_folder: Path, tmp_path: Path) -> None:
    """The run is the one with as many steps; a resumed one follows the same schedules, however fast it now is."""
    common = {"data": str(image_folder), "method": "densecl", "hidden_dim": 32, "queue": 64, "batch": 4, "imgsz": 64}
    common |= {"workers": 0, "device": "cpu", "report": False, "log_every": 1, "save_every": 1000}
    budget, plain = tmp_path / "budget", tmp_path / "plain"
    began = time.perf_counter()
    pretrain(**common, budget="6s", out=str(budget))
    assert time.perf_counter() - began < 40  # about 6 s; the wide margin is for a machine that is busy
    found = yaml.safe_load((budget / "settings.yaml").read_text())
    steps = found["resolved"]["steps"]
    assert found["options"]["budget"] == "6s"
    assert steps > LEAST
    pretrain(**common, steps=steps, out=str(plain))
    ends = [checkpoint.newest(out / "checkpoints")[0]["method"] for out in (budget, plain)]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items() if isinstance(one, torch.Tensor))
    run = pretrain(out=str(budget), resume=True)
    assert run.step == steps
    rates = [json.loads(line)["lr"] for line in (budget / "metrics.jsonl").read_text().splitlines()]
    assert rates == [json.loads(line)["lr"] for line in (plain / "metrics.jsonl").read_text().splitlines()]
