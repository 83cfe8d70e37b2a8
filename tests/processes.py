"""Several processes of one run in a test, joined by gloo."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 60.0
"""After which a process that waits for another gives up."""


def in_processes(number: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work(rank)` gives in each of so many processes, forked here and joined to one group.

    Args:
        number: Of processes.
        work: Anything that pickle can carry comes back.
        folder: For the file by which they find each other, and what they give back.

    Raises:
        AssertionError: One failed; with its traceback.
    """
    context = multiprocessing.get_context("fork")
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    there = [folder / f"rank{rank}.pt" for rank in range(number)]

    def one(rank: int) -> None:
        torch.set_num_threads(1)  # threads of OpenMP do not come through a fork
        try:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=number)
            found = ("done", work(rank))
        except BaseException:
            found = ("failed", traceback.format_exc())
        torch.save(found, there[rank])
        if dist.is_initialized() and found[0] == "done":
            dist.destroy_process_group()

    processes = [context.Process(target=one, args=(rank,), daemon=True) for rank in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
    results = [torch.load(path, weights_only=False) for path in there if path.exists()]
    failed = [what for state, what in results if state == "failed"]
    assert not failed, "\n".join(failed)
    assert len(results) == number, f"{number - len(results)} of {number} processes gave nothing back"
    return [what for _, what in results]
