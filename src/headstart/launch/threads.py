"""Work side by side on threads of this process, each with its part of the cores that torch computes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def computing_on(threads: int) -> Iterator[None]:
    """Have torch compute on so many threads in the one that calls, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def together(work: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of work that is done at one time; all of it has ended when the first fault is raised.

    Args:
        work: Two parts or more, not more than `torch.get_num_threads` in the thread that calls; it is divided by them.
    """
    pool = _pool(len(work), torch.get_num_threads())
    done = [pool.submit(one) for one in work]
    wait(done)
    return [one.result() for one in done]


@lru_cache
def _pool(parts: int, threads: int) -> ThreadPoolExecutor:
    pool, all_here = ThreadPoolExecutor(parts, thread_name_prefix="headstart"), Barrier(parts + 1)

    def begin() -> None:
        torch.set_num_threads(threads // parts)
        torch.get_num_threads()  # asking settles it: else this thread would take over the number that is set next
        all_here.wait()

    for _ in range(parts):
        pool.submit(begin)
    all_here.wait()
    torch.set_num_threads(threads)  # what later threads begin with is the number that was set last, in any thread
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads that these pools would wait for
    os.register_at_fork(after_in_child=_pool.cache_clear)
