"""What is said when memory runs out."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from headstart import machine
from headstart.errors import RunError, UserError
from headstart.training import memory
from headstart.training.memory import BatchTrial, Memory, fitting, judged, known, try_batches

GIB = 2**30


@pytest.mark.parametrize(
    ("batch", "base", "used", "most", "fits"),
    [
        (64, 1 * GIB, 17 * GIB, 16 * GIB, 32),  # a quarter GiB each: 13.4 GiB of room are 53 images
        (64, 1 * GIB, 33 * GIB, 16 * GIB, 16),  # half a GiB each: 26 images
        (64, 15 * GIB, 16 * GIB, 16 * GIB, 1),  # the network alone fills it
        (64, 1 * GIB, 1 * GIB, 16 * GIB, 32),  # failed before anything was measured
        (2, 0, 16 * GIB, 16 * GIB, 1),
    ],
)
def test_what_fits_is_reckoned_from_what_was_measured(batch: int, base: int, used: int, most: int, fits: int) -> None:
    assert fitting(batch, base, used, most) == fits


RAISED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    RuntimeError("std::bad_alloc"),
    cv2.error("OpenCV(5.0.0) alloc.cpp:66: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
]


@pytest.mark.parametrize("raised", RAISED)
def test_memory_that_runs_out_says_what_would_fit(raised: Exception, monkeypatch) -> None:
    used = iter([1 * GIB, 33 * GIB, 33 * GIB])
    monkeypatch.setattr(machine, "memory_used", lambda: next(used))
    monkeypatch.setattr(machine, "memory_limit", lambda: 16 * GIB)
    room = Memory(torch.device("cpu"), 64, 640)
    with pytest.raises(RunError) as told, room.explained(7):
        raise raised
    assert "ran out at step 7: a step of 64 images of 640 pixels needs more than the 16.0 GiB" in str(told.value)
    assert "batch=16 should fit, or imgsz=320" in str(told.value)


def test_an_error_without_a_cause_is_told_with_what_is_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN says this where memory runs out, and now and then of processors that it does not know."""
    monkeypatch.setattr(machine, "memory_used", lambda: 15 * GIB)
    monkeypatch.setattr(machine, "memory_limit", lambda: 16 * GIB)
    with pytest.raises(RunError) as told, Memory(torch.device("cpu"), 64, 640).explained(7):
        raise RuntimeError("could not create a primitive")
    assert "a step of 64 images of 640 pixels failed at step 7: could not create a primitive" in str(told.value)
    assert "15.0 GiB of 16.0 GiB of this machine were in use" in str(told.value)
    assert known(RuntimeError("could not create a primitive")) is None


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), Memory(torch.device("cpu"), 64, 640).explained(0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert known(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_outside_of_steps_it_is_a_sentence_too() -> None:
    for raised in RAISED:
        assert isinstance(known(raised), RunError)
    mistake = UserError("there is no such file")
    assert known(mistake) is mistake
    assert memory.known(MemoryError()).what == "memory ran out: MemoryError"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("each", "room", "tried", "fits"),
    [
        (1, 100, [8, 16, 32, 64], 64),  # 10 + 64 = 74
        (1, 73, [8, 16, 32], 32),  # 42, and 74 are expected of 64: not tried
        (4, 100, [8, 16], 16),  # 42, 74; 138 are expected
        (4, 70, [8], 8),  # 42; 84 are expected of the one
        (20, 100, [8, 4], 4),  # 170, 90
        (45, 100, [8, 4, 2], 2),  # 370, 190, 100
        (46, 100, [8, 4, 2], None),
    ],
)
def test_growing_batches_by_hand(each: int, room: int, tried: list[int], fits: int | None) -> None:
    """Steps that take 10 bytes, and `each` more an image."""
    found = try_batches(64, room, lambda batch: 10 + each * batch)
    assert list(found) == tried
    if fits is None:
        with pytest.raises(RunError, match="steps of 2 images need"):
            judged(64, "of dino", found, room)
    else:
        assert judged(64, "of dino", found, room).batch == fits


def test_a_batch_that_runs_out_of_memory_ends_the_growth() -> None:
    found = try_batches(64, 10**9, lambda batch: batch if batch < 32 else None)
    assert found == {8: 8, 16: 16, 32: None}
    trial = judged(64, "of dino", found, 2**33)
    assert trial == BatchTrial(
        16, "batch=16: its steps take 0 MiB beyond what is in use; those of 32 images ran out of memory", found, 2**33
    )
    assert try_batches(4, 10**9, lambda batch: batch) == {4: 4}


def test_peak_without_files(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = "Name:\tpython\nVmHWM:\t  900 kB\nVmRSS:\t 700 kB\nRssFile:\t 300 kB\nRssShmem:\t 50 kB\n"
    (tmp_path / "proc/self/status").write_text(lines)
    assert machine.memory_peak(tmp_path) == 550 * 1024
    assert machine.memory_peak(tmp_path / "none") > 2**20  # of this process
