"""Runs whose processes, memory or storage give out: a sentence, exit status 1, and what can be saved is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from headstart.cli.command import main
from headstart.images.loader import _Batches
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
