"""What is said when memory runs out."""

from __future__ import annotations

import pytest
import torch

from headstart import machine
from headstart.errors import RunError, UserError
from headstart.training import memory
from headstart.training.memory import Memory, fitting, known

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
