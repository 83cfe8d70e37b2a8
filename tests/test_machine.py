from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from headstart import machine
from headstart.errors import UserError
from headstart.launch.devices import make_fabric
from headstart.machine import Device, parse_device, parse_devices

CPU = torch.device("cpu")
AUTO = ("auto", "auto", "auto")
MIB = 2**20


def write(root: Path, **files: str) -> None:
    """Files of /proc and /sys; double underscores stand for slashes."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def group(root: Path, folder: str, files: dict[str, str]) -> None:
    place = root / "sys/fs/cgroup" / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(content + "\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores with 1000 MiB to spare, whose process is in no group yet."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, proc__meminfo=f"MemTotal: 9999999 kB\nMemFree: 5 kB\nMemAvailable:  {1000 * 1024} kB\n")
    return tmp_path


def test_without_limits_the_machine_counts(root: Path) -> None:
    assert machine.cores(root) == 8
    assert machine.memory(root) == 1000 * MIB
    write(root, proc__self__cgroup="0::/\n")  # the group at the top has no limits
    group(root, ".", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": "1"})
    assert (machine.cores(root), machine.memory(root)) == (8, 1000 * MIB)


def test_limits_of_cgroup_v2(root: Path) -> None:
    write(root, proc__self__cgroup="0::/docker/abc\n")
    used = {"memory.current": str(300 * MIB), "memory.max": str(400 * MIB)}
    stat = f"anon {150 * MIB}\nfile {150 * MIB}\ninactive_file {90 * MIB}\nactive_file {50 * MIB}"
    group(root, "docker/abc", {**used, "cpu.max": "250000 100000", "memory.stat": stat + f"\nslab_reclaimable {MIB}"})
    assert machine.cores(root) == 2
    assert machine.memory(root) == (400 - (300 - 90 - 50 - 1)) * MIB
    # A limit further up holds for all groups below it.
    group(root, "docker", {"cpu.max": "50000 100000", "memory.max": str(200 * MIB), "memory.current": str(180 * MIB)})
    assert machine.cores(root) == 1
    assert machine.memory(root) == 20 * MIB


def test_limits_of_cgroup_v1(root: Path) -> None:
    # As in a container: the paths are the host's, what is mounted is the container's own group.
    write(root, proc__self__cgroup="5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n")
    group(root, "cpu,cpuacct", {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"})
    stat = f"cache {9 * MIB}\ninactive_file 1\ntotal_inactive_file {20 * MIB}\ntotal_active_file {10 * MIB}"
    held = {"memory.limit_in_bytes": str(256 * MIB), "memory.usage_in_bytes": str(200 * MIB), "memory.stat": stat}
    group(root, "memory", held)
    assert machine.cores(root) == 3
    assert machine.memory(root) == (256 - (200 - 20 - 10)) * MIB
    group(root, "cpu,cpuacct", {"cpu.cfs_quota_us": "-1"})
    group(root, "memory", {"memory.limit_in_bytes": "9223372036854771712"})
    assert (machine.cores(root), machine.memory(root)) == (8, 1000 * MIB)


def test_a_group_beyond_its_limit_has_nothing_free(root: Path) -> None:
    write(root, proc__self__cgroup="0::/a\n")
    group(root, "a", {"memory.max": str(MIB), "memory.current": str(2 * MIB), "cpu.max": "1000 100000"})
    assert (machine.cores(root), machine.memory(root)) == (1, 0)


def test_torn_files_say_nothing(root: Path) -> None:
    write(root, proc__self__cgroup="0::/a\nnonsense\n")
    group(root, "a", {"memory.max": "many", "memory.current": "", "cpu.max": "100000"})
    assert (machine.cores(root), machine.memory(root)) == (8, 1000 * MIB)


def test_memory_that_there_is_does_not_depend_on_what_is_free(root: Path) -> None:
    assert machine.memory_limit(root) == 9999999 * 1024
    write(root, proc__self__cgroup="5:memory:/docker/abc\n0::/a/b\n")
    group(root, "memory", {"memory.limit_in_bytes": str(700 * MIB), "memory.usage_in_bytes": str(699 * MIB)})
    assert machine.memory_limit(root) == 700 * MIB
    group(root, "a", {"memory.max": str(600 * MIB), "memory.current": str(599 * MIB)})
    group(root, "a/b", {"memory.max": "max"})
    assert machine.memory_limit(root) == 600 * MIB


def test_shared_memory_is_what_is_free_there(root: Path) -> None:
    assert machine.shared_memory(root) is None
    (root / "dev/shm").mkdir(parents=True)
    assert 0 < machine.shared_memory(root) < 2**60  # type: ignore[operator]


def hardware(monkeypatch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("text", "gpus", "mps", "found"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 2, False, "cuda:0"),
        ("auto", 0, True, "mps"),
        ("cpu", 2, False, "cpu"),
        ("cuda", 2, False, "cuda:0"),
        (" CUDA:1 ", 2, False, "cuda:1"),
        (1, 2, False, "cuda:1"),
        ("mps", 0, True, "mps"),
    ],
)
def test_one_device(monkeypatch: pytest.MonkeyPatch, text: str | int, gpus: int, mps: bool, found: str) -> None:
    hardware(monkeypatch, gpus, mps)
    assert str(parse_device(text)) == found


@pytest.mark.parametrize(
    ("text", "gpus", "found"),
    [
        ("auto", 0, "cpu"),
        ("auto", 3, "cuda:0 cuda:1 cuda:2"),
        ("cuda", 2, "cuda:0 cuda:1"),
        ("0,cuda:2", 3, "cuda:0 cuda:2"),
        (1, 3, "cuda:1"),
        ("cpu", 3, "cpu"),
    ],
)
def test_several_devices(monkeypatch: pytest.MonkeyPatch, text: str | int, gpus: int, found: str) -> None:
    hardware(monkeypatch, gpus)
    assert " ".join(map(str, parse_devices(text))) == found


@pytest.mark.parametrize(
    ("text", "gpus", "said"),
    [
        ("gpu", 1, "'gpu' is not a device\n  -> give auto, cpu, cuda, mps, "),
        ("-1", 1, "'-1' is not a device"),
        ("\u00b2", 1, "is not a device"),  # a superscript is a digit to Python, and no number
        ("", 1, "'' is not a device"),
        ("cuda", 0, "there is no CUDA GPU here"),
        ("0", 0, "there is no CUDA GPU here"),
        ("cuda:2", 2, "there is no GPU 2\n  -> GPUs here: 0 to 1"),
        ("1", 1, "there is no GPU 1\n  -> GPUs here: 0"),
        ("mps", 1, "there is no Apple GPU here"),
    ],
)
def test_what_is_no_device(monkeypatch: pytest.MonkeyPatch, text: str, gpus: int, said: str) -> None:
    hardware(monkeypatch, gpus)
    for parse in (parse_device, parse_devices):
        with pytest.raises(UserError, match=re.escape(said)) as caught:
            parse(text)
        assert caught.value.where == "device"


def test_several_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, 2)
    with pytest.raises(UserError, match="one device is needed, not 2"):
        parse_device("0,1")
    for text, said in (
        ("0,cpu", "cpu cannot be used beside"),
        ("0,cuda:0", "twice"),
        ("cuda,1", "'cuda' stands for every GPU"),
    ):
        with pytest.raises(UserError, match=said):
            parse_devices(text)


def test_fabric_gets_device_and_precision() -> None:
    fabric = make_fabric(Device("cpu"), "bf16")
    assert (str(fabric.device), fabric._precision.precision) == ("cpu", "bf16-mixed")


@pytest.mark.parametrize("more", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS_PER_NODE": "8"}])
def test_a_batch_script_of_slurm_may_have_any_number_of_tasks(
    more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of one process in it is none of them: Lightning would refuse ``--ntasks``, or its own number of devices."""
    said = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1"}
    for name, value in {**said, **more}.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric(Device("cpu"))
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (1, 0, 0)


