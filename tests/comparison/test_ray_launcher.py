"""Trainings on a Ray cluster, without Ray: shares of nodes, tries, and what nodes are asked."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headstart.comparison import child, ray_launcher
from headstart.comparison.child import Stopped
from headstart.comparison.launcher import address, launcher_problems, open_launcher
from headstart.comparison.pool import Done, Slot
from headstart.comparison.ray_cluster import Cluster, ClusterNode, NodeLost, Runner, Share, _knock
from headstart.comparison.ray_launcher import TRIES, RayLauncher, RaySlot, shared_out
from headstart.comparison.ray_node import Command, NodeRunner
from headstart.errors import UserError
from headstart.settings.schema import CompareSettings
from headstart.trust import granted

GIB = 2**30


def node(cpus: float, gpus: float = 0, memory: float = 64 * GIB, name: str = "a") -> ClusterNode:
    return ClusterNode(name, name, cpus, gpus, memory)


# As ``ray.nodes()`` of Ray 2.60 gives it, less what is not read.
TOLD: list[dict[str, Any]] = [
    {
        "NodeID": "2699", "Alive": True, "NodeManagerAddress": "10.0.0.2", "NodeManagerHostname": "gpu-02",
        "NodeName": "10.0.0.2", "Resources": {
            "CPU": 8.0, "node:__internal_head__": 1.0, "node:10.0.0.2": 1.0, "memory": 21432991744.0,
            "object_store_memory": 83886080.0, "GPU": 2.0, "accelerator_type:A100": 1.0,
        },
    },
    {
        "NodeID": "78cd", "Alive": True, "NodeManagerAddress": "10.0.0.3", "NodeManagerHostname": "gpu-03",
        "NodeName": "gpu-03", "Resources": {"node:10.0.0.3": 1.0, "memory": 20517740544.0},
    },
    {
        "NodeID": "0e11", "Alive": False, "NodeManagerAddress": "10.0.0.4", "NodeManagerHostname": "gpu-04",
        "NodeName": "10.0.0.4", "Resources": {},
    },
]  # fmt: skip


def test_the_nodes_that_are_alive() -> None:
    ray = ModuleType("ray")
    ray.nodes = lambda: TOLD  # type: ignore[attr-defined]
    assert Cluster(ray).nodes() == [
        ClusterNode("2699", "gpu-02 (10.0.0.2)", 8.0, 2.0, 21432991744.0),
        ClusterNode("78cd", "gpu-03", 0.0, 0.0, 20517740544.0),
    ]


# Nodes, device=, jobs= -> what each training gets, how many places, and their device and threads.
SHARES: list[tuple[list[ClusterNode], str, int | str, Share, int, Slot]] = [
    # One thread a training, as many as cores and 3 GiB each allow: 8 and min(16, 20 // 3).
    ([node(8), node(16, memory=20 * GIB)], "cpu", "auto", Share(1, 0, 3 * GIB), 8 + 6, Slot("cpu", 1)),
    # A node of less than 3 GiB still takes one.
    ([node(4, memory=2 * GIB)], "auto", "auto", Share(1, 0, 2 * GIB), 1, Slot("cpu", 1)),
    # Beside others it takes none: all are reckoned with one and the same memory.
    ([node(2, memory=GIB), node(64)], "cpu", "auto", Share(1, 0, 3 * GIB), 21, Slot("cpu", 1)),
    # A head that deals out no CPUs takes none.
    ([node(0), node(2)], "auto", "auto", Share(1, 0, 3 * GIB), 2, Slot("cpu", 1)),
    # 4 trainings on 8 + 8 cores have 4 threads each; 3 on 8 + 4 have 4 each: with 5, one node has room for one alone.
    ([node(8), node(8)], "cpu", 4, Share(4, 0), 4, Slot("cpu", 4)),
    ([node(8), node(4)], "cpu", 3, Share(4, 0), 3, Slot("cpu", 4)),
    # More than there are cores: one thread each, and the others wait.
    ([node(2)], "cpu", 5, Share(1, 0), 5, Slot("cpu", 1)),
    # A GPU each, the first that it is shown.
    ([node(8, 2), node(8, 1), node(4)], "auto", "auto", Share(1, 1), 3, Slot("0", None)),
    ([node(8, 2), node(8, 1)], "cuda", 2, Share(1, 1), 2, Slot("0", None)),
    # 7 on 3 GPUs: three on each at most.
    ([node(8, 2), node(8, 1)], "auto", 7, Share(1, 0.3333), 7, Slot("0", None)),
    # A node that deals out fewer CPUs than it has GPUs.
    ([node(1, 4)], "auto", "auto", Share(0, 1), 4, Slot("0", None)),
    ([node(8, 2)], "CPU", 2, Share(4, 0), 2, Slot("cpu", 4)),
]


@pytest.mark.parametrize(("nodes", "device", "jobs", "share", "count", "place"), SHARES)
def test_shares(nodes: list[ClusterNode], device: str, jobs: int | str, share: Share, count: int, place: Slot) -> None:
    found, places, _ = shared_out(nodes, device, jobs)
    assert (found, places) == (share, [place] * count)


def test_why_there_are_so_many() -> None:
    assert shared_out([node(8), node(8)], "cpu", 4)[2] == "4 side by side, 4 threads each, on 2 nodes of a Ray cluster"
    assert shared_out([node(1)], "cpu", 1)[2] == "1 side by side, 1 thread each, on 1 node of a Ray cluster"
    assert shared_out([node(8, 2)], "auto", 2)[2] == "2 side by side, a GPU each, on 1 node of a Ray cluster"
    assert shared_out([node(8, 2)], "auto", 6)[2] == "6 side by side, 3 on a GPU, on 1 node of a Ray cluster"


def test_no_place() -> None:
    with pytest.raises(UserError, match="no node of the Ray cluster has a GPU"):
        shared_out([node(8)], "cuda", "auto")
    with pytest.raises(UserError, match="no node of the Ray cluster has a CPU for a training"):
        shared_out([node(0)], "auto", "auto")


class Nodes:
    """A cluster whose nodes are lost as it is told: ``lost`` says how often what a training begins is gone."""

    def __init__(self, lost: int = 0) -> None:
        self.lost, self.held = lost, list[Share]()

    def nodes(self) -> list[ClusterNode]:
        return [node(2, name="n1"), node(1, name="n2"), node(0, name="head")]

    def everywhere(self, nodes: Sequence[ClusterNode], function: Callable[..., Any], *given: Any) -> list[Any]:
        assert [one.name for one in nodes] == ["n1", "n2"]
        return [function(*given), NodeLost("it does not answer")]

    @contextmanager
    def runner(self, share: Share, stop: threading.Event) -> Iterator[Runner]:
        self.held.append(share)
        yield Runner(Cluster(ModuleType("ray")), None, "n1")

    def take(self) -> None:
        self.lost -= 1
        if self.lost >= 0:
            raise NodeLost("gone")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "SETTLE", 0.0)


def test_a_lost_node_costs_a_try() -> None:
    said: list[str] = []
    launcher = RayLauncher(nodes := Nodes(lost=2), "cpu", 1, said.append)
    before = launcher.why

    def work(task: str, place: Slot, stop: threading.Event) -> str:
        assert isinstance(place, RaySlot)
        assert (place.device, place.threads, place.runner.name) == ("cpu", 2, "n1")
        nodes.take()
        return task * 2

    told: list[Done[str, str]] = []
    outcome, stopped = launcher.run_all(["a"], work, told.append, lambda task: f"training {task}")
    assert (outcome, stopped) == ([Done("a", "aa")], False)
    assert told == outcome
    assert nodes.held == [Share(2, 0)] * 3
    assert said == ["  training a: its node was lost (gone); it is begun again"] * 2
    assert launcher.why == before + "; begun again, for its node was lost: training a, training a"


def test_nodes_that_are_lost_again_and_again() -> None:
    launcher = RayLauncher(nodes := Nodes(lost=9), "cpu", 1, lambda line: None)
    (done,), _ = launcher.run_all(["a"], lambda task, place, stop: nodes.take())
    assert len(nodes.held) == TRIES == 3
    assert done.error.startswith("its node was lost 3 times; the last time gone\n")


@pytest.mark.parametrize(("error", "told"), [(UserError("it diverged"), "it diverged"), (OSError("x"), "OSError: x")])
def test_its_own_fault_is_not_tried_again(error: Exception, told: str) -> None:
    launcher = RayLauncher(nodes := Nodes(), "cpu", 1, lambda line: None)

    def fail(task: str, place: Slot, stop: threading.Event) -> None:
        raise error

    outcome, _ = launcher.run_all(["a"], fail)
    assert (outcome, len(nodes.held)) == ([Done("a", None, told)], 1)


def test_ctrl_c_ends_the_wait_before_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "SETTLE", 60.0)
    launcher = RayLauncher(nodes := Nodes(lost=1), "cpu", 2, lambda line: None)

    def work(task: int, place: Slot, stop: threading.Event) -> None:
        if task == 0:
            nodes.take()
        raise Stopped

    assert launcher.run_all([0, 1], work) == ([Done(0), Done(1)], True)


def test_what_nodes_do_not_see_and_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compare.yaml").write_text("x")
    monkeypatch.setattr(ray_launcher, "versions", lambda: {"python": "3", "platform": "Linux", "numpy": "0.1"})
    launcher = RayLauncher(Nodes(), "cpu", "auto", lambda line: None)
    with pytest.raises(UserError) as found:
        launcher.check([tmp_path / "compare.yaml", tmp_path, tmp_path / "gone.jpg"])
    import numpy

    assert [(one.where, one.what) for one in found.value.parts] == [
        ("launcher", f"the node n1 does not see {tmp_path / 'gone.jpg'}"),
        ("launcher", f"the node n1 has numpy {numpy.__version__}, and here it is 0.1"),
        ("launcher", "the node n2: it does not answer"),
    ]


def test_a_folder_of_the_same_name_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node may have a folder of its own at that place: the record in it tells."""
    record = tmp_path / "compare.yaml"
    record.write_text("x")

    class Elsewhere(Nodes):
        def everywhere(self, nodes: Sequence[ClusterNode], function: Callable[..., Any], *given: Any) -> list[Any]:
            record.write_text("y")
            return [function(*given), ([], {})]

    monkeypatch.setattr(ray_launcher, "versions", dict)
    with pytest.raises(UserError, match=f"the node n1 does not see {record}"):
        RayLauncher(Elsewhere(), "cpu", "auto", lambda line: None).check([record])


