"""Work on threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from headstart.launch.threads import together


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


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
