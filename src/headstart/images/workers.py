"""Processes that load: how they start, hand over and end, and what is said when the system ends one.

Whatever happens to one of them is told where the next item is asked for, between two steps, so that what was trained
until then can be saved.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import queues
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from headstart import machine
from headstart.errors import RunError
from headstart.run.stopping import SIGNALS

AHEAD = 2
"""Items that each process has ready, as DataLoader has it by default."""
_END = object()
_NOT_HANDED_OVER = 70  # an exit status that nothing else here uses
_HELP = "use fewer workers or a smaller batch, or workers=0; in docker, --shm-size gives more shared memory"


def produced(dataset: Dataset[Any], order: Sequence[int], workers: int, *, pin: bool = False) -> Generator[Any]:
    """The items of a dataset in order, made by processes ahead of time; the processes end with the generator.

    Args:
        dataset: Copied into every process.
        order: What to get of it, one by one.
        workers: Processes; 0 makes all of it in this one.
        pin: Whether items come in page-locked memory.

    Raises:
        RunError: Processes cannot be started, or the system ends one.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,  # an item of ours is a whole batch
        sampler=order,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        # As Python did until 3.14: other ways run the user's script again, which then needs a main guard.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        pin_memory=pin,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # its own: a draw from the global one would set a resumed run apart
    )
    before = _on_deaths()
    items = _started(loader, before)
    try:
        while (item := _next(items, workers)) is not _END:
            yield item
    finally:
        _end(items)
        if _is_torchs(before):  # of a loader of the user's; a handler of theirs may be within it
            _set_on_deaths(before)


def _started(loader: DataLoader[Any], before: Any) -> Iterator[Any]:
    try:
        with _signals_held():
            items = iter(loader)
    except OSError as error:  # no locks without shared memory, no processes without memory
        what = f"loader processes cannot be started: {error.strerror or error}"
        raise RunError(what, where="workers", hint=_HELP) from None
    _leave_deaths_to_next(before)
    return items


def _next(items: Iterator[Any], workers: int) -> Any:
    try:
        return next(items, _END)
    except (RuntimeError, EOFError, OSError) as error:  # the last two: it died while handing something over
        text = str(error)
        raised_within = text.startswith("Caught ") and "pin memory thread" not in text
        if not workers or raised_within:  # an error in our own code, told with its worker's trace
            raise
        if "Too many open files" in text:
            raise RunError(
                "this process has too many files open to get what the loader processes read",
                where="workers",
                hint="raise the limit (ulimit -n 4096), or use workers=0",
            ) from None
        if not isinstance(error, (EOFError, OSError)) and "DataLoader worker (pid" not in text:
            raise
        raise RunError(_how_it_ended(items), where="workers", hint=_HELP) from None


def _how_it_ended(items: Iterator[Any]) -> str:
    """What became of the processes, by their exit status."""
    ended = [worker for worker in getattr(items, "_workers", ()) if worker.exitcode]
    codes = [worker.exitcode for worker in ended]
    if _NOT_HANDED_OVER in codes:
        return "a loader process could not hand over what it read: shared memory is full, or too many files are open"
    if not codes:
        return "a loader process was ended by the system in mid-batch"
    why = {-signal.SIGKILL: "memory ran out, as a rule", -getattr(signal, "SIGBUS", 7): "shared memory is full"}
    name = signal.Signals(-codes[0]).name if codes[0] < 0 else f"exit status {codes[0]}"
    reason = f": {why[codes[0]]}" if codes[0] in why else ""
    return f"a loader process was ended by the system ({name}{reason})"


def _end(items: Iterator[Any]) -> None:
    """End the processes now: else they would go on until the garbage is collected."""
    shutdown = getattr(items, "_shutdown_workers", None)
    if shutdown is None:
        return
    with suppress(RuntimeError, OSError):  # of a process that was killed, which `_next` tells
        shutdown()
    for worker in getattr(items, "_workers", ()):
        if worker.is_alive():  # stuck in a file or behind a lock; it does not listen to terminate()
            worker.kill()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and its like while workers start: they inherit that, else one signalled early would end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where `start_worker` alone has to do
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_deaths_to_next(before: Any) -> None:
    """Take back the handler with which torch raises in whatever line runs when a worker dies, in the midst of a step
    too: asked for the next item, it looks after its workers all the same, every few seconds.

    Args:
        before: The handler before the workers were started, which is the user's, or none.
    """
    if _is_torchs(_on_deaths()):
        _set_on_deaths(signal.SIG_DFL if _is_torchs(before) or before is None else before)
        # Torch sets its handler once a process: a loader of the user's, later on, is to have it.
        torchs = sys.modules.get("torch.utils.data._utils.signal_handling")
        if torchs is not None and hasattr(torchs, "_SIGCHLD_handler_set"):
            torchs._SIGCHLD_handler_set = False  # type: ignore[attr-defined]


def _on_deaths() -> Any:
    """What is called where a process that was started here ends; None where that is nobody's to say."""
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None


def _set_on_deaths(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():  # no other one may, torch neither
        signal.signal(signal.SIGCHLD, handler)


def _is_torchs(handler: Any) -> bool:
    return (getattr(handler, "__module__", None) or "").startswith("torch.utils.data")


def start_worker(_: int) -> None:
    """What each worker does first: one thread, no ear for Ctrl-C and its like, and an end where it would be stuck."""
    # They are for the main process, which saves and then ends us; systemd and terminals send them to the whole group.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    queues.Queue._on_queue_feeder_error = staticmethod(_die)  # type: ignore[attr-defined]
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _die(error: Exception, item: object) -> None:
    """What cannot be handed over would be printed and forgotten, and waited for until the end of time."""
    os._exit(_NOT_HANDED_OVER)


def fits_shared_memory(size: int) -> bool:
    """Whether `size` bytes can be handed over in shared memory; beyond its end a process is killed, not told."""
    free = machine.shared_memory()
    return free is None or free > size + size // 8 + 2**20
