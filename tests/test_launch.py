"""Which of several processes this is, on which devices they train, and how they share a batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart import machine, ranks
from headstart.comparison import child
from headstart.errors import RunError, UserError
from headstart.jobs import together
from headstart.jobs.checks import check_sharing
from headstart.jobs.prepare import check_options
from headstart.launch import cores, devices, group, places
from headstart.launch.beside import Beside
from headstart.launch.children import PARENT
from headstart.launch.devices import own_device, processes, training_devices
from headstart.launch.places import Place, by_hand, told_by
from headstart.settings.schema import PretrainSettings
from processes import in_processes

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({**TORCHRUN, "WORLD_SIZE": "1"}, None),
        (TORCHRUN, Place(5, 8, 1, 4, "10.0.0.1", 29500)),
        # PyTorchJob of Kubeflow: one process a pod
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"},
            Place(1, 2, 0, 1, "job-master-0", 23456),
        ),
        (SRUN, Place(5, 8, 1, 4, "gpu07", 15_000 + 3456)),
        ({**SRUN, "MASTER_ADDR": "other", "MASTER_PORT": "1234"}, Place(5, 8, 1, 4, "other", 1234)),
        # A batch script without srun, of a job with eight tasks
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "123456"}, None),
    ],
)
def test_the_place_that_an_environment_tells(environment: dict[str, str], place: Place | None) -> None:
    assert told_by(environment) == place


def test_steps_of_a_job_at_one_time_and_jobs_beside_each_other_have_ports_of_their_own() -> None:
    ports = set()
    for job in range(123456, 123464):
        for step in range(4):
            place = told_by({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
            assert place is not None
            ports.add(place.port)
    assert len(ports) == 8 * 4
    assert all(15_000 <= port < 25_000 for port in ports)


@pytest.mark.parametrize("of_this_process", [TORCHRUN, SRUN, {**TORCHRUN, **SRUN, places.TORCHRUN: "7"}])
def test_a_training_of_a_comparison_is_a_process_alone(
    of_this_process: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under srun or torchrun, whose words it would have from us, it would wait for others, or join their run."""
    for name, value in of_this_process.items():
        monkeypatch.setenv(name, value)
    assert told_by(os.environ) is not None
    told = child.environment(1, {})
    assert told_by(told) is None
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & told.keys(), "what Ultralytics reads"


@pytest.mark.parametrize("of_this_process", [TORCHRUN, SRUN])
def test_a_recipes_batch_is_not_shared_out_to_tasks_of_its_comparison(
    of_this_process: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 images are no multiple of eight."""
    for name, value in of_this_process.items():
        monkeypatch.setenv(name, value)
    options = {"data": "x", "model": "yolo11n.yaml", "method": "simclr", "batch": 9, "device": "cpu"}
    assert not [problem for problem in check_options(options) if problem.where == "batch"]
    assert told_by(os.environ) == places.launched()


def test_half_an_environment() -> None:
    with pytest.raises(UserError, match="its environment is not whole: 'MASTER_PORT'"):
        told_by({name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"})


def test_machines_that_are_started_by_hand() -> None:
    said = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert by_hand(2, 4, said) == Place(4, 8, 0, 4, "10.0.0.1", 29500)
    assert by_hand(1, 4, {}) == Place(0, 4, 0, 4)
    with pytest.raises(UserError, match="nodes: MASTER_ADDR and MASTER_PORT must say where the first machine is"):
        by_hand(2, 4, {"NODE_RANK": "1"})


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("device", "given", "found"),
    [
        ("auto", 1, "cuda:0"),
        ("auto", 2, "cuda:0 cuda:1"),
        ("cuda", "all", "cuda:0 cuda:1 cuda:2 cuda:3"),
        ("auto", "3,1", "cuda:3 cuda:1"),
        ("auto", [0, 2], "cuda:0 cuda:2"),
        ("auto", "[2]", "cuda:2"),
        ("auto", [2], "cuda:2"),
        ("2", 1, "cuda:2"),
        ("cpu", 3, "cpu cpu cpu"),
    ],
)
def test_devices_of_a_run(device: str, given: Any, found: str) -> None:
    s = PretrainSettings(data="x", device=device, devices=given)
    assert " ".join(map(str, training_devices(s.device, s.devices))) == found


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("device", "given", "told"),
    [
        ("auto", "5", "devices: there are not 5 GPUs here\n  -> GPUs here: 4"),
        ("1", "2", "devices: device=1 is one device, not 2"),
        ("cpu", "0,1", "devices: names GPUs, and device=cpu something else"),
        ("auto", "0,7", "device: there is no GPU 7"),
        ("auto", "some", "devices: 'some' is not a number of devices"),
        ("auto", "0", "devices: '0' is not a number of devices"),
    ],
)
def test_devices_that_cannot_be(device: str, given: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        training_devices(device, given)
    assert str(error.value).startswith(told)


@pytest.mark.usefixtures("four_gpus")
def test_processes_that_others_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is what torchrun says; each takes the GPU of its place, or the only one that it is shown."""
    monkeypatch.setattr(places, "_kept", Place(5, 8, 1, 4))
    assert processes("auto", "1", 1) == 8
    assert processes("auto", "4", 2) == 8
    with pytest.raises(UserError, match="devices: are 2, and 4 processes were started on this machine"):
        processes("auto", "2", 1)
    with pytest.raises(UserError, match="nodes: are 3, and 8 processes were started, 4 on this machine"):
        processes("auto", "1", 3)
    monkeypatch.setattr(devices.ranks, "joined", lambda: True)
    assert str(own_device("auto", "1")) == "cuda:1"
    assert str(own_device("auto", "3,2,1,0")) == "cuda:2"
    assert str(own_device("cpu", "1")) == "cpu"
    monkeypatch.setattr(machine, "_gpus", lambda: 1)
    assert str(own_device("auto", "1")) == "cuda:0"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": 64}, None),
        ({"batch": 64, "devices": 4, "accumulate": 2, "nodes": 2}, None),
        ({"batch": 64, "devices": 3}, "64 images cannot be shared out to 3 devices: each takes as many, two at least"),
        ({"batch": 9, "accumulate": 2}, "9 images cannot be shared out to 2 parts: each takes as many, two at least"),
        ({"batch": 4, "devices": 4}, "4 images cannot be shared out to 4 devices: each takes as many, two at least"),
        ({"batch": "auto", "devices": 3}, None),
        ({"cache": "ram", "devices": 2}, "is memory of one process"),
    ],
)
def test_a_batch_is_shared_out_evenly(options: dict[str, Any], told: str | None) -> None:
    defaults = {name: field.default for name, field in PretrainSettings.model_fields.items()}
    found = check_sharing({**defaults, "device": "cpu", **options})
    assert [problem.what for problem in found] == ([told] if told else [])


