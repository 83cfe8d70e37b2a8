"""Work on threads of this process."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection

import pytest
import torch

from headstart.launch.threads import computing_on, together


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    with computing_on(4):
        yield


def test_each_has_its_part_of_the_cores_and_the_caller_keeps_its_own() -> None:
    assert together([torch.get_num_threads, torch.get_num_threads]) == [2, 2]
    assert together([torch.get_num_threads] * 4) == [1] * 4
    assert torch.get_num_threads() == 4
    torch.randn(256, 256) @ torch.randn(256, 256)  # what a first operation does must not change it
    assert together([torch.get_num_threads, torch.get_num_threads]) == [2, 2]
    found: list[int] = []
    late = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert found == [4]


def test_they_run_at_one_time_and_their_results_keep_their_order() -> None:
    both_here = threading.Barrier(2, timeout=60)

    def work(name: str) -> str:
        both_here.wait()
        return name

    assert together([partial(work, "a"), partial(work, "b")]) == ["a", "b"]


def test_a_fault_is_raised_when_all_have_ended() -> None:
    ended = threading.Event()

    def fails() -> None:
        raise ValueError("of the first")

    def lasts() -> None:
        ended.wait(0.2)
        ended.set()

    with pytest.raises(ValueError, match="of the first"):
        together([fails, lasts])
    assert ended.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """It has none of its parent's, and would wait for them for ever."""
    together([torch.get_num_threads] * 2)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(theirs,), daemon=True)
    process.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == [2, 2]
    finally:
        process.kill()
        process.join()


def _tell(pipe: Connection) -> None:
    pipe.send(together([torch.get_num_threads] * 2))
