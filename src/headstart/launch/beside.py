"""The processes that the first one of a machine starts beside itself, looked after until they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart import trust
from headstart.errors import RunError
from headstart.launch.children import command, for_child
from headstart.launch.places import TORCHRUN, Place

Store = Any
"""A store of torch.distributed, for which torch declares no types that last."""
GRACE = 20.0
"""Seconds in which a process is to end by itself once another has."""
GO_ON = "resume=true goes on from the last checkpoint, with as many processes or another number"
ASKED = {130, *(-number for number in (signal.SIGINT, signal.SIGTERM))}
"""Status of a process that was asked to end: by our own doing, or before it could do anything."""


class LostError(RunError):
    """Another process of the run ended before its time."""

    at_once = True


class Beside:
    """The processes beside this one.

    Args:
        place: Of this one.
        port: Where the first process of the run is found.
        store: What they leave words in.
    """

    def __init__(self, place: Place, port: int, store: Store) -> None:
        import torch

        self._store, self._over = store, threading.Event()
        paths = [str(one) or str(Path.cwd()) for one in sys.path]  # what a script can import, they can
        ours = {
            **os.environ,
            **for_child(),
            "PYTHONPATH": os.pathsep.join(paths),
            "MASTER_ADDR": place.address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(place.world),
            "LOCAL_WORLD_SIZE": str(place.local_world),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        ours.pop(TORCHRUN, None)
        words = command("headstart", "pretrain", f"trust={str(trust.trusted()).lower()}")
        self._processes = {
            place.rank + number: subprocess.Popen(
                words,
                env={**ours, "RANK": str(place.rank + number), "LOCAL_RANK": str(number)},
                stdin=subprocess.DEVNULL,
            )
            for number in range(1, place.local_world)
        }
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Until all are there.

        Raises:
            RunError: One has ended, or they are not there in time.
        """
        until = time.monotonic() + seconds
        while self._processes and not self._store.check([f"here/{rank}" for rank in self._processes]):
            if failure := self.failure(0.0):
                raise LostError(failure.what)
            # Whoever is there ends after this one: with status 0, too, it never was.
            if gone := [rank for rank, one in self._processes.items() if one.poll() == 0]:
                raise LostError(lost(gone[0], "with exit status 0, before it had joined").what)
            if time.monotonic() > until:
                raise RunError("the other processes of the run did not come up in time", where="devices")
            time.sleep(0.05)

    def failure(self, seconds: float) -> LostError | None:
        """Which of them ended before its time, and why; it may take so many seconds to see that one has.

        Those that were asked to end, or were hindered by another that ended, are told only if there is nothing else;
        with no seconds, as where all were asked to end, those that were asked to are not told at all.
        """
        until = time.monotonic() + seconds
        while True:
            ended = {rank: one.returncode for rank, one in self._processes.items() if one.poll()}
            told = {rank: said(self._store, rank) for rank in ended}
            for rank, code in ended.items():
                if told[rank] or (code < 0 and code not in ASKED):
                    return lost(rank, told[rank] or _by_signal(code))
            if time.monotonic() >= until:
                break
            time.sleep(0.05)
        for rank, code in ended.items():
            if code not in ASKED or seconds:
                return lost(rank, "it was asked to stop" if code in ASKED else f"its exit status is {code}")
        return None

    def _watch(self) -> None:
        """End this process with another: gently, as a signal does; at once, where it hangs in waiting for that one."""
        while not self._over.wait(0.2):
            failed = [one for one in self._processes.values() if one.poll() not in {None, 0, *ASKED}]
            if failed:
                break
        else:
            return
        if self._over.wait(1.0):
            return
        if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None):
            os.kill(os.getpid(), signal.SIGTERM)
        if not self._over.wait(GRACE):
            print(f"headstart: {self.failure(0.0)}", file=sys.stderr, flush=True)
            os._exit(1)

    def end(self, seconds: float) -> None:
        """Let them end for so many seconds, then end them."""
        self._over.set()
        until = time.monotonic() + seconds
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()


def said(store: Store | None, rank: int) -> str:
    """What a process said of why it ends; empty where it said nothing."""
    with suppress(RuntimeError):  # who keeps it has ended
        if store and store.check([f"said/{rank}"]):
            return str(store.get(f"said/{rank}").decode())
    return ""


def lost(rank: int, words: str) -> LostError:
    """The error that says which process ended, and why."""
    return LostError(f"process {rank} of the run ended: {words}", hint=GO_ON)


def _by_signal(code: int) -> str:
    name = signal.Signals(-code).name
    return f"{name} ended it" + ("; the system does that where memory runs out" if name == "SIGKILL" else "")