def test_the_sizes_that_fit() -> None:
    defaults = {name: field.default for name, field in PretrainSettings.model_fields.items()}
    for batch, devices_, hint in ((64, 3, "give 63 or 66"), (4, 4, "give 8"), (7, 2, "give 6 or 8")):
        (found,) = check_sharing({**defaults, "device": "cpu", "batch": batch, "devices": devices_})
        assert found.hint is not None
        assert found.hint.startswith(f"{hint}, or another multiple of")


class Words:
    """A store of what processes said."""

    def __init__(self, **words: str) -> None:
        self.words = {f"said/{name[1:]}": text for name, text in words.items()}

    def check(self, names: list[str]) -> bool:
        return all(name in self.words for name in names)

    def get(self, name: str) -> bytes:
        return self.words[name].encode()


@pytest.mark.parametrize(
    ("ends", "words", "seconds", "told"),
    [
        (["exit 0", "exit 0"], {}, 0.0, None),
        (["exit 2", "kill -KILL $$"], {"_1": ""}, 0.1, "process 2 of the run ended: SIGKILL ended it; the system"),
        (["exit 1", "exit 2"], {"_2": "the disk is full"}, 0.1, "process 2 of the run ended: the disk is full"),
        (["exit 130", "exit 3"], {}, 0.0, "process 2 of the run ended: its exit status is 3"),
        (["exit 130", "kill -TERM $$"], {"_1": ""}, 0.0, None),  # this one was asked to end as well
        (["exit 130", "exit 0"], {}, 0.1, "process 1 of the run ended: it was asked to stop"),
    ],
)
def test_which_process_ended_and_why(ends: list[str], words: dict[str, str], seconds: float, told: str | None) -> None:
    beside = Beside.__new__(Beside)
    beside._store = Words(**words)
    beside._processes = {rank: subprocess.Popen(["sh", "-c", end]) for rank, end in enumerate(ends, start=1)}
    for process in beside._processes.values():
        process.wait()
    failure = beside.failure(seconds)
    assert str(failure).startswith(told) if told else failure is None


def test_a_process_that_ended_well_before_it_joined_is_not_waited_for() -> None:
    beside = Beside.__new__(Beside)
    beside._store, beside._processes = Words(), {1: subprocess.Popen(["sh", "-c", "exit 0"])}
    with pytest.raises(RunError, match="process 1 of the run ended: with exit status 0, before it had joined") as error:
        beside.wait(60.0)
    assert "last checkpoint" not in str(error.value)


# Whose process it is


