"""What keeps a logger from ending a run or holding it up: what it raises is said once, and nobody waits for it long."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headstart.run.loggers.base import Logger, Status

PATIENCE = 90.0
"""Seconds that a run waits for a logger that works beside it, at its start and at its end."""
_MOST = 10_000
"""What a logger that works beside the run may be behind, in calls."""


class _Call(NamedTuple):
    what: str
    values: tuple[Any, ...]
    done: threading.Event


class Guarded(Logger):
    """Passes everything on to a logger, and leaves it out once it has raised: it never ends a run.

    One that may wait for a network is told by a thread of its own.

    Args:
        logger: The logger.
        name: As the user named it.
        say: Told, once, that it failed.
        patience: Seconds to wait for one that works beside the run.
    """

    def __init__(self, logger: Logger, name: str, say: Callable[[str], None], patience: float | None = None) -> None:
        super().__init__(logger.folder)
        self.name, self.patience = name, PATIENCE if patience is None else patience
        self._logger: Logger | None = logger
        self._say = say
        self._calls: queue.Queue[_Call] | None = queue.Queue(_MOST) if logger.remote else None
        self._thread: threading.Thread | None = None

    @property
    def failed(self) -> bool:
        """Whether it is left out."""
        return self._logger is None

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        self._pass("start", dict(settings), wait=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        self._pass("metrics", step, dict(values))

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        self._pass("event", step, kind, message)

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`."""
        self._pass("image", step, name, path)

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        self._pass("finish", status, wait=True)

    def _pass(self, what: str, *values: Any, wait: bool = False) -> None:
        if self._logger is None:
            return
        if self._calls is None:
            self._call(self._logger, what, values)
            return
        call = _Call(what, values, threading.Event())
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._leave_out(f"is {_MOST:,} calls behind")
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=f"logger {self.name}", daemon=True)
            self._thread.start()
        if wait and not self._answered(call):
            self._leave_out(f"has not answered for {self.patience:.0f} s")

    def _answered(self, call: _Call) -> bool:
        """Whether it was done within the time; one that fails meanwhile has said so."""
        until = time.monotonic() + self.patience
        while not call.done.wait(min(0.1, self.patience)) and not self.failed:
            if time.monotonic() >= until:
                return False
        return True

    def _work(self) -> None:
        """Pass on what comes in, until the end of the run or of the logger."""
        assert self._calls is not None
        while (logger := self._logger) is not None:
            call = self._calls.get()
            self._call(logger, call.what, call.values)
            call.done.set()
            if call.what == "finish":
                return

    def _call(self, logger: Logger, what: str, values: tuple[Any, ...]) -> None:
        try:
            getattr(logger, what)(*values)
        except (Exception, SystemExit) as error:  # whatever a user's code, or a full disk, raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._leave_out(f"failed: {type(error).__name__}: {reason}")

    def _leave_out(self, why: str) -> None:
        logger, self._logger = self._logger, None
        if logger is not None:  # a thread that was given up has nobody to tell
            what, _, reason = why.partition(": ")
            self._say(f"the logger {self.name} {what} and is left out from here on{': ' * bool(reason)}{reason}")
