"""``batch=auto``: what fits is found by real steps, which change nothing, and the number is kept."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

import headstart
from headstart import machine
from headstart.errors import RunError, UserError
from headstart.jobs import batch
from headstart.jobs.prepare import check_options, prepare
from headstart.training import checkpoint
from headstart.training.memory import BatchTrial, fitting_batch
from small import SMALL

MIB = 2**20
CPU = torch.device("cpu")
CASE: dict[str, Any] = {"method": "simclr", "imgsz": 64, "workers": 0, "device": "cpu", "report": False, "steps": 2}


@pytest.fixture
def given(image_folder: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "small.yaml").write_text(SMALL)
    return {**CASE, "data": str(image_folder), "model": str(tmp_path / "small.yaml"), "precision": "32"}


def job(given: dict[str, Any], most: int) -> Any:
    return prepare({**given, "batch": most})


@pytest.mark.parametrize(
    ("images", "own", "most"), [(24, 64, 16), (1_000, 64, 64), (1_000, 48, 32), (3, 64, 2), (1, 64, 2)]
)
def test_bounds(images: int, own: int, most: int) -> None:
    class Case:
        class run:  # noqa: N801
            batch_size = own

        class declared:  # noqa: N801
            name = "dino"

    Case.images = [0] * images  # type: ignore[attr-defined]
    assert batch._most(Case)[0] == most  # type: ignore[arg-type]


@pytest.mark.parametrize(("label_imgsz", "step"), [(None, 0), (256, 0), (64, 3501)])
def test_the_largest_views_are_tried(label_imgsz: int | None, step: int) -> None:
    """Burn-in is the first 3,500 of 10,000 steps; before step 3,500 images are labelled."""
    assert batch.largest_step(tiny.build("selftrain", label_imgsz=label_imgsz)).step == step


def test_a_step_before_which_images_are_labelled_is_never_tried() -> None:
    """Another detector labels before the very first one; a training of a thousand images began with it, twice."""
    made = tiny.build("selftrain", burn_in=0.35)
    assert batch.largest_step(made).step == 0
    made._plan = replace(made._plan, burn_in=0.0, labelled_at_once=True)  # type: ignore[has-type]
    assert batch.largest_step(made).step == 1


def limited(pipe: Any, given: dict[str, Any], room: int) -> None:
    """Tries batches in a process that may take `room` bytes more than it has; which of them ran out of memory."""
    torch.set_num_threads(1)
    found = job(given, 512)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    most = int(status["VmData"].split()[0]) * 1024 + room
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))  # of the process that it begins, too
    pipe.send(batch._tried(found, CPU, 512, 2**40))


def test_memory_that_really_runs_out(given: dict[str, Any]) -> None:
    """96 MiB are enough for a few images of this network, and not for 512.

    By hand: each image has two views of 3 x 64 x 64 floats (98 KB) and, at stride 2, maps of 8 x 32 x 32 floats three
    times over for both (197 KB), before gradients: 8 images 2.4 MB, 512 images 150 MB. Where the limit is met differs:
    torch raises, oneDNN raises without saying why, and other libraries end the process.
    """
    # A new process: what the tests before have freed is still this one's, and would be used beyond the limit.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=limited, args=(theirs, given, 96 * MIB))
    process.start()
    theirs.close()
    tried = ours.recv()
    process.join()
    fits = fitting_batch(tried, 2**40)
    assert fits is not None
    assert 2 <= fits < 512
    assert tried[2 * fits] is None


@pytest.mark.parametrize("said", ["could not create a primitive", "could not execute a primitive"])
@pytest.mark.parametrize(("fits", "tried"), [(8, {8: 0, 16: None}), (2, {8: None, 4: None, 2: 0})])
def test_an_error_without_a_cause_is_told_by_smaller_batches(
    said: str, fits: int, tried: dict[int, int | None], given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of oneDNN's error smaller batches tell whether memory was the cause: they fit, or fail as well."""

    def steps(self: Any, number: int) -> int:
        if number > fits:
            raise RuntimeError(said)
        return 0

    monkeypatch.setattr(batch._Trial, "_steps", steps)
    monkeypatch.setattr(batch, "_peak", lambda device: 0)
    trial = batch.measured_batch(job(given, 16))
    assert trial.batch == fits
    assert trial.tried == tried
    assert f"those of {2 * fits} images ran out of memory" in trial.why


