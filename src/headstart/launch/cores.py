"""Cores that are this process's own: the processes of a run that are on one machine share those that they may use."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from headstart import machine, ranks

if TYPE_CHECKING:
    import torch

_MOST = 16
"""Loader processes beside a GPU: with more of them it is no faster."""
_own: int | None = None


def own_cores(processes: int = 1) -> int:
    """Cores that this process may keep busy, beside the others of its run on this machine; 1 or more.

    Args:
        processes: How many the run will have on this machine, where they are not there yet.
    """
    return _own or max(1, machine.cores() // processes)


def loader_workers(workers: int | Literal["auto"], device: torch.device, processes: int = 1) -> int:
    """Processes that read images: as given, or this one's cores beside a GPU (16 at most), half of them beside a CPU.

    Args:
        workers: As asked.
        device: On which the network is computed.
        processes: As for `own_cores`.
    """
    if workers != "auto":
        return workers
    own = own_cores(processes)
    return min(own, _MOST) if device.type == "cuda" else max(1, own // 2)


def share_cores(local: int) -> None:
    """Find out together which cores are whose: called by all processes of a run, once they are joined.

    Args:
        local: Processes of the run on this machine.
    """
    global _own
    mine = socket.gethostname(), machine.allowed()
    here = [cores for name, cores in ranks.of_all(mine) if name == mine[0]]
    if len(here) != local:  # containers may have a name each, or machines the same one
        here = [mine[1]] * local
    _own = part(mine[1], here, machine.quota())


def unshare_cores() -> None:
    """The others have gone."""
    global _own
    _own = None


def part(mine: frozenset[int], here: Sequence[frozenset[int]], quota: float) -> int:
    """Of the cores that a process may run on its part: those that Slurm bound it to are its own already.

    Args:
        mine: The cores, by their numbers.
        here: The same of each process on the machine, this one among them.
        quota: Cores that all together may keep busy.
    """
    users = Counter(core for cores in here for core in cores)
    own = sum(Fraction(1, users[core]) for core in mine)
    return max(1, math.floor(min(float(own), quota / len(here))))
