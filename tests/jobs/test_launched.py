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
import torch

from headstart import machine
from headstart.launch import group
from headstart.machine import cores
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


def test_processes_that_are_started_import_nothing_from_the_current_folder(image_folder: Path, tmp_path: Path) -> None:
    """Nor does the command, as it is installed: a user's queue.py is not Python's."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("queue", "random", "headstart"):
        (work / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    (tmp_path / "small.yaml").write_text(SMALL)
    own = [f"data={image_folder}", f"model={tmp_path / 'small.yaml'}", f"out={tmp_path / 'out'}"]
    command = [str(Path(sys.executable).with_name("headstart")), *COMMON.split(), *own, "devices=2", "steps=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work, timeout=300)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path) == [1]


COUNTS = '''
"""What its processes compute with, noted by each."""

import os
from pathlib import Path

import torch
from torch import nn

from headstart.methods.base import Method, pooled
from headstart.settings.method_options import MethodSettings
from headstart.views.spec import pair_specs


class Settings(MethodSettings):
    pass


class Counts(Method):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.head = nn.Linear(self.widths[-1], 4)

    def view_specs(self):
        return pair_specs(self.context.imgsz, (0.3, 1.0))

    def forward(self, views, progress):
        (Path(__file__).parent / f"threads-{os.getpid()}").write_text(str(torch.get_num_threads()))
        return sum(self.head(pooled(self.student(view.images))).square().mean() for view in views)
'''


def test_processes_of_a_cpu_share_its_cores(image_folder: Path, tmp_path: Path) -> None:
    """Ultralytics, which is imported by then, has set OMP_NUM_THREADS to 1: nobody asked for that."""
    (tmp_path / "counts.py").write_text(COUNTS)
    (tmp_path / "small.yaml").write_text(SMALL)
    options = COMMON.replace("method=simclr", f"method={tmp_path / 'counts.py'}").split()[:-2]
    own = [
        f"data={image_folder}",
        f"model={tmp_path / 'small.yaml'}",
        f"out={tmp_path / 'out'}",
        "devices=2",
        "steps=1",
    ]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-m", "headstart", *options, *own], check=True, capture_output=True, env=env)
    assert [one.read_text() for one in tmp_path.glob("threads-*")] == [str(max(1, cores() // 2))] * 2


@pytest.mark.parametrize(
    ("given", "allowed", "processes", "used"), [(8, 4, 1, 4), (8, 4, 3, 1), (2, 8, 2, 2), (3, 1, 2, 1)]
)
def test_threads_are_no_more_than_the_cores_of_a_process(
    given: int, allowed: int, processes: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may use fewer cores than torch sees; and fewer threads that somebody asked for stay so."""
    monkeypatch.setattr(machine, "cores", lambda: allowed)
    before = torch.get_num_threads()
    torch.set_num_threads(given)
    try:
        with group.threads_for(processes):
            assert torch.get_num_threads() == used
        assert torch.get_num_threads() == given
    finally:
        torch.set_num_threads(before)
