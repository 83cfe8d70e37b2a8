"""A real Ray cluster of two nodes on this machine: processes on both, Ctrl-C, and a node that is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.comparison import ray_launcher
from headstart.comparison.pool import Slot
from headstart.comparison.ray_cluster import ClusterNode, connected
from headstart.comparison.ray_launcher import RayLauncher, open_ray
from headstart.errors import UserError
from headstart.jobs.scenes import draw_dataset

# Ray reads it when it is imported: under `uv run` it would send the current folder to every node.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'headstart[ray]', or uv run --with ray pytest")

MODULES = {
    # Says that it is there, and waits for a word; begun for the second time it ends at once.
    "waits": """
import os, pathlib, sys, time
from headstart.comparison.child import end_with_parent
end_with_parent(0.1)
began, go = map(pathlib.Path, sys.argv[1:])
if not began.exists():
    began.write_text(str(os.getpid()))
    while not go.exists():
        time.sleep(0.05)
""",
    # Saves, as a pretraining does, where it is told to end.
    "saves": """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[2]).write_text("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).write_text("")
time.sleep(60)
""",
    "fails": "raise SystemExit(3)",
}


class TwoNodes:
    """Two nodes of a CPU each, of which the second may be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
        self.cluster = Cluster()
        self.cluster.add_node(**small, node_name="first", include_dashboard=False)
        self.second = self.cluster.add_node(**small, node_name="second")
        self.address = str(self.cluster.address)

    def kill(self) -> None:
        """End the second without a word."""
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    modules = tmp_path_factory.mktemp("modules")
    for name, code in MODULES.items():
        (modules / f"{name}.py").write_text(code)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        source = Path(headstart.__file__).parent.parent
        patch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{source}", prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = TwoNodes()
        yield nodes
        nodes.cluster.shutdown()
    signal.signal(signal.SIGTERM, handler)


def wait_for(there: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def in_state(name: str, folder: Path) -> Callable[[], bool]:
    return lambda: len([path for path in folder.glob(f"*{name}") if path.stat().st_size]) == 2


def test_ctrl_c_gives_them_time_to_save(two: TwoNodes, tmp_path: Path) -> None:
    def work(task: str, place: Slot, stop: threading.Event) -> int:
        began, saved = tmp_path / f"{task}.began", tmp_path / f"{task}.saved"
        return place.run("saves", [str(began), str(saved)], tmp_path / task, stop)

    def press() -> None:
        wait_for(lambda: (tmp_path / "a.began").exists())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    address, system = two.address, signal.getsignal(signal.SIGTERM)
    try:
        with open_ray(address, "cpu", 1) as launcher:
            assert signal.getsignal(signal.SIGTERM) is system, "Ray has taken the word of the system for itself"
            threading.Thread(target=press).start()
            outcome, stopped = launcher.run_all(["a", "b"], work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped
    assert [(one.result, one.error) for one in outcome] == [(None, "")] * 2
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["a.saved"], "the second one was not begun"


def test_what_fails_fails_once(two: TwoNodes, tmp_path: Path) -> None:
    """The exit status, and what is raised on the node, come back as from a process here."""
    with open_ray(two.address, "cpu", "auto") as launcher:
        assert launcher.run_one("it", lambda place, stop: place.run("fails", [], tmp_path / "log", stop)) == 3
        with pytest.raises(UserError, match=r"the node .+ does not see .+gone\n  -> every machine"):
            launcher.run_one("it", lambda place, stop: place.run("fails", [], tmp_path / "gone" / "log", stop))
        assert "begun again" not in launcher.why
        with pytest.raises(UserError, match="does not see") as found:
            launcher.check([Path(__file__), tmp_path / "gone.jpg"])
        assert sorted(one.what.split()[3] for one in found.value.parts) == ["(first)", "(second)"]


def test_a_node_that_is_gone_does_not_answer(two: TwoNodes) -> None:
    with connected(two.address) as cluster:
        (first, second) = sorted(cluster.nodes(), key=lambda one: one.name)
        assert (first.cpus, first.gpus, second.cpus) == (1.0, 0.0, 1.0)
        gone = ClusterNode("a" * 56, "gone", 1, 0, 0)
        answers = cluster.everywhere([first, gone], lambda: os.getpid())
    assert isinstance(answers[0], int)
    assert isinstance(answers[1], Exception)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_results_are_those_of_this_machine(two: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole comparison, with a recipe: every loss and figure of every training is the same, bit for bit."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "data", unlabelled=6, train=16, val=4, imgsz=64)
    (tmp_path / "r.yaml").write_text("method: dino\nsteps: 2\nbatch: 2\nimgsz: 32\nmodel: yolo11n.yaml\n")
    asked: dict[str, Any] = {"data": "data/scenes.yaml", "starts": ["scratch", "r=r.yaml"], "labels": "100%"}
    asked |= {
        "seeds": 1,
        "lr": 0.001,
        "epochs": 1,
        "imgsz": 32,
        "batch": 8,
        "device": "cpu",
        "pictures": 0,
        "longer": "false",
    }
    here = headstart.compare(**asked, out="here")
    there = headstart.compare(**asked, out="there", launcher="ray", ray=two.address)
    assert here.ok
    assert there.ok

    def comparable(folder: str) -> Any:
        content = json.loads((tmp_path / folder / "results.json").read_text())
        cells = [(one["folder"], one["figures"]["rows_sha256"], one["figures"]["map50_95"]) for one in content["cells"]]
        return cells, [one["sha256"] for one in content["starts"]], content["scores"], content["settings"]["seeds"]

    assert comparable("here") == comparable("there")
    assert len(comparable("here")[0]) >= 2


@pytest.mark.slow
def test_a_killed_node(two: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both nodes work; what the killed one ran is begun again on the other, and nothing of it is left running."""
    monkeypatch.setattr(ray_launcher, "SETTLE", 2.0)
    said: list[str] = []
    nodes: dict[str, list[str]] = {"a": [], "b": []}

    def work(task: str, place: Slot, stop: threading.Event) -> int:
        nodes[task].append(place.runner.name)  # type: ignore[attr-defined]
        return place.run("waits", [str(tmp_path / f"{task}.began"), str(tmp_path / "go")], tmp_path / task, stop)

    def kill() -> None:
        wait_for(in_state(".began", tmp_path))
        two.kill()
        wait_for(lambda: not all(Path(f"/proc/{path.read_text()}").exists() for path in tmp_path.glob("*.began")))
        (tmp_path / "go").touch()

    with connected(two.address) as cluster:
        launcher = RayLauncher(cluster, "cpu", "auto", said.append)
        assert len(launcher.places) == 2
        launcher.check([Path(__file__), tmp_path])
        killer = threading.Thread(target=kill)
        killer.start()
        outcome, stopped = launcher.run_all(["a", "b"], work, shown=lambda task: f"training {task}")
        killer.join()
    assert ([one.result for one in outcome], [one.error for one in outcome], stopped) == ([0, 0], ["", ""], False)
    host = os.uname().nodename
    (lost,) = [task for task, where in nodes.items() if where[0] == f"{host} (second)"]
    (kept,) = {"a", "b"} - {lost}
    assert nodes == {lost: [f"{host} (second)", f"{host} (first)"], kept: [f"{host} (first)"]}
    assert len(said) == 1
    assert said[0].startswith(f"  training {lost}: its node was lost ({host} (second): ")
    assert launcher.why.endswith(f"; begun again, for its node was lost: training {lost}")
    number = (tmp_path / f"{lost}.began").read_text()
    wait_for(lambda: not Path(f"/proc/{number}").exists(), 5.0)
