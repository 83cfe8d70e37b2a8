"""Trainings on the nodes of a Ray cluster: how many, with what share of a node, and again where a node was lost."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headstart.comparison.child import PATIENCE, Stopped
from headstart.comparison.launcher import Launcher
from headstart.comparison.pool import MEMORY, Done, Result, Slot, Task, run_all
from headstart.comparison.ray_cluster import ClusterNode, NodeLost, Runner, Share, connected
from headstart.comparison.ray_node import Command, look, unseen
from headstart.errors import UserError
from headstart.run.display import make_console
from headstart.run.provenance import versions
from headstart.trust import trusted

TRIES = 3
"""How often a training is begun at most, where nodes are lost under it."""
SETTLE = 5.0
"""Seconds before it is begun again: a process whose Ray is gone takes up to two to end itself."""


class Nodes(Protocol):
    """What a launcher needs of `headstart.comparison.ray_cluster.Cluster`."""

    def nodes(self) -> list[ClusterNode]:
        """The machines that are alive."""

    def everywhere(self, nodes: Sequence[ClusterNode], function: Callable[..., Any], *given: Any) -> list[Any]:
        """What a function gives on each node; `NodeLost` for one that does not answer."""

    def runner(self, share: Share, stop: threading.Event) -> AbstractContextManager[Runner]:
        """Something that runs processes on one of the nodes, which has this share of it as long as it is held."""


@dataclass(frozen=True)
class RaySlot(Slot):
    """A place on a node that is held for it."""

    runner: Runner

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        stop: threading.Event | None,
        changes: Mapping[str, str | None] | None = None,
        *,
        folder: Path | None = None,
        patience: float = PATIENCE,
    ) -> int:
        """Run a module of ours to its end on the node."""
        where = (folder or log.parent).resolve()
        changed, threads = dict(changes or {}), self.threads
        command = Command(
            self.runner.name, module, tuple(arguments), log.resolve(), threads, changed, where, patience, trusted()
        )
        return self.runner.run(command, stop or threading.Event())


class RayLauncher(Launcher):
    """Places on the nodes of a Ray cluster.

    Args:
        cluster: The cluster.
        device: ``auto`` (GPUs, where there are any), ``cuda`` or ``cpu``.
        jobs: Trainings at a time, or ``auto``.
        say: Told of nodes that were lost.

    Raises:
        UserError: The cluster has no place for a training.
    """

    def __init__(self, cluster: Nodes, device: str, jobs: int | str, say: Callable[[str], None]) -> None:
        self._cluster, self._say = cluster, say
        nodes = cluster.nodes()
        self._share, self.places, self._why = shared_out(nodes, device, jobs)
        self._again: list[str] = []

    @property
    def why(self) -> str:
        """Why there are so many places, and which nodes were lost."""
        lost = f"; begun again, for its node was lost: {', '.join(self._again)}" if self._again else ""
        return self._why + lost

    def check(self, files: Sequence[Path]) -> None:
        """Ask every node that may get a training whether it sees the files and has the same versions."""
        here = {name: version for name, version in versions().items() if name not in ("python", "platform")}
        nodes = [one for one in self._cluster.nodes() if _holds(one, self._share)]
        marks = [hashlib.sha256(files[0].read_bytes()).hexdigest(), *("" for _ in files[1:])]
        asked = list(zip(map(str, files), marks, strict=True))
        found = self._cluster.everywhere(nodes, look(), asked, list(here))
        problems = [problem for node, told in zip(nodes, found, strict=True) for problem in _problems(node, told, here)]
        if problems:
            raise UserError.several(problems)

    def run_all(
        self,
        tasks: Sequence[Task],
        work: Callable[[Task, Slot, threading.Event], Result],
        tell: Callable[[Done[Task, Result]], None] = lambda done: None,
        shown: Callable[[Task], str] = str,
    ) -> tuple[list[Done[Task, Result]], bool]:
        """Do all tasks, each on a node that has room; where the node is lost, on another one."""

        def placed(task: Task, place: Slot, stop: threading.Event) -> Result:
            for left in range(TRIES - 1, -1, -1):
                try:
                    with self._cluster.runner(self._share, stop) as runner:
                        return work(task, RaySlot(place.device, place.threads, runner), stop)
                except NodeLost as lost:
                    self._lost(shown(task), lost, left)
                if stop.wait(SETTLE):
                    raise Stopped
            raise AssertionError("the last loss raises")

        return run_all(tasks, self.places, placed, tell)

    def _lost(self, what: str, lost: NodeLost, left: int) -> None:
        if not left:
            hint = "the same command begins it again; ray status says which nodes there are"
            raise UserError(f"its node was lost {TRIES} times; the last time {lost}", hint=hint)
        self._again.append(what)
        self._say(f"  {what}: its node was lost ({lost}); it is begun again")


def _holds(node: ClusterNode, share: Share) -> bool:
    """Whether a node can ever have such a share."""
    return node.cpus >= share.cpus and node.gpus >= share.gpus and node.memory >= share.memory


def _problems(node: ClusterNode, told: Any, here: Mapping[str, str]) -> Iterator[UserError]:
    if isinstance(told, NodeLost):
        yield UserError(f"the node {node.name}: {told}", where="launcher", hint="ray status says how the cluster is")
        return
    missing, there = told
    if missing:
        yield unseen(node.name, " and ".join(missing))
    for name, version in here.items():
        if there[name] != version:
            what = f"the node {node.name} has {name} {there[name]}, and here it is {version}"
            yield UserError(what, where="launcher", hint="every machine of the cluster needs the same installation")


def shared_out(nodes: Sequence[ClusterNode], device: str, jobs: int | str) -> tuple[Share, list[Slot], str]:
    """What each training gets, the places for them, and why there are so many.

    Where `jobs` are more than have room, the others wait: for the end of one, or for a cluster that grows.

    Args:
        nodes: Of the cluster.
        device: ``auto``, ``cuda`` or ``cpu``.
        jobs: Trainings at a time, or ``auto``.

    Raises:
        UserError: No node has room for one.
    """
    device = device.strip().lower()
    gpus = sum(int(node.gpus) for node in nodes)
    if device == "cuda" and not gpus:
        raise UserError("no node of the Ray cluster has a GPU", where="device", hint="use device=cpu or auto")
    return _on_cpus(nodes, jobs) if device == "cpu" or not gpus else _on_gpus(nodes, gpus, jobs)


def _on_gpus(nodes: Sequence[ClusterNode], gpus: int, jobs: int | str) -> tuple[Share, list[Slot], str]:
    """A GPU each, or an even part of one where more trainings are asked for than there are."""
    count = gpus if jobs == "auto" else int(jobs)
    sharing = max(1, math.ceil(count / gpus))
    having = [node for node in nodes if node.gpus >= 1]
    cpus = 1.0 if all(node.cpus >= node.gpus * sharing for node in having) else 0.0
    on = _named(len(having))
    why = f"{count} side by side, {'a GPU each' if sharing == 1 else f'{sharing} on a GPU'}, on {on}"
    # Ray shows a process the GPUs alone that are its own: the first of them is that.
    return Share(cpus, 1.0 if sharing == 1 else math.floor(1e4 / sharing) / 1e4), [Slot("0", None)] * count, why


def _on_cpus(nodes: Sequence[ClusterNode], jobs: int | str) -> tuple[Share, list[Slot], str]:
    """One thread a training, as far as memory goes; the threads that `jobs` leave room for, where it is a number."""
    nodes = [node for node in nodes if node.cpus >= 1]
    if not nodes:
        raise UserError("no node of the Ray cluster has a CPU for a training", where="ray")
    if jobs == "auto":
        # Each is reckoned with one and the same memory: nodes with less take part only where no other has enough.
        nodes = [node for node in nodes if node.memory >= MEMORY] or nodes
        memory = int(min([MEMORY, *(node.memory for node in nodes)]))
        count = sum(int(min(node.cpus, node.memory // memory if memory else node.cpus)) for node in nodes)
        share = Share(1.0, 0.0, memory)
    else:
        count = int(jobs)
        most = int(max(node.cpus for node in nodes))
        room = (fit for fit in range(most, 1, -1) if sum(node.cpus // fit for node in nodes) >= count)
        share = Share(float(next(room, 1)), 0.0)
    threads = int(share.cpus)
    why = f"{count} side by side, {threads} thread{'s' * (threads > 1)} each, on {_named(len(nodes))}"
    return share, [Slot("cpu", threads)] * count, why


def _named(nodes: int) -> str:
    return f"{nodes} node{'s' * (nodes > 1)} of a Ray cluster"


@contextmanager
def open_ray(address: str | None, device: str, jobs: int | str) -> Iterator[RayLauncher]:
    """Trainings on the cluster at an address; without one on a Ray of this machine alone.

    Raises:
        UserError: It cannot be reached, or has no place for a training.
    """
    console = make_console(stderr=True, soft_wrap=True)
    with connected(address) as cluster:
        yield RayLauncher(cluster, device, jobs, lambda line: console.print(line, markup=False))
