"""Real commands: the processes that headstart starts beside itself, and those that torchrun starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small import SMALL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

COMMON = (
    "pretrain method=simclr batch=8 imgsz=32 workers=0 precision=32 device=cpu log_every=1 save_every=1 probe_every=0 "
    "cache=off report=false hidden_dim=16 output_dim=8"
)


def started(folder: Path, images: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "small.yaml").write_text(SMALL)
    own = [f"data={images}", f"out={folder / 'out'}", f"model={folder / 'small.yaml'}", *more]
    command = [sys.executable, "-m", "headstart", *COMMON.split(), *own]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def steps(folder: Path) -> list[int]:
    path = folder / "out" / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(image_folder: Path, tmp_path: Path) -> None:
    process = started(tmp_path, image_folder, "devices=2", "steps=100000")
    until = time.monotonic() + 300
    while len(steps(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    (other,) = children(process.pid)
    os.kill(other, signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1, said
    assert "headstart: process 1 of the run ended: SIGKILL ended it; the system does that where memory runs out" in said
    assert "-> resume=true goes on from the last checkpoint" in said
    assert "Traceback" not in said
    assert not Path(f"/proc/{other}").exists()
    assert len(list((tmp_path / "out" / "checkpoints").glob("step-*.pt"))) == 2
    assert "process 1 of the run ended" in (tmp_path / "out" / "log.txt").read_text()


def test_processes_that_torchrun_starts_make_one_run(image_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [started(tmp_path, image_folder, "steps=3", RANK=str(n), LOCAL_RANK=str(n), **said) for n in (0, 1)]
    (_, first), (out, second) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], first + second
    assert "fine-tune: yolo detect train" in first
    assert "fine-tune" not in out + second
    assert "images, small" not in out + second
    assert steps(tmp_path) == [1, 2, 3]
    assert json.loads((tmp_path / "out" / "handback.json").read_text())["ok"] is True
    assert (tmp_path / "out" / "headstart.pt").is_file()
