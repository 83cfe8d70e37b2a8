"""Trainings side by side: one a GPU, on a CPU as many as cores and memory carry; stopped cleanly by Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from headstart import machine
from headstart.comparison import child
from headstart.comparison.child import PATIENCE, Stopped
from headstart.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

MEMORY = 3 * 2**30
"""Memory that one training on a CPU is reckoned to take, with its copies of the images."""


@dataclass(frozen=True)
class Slot:
    """A place for one training: its device ("cpu", "0", "mps"), and its CPU threads (None: all)."""

    device: str
    threads: int | None

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        stop: threading.Event | None,
        changes: Mapping[str, str | None] | None = None,
        *,
        folder: Path | None = None,
        patience: float = PATIENCE,
    ) -> int:
        """Run a module of ours to its end in this place, as `headstart.comparison.child.run` does."""
        return child.run(module, arguments, log, self.threads, stop, changes, folder=folder, patience=patience)


@dataclass(frozen=True)
class Done(Generic[Task, Result]):
    """What became of a task: a result, or what went wrong; neither where it was stopped or never begun."""

    task: Task
    result: Result | None = None
    error: str = ""


def slots(device: str, jobs: int | str) -> tuple[list[Slot], str]:
    """The places for trainings, and why there are so many.

    Every training has the same number of threads: it changes the order of sums, and so the last digits.

    Args:
        device: ``auto``, ``cpu``, ``mps``, an index or several (``0,1``).
        jobs: Trainings side by side, or ``auto``.

    Raises:
        UserError: A device that is not there.
    """
    found = machine.parse_devices(device)
    if found[0].kind == "cpu":
        return _cpu(jobs)
    count = len(found) if jobs == "auto" else int(jobs)
    used = [str(one.kind if one.index is None else one.index) for one in found[:count]]
    places = [Slot(used[number % len(used)], None) for number in range(count)]
    return places, f"{count} side by side on {len(used)} GPU{'s' * (len(used) > 1)}"


def _cpu(jobs: int | str) -> tuple[list[Slot], str]:
    """One thread a training, as far as memory goes.

    A training on a CPU reads and augments its images, and picks boxes, in a single thread, whatever it has: more
    threads stand idle for a part of its time.
    """
    room = max(1, machine.memory() // MEMORY)
    count = int(jobs) if jobs != "auto" else max(1, min(machine.cores(), room))
    threads = max(1, machine.cores() // count)
    why = f"{count} side by side, {threads} thread{'s' * (threads > 1)} each, on {machine.cores()} cores"
    if jobs == "auto" and room < machine.cores():
        why += f" (memory carries {room})"
    return [Slot("cpu", threads)] * count, why


def run_all(
    tasks: Sequence[Task],
    places: Sequence[Slot],
    work: Callable[[Task, Slot, threading.Event], Result],
    tell: Callable[[Done[Task, Result]], None] = lambda done: None,
) -> tuple[list[Done[Task, Result]], bool]:
    """Do all tasks, in their order, as many at once as there are places.

    A task that fails does not keep the others from being done. Ctrl-C stops those that run and begins no more.

    Args:
        tasks: What to do.
        places: Where.
        work: Does one; ends early, with `Stopped`, once the event is set.
        tell: Called in this thread for every task that ended.

    Returns:
        What became of each task, in their order, and whether Ctrl-C stopped it.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[int, Done[Task, Result]]] = queue.SimpleQueue()
    for number in range(len(tasks)):
        todo.put(number)
    stop = threading.Event()
    helpers = [
        threading.Thread(target=_serve, args=(tasks, todo, ended, place, work, stop), daemon=True)
        for place in places[: len(tasks)]
    ]
    outcome = [Done[Task, Result](task) for task in tasks]
    try:
        for helper in helpers:
            helper.start()
        for _ in tasks:
            number, outcome[number] = ended.get()
            if stop.is_set():  # Ctrl-C reached a training before it reached us
                break
            tell(outcome[number])
    except KeyboardInterrupt:
        stop.set()
    finally:
        stopped = stop.is_set()
        stop.set()
        for helper in helpers:
            if helper.is_alive():
                helper.join()
    while not ended.empty():
        number, outcome[number] = ended.get()
    return outcome, stopped


def _serve(
    tasks: Sequence[Task],
    todo: queue.SimpleQueue[int],
    ended: queue.SimpleQueue[tuple[int, Done[Task, Result]]],
    place: Slot,
    work: Callable[[Task, Slot, threading.Event], Result],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            number = todo.get_nowait()
        except queue.Empty:
            return
        done = Done[Task, Result](tasks[number])
        try:
            done = Done(tasks[number], work(tasks[number], place, stop))
        except Stopped:
            stop.set()
        except UserError as error:
            done = Done(tasks[number], None, str(error))
        except Exception as error:  # whatever it was, the others go on
            done = Done(tasks[number], None, f"{type(error).__name__}: {error}")
        ended.put((number, done))
