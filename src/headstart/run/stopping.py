"""How a run is asked to stop: Ctrl-C, SIGTERM (systemd, docker, a scheduler), SIGUSR1 (a warning by Slurm)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")

AGAIN = 0.5
"""Seconds after which another Ctrl-C is a second one; a launcher and the terminal may both hand on the first."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Those that ask a run to stop; Windows has no SIGUSR1."""


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGUSR1, where there is nothing to save: the run is asked to end, as by Ctrl-C."""


class Asked(threading.Event):
    """That the run is to stop.

    Attributes:
        error: What a signal of the kind that came first would have raised.
    """

    error: type[KeyboardInterrupt] = Stopped
    _at_once = False

    def done(self, work: Callable[[], Result], at_once: bool) -> Result | None:
        """What some work gives; None where the run is to stop, which ends it at once where that is allowed.

        Args:
            work: What is done. It may take hours.
            at_once: Whether it may be left as it is.
        """
        self._at_once = at_once
        try:
            return None if at_once and self.is_set() else work()
        except KeyboardInterrupt:
            if not (self._at_once and self.is_set()):
                raise
            return None
        finally:
            self._at_once = False

    def ask(self, error: type[KeyboardInterrupt]) -> None:
        """Note that a signal came, which would have raised `error`."""
        self.error = error
        self.set()
        if self._at_once:
            raise error


@contextmanager
def interruptible() -> Iterator[Asked]:
    """An event that these signals set, so that a step is finished and saved; a second Ctrl-C stops at once."""
    stop = Asked()
    first = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            stop.ask(KeyboardInterrupt if number == signal.SIGINT else Stopped)
        elif number == signal.SIGINT and time.monotonic() - first > AGAIN:
            raise KeyboardInterrupt

    with _handled(SIGNALS, ask):
        yield stop


@contextmanager
def ended_by_signals() -> Iterator[threading.Event]:
    """Let SIGTERM and SIGUSR1 end what is done here as Ctrl-C does, by an exception: `Stopped`.

    Once: a warning is followed by the end, and both may come twice; what is tidied up until then is not cut short.

    Yields:
        An event that is set when one of them has come.
    """
    asked = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if not asked.is_set():
            asked.set()
            raise Stopped

    with _handled([number for number in SIGNALS if number != signal.SIGINT], end):
        yield asked


@contextmanager
def _handled(numbers: Iterable[int], act: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = {number: signal.signal(number, act) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
