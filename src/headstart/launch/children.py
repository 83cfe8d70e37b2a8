"""Processes of ours: how they are started, and that they end with the one that started them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping

PARENT = "HEADSTART_PARENT"
"""Of the environment of a process that another one of ours started: that one's number."""

# ``python -m`` imports from the current folder first: a torch.py among somebody's data would run.
_RUN = """\
import sys
sys.path = [place for place in sys.path if place]
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command(module: str, *arguments: str) -> list[str]:
    """``python -m module arguments``, but for what is imported from the current folder: nothing."""
    return [sys.executable, "-c", _RUN, module, *arguments]


def for_child() -> Mapping[str, str]:
    """Environment variables by which a process that this one starts knows whom it is to end with."""
    return {PARENT: str(os.getpid())}


def end_with_parent(every: float = 2.0, patience: float = 0.0) -> None:
    """End this process when the one that started it is gone: it would write into a folder that is used anew.

    Who started it is in the environment: by now that one may have ended, and another be the parent.
    """
    number = os.environ.get(PARENT, "")
    # A virtual environment of Windows has a process between the two; there a parent stays the same when it has ended.
    end_with(int(number) if number.isdecimal() and os.name == "posix" else os.getppid(), every, patience)


def end_with(parent: int, every: float = 2.0, patience: float = 0.0) -> None:
    """End this process when `parent` is not its parent any more; no signal need reach it.

    Args:
        parent: Number of a process.
        every: Seconds between two looks.
        patience: Seconds in which it may then end by itself.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
