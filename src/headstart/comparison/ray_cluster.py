"""A Ray cluster: what its nodes have, and processes on them; whatever is asked of Ray is asked here."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from headstart import machine
from headstart.comparison.child import Stopped
from headstart.comparison.ray_node import Command, NodeRunner
from headstart.errors import UserError

# Set before Ray is imported, for it reads some of them then; what the user has set stays.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would pack the current folder and send it to every node
}
_SAVING = 5.0
"""Seconds beyond its patience that a process which is told to stop is waited for."""
_ANSWER = 120.0
"""Seconds in which every node has to answer."""
_KNOCK = 10.0
"""Seconds in which a cluster has to answer."""
_HINT = "run the comparison on a machine of the cluster; ray status there says whether it is up"


class NodeLost(Exception):  # noqa: N818 - what ran there is begun again
    """A node, or what Ray runs on it, is gone, and what it ran with it."""


@dataclass(frozen=True)
class ClusterNode:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: For people: its host, and what Ray calls it.
        cpus: CPUs that Ray deals out there, taken or not; so for GPUs.
        memory: Bytes that Ray deals out there.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float

    @staticmethod
    def read(told: Mapping[str, Any]) -> ClusterNode:
        """One of ``ray.nodes()``."""
        host, name, has = told["NodeManagerHostname"], told.get("NodeName") or "", told.get("Resources") or {}
        shown = host if name in ("", host) else f"{host} ({name})"
        return ClusterNode(told["NodeID"], shown, has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0))


@dataclass(frozen=True)
class Share:
    """What a training takes of a node: CPUs, GPUs or a part of one, and bytes of memory (0: as much as it likes)."""

    cpus: float
    gpus: float
    memory: int = 0


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: The module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def nodes(self) -> list[ClusterNode]:
        """The machines that are alive."""
        return [ClusterNode.read(one) for one in self._ray.nodes() if one["Alive"]]

    def everywhere(self, nodes: Sequence[ClusterNode], function: Callable[..., Any], *given: Any) -> list[Any]:
        """What a function gives on each of these nodes; `NodeLost` for one that does not answer."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self._ray.remote(num_cpus=0, max_retries=0)(function)
        there = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes]
        asked = [task.options(scheduling_strategy=one).remote(*given) for one in there]
        ended, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_ANSWER)
        return [self._answer(one) if one in ended else NodeLost("it does not answer") for one in asked]

    def _answer(self, asked: Any) -> Any:
        try:
            return self.result(asked)
        except NodeLost as lost:
            return lost

    @contextmanager
    def runner(self, share: Share, stop: threading.Event) -> Iterator[Runner]:
        """Something that runs processes on one of the nodes, which has this share of it as long as it is held.

        Waits until there is room.

        Raises:
            Stopped: `stop` was set before there was room.
            NodeLost: The node was lost while Ray made it.
        """
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_concurrency": 2, "max_restarts": 0}
        options |= {"memory": share.memory} if share.memory else {}
        handle = self._ray.remote(**options)(NodeRunner).remote()
        try:
            number = self.result(handle.node.remote(), stop)
            name = next((node.name for node in self.nodes() if node.id == number), number)
            yield Runner(self, handle, name)
        finally:
            with suppress(Exception):  # it is gone already, or the cluster is
                self._ray.kill(handle)

    def result(
        self,
        asked: Any,
        stop: threading.Event | None = None,
        end: Callable[[], object] = lambda: None,
        patience: float = 0.0,
    ) -> Any:
        """What a task of Ray gives, or the error that it raised.

        Args:
            asked: Ray's reference to it.
            stop: Once set, it is waited for no longer.
            end: Called then, before `patience` seconds in which it may end.

        Raises:
            Stopped: `stop` was set.
            NodeLost: What ran it is gone.
        """
        from ray.exceptions import RayError, RayTaskError

        while stop and not self._ray.wait([asked], timeout=0.2)[0]:
            if stop.is_set():
                end()
                self._ray.wait([asked], timeout=patience)
                raise Stopped
        try:
            return self._ray.get(asked)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise NodeLost(_why(error)) from None


class Runner:
    """Runs processes on a node.

    Attributes:
        name: Of the node, for people.
    """

    def __init__(self, cluster: Cluster, handle: Any, name: str) -> None:
        self._cluster, self._handle, self.name = cluster, handle, name

    def run(self, command: Command, stop: threading.Event) -> int:
        """Run a process to its end, and return its exit status; what it raises there is raised here.

        Raises:
            Stopped: `stop` was set, and it had the time to save what it has.
            NodeLost: The node is gone, or was told to end and ended the process.
        """
        asked, patience = self._handle.run.remote(command), command.patience + _SAVING
        try:
            code = int(self._cluster.result(asked, stop, self._handle.stop.remote, patience))
        except NodeLost as lost:
            raise NodeLost(f"{self.name}: {lost}") from None
        except Stopped:
            if stop.is_set():
                raise
            code = -signal.SIGTERM
        if code == -signal.SIGTERM:  # what nobody here has asked for: a system that ends its processes
            raise NodeLost(f"{self.name}: a signal ended what ran there")
        return code


def _why(error: Exception) -> str:
    """What Ray says, less its advice and its numbers of actors."""
    kinds = {
        "ActorUnavailableError": "it is out of reach",
        "ActorDiedError": "what ran there died",
        "NodeDiedError": "it is gone",
        "OutOfMemoryError": "its memory ran out, and Ray ended what ran there",
    }
    first = (str(error).strip().splitlines() or [""])[0]
    return kinds.get(type(error).__name__) or f"{type(error).__name__}: {first}"


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """The cluster at an address, or a new one of this machine alone, which ends with us.

    A cluster that this process is connected to already is taken in their place, and left as it is.

    Raises:
        UserError: It cannot be reached.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield Cluster(ray)
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    # A cluster of this machine alone is not to be had from other machines.
    own = {"address": "local", "num_cpus": machine.cores(), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    if address and address != "auto":
        _knock(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**({"address": address} if address else own), log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray has many, down to a plain one
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = f"no Ray cluster is reached at {address}: {told}" if address else f"Ray does not start here: {told}"
        raise UserError(what, where="ray", hint=_HINT if address else None) from None
    finally:
        # Ray takes it for itself: a system's word to end would not stop trainings.
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Refuse an address at which nothing listens; Ray would try for a minute or more.

    Raises:
        UserError: It is none, or nothing listens there.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        raise UserError(f"{address!r} is not an address", where="ray", hint="give HOST:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"nothing answers at {address}: {why}", where="ray", hint=_HINT) from None
