"""Runs whose processes, memory or storage give out: a sentence, exit status 1, and what can be saved is."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from headstart.cli.command import main
from headstart.detectors.handback import Dropped, HandBack, PartCount
from headstart.errors import UserError
from headstart.images.loader import _Batches
from headstart.jobs.pretrain import _Pretraining, pretrain
from headstart.run.folder import RunFolder
from headstart.training.step import Step

WORDS = (
    "pretrain model=yolo11n.yaml method=simclr batch=4 imgsz=64 steps=5 precision=32 device=cpu report=false "
    "log_every=1 cache=off"
)


def run(data: Path, out: Path, *more: str) -> int:
    return main([*WORDS.split(), f"data={data}", f"out={out}", *more])


def test_a_killed_loader_process_ends_a_run_that_can_be_gone_on_with(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    ordinary = _Batches.__getitem__

    def killed(self: _Batches, step: int) -> object:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return ordinary(self, step)

    monkeypatch.setattr(_Batches, "__getitem__", killed)
    assert run(image_folder, tmp_path / "a", "workers=1") == 1
    told = capsys.readouterr().err
    assert "headstart: workers: a loader process was ended by the system" in told
    assert "is saved: resume=true goes on from there" in told
    assert "Traceback" not in told
    saved = sorted(path.name for path in (tmp_path / "a" / "checkpoints").glob("step-*.pt"))
    assert saved
    monkeypatch.undo()
    assert run(image_folder, tmp_path / "a", "workers=1", "resume=true") == 0
    assert run(image_folder, tmp_path / "b", "workers=0") == 0
    # Bit for bit the run that nothing happened to.
    ours, other = (torch.load(tmp_path / name / "headstart.pt", weights_only=False)["model"] for name in "ab")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_run_whose_output_takes_no_more_goes_on_to_its_end(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch job the file that its output goes to: before, all since the last checkpoint was lost."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run(image_folder, tmp_path / "a", "workers=0") == 0
    assert (tmp_path / "a" / "headstart.pt").is_file()
    assert "5 steps" in (tmp_path / "a" / "log.txt").read_text()


def test_whatever_ends_a_run_is_in_its_log(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its output goes nowhere, that is all that tells."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("an odd one")

    monkeypatch.setattr(Step, "_gradients", broken)
    with pytest.raises(ZeroDivisionError):
        run(image_folder, tmp_path / "a", "workers=0")
    log = (tmp_path / "a" / "log.txt").read_text()
    assert " stopped: Traceback (most recent call last):\n" in log
    assert log.endswith("\n    ZeroDivisionError: an odd one\n")


def test_a_run_that_was_killed_before_it_had_a_folder_begins_by_resume(image_folder: Path, tmp_path: Path) -> None:
    """As a scheduler starts it again, which cannot know how far it came; without data= there is nothing to begin."""
    (tmp_path / "b").mkdir()
    for name in "ab":
        with pytest.raises(UserError, match="there is no run to resume"):
            pretrain(out=str(tmp_path / name), resume=True)
        assert run(image_folder, tmp_path / name, "workers=0", "resume=true") == 0
        assert "no run had begun in this folder: it begins now" in (tmp_path / name / "log.txt").read_text()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    assert run(image_folder, tmp_path / "c", "workers=0", "resume=true") == 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["mine.txt"]


def test_memory_that_runs_out_ends_a_run_with_a_sentence(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Step, "_gradients", full)
    assert run(image_folder, tmp_path / "a", "workers=0") == 1
    told = capsys.readouterr().err
    assert "ran out at step 0: a step of 4 images of 64 pixels" in told
    assert "batch=" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("whole", [True, False])
def test_a_finished_run_that_goes_on_has_its_detector_until_it_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Before, it was removed first: where the disk was full then, a finished run was none any more."""
    part = {"backbone": PartCount(1, 1, int(whole))}
    found = HandBack(part, () if whole else (Dropped("a", "backbone", True, "lost"),))

    class Detector:
        full = True

        def save(self, path: Path, info: object) -> None:
            if self.full:
                raise UserError("the disk is full")
            path.write_bytes(b"new")

        def verify(self, path: Path, trained: object) -> HandBack:
            return found

    run = SimpleNamespace(export="student")
    job = SimpleNamespace(declared=SimpleNamespace(name="simclr"), run=run, given=None)
    folder = RunFolder.create(tmp_path / "a")
    folder.result.write_bytes(b"old")
    work = SimpleNamespace(job=job, folder=folder, detector=Detector(), images=[])
    with pytest.raises(UserError, match="full"):
        _Pretraining._hand_back(work, {"a"}, 4)  # type: ignore[arg-type]
    assert folder.result.read_bytes() == b"old"
    work.detector.full = False
    assert _Pretraining._hand_back(work, {"a"}, 4) == found  # type: ignore[arg-type]
    assert not whole or folder.result.read_bytes() == b"new"
    assert folder.result.exists() == whole
