"""A training's process: its environment, its end when it is told to stop, and what to say when it fails.

``python -m headstart.comparison.child REQUEST.json`` trains as the request says, with the family of its model.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from headstart import machine, trust
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import FAILED, FinetuneSettings, write_json
from headstart.errors import UserError
from headstart.files import no_link
from headstart.launch.children import command, end_with_parent, for_child
from headstart.launch.places import alone

_COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PATIENCE = 10.0
"""Seconds that a process may take to end before it is killed."""
_OURS_AS_WELL = 1.0
"""Seconds in which we are told to stop, too, where a system ends a process of ours: it ends all of them."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong: somebody asked for it
    """The process was told to stop, or Ctrl-C reached it."""


def run(
    module: str,
    arguments: Sequence[str],
    log: Path,
    threads: int | None,
    stop: threading.Event | None,
    changes: Mapping[str, str | None] | None = None,
    *,
    folder: Path | None = None,
    patience: float = PATIENCE,
) -> int:
    """Run a module to its end, as `headstart.launch.children.command` starts it; its output goes to `log`.

    Ctrl-C at the terminal reaches us alone: the process is told by us, once, so that it can save what it has.

    Args:
        module: Name of a module of ours.
        arguments: Its arguments.
        log: File for all that it prints.
        threads: CPU threads that it may use; None for every core.
        stop: Once set, the process is ended.
        changes: Environment variables of the process; None removes one.
        folder: Where it works; by default in that of the log.
        patience: Seconds that it may take to end when it is told to.

    Returns:
        The exit status; negative for a signal.

    Raises:
        Stopped: `stop` was set, or Ctrl-C ended the process.
    """
    no_link(log)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(module, *arguments),
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            cwd=folder or log.parent,
            start_new_session=True,
            env=environment(threads, changes or {}),
        )
        try:
            while process.poll() is None and not (stop and stop.is_set()):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            _end(process, patience)
    if stop and process.returncode == -signal.SIGTERM:
        stop.wait(_OURS_AS_WELL)
    if (stop and stop.is_set()) or process.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
        raise Stopped
    return process.returncode


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(threads: int | None, changes: Mapping[str, str | None]) -> Mapping[str, str]:
    """The child's environment: ours with `changes`, no windows for plots, and as many threads as it may have.

    A training is a process alone, and never one of those that srun or torchrun started beside us.
    Ultralytics sets OMP_NUM_THREADS to 1 where it is not set, in the calling process too, so it is always set here.
    """
    own = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": str(threads or machine.cores()), "PYTHONUNBUFFERED": "1"}
    wanted: dict[str, str | None] = {**os.environ, **alone(), **changes, **own, **for_child(), **trust.for_child()}
    return {key: value for key, value in wanted.items() if value is not None}


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, for a message."""
    text = _COLORS.sub("", log.read_text(encoding="utf-8", errors="replace")).replace("\r", "\n")
    return "\n".join("    " + line for line in [line for line in text.splitlines() if line.strip()][-lines:])


def main(arguments: Sequence[str]) -> int:
    """Train as the request says; 0 when all went well, else ``failed.json`` beside it says what a user can mend."""
    end_with_parent()
    trust.from_parent()
    if sys.platform == "linux":  # from Python 3.14 on loader processes would begin without what was changed here
        multiprocessing.set_start_method("fork", force=True)
    request = Path(arguments[0])
    settings = FinetuneSettings(**json.loads(request.read_text(encoding="utf-8")))
    try:
        finetuner(settings.model).train(settings)
    except UserError as error:
        write_json(request.parent / FAILED, {"what": error.what, "where": error.where, "hint": error.hint})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