def test_what_a_node_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very process of the local pool: environment, folder and trust as they are asked for."""
    asked: list[Command] = []

    class Told(Runner):
        def run(self, command: Command, stop: threading.Event) -> int:
            asked.append(command)
            return NodeRunner().run(command)

    place = RaySlot("cpu", 3, Told(Cluster(ModuleType("ray")), None, "n1"))
    code = "import os; print(os.getcwd(), *map(os.environ.get, ['OMP_NUM_THREADS', 'A', 'HEADSTART_TRUST']))"
    (tmp_path / "shows.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    (tmp_path / "there").mkdir()
    log = tmp_path / "log"
    with granted(True):
        assert place.run("shows", [], log, None, {"A": "b"}, folder=tmp_path / "there") == 0
    assert log.read_text().split() == [str(tmp_path / "there"), "3", "b", "1"]
    assert asked[0].patience == child.PATIENCE
    with pytest.raises(UserError, match=f"the node n1 does not see {tmp_path / 'gone'}"):
        place.run("shows", [], tmp_path / "gone" / "log", None)


@pytest.mark.parametrize("ended", ["by a signal", "as by Ctrl-C"])
def test_what_a_system_ends_is_lost_and_not_failed(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def result(*_: Any) -> int:
        if ended == "as by Ctrl-C":
            raise Stopped
        return -signal.SIGTERM

    class Handle:
        class run:  # noqa: N801
            remote = staticmethod(lambda command: None)

        stop = run

    cluster = Cluster(ModuleType("ray"))
    monkeypatch.setattr(cluster, "result", result)
    command = Command("n1", "m", (), Path("log"), 1, {}, Path(), 1.0, False)
    with pytest.raises(NodeLost, match=r"^n1: a signal ended what ran there$"):
        Runner(cluster, Handle, "n1").run(command, stop := threading.Event())
    stop.set()
    if ended == "as by Ctrl-C":
        with pytest.raises(Stopped):
            Runner(cluster, Handle, "n1").run(command, stop)


def test_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (address(None), address("local"), address("a:1")) == (None, None, "a:1")
    monkeypatch.setenv("RAY_ADDRESS", "b:2")
    assert (address(None), address("local"), address("a:1")) == ("b:2", None, "a:1")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert address(None) is None


@pytest.mark.parametrize("given", ["nonsense", "host:port", "host:", ":6379"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(UserError, match="is not an address"):
        _knock(given)


def test_an_address_where_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"ray: nothing answers at 127.0.0.1:{port}: Connection refused"):
            _knock(f"127.0.0.1:{port}")
        taken.listen()
        _knock(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"nothing answers at 127\.0\.0\.1:99999"):
        _knock("127.0.0.1:99999")


def problems(**given: Any) -> list[str]:
    asked = {"launcher": "local", "ray": None, "device": "auto", **given}
    return [str(one) for one in launcher_problems(asked)]


def test_what_does_not_go_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "empty" / "ray").mkdir(parents=True)  # a folder of a user's that is called so
    monkeypatch.setattr(sys, "path", [str(tmp_path / "empty")])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert problems() == []
    assert problems(ray="a:1") == ["ray: has no effect without launcher=ray"]
    assert [one.partition("\n")[0] for one in problems(launcher="ray", ray="ray://a:10001", device="0,1")] == [
        "launcher: Ray is not installed",
        "device: with launcher=ray it is Ray that deals out GPUs",
        "ray: ray://a:10001 is not the address of a cluster",
    ]
    assert "\n  -> pip install 'headstart[ray]'" in problems(launcher="ray")[0]


def test_the_local_pool_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.machine.cores", lambda: 4)
    with open_launcher(CompareSettings(data="a.yaml", device="cpu", jobs=2)) as launcher:
        assert (launcher.places, launcher.why) == ([Slot("cpu", 2)] * 2, "2 side by side, 2 threads each, on 4 cores")
        assert launcher.run_one("it", lambda place, stop: place.threads) == 2

        def fail(place: Slot, stop: threading.Event) -> int:
            raise UserError("no", hint="yes")

        with pytest.raises(UserError, match=r"^no\n  -> yes$"):
            launcher.run_one("it", fail)

        def stopped(place: Slot, stop: threading.Event) -> int:
            raise Stopped

        with pytest.raises(KeyboardInterrupt):
            launcher.run_one("it", stopped)
