"""Where the processes of a comparison run: the contract, and this machine."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from headstart.comparison.pool import Done, Result, Slot, Task, run_all, slots
from headstart.errors import UserError
from headstart.settings.schema import CompareSettings

One = TypeVar("One")

ADDRESS = "RAY_ADDRESS"
"""Of the environment: the cluster that every command of Ray takes where it is not told of another."""


class Launcher(ABC):
    """Places for trainings, and pretrainings, and how they are kept busy.

    Attributes:
        places: One for each that may run at a time.
    """

    places: Sequence[Slot]

    @property
    @abstractmethod
    def why(self) -> str:
        """Why there are so many places, and what became of them."""

    def check(self, files: Sequence[Path]) -> None:  # noqa: B027 - this machine sees what it sees
        """Refuse a place that would not see these files, or compute with other versions.

        Args:
            files: What has to be there: the first with the very same content.

        Raises:
            UserError: Every such machine, by its name.
        """

    @abstractmethod
    def run_all(
        self,
        tasks: Sequence[Task],
        work: Callable[[Task, Slot, threading.Event], Result],
        tell: Callable[[Done[Task, Result]], None] = lambda done: None,
        shown: Callable[[Task], str] = str,
    ) -> tuple[list[Done[Task, Result]], bool]:
        """Do all tasks, as `headstart.comparison.pool.run_all` does.

        Args:
            tasks: What to do.
            work: Does one, and starts its processes by the `Slot.run` of the place that it is given.
            tell: Called in this thread for every task that ended.
            shown: A task in a few words.
        """

    def run_one(self, what: str, work: Callable[[Slot, threading.Event], One]) -> One:
        """Do one thing in one of the places, and return what came of it.

        Args:
            what: It in a few words.
            work: Does it.

        Raises:
            KeyboardInterrupt: Ctrl-C stopped it.
            UserError: It failed.
        """
        (done,), stopped = self.run_all([what], lambda _, place, stop: work(place, stop))
        if stopped:
            raise KeyboardInterrupt
        if done.error:
            raise UserError(done.error)
        assert done.result is not None, "what ended without an error gave something"
        return done.result


class ThisMachine(Launcher):
    """Processes side by side on this machine."""

    def __init__(self, places: Sequence[Slot], why: str) -> None:
        self.places, self._why = places, why

    @property
    def why(self) -> str:
        """Why there are so many places."""
        return self._why

    def run_all(
        self,
        tasks: Sequence[Task],
        work: Callable[[Task, Slot, threading.Event], Result],
        tell: Callable[[Done[Task, Result]], None] = lambda done: None,
        shown: Callable[[Task], str] = str,
    ) -> tuple[list[Done[Task, Result]], bool]:
        """Do all tasks, as many at once as there are places."""
        return run_all(tasks, self.places, work, tell)


@contextmanager
def open_launcher(settings: CompareSettings) -> Iterator[Launcher]:
    """What ``launcher=`` asks for, ready to run.

    Raises:
        UserError: A device that is not there; a Ray cluster that cannot be reached, or has no place for a training.
    """
    if settings.launcher == "local":
        yield ThisMachine(*slots(settings.device, settings.jobs))
        return
    from headstart.comparison.ray_launcher import open_ray

    with open_ray(address(settings.ray), settings.device, settings.jobs) as launcher:
        yield launcher


def address(given: str | None) -> str | None:
    """The address of the Ray cluster, given or of the environment; None for one of this machine alone."""
    found = given or os.environ.get(ADDRESS)
    return None if found == "local" else found or None


def launcher_problems(given: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with ``launcher=`` and what goes with it; nothing is connected to."""
    if given["launcher"] != "ray":
        what = "has no effect without launcher=ray"
        return [UserError(what, where="ray")] if given["ray"] is not None else []
    problems, spec = [], find_spec("ray")
    if spec is None or spec.origin is None:  # a folder of that name beside us is no package
        problems.append(UserError("Ray is not installed", where="launcher", hint="pip install 'headstart[ray]'"))
    if str(given["device"]).strip().lower() not in ("auto", "cpu", "cuda"):
        hint = "give auto, cpu or cuda; jobs= says how many trainings there are at a time"
        problems.append(UserError("with launcher=ray it is Ray that deals out GPUs", where="device", hint=hint))
    if "://" in (found := address(str(given["ray"] or "")) or ""):
        hint = "start the comparison on a machine of the cluster, with the address that ray start was given, HOST:6379"
        problems.append(UserError(f"{found} is not the address of a cluster", where="ray", hint=hint))
    return problems
