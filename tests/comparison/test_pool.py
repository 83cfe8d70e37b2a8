from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headstart.comparison.child import Stopped, run
from headstart.comparison.pool import Done, Slot, run_all, slots
from headstart.errors import UserError

PLACES = [Slot("0", None), Slot("1", None)]


def test_one_task_a_place_at_a_time_and_every_place_is_used() -> None:
    lock, busy, used = threading.Lock(), set(), set()

    def work(task: int, place: Slot, stop: threading.Event) -> int:
        with lock:
            assert place.device not in busy, "two trainings on one GPU"
            busy.add(place.device)
            used.add(place.device)
        time.sleep(0.02)
        with lock:
            busy.remove(place.device)
        return task * task

    outcome, stopped = run_all(list(range(7)), PLACES, work)
    assert [one.result for one in outcome] == [n * n for n in range(7)]
    assert not stopped
    assert used == {"0", "1"}


def test_a_failure_does_not_sink_the_others() -> None:
    def work(task: int, place: Slot, stop: threading.Event) -> int:
        if task == 1:
            raise UserError("diverged", where="b")
        if task == 2:
            raise OSError("disk gone")
        return task

    outcome, _ = run_all([0, 1, 2, 3], PLACES, work)
    assert [(one.result, one.error) for one in outcome] == [
        (0, ""),
        (None, "b: diverged"),
        (None, "OSError: disk gone"),
        (3, ""),
    ]


def test_ctrl_c_stops_those_that_run_and_begins_no_more() -> None:
    began: list[int] = []

    def work(task: int, place: Slot, stop: threading.Event) -> int:
        began.append(task)
        if task == 0:
            return 0
        if task == 2:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        raise Stopped

    # A shell that runs the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome, stopped = run_all(list(range(9)), PLACES, work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped
    assert outcome[0].result == 0
    assert sorted(began) == [0, 1, 2]
    assert all(one == Done(number) for number, one in enumerate(outcome) if number)


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("headstart.machine.cores", lambda: 8)
    monkeypatch.setattr("headstart.machine.memory", lambda: 20 * 2**30)
    assert slots("cpu", 4)[0] == [Slot("cpu", 2)] * 4
    found, why = slots("cpu", "auto")
    assert (found, "memory carries 6" in why) == ([Slot("cpu", 1)] * 6, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert slots("auto", "auto")[0] == [Slot("0", None), Slot("1", None), Slot("2", None)]
    assert slots("0,2", 4)[0] == [Slot("0", None), Slot("2", None)] * 2
    assert slots("auto", 1) == ([Slot("0", None)], "1 side by side on 1 GPU")
    many, why = slots("auto", 4)
    assert ([one.device for one in many], why) == (["0", "1", "2", "0"], "4 side by side on 3 GPUs")
    with pytest.raises(UserError, match="there is no GPU 3"):
        slots("3", "auto")
    with pytest.raises(UserError, match="'gpu' is not a device"):
        slots("gpu", "auto")


def test_a_system_that_ends_all_processes_ends_ours_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that it ended before us has not failed; one that was ended alone has."""
    (tmp_path / "ended.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    stop = threading.Event()
    assert run("ended", [], tmp_path / "log", 1, stop) == -signal.SIGTERM
    wait = stop.wait
    monkeypatch.setattr(stop, "wait", lambda seconds: (stop.set(), wait(seconds)))
    with pytest.raises(Stopped):
        run("ended", [], tmp_path / "log", 1, stop)


def test_a_process_is_ended_when_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        run("sleeper", [], tmp_path / "log", 1, stop)
    assert time.monotonic() - began < 10


def test_a_training_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """A killed comparison leaves no training behind that would write into a folder that is used anew."""
    child = "import os, time; from headstart.comparison.child import end_with_parent; end_with_parent(0.1)\n"
    child += "print(os.getpid(), flush=True); time.sleep(60)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    process_ = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process_.stdout is not None
    number = int(process_.stdout.readline())
    process_.kill()
    process_.wait()
    for _ in range(100):
        if not Path(f"/proc/{number}").exists() or "State:\tZ" in Path(f"/proc/{number}/status").read_text():
            return
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)
    pytest.fail("the training went on")
