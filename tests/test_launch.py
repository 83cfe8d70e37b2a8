"""Which of several processes this is, on which devices they train, and how they share a batch."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from headstart import machine
from headstart.errors import UserError
from headstart.jobs.checks import check_sharing
from headstart.launch import devices, places
from headstart.launch.beside import Beside
from headstart.launch.devices import own_device, processes, training_devices
from headstart.launch.places import Place, by_hand, told_by
from headstart.settings.schema import PretrainSettings

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