def test_an_error_without_a_cause_in_every_batch_is_none_of_memory(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(self: Any, number: int) -> int:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(batch._Trial, "_steps", steps)
    trial = batch.measured_batch(job(given, 16))
    assert (trial.batch, trial.tried) == (16, {})
    assert "RuntimeError: could not create a primitive" in trial.why


def test_a_trial_that_the_system_ends(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = batch._Trial.__call__

    def killed(self: Any, number: int) -> int | None:
        if number >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return steps(self, number)

    monkeypatch.setattr(batch._Trial, "__call__", killed)
    trial = batch.measured_batch(job(given, 16))
    assert trial.batch == 4
    assert list(trial.tried) == [8, 4]
    assert "those of 8 images ran out of memory" in trial.why


def test_what_is_no_matter_of_memory_is_left_to_the_run(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, number: int) -> int | None:
        raise batch._FailedError("ValueError: shapes differ")

    monkeypatch.setattr(batch._Trial, "__call__", wrong)
    trial = batch.measured_batch(job(given, 16))
    assert (trial.batch, trial.tried) == (16, {})
    assert "ValueError: shapes differ" in trial.why


def test_the_run_is_that_of_the_number(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are bit for bit those of a run with the number; a resumed run does not measure again."""
    monkeypatch.setattr(batch, "_free", lambda device: 2**40)
    # By the batch's size alone, so that this test is of what follows from it: 8 fit, 16 do not.
    monkeypatch.setattr(batch, "_peak", lambda device: 0)
    steps = batch._Trial.__call__
    monkeypatch.setattr(batch._Trial, "__call__", lambda self, number: steps(self, number) * 0 + number * 2**36)
    auto, plain = tmp_path / "auto", tmp_path / "plain"
    given = {**given, "lr_for": 32, "steps": 3, "save_every": 2}
    headstart.pretrain(**given, batch="auto", out=str(auto))
    headstart.pretrain(**given, batch=8, out=str(plain))
    found = yaml.safe_load((auto / "settings.yaml").read_text())
    assert (found["options"]["batch"], found["asked"]["batch"]) == (8, "auto")
    assert found["options"]["lr"] == yaml.safe_load((plain / "settings.yaml").read_text())["options"]["lr"]
    assert found["resolved"]["batch_trial"]["tried"] == {8: 8 * 2**36}
    assert (
        "batch=8: its steps take 512.0 GiB beyond what is in use; those of 16 images would take 1024.0 GiB"
        in (auto / "log.txt").read_text()
    )
    ends = [checkpoint.newest(out / "checkpoints")[0]["method"] for out in (auto, plain)]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items() if isinstance(one, torch.Tensor))
    monkeypatch.setattr("headstart.jobs.pretrain.measured_batch", pytest.fail)
    assert headstart.pretrain(**given, batch="auto", out=str(auto), resume=True).step == 3


def test_refusals(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "batch: must be a number here" in str(UserError.several(check_options({**given, "batch": "auto"})))
    with pytest.raises(UserError, match="batch: must be at least 2"):
        prepare({**given, "batch": 1})
    steps = batch._Trial.__call__
    monkeypatch.setattr(batch._Trial, "__call__", lambda self, number: (steps(self, number) or 0) + 2**31)
    monkeypatch.setattr(machine, "memory", lambda: 2**30)
    with pytest.raises(RunError, match=r"batch: steps of 2 images need 2.0 GiB more than is in use, over the 819 MiB"):
        prepare({**given, "batch": "auto"}, batch.measured_batch)


def test_what_cannot_be_measured(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = job(given, 64)
    monkeypatch.setattr(batch, "own_device", lambda *_: "mps")
    assert batch.measured_batch(found) == BatchTrial(
        16, "batch=16, as there are 24 images: what memory mps has room for cannot be measured"
    )


def test_a_trial_ends_whose_run_was_gone_before_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_here", lambda *_: time.sleep(60))
    context = multiprocessing.get_context("fork")
    gone = context.Process(target=int)
    gone.start()
    gone.join()
    ours, theirs = context.Pipe()
    trial = context.Process(target=batch._child, args=(theirs, gone.pid, None, CPU, 2, MIB), daemon=True)
    trial.start()
    trial.join(30)
    ended = trial.exitcode
    trial.kill()
    ours.close()
    assert ended == 1
