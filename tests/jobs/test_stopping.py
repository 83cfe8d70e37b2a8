"""A real process, its loader processes beside it, asked to stop as a system asks: everything is saved."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (
    "pretrain model=yolo11n.yaml batch=4 imgsz=64 locals=0 steps=10000 hidden_dim=32 output_dim=64 workers=0 "
    "precision=32 device=cpu log_every=1 probe_every=0 cache=off report=false"
)


def started(images: Path, out: Path) -> subprocess.Popen[str]:
    """A run that has done a step."""
    command = [sys.executable, "-m", "headstart", *COMMAND.split(), f"data={images}", f"out={out}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 300
    while not ((out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs the signals of Unix")
def test_signals_to_the_group_save_and_say_how_to_go_on(image_folder: Path, tmp_path: Path) -> None:
    """Slurm's warning and its end; twice, where a launcher hands on what its children get anyway."""
    out = tmp_path / "a run"
    process = started(image_folder, out)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        os.killpg(process.pid, number)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130, said
    assert "everything is saved. To go on:" in said
    assert shlex.join(["headstart", "pretrain", "resume=true", f"out={out}"]) in said
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{steps:08d}.pt"]
