"""How the processes of a run find each other, and how they end together when one of them does.

Where torchrun, srun or Kubernetes started this process, it joins the others. Where nobody did, the first process of a
machine starts those beside it: as the same command without options, since they get all that they need from the first.
So it does not matter what called the first: a terminal, a script, a notebook.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, cast

from headstart import ranks
from headstart.errors import RunError, UserError
from headstart.launch.beside import GO_ON, GRACE, Beside, LostError, Store, lost, said
from headstart.launch.children import PARENT, end_with_parent
from headstart.launch.cores import own_cores, share_cores, unshare_cores
from headstart.launch.devices import training_devices
from headstart.launch.places import TORCHRUN, Place, by_hand, keep, launched

PATIENCE = timedelta(minutes=10)
"""After which a process that waits for another in a step gives up."""
LONG = timedelta(days=14)
"""After which one gives up that waits for what the first process does by itself, such as a search for objects."""
QUIET = 30.0
"""Seconds after which it is said what is waited for."""

_here = 1
_store: Store | None = None
_beside: Beside | None = None


def local_processes() -> int:
    """Processes of the run on this machine, which share its cores."""
    return _here


def join_launched() -> None:
    """Join the others, where this process was started as one of several; it joins once, and stays."""
    place = launched()
    if place is None or ranks.joined():
        return
    import torch

    if PARENT in os.environ:
        end_with_parent(1.0, GRACE)
    store = None if TORCHRUN in os.environ else _meeting(place)
    if store and PARENT in os.environ:
        store.set(f"here/{place.rank}", "")
    _join(place, store)
    torch.set_num_threads(_own_threads(place.local_world))
    keep(place)
    atexit.register(_leave)


@contextmanager
def others(device: str | int, devices: str, nodes: int) -> Iterator[None]:
    """Beside the other processes of a run: they are started and joined here, where there are some and nobody has.

    Raises:
        RunError: One of them ended before the run did.
    """
    global _beside
    local = len(training_devices(device, devices))
    if ranks.joined():
        with explained():
            yield
        return
    if local * nodes == 1:
        with threads_for(1), explained():
            yield
        return
    place = by_hand(nodes, local)
    with _within_machine(nodes == 1), threads_for(local), explained():
        if place.rank:  # the first machine opens its port once it has looked at its images
            _until_there(place, LONG.total_seconds())
        store = _meeting(place)
        _beside = Beside(place, place.port or int(store.port), store)
        try:
            _beside.wait(PATIENCE.total_seconds())
            _join(place, store)
            with explained():
                yield
            _beside.end(PATIENCE.total_seconds())
        finally:
            _leave()
            _beside.end(GRACE)
            _beside = None


@contextmanager
def threads_for(processes: int) -> Iterator[None]:
    """Compute with this process's share of the cores, for a while, as one of so many on this machine."""
    from headstart.launch.threads import computing_on

    with computing_on(_own_threads(processes)):
        yield


def _own_threads(processes: int) -> int:
    """As many threads as this process has cores of its own, or fewer, where OMP_NUM_THREADS or the caller says so.

    Torch starts with one for each core of the machine, whatever quota a container has. The variable alone says nothing:
    Ultralytics sets it to 1 on being imported, which is too late for this process and binds those that it starts.
    """
    import torch

    return min(torch.get_num_threads(), own_cores(processes))


@contextmanager
def _within_machine(alone: bool) -> Iterator[None]:
    """Processes of one machine talk within it, whatever the name of the machine stands for."""
    name = "GLOO_SOCKET_IFNAME"
    if not alone or name in os.environ or sys.platform != "linux":
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _until_there(place: Place, seconds: float) -> None:
    """Wait until the first machine answers. Not in torch's own waiting, which no Ctrl-C ends.

    Raises:
        RunError: It does not.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((place.address, place.port), 5.0).close()
            return
        except OSError as error:
            words, waited = f"{_silent(place)} ({error})", time.monotonic() - began
        if waited > seconds:
            raise RunError(words, where="nodes", hint=_LOOK)
        if waited > QUIET and not said:
            said = True
            print(f"headstart: {words}; it is waited for: it does once it has looked at its images", file=sys.stderr)
        time.sleep(min(1.0, seconds))


_LOOK = "is its run at work, and do MASTER_ADDR and MASTER_PORT say where?"


def _silent(place: Place) -> str:
    return f"the first machine does not answer at {place.address}:{place.port}"


def _meeting(place: Place) -> Store:
    """Where they leave each other words; the first process keeps it.

    Raises:
        RunError: It cannot, or does not answer.
    """
    import torch.distributed as dist

    store: Any = vars(dist)["TCPStore"]  # exported, and not declared so
    first = place.rank == 0
    try:
        return store(place.address, place.port, place.world, first, PATIENCE, wait_for_workers=False)
    except (RuntimeError, dist.DistError) as error:
        if not first:
            raise RunError(_silent(place), where="nodes", hint=_LOOK) from error
        what = f"port {place.port} of {place.address} cannot be opened: {str(error).splitlines()[0]}"
        raise RunError(what, where="nodes", hint="is another run at work there? MASTER_PORT says which port") from error


def _join(place: Place, store: Store | None) -> None:
    global _here, _store
    import torch
    import torch.distributed as dist

    where: dict[str, Any] = {"store": store, "rank": place.rank, "world_size": place.world} if store else {}
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=PATIENCE, **where)
    ranks.be_patient(cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=LONG)))
    share_cores(place.local_world)
    _here = place.local_world
    _store = store or dist.distributed_c10d._get_default_store()


def _leave() -> None:
    global _here, _store
    import torch.distributed as dist

    ranks.be_patient(None)
    _here, _store = 1, None
    unshare_cores()
    with suppress(RuntimeError, AssertionError):  # of what is broken, or was not whole yet
        dist.destroy_process_group()


# -- when one ends ----------------------------------------------------------------------------------------------------


@contextmanager
def explained() -> Iterator[None]:
    """Say which process ended, in place of what that does to those which talk to it."""
    try:
        yield
    except BaseException as error:
        told = _told(error)
        if told is None:
            raise
        raise told from None


def _told(error: BaseException) -> LostError | None:
    if isinstance(
        error, KeyboardInterrupt
    ):  # this process was asked to end: by the watch over the others, or by a user
        return _beside.failure(0.0) if _beside else None
    if not _is_broken(error):
        return None
    if _beside and (failure := _beside.failure(2.0)):
        return failure
    for rank in range(_world()):
        if words := said(_store, rank):
            return lost(rank, words)
    return LostError("another process of the run ended, or cannot be reached any more", hint=GO_ON)


def _world() -> int:
    import torch.distributed as dist

    return dist.get_world_size() if ranks.joined() else 0


def _is_broken(error: BaseException) -> bool:
    """Whether processes cannot talk any more: torch has classes for some of it, and words for the rest."""
    import torch.distributed as dist

    words = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
    known = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return known or isinstance(error, dist.DistError)


def say(error: BaseException) -> bool:
    """Leave word of what ends this process, for the first one to tell; whether there is one to tell it."""
    if _store is None:
        return False
    words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if isinstance(error, (LostError, KeyboardInterrupt)):  # who ended first has more to say
        words = ""
    with suppress(RuntimeError):  # the first one has ended
        _store.set(f"said/{ranks.rank()}", words)
        return True
    return False