def test_the_cpu_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: feature == "avx512_bf16")
    found = machine.choose(*AUTO, CPU)
    assert (found.precision, found.channels_last, found.compile) == ("bf16", True, False)
    assert "the CPU has avx512_bf16" in found.why
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: False)
    found = machine.choose(*AUTO, CPU)
    assert (found.precision, found.channels_last, found.compile) == ("32", True, False)


def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: True)
    found = machine.choose(32, True, True, CPU)
    assert (found.precision, found.channels_last, found.compile) == ("32", True, True)


def test_a_resumed_run_keeps_its_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has", lambda feature: True)
    other = machine.choose(*AUTO, CPU, {"precision": "32-true", "channels_last": False, "compile": False})
    assert (other.precision, other.channels_last, other.compile) == ("32", False, False)
    for recorded, precision in (("32-true", "32"), ("16-mixed", "16"), ("bf16-mixed", "bf16")):
        found = machine.choose(*AUTO, CPU, {"precision": recorded, "channels_last": True, "compile": True})
        assert (found.precision, found.channels_last, found.compile) == (precision, True, True)


def test_this_cpu_is_asked_by_its_flags() -> None:
    try:
        flags = open("/proc/cpuinfo").read()  # noqa: PTH123, SIM115
    except OSError:
        pytest.skip("no /proc/cpuinfo here")
    if "avx512_bf16" not in flags and "amx_bf16" not in flags and "avx" in flags:
        assert machine.best_precision(CPU)[0] == "32"
    elif "avx512_bf16" in flags:
        assert machine.best_precision(CPU)[0] == "bf16"