def test_a_process_whose_parent_was_gone_before_it_looked_ends(tmp_path: Path) -> None:
    """A comparison that is killed while its training imports: by then another process is the parent."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "import time; from headstart.launch.children import end_with_parent; end_with_parent(0.1); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, PARENT: str(gone.pid)}, timeout=50)
    assert done.returncode == 1
    assert child.environment(1, {})[PARENT] == str(os.getpid())


# Cores

BOUND = [frozenset(range(8 * task, 8 * task + 8)) for task in range(4)]
"""As Slurm binds four tasks of eight cores each."""
ALL = [frozenset(range(32))] * 4


@pytest.mark.parametrize(
    ("here", "quota", "own"),
    [
        (BOUND, float("inf"), 8),
        (ALL, float("inf"), 8),
        ([frozenset(range(6))] * 6, float("inf"), 1),  # six sixths, not a little less
        ([frozenset(range(4)), frozenset(range(2, 6))], float("inf"), 3),  # two of its own, and half of two
        (ALL, 10.0, 2),
        (BOUND, 10.0, 2),
        ([frozenset([0])] * 3, float("inf"), 1),
    ],
)
def test_cores_that_are_bound_to_a_process_are_not_divided_again(
    here: list[frozenset[int]], quota: float, own: int
) -> None:
    assert cores.part(here[0], here, quota) == own


def test_loader_processes_go_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 at most are for one GPU: of 96 cores eight have 12 each, and not an eighth of 16."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    monkeypatch.setattr(machine, "cores", lambda: 24)
    assert cores.loader_workers("auto", cpu) == 12
    assert cores.loader_workers("auto", gpu) == 16
    assert cores.loader_workers(0, gpu) == 0
    monkeypatch.setattr(machine, "cores", lambda: 96)
    assert cores.loader_workers("auto", gpu, 8) == 12
    assert cores.loader_workers("auto", cpu, 8) == 6


@pytest.mark.parametrize(("bound", "each"), [(BOUND, 8), (ALL, 16), ([BOUND[0]] * 2, 4)])
def test_processes_find_out_together_whose_the_cores_are(
    bound: list[frozenset[int]], each: int, tmp_path: Path
) -> None:
    """8 cores each, half of 32, half of 8. As docs/scale.md counts, a GPU with 8 cores has 8 loader processes."""

    def work(rank: int) -> tuple[int, int]:
        machine.allowed = lambda: bound[rank]  # in this process alone: a test's is a copy
        machine.quota = lambda root=None: float("inf")
        cores.share_cores(2)
        return cores.own_cores(), cores.loader_workers("auto", torch.device("cuda:0"))

    assert in_processes(2, work, tmp_path) == [(each, each)] * 2


# Machines that are started by hand


def test_the_first_machine_is_waited_for_until_it_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It opens its port when it has looked at its images, which may take hours."""
    monkeypatch.setattr(group, "QUIET", 0.0)
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        place = Place(4, 8, 0, 4, "127.0.0.1", first.getsockname()[1])
        opens = threading.Timer(1.5, first.listen)
        opens.start()
        group._until_there(place, 60.0)
        opens.join()
    said = capsys.readouterr().err
    assert said.count(f"the first machine does not answer at 127.0.0.1:{place.port}") == 1
    assert "it is waited for" in said


def test_a_first_machine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timedelta(days=1) < group.LONG
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = Place(4, 8, 0, 4, "127.0.0.1", free.getsockname()[1])
    told = f"nodes: the first machine does not answer at 127.0.0.1:{place.port}"
    with pytest.raises(RunError, match=told):
        group._until_there(place, 0.0)
    monkeypatch.setattr(group, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(RunError, match=told):
        group._meeting(place)


def test_a_port_that_cannot_be_opened_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = Place(0, 8, 0, 4, "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(RunError, match=f"nodes: port {place.port} of 127.0.0.1 cannot be opened"):
            group._meeting(place)


# Runs of a sweep


def test_runs_of_a_sweep_are_refused_and_not_dropped(tmp_path: Path) -> None:
    """``srun -n 2 sh -c 'headstart pretrain seed=$SLURM_PROCID out=runs/$SLURM_PROCID'``"""

    def asked(options: dict[str, Any]) -> tuple[str, bool]:
        try:
            together.agreed(options)
        except UserError as error:
            return str(error), error.told
        return "", False

    def work(rank: int) -> list[tuple[str, bool]]:
        same = {"data": Path("images"), "out": "runs/a", "model": object()}
        cases: list[dict[str, Any]] = [
            {**same, "data": "images", "device": f"cuda:{rank}", "cache_dir": f"/local/{rank}"},  # of each machine
            same if rank == 0 else {},  # the others get all from the first
            {**same, "seed": rank, "out": f"runs/{rank}"},
        ]
        return [asked(case) for case in cases]

    first, second = in_processes(2, work, tmp_path)
    assert first[:2] == second[:2] == [("", False)] * 2
    assert first[2][0] == second[2][0]
    assert first[2][0].startswith("out, seed: not the same in the 2 processes of this one run")
    assert "out=runs/0 in the first, out=runs/1 in process 1" in first[2][0]
    assert "env -u SLURM_STEP_NUM_TASKS" in first[2][0]
    assert (first[2][1], second[2][1]) == (False, True)
    assert asked({"out": "a"}) == ("", False)
    assert not ranks.joined()
