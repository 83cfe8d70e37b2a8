"""What a run will take, said before it begins, and that saying so changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from ultralytics import YOLO

import headstart
from headstart.images.index import find_images
from headstart.jobs import outlook
from headstart.jobs.outlook import Outlook, Taken, together
from processes import in_processes
from small import small_checkpoint

SMALL: dict[str, Any] = {"batch": 8, "imgsz": 64, "workers": 0, "device": "cpu", "report": False, "precision": "32"}


def test_what_is_said() -> None:
    """By hand: 1,000 steps of 1.98 s are 33 min; 5,000 of 2 s are 2 h 47 min."""
    assert Outlook(1_000, 32, 1.98, 120.0).sentence() == (
        "about 35 min: search 2 min 00 s, 1,000 steps of 32 images 33 min (estimate from a trial)"
    )
    assert Outlook(5_000, 64, 2.0).sentence() == (
        "about 2 h 47 min: 5,000 steps of 64 images 2 h 47 min (estimate from a trial)"
        "; budget=30m would make it half an hour"
    )
    for imgsz, smaller in ((416, ""), (448, ", imgsz=224 about a quarter"), (640, ", imgsz=320 about a quarter")):
        assert Outlook(5_000, 64, 2.0, imgsz=imgsz).sentence().endswith(f"make it half an hour{smaller}")
    assert "imgsz" not in Outlook(1_000, 32, 1.98, 120.0, imgsz=640).sentence()
    crowded = "the machine is busy: load 4.1 on 2 cores"
    assert Outlook(1_000, 32, 1.98, 120.0, 0.5, crowded).sentence() == (
        "about 35 min: search 2 min 00 s, 1,000 steps of 32 images 33 min (estimate from a trial; the machine is busy: "
        "load 4.1 on 2 cores, 18 min or more when it is not)"
    )
    assert Outlook(1_000, 32, 1.98, 0.0, 0.95, crowded).sentence().endswith(f"a trial; {crowded})")
    assert Outlook(1_000, 32, 1.98, 0.0, 0.5).sentence().endswith("(estimate from a trial)")
    told = "(estimate from a trial; the time in which its teacher labels images comes on top)"
    assert Outlook(1_000, 32, 1.98, 0.0, 0.5, labels=True).sentence().endswith(told)


def test_reading_beside_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "own_cores", lambda: 4)
    assert together(2.0, 3.0, 0, "cuda") == 5.0  # in turn
    assert together(2.0, 3.0, 2, "cpu") == 3.5  # readers take a share of the cores
    assert together(2.0, 3.0, 2, "cuda") == 3.0  # hidden
    assert together(8.0, 3.0, 2, "cuda") == 4.0  # the two readers limit it


def test_a_step_of_each_phase_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Burn-in on larger views, a quarter of the steps, 2 s each; the others 0.4 s: 0.8 s a step."""
    made = tiny.build("selftrain", label_imgsz=256, burn_in=0.25, settle=0.2)
    seen: list[int] = []

    def taken(progress: Any, job: Any, method: Any, *_: Any) -> Taken:
        seen.append(progress.step)
        return Taken(2.0, 1.0) if method.specs_at(progress)[0].size == 256 else Taken(0.4, 0.1)

    monkeypatch.setattr(outlook, "_at", taken)
    given: Any = None
    found = outlook._step(given, made, given, 8, given)
    assert found == pytest.approx((0.25 * 2 + 0.75 * 0.4, 0.25 * 1 + 0.75 * 0.1))
    assert seen == [0, 2501]  # of 10,000; at 2,500 images are labelled
    seen.clear()
    assert outlook._step(given, tiny.build("selftrain"), given, 8, given) == pytest.approx((0.4, 0.1))
    assert seen == [0], "views of one size need no second trial"


@pytest.mark.parametrize("method", ["objects", "byol"])
def test_the_trial_changes_no_run(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    torch.manual_seed(3)
    small_checkpoint(tmp_path / "trained.pt", 3)
    own = {"clusters": 4} if method == "objects" else {"hidden_dim": 32}
    given = {**SMALL, **own, "data": str(image_folder), "model": str(tmp_path / "trained.pt"), "method": method}
    states, logs = [], []
    for name, short in (("tried", 1), ("untried", 10_000)):
        monkeypatch.setattr(outlook, "SHORT", short)
        run = headstart.pretrain(**given, steps=2, out=str(tmp_path / name))
        states.append(YOLO(str(run.checkpoint)).model.state_dict())
        logs.append((run.folder / "log.txt").read_text())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    found = "search .*, " if method == "objects" else ""
    said = re.search(rf"about .*: {found}2 steps of 8 images .* \(estimate from a trial[^)]*\)", logs[0])
    assert said is not None
    assert "estimate" not in logs[1]
    if method == "objects":  # before the search
        assert said.start() < logs[0].index("searching")


def test_a_time_that_is_given_is_not_estimated(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.jobs.prepare import prepare

    monkeypatch.setattr(outlook, "SHORT", 1)
    job = prepare({**SMALL, "data": str(image_folder), "method": "byol", "budget": "30m"})
    assert outlook.outlook(job, pytest.fail, None) is None  # type: ignore[arg-type]


def test_a_search_is_shared_by_all_processes(tmp_path: Path) -> None:
    """Tried in the first alone, at 1 s an image: 10,000 images of two processes take 5,000 s."""
    for number in range(40):
        (tmp_path / f"{number}.jpg").touch()
    needs = SimpleNamespace(pseudolabels=True, labels=False)
    run = SimpleNamespace(budget=None, batch_size=10, accumulate=1, device="cpu", devices="1", imgsz=64)
    index = find_images(tmp_path)

    class Images:
        def __len__(self) -> int:
            return 10_000

    job: Any = SimpleNamespace(record=None, run=run, steps=1_000, images=Images())
    job.declared = SimpleNamespace(method=SimpleNamespace(needs=needs))

    def work(rank: int) -> float:
        stand_ins = {"loaded": lambda job: None, "search_few": lambda *_: (None, 1.0), "_step": lambda *_: Taken(1, 1)}
        for name, one in {**stand_ins, "some_of": lambda images, number: index}.items():
            setattr(outlook, name, one)
        found = outlook.outlook(job, lambda labels: Any, None)  # type: ignore[arg-type, return-value]
        assert found is not None
        return found.search

    assert in_processes(2, work, tmp_path) == [5_000, 5_000]
