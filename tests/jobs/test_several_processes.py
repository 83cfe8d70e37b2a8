"""One run in two processes: it is the run that one process makes, with one of all that a run has once."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import headstart
from headstart.errors import RunError, UserError
from headstart.jobs import outlook
from headstart.training import checkpoint, loop
from headstart.training.turns import next_turn
from processes import in_processes
from small import SMALL

OWN_METHOD = '''
"""The mean over images of what two linear layers make of them: no image is looked at beside another."""

from torch import Tensor, nn

from headstart.methods.base import Method, pooled
from headstart.settings.method_options import MethodSettings
from headstart.views.spec import pair_specs


class Settings(MethodSettings):
    pass


class Apart(Method):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.head = nn.Linear(self.widths[-1], 4)

    def view_specs(self):
        return pair_specs(self.context.imgsz, (0.3, 1.0))

    def forward(self, views, progress) -> Tensor:
        one, other = (self.head(pooled(self.student(view.images))).float() for view in views)
        return (one - other + 1).square().mean()
'''
COMMON = {
    "batch": 8, "imgsz": 32, "steps": 4, "workers": 0, "precision": "32", "device": "cpu", "log_every": 1,
    "probe_every": 0, "report": False, "cache": "off", "save_every": 2, "optimizer": "sgd", "lr": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.yaml").write_text(SMALL)
    (folder / "apart.py").write_text(OWN_METHOD)
    return folder


def pretrain(files: Path, data: Path, out: Path, **options: Any) -> headstart.Run:
    own = {"model": str(files / "small.yaml"), "method": str(files / "apart.py"), "data": str(data), "out": str(out)}
    return headstart.pretrain(**{**COMMON, **own, **options})


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def trained(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.newest(folder / "checkpoints")[0]["method"]
    return state


@pytest.fixture(scope="module")
def one(files: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that one process makes."""
    return pretrain(files, image_folder, tmp_path_factory.mktemp("one") / "run").folder


def test_two_processes_make_the_run_of_one(files: Path, image_folder: Path, one: Path, tmp_path: Path) -> None:
    """Images, views, batch norm and gradients are those of the joined batch; there is one of all files."""
    out = tmp_path / "two"

    def work(rank: int) -> tuple[Any, ...]:
        run = pretrain(files, image_folder, out, devices=2)
        if rank == 0:
            shutil.copytree(out, tmp_path / "again")
            (tmp_path / "again" / "checkpoints" / "step-00000004.pt").unlink()
        pretrain(files, image_folder, tmp_path / "again", devices=2, resume=True)
        return run.folder, run.checkpoint, run.step, run.ok

    first, second = in_processes(2, work, tmp_path)
    again = trained(tmp_path / "again")
    assert all(torch.equal(again[name], tensor) for name, tensor in trained(out).items())
    assert first == second == (out, out / "headstart.pt", 4, True)
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 4]
    assert losses(out) == pytest.approx(losses(one), rel=1e-4)
    torch.testing.assert_close(trained(out), trained(one), rtol=1e-3, atol=1e-5)
    assert {path.name for path in out.iterdir()} == {path.name for path in one.iterdir()}
    lines = (out / "log.txt").read_text()
    assert lines.count("2 processes, one a device, take 4 images of each batch at once; batch norm is over all") == 1
    assert yaml.safe_load((out / "settings.yaml").read_text())["resolved"]["processes"] == 2


def test_a_signal_to_one_stops_and_saves_all_and_one_goes_on(
    files: Path, image_folder: Path, one: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"

    def work(rank: int) -> tuple[int, bool]:
        def turn(batches: Iterator[Any], stop: bool) -> Any:
            if rank == 1 and len(taken) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            taken.append(stop)
            return next_turn(batches, stop)

        taken: list[bool] = []
        loop.next_turn = turn  # in this process alone: a test's is a copy
        run = pretrain(files, image_folder, out, devices=2)
        return run.step, run.interrupted

    assert in_processes(2, work, tmp_path) == [(3, True)] * 2  # the step at which it came is the last
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002.pt", "step-00000003.pt"]
    run = pretrain(files, image_folder, out, resume=True, devices=1)
    assert (run.step, run.ok) == (4, True)
    assert losses(out) == pytest.approx(losses(one), rel=1e-4)
    torch.testing.assert_close(trained(out), trained(one), rtol=1e-3, atol=1e-5)
    assert (
        "began with processes=2, accumulate=1, sync_bn=True, goes on with processes=1" in (out / "log.txt").read_text()
    )


def test_what_ends_one_ends_all_with_its_words(files: Path, image_folder: Path, tmp_path: Path) -> None:
    """Its loader gives out in the third step: the second is saved, the first process tells of it."""
    out = tmp_path / "two"

    def work(rank: int) -> tuple[str, bool]:
        def turn(batches: Iterator[Any], stop: bool) -> Any:
            taken.append(stop)
            return next_turn(broken() if rank == 1 and len(taken) == 3 else batches, stop)

        def broken() -> Iterator[Any]:
            raise RunError("the disk is gone", where="data")
            yield

        taken: list[bool] = []
        loop.next_turn = turn
        with pytest.raises(RunError) as error:
            pretrain(files, image_folder, out, devices=2, save_every=100)
        return str(error.value), error.value.told

    (first, told), (second, _) = in_processes(2, work, tmp_path)
    assert first == second == "data: the disk is gone\n  -> step 2 is saved: resume=true goes on from there"
    assert not told
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002.pt"]


def test_what_a_run_takes_and_the_batch_are_tried_beforehand(
    files: Path, image_folder: Path, one: Path, tmp_path: Path
) -> None:
    """Of 24 images each of two processes takes 12 at most, and so 8; who has no images for a trial ends it for all."""

    def work(rank: int) -> int:
        outlook.SHORT = 1
        pretrain(files, image_folder, tmp_path / "two", devices=2)
        if rank == 1:
            outlook.FileReader = broken  # in this process alone: a test's is a copy
        vars(multiprocessing.current_process())["_config"]["daemon"] = False  # the batch is tried in a child
        return pretrain(files, image_folder, tmp_path / "auto", devices=2, batch="auto", steps=1).step

    def broken(*_: Any) -> Any:
        raise RunError("the disk is gone", where="data")

    assert in_processes(2, work, tmp_path) == [1, 1]
    said = (tmp_path / "two" / "log.txt").read_text()
    assert len(re.findall(r"about .*: 4 steps of 8 images .* \(estimate from a trial", said)) == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-4), "the trial changes nothing"
    said = (tmp_path / "auto" / "log.txt").read_text()
    assert "estimate" not in said
    assert "batch=16, 2 parts; of one of them batch=8: its steps take" in said
    assert yaml.safe_load((tmp_path / "auto" / "settings.yaml").read_text())["options"]["batch"] == 16


def test_a_mistake_in_what_is_asked_is_raised_in_all(files: Path, image_folder: Path, tmp_path: Path) -> None:
    def work(rank: int) -> str:
        with pytest.raises(UserError) as error:
            pretrain(files, image_folder, tmp_path / "two", devices=2, batch=9, accumulate=2, nonsense=1)
        return str(error.value)

    first, second = in_processes(2, work, tmp_path)
    assert first == second
    assert "there is no option 'nonsense'" in first
    assert "batch: 9 images cannot be shared out to 2 devices and 2 parts each: each takes as many" in first
    assert "give 8 or 12, or another multiple of 4" in first
    assert not (tmp_path / "two").exists()
