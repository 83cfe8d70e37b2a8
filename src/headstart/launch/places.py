"""Which of the processes of a run this is, by what those say that started it: torchrun, srun, Kubernetes, or nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from headstart.errors import UserError

TORCHRUN = "TORCHELASTIC_RUN_ID"
_RANKS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", TORCHRUN}
_TASKS = {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"}


@dataclass(frozen=True)
class Place:
    """Which of the processes of a run this is.

    Attributes:
        rank, world: Its number, from 0, and how many there are.
        local_rank, local_world: The same on this machine.
        address, port: Where the first process is found; port 0: any that is free.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str = "127.0.0.1"
    port: int = 0


_kept: Place | None = None
_by_itself = False


def launched() -> Place | None:
    """The place of this process, where it was started as one of several; None where it was not.

    Raises:
        UserError: Its environment is half of what is needed.
    """
    return None if _by_itself else _kept or told_by(os.environ)


@contextmanager
def by_itself() -> Iterator[None]:
    """Look at what a process does that was started as one of nobody's, such as a pretraining of a comparison."""
    global _by_itself
    before, _by_itself = _by_itself, True
    try:
        yield
    finally:
        _by_itself = before


def keep(place: Place) -> None:
    """Remember the place of this process, and take its number out of the environment.

    Ultralytics reads it as it is imported, and then waits for the other processes of a training of its own.
    """
    global _kept
    _kept = place
    for name in ("RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)


def alone() -> Mapping[str, None]:
    """What is to be gone from the environment of a process, so that it takes itself for no part of this one's run.

    Under srun, and under torchrun, a process has it from the one that starts it.
    """
    return dict.fromkeys(sorted(_RANKS | _TASKS))


def told_by(e: Mapping[str, str]) -> Place | None:
    """The place that an environment tells; see `launched`."""
    try:
        if "RANK" in e and int(e.get("WORLD_SIZE", 1)) > 1:
            local = int(e.get("LOCAL_RANK", 0)), int(e.get("LOCAL_WORLD_SIZE", 1))
            return Place(int(e["RANK"]), int(e["WORLD_SIZE"]), *local, e["MASTER_ADDR"], int(e["MASTER_PORT"]))
        # Of srun alone: a batch script is one process, however many it starts.
        return _of_srun(e) if int(e.get("SLURM_STEP_NUM_TASKS", 1)) > 1 else None
    except (KeyError, ValueError) as error:
        what = f"this process was started as one of several, but its environment is not whole: {error}"
        raise UserError(
            what, hint="torchrun and srun set RANK, WORLD_SIZE, MASTER_ADDR, ...; see docs/scale.md"
        ) from None


def _of_srun(e: Mapping[str, str]) -> Place:
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = e.get("SLURM_STEP_NODELIST") or e.get("SLURM_NODELIST") or "127.0.0.1"
    address = e.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # A job may have several steps at a time; neighbours in the queue have numbers that follow each other.
    number = int(e.get("SLURM_JOB_ID", 0)) + 1009 * int(e.get("SLURM_STEP_ID", 0))
    port = int(e.get("MASTER_PORT") or 15_000 + number % 10_000)
    here = e.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0].partition(",")[0]  # "2(x3)" or "2,1"
    return Place(
        int(e["SLURM_PROCID"]), int(e["SLURM_STEP_NUM_TASKS"]), int(e["SLURM_LOCALID"]), int(here), address, port
    )


def by_hand(nodes: int, local: int, environment: Mapping[str, str] | None = None) -> Place:
    """The place of the one process that was started by hand on each of several machines, and starts those beside it.

    Args:
        nodes: Machines.
        local: Processes on each.
        environment: Variables of the process; by default its own.

    Raises:
        UserError: It is not said which machine this is, or where the first one is.
    """
    e = os.environ if environment is None else environment
    if nodes == 1:
        return Place(0, local, 0, local)
    try:
        number, address, port = int(e["NODE_RANK"]), e["MASTER_ADDR"], int(e["MASTER_PORT"])
    except (KeyError, ValueError):
        what = "MASTER_ADDR and MASTER_PORT must say where the first machine is, and NODE_RANK which one this is"
        raise UserError(what, where="nodes", hint="set them on each (0 is the first); torchrun and srun do") from None
    return Place(number * local, nodes * local, 0, local, address, port)
