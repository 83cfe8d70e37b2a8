"""What this machine has and computes best with: cores, memory, devices, precision; asked here and nowhere else.

Torch is imported by the functions that need it: cores and memory are counted without it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.errors import UserError

if TYPE_CHECKING:
    import torch

_ROOT = Path("/")
_UNKNOWN_MEMORY = 4 * 2**30
_NO_LIMIT = 2**60
"""cgroup v1 says a number near 2^63 where there is no limit."""

# ---------------------------------------------------------------------------------------------------------------------
# Cores and memory
# ---------------------------------------------------------------------------------------------------------------------


def cores(root: Path = _ROOT) -> int:
    """Cores that this process may keep busy: of its affinity, within the CPU quota of its cgroup; 1 or more.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    # A quota of 2.5 cores keeps 2 threads busy; a third would be held up again and again.
    return max(1, math.floor(min(float(len(allowed())), quota(root))))


def allowed() -> frozenset[int]:
    """Cores that this process may run on, by their numbers."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def quota(root: Path = _ROOT) -> float:
    """Cores that this process's cgroup may keep busy, together with what else is in it; infinity without a quota."""
    return min([math.inf, *map(_share_v2, _groups(root, None)), *map(_share_v1, _groups(root, "cpu"))])


def memory(root: Path = _ROOT) -> int:
    """Bytes of memory that are free to use, without swapping: on the machine, and within the limit of the cgroup.

    What the system can take back counts as free: mainly files that it keeps in memory.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    free = [_machine_memory(root)]
    free += [_room(folder, "memory.max", "memory.current", "") for folder in _groups(root, None)]
    free += [
        _room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_") for folder in _groups(root, "memory")
    ]
    return max(0, min((one for one in free if one is not None), default=_UNKNOWN_MEMORY))


def memory_limit(root: Path = _ROOT) -> int:
    """Bytes of memory that there are, used or not: of the machine, and within the limit of the cgroup.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    most = [_kilobytes(root / "proc/meminfo", "MemTotal:") or _physical()]
    most += [_limit(folder / "memory.max") for folder in _groups(root, None)]
    most += [_limit(folder / "memory.limit_in_bytes") for folder in _groups(root, "memory")]
    return min((one for one in most if one), default=_UNKNOWN_MEMORY)


def memory_used(root: Path = _ROOT) -> int:
    """Bytes of memory that this process holds now; 0 where that cannot be told."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        pages = int((root / "proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def memory_peak(root: Path = _ROOT) -> int:
    """Bytes of memory that this process held at most, on Linux without mapped files; 0 where that cannot be told."""
    status, names = root / "proc/self/status", ("VmHWM:", "RssFile:", "RssShmem:")
    most, files, shared = (_kilobytes(status, name) for name in names)
    if most is not None and files is not None and shared is not None:
        return most - files - shared
    with suppress(ImportError):  # Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; a copy to CUDA overlaps with what is computed.

    There memory that is not pinned is staged before the call returns. Elsewhere, as on Apple's GPUs, it would be read
    when a tensor that nobody holds any more has been freed.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def shared_memory(root: Path = _ROOT) -> int | None:
    """Bytes that are free in ``/dev/shm``, through which processes hand tensors over; None where there is none.

    Args:
        root: Where ``/dev`` lies.
    """
    with suppress(OSError, AttributeError):  # Windows has no statvfs
        found = os.statvfs(root / "dev/shm")
        return found.f_bavail * found.f_frsize
    return None


def _groups(root: Path, controller: str | None) -> Iterator[Path]:
    """Folders of this process's cgroup and those above it, which limit it as well.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
        controller: Of cgroup v1; None for v2.
    """
    mount = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if controller is None and not controllers:
                tops = [mount]
            elif controller is not None and controller in controllers.split(","):
                tops = [mount / controllers, mount / controller]
            else:
                continue
            # In a container the path may be that of the host; what is mounted then is the container's own group.
            names = [part for part in path.split("/") if part not in ("", "..")]
            top = next((one for one in tops if one.is_dir()), None)
            found = [top.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)] if top else []
            yield from filter(Path.is_dir, found)


def _share_v2(folder: Path) -> float:
    """Cores of a ``cpu.max`` such as ``150000 100000``; infinity without a quota."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return math.inf


def _share_v1(folder: Path) -> float:
    """Cores of a CPU quota in microseconds a period; infinity without one, which is -1."""
    with suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else math.inf
    return math.inf


def _machine_memory(root: Path) -> int | None:
    free = _kilobytes(root / "proc/meminfo", "MemAvailable:")
    if free is None and (whole := _physical()):  # no Linux: half of the memory is a guess
        return whole // 2
    return free


def _kilobytes(file: Path, name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


def _physical() -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _limit(file: Path) -> int | None:
    """Bytes of a cgroup's limit; None without one."""
    with suppress(OSError, ValueError):
        most = int(file.read_text())
        return most if most < _NO_LIMIT else None
    return None


def _room(folder: Path, limit: str, used: str, prefix: str) -> int | None:
    """Bytes that a cgroup leaves: its limit, less what is used and cannot be taken back; None without a limit."""
    with suppress(OSError, ValueError):
        most = _limit(folder / limit)
        if most is None:
            return None
        held = int((folder / used).read_text())
        return most - max(0, held - _reclaimable(folder / "memory.stat", prefix))
    return None


def _reclaimable(stat: Path, prefix: str) -> int:
    wanted = {f"{prefix}inactive_file", f"{prefix}active_file", "slab_reclaimable"}
    with suppress(OSError, ValueError):
        lines = [line.split() for line in stat.read_text().splitlines()]
        return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in wanted)
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Devices
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """A device that is there.

    Attributes:
        kind: ``cpu``, ``cuda`` or ``mps``.
        index: Of a CUDA GPU; None for the others.
    """

    kind: Literal["cpu", "cuda", "mps"]
    index: int | None = None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"

    def memory(self) -> int:
        """Bytes of memory of a CUDA GPU, used or not; 0 for the others."""
        import torch

        return int(torch.cuda.get_device_properties(self.index).total_memory) if self.kind == "cuda" else 0


def parse_device(text: str | int) -> Device:
    """The one device that ``device=`` names.

    Args:
        text: ``auto`` (the first CUDA GPU, else an Apple GPU, else the CPU), ``cpu``, ``mps``, ``cuda`` (the first),
            or one GPU, as ``1`` or ``cuda:1``.

    Raises:
        UserError: It is not there, or these are several.
    """
    if len(names := _names(text)) > 1:
        raise UserError(
            f"one device is needed, not {len(names)}: {text}",
            where="device",
            hint=f"use {names[0]}; a pretraining takes several as devices={text}",
        )
    if names == ["auto"]:
        return Device("cuda", 0) if _gpus() else Device("mps") if _has_mps() else Device("cpu")
    return Device("cuda", 0) if names == ["cuda"] and _gpus() else _device(names[0], _ONE)


def parse_devices(text: str | int) -> tuple[Device, ...]:
    """The devices that ``device=`` names, where several can be used.

    Args:
        text: As for `parse_device`, or several GPUs, as ``0,1``. ``auto`` and ``cuda`` are every CUDA GPU; where there
            is none, ``auto`` is the CPU, on which trainings can run side by side.

    Raises:
        UserError: One is not there, is named twice, or cannot be used beside others.
    """
    names = _names(text)
    if names == ["auto"] or (names == ["cuda"] and _gpus()):
        return tuple(Device("cuda", number) for number in range(_gpus())) or (Device("cpu"),)
    found = tuple(_device(name, _SEVERAL) for name in names)
    if len(found) > 1 and (other := next((one for one in found if one.kind != "cuda"), None)):
        raise UserError(f"{other} cannot be used beside other devices: {text}", where="device", hint=_SEVERAL)
    if len(set(found)) < len(found):
        raise UserError(f"names a device twice: {text}", where="device")
    return found


_ONE = "auto, cpu, cuda, mps, or one GPU, as 0 or cuda:0"
_SEVERAL = "auto, cpu, cuda, mps, one GPU, as 0 or cuda:0, or several, as 0,1"


def _names(text: str | int) -> list[str]:
    return [name.strip().lower() for name in str(text).split(",")]


def _device(name: str, expected: str) -> Device:
    index = name.removeprefix("cuda:")
    number = int(index) if index.isascii() and index.isdecimal() and len(index) < 100 else None
    if name == "cpu":
        return Device("cpu")
    if name == "mps":
        if _has_mps():
            return Device("mps")
        raise UserError("there is no Apple GPU here that torch can use", where="device", hint="use device=cpu or auto")
    if name != "cuda" and number is None:
        raise UserError(f"{name!r} is not a device", where="device", hint=f"give {expected}")
    count = _gpus()
    if not count:
        raise UserError("there is no CUDA GPU here that torch can use", where="device", hint="use device=cpu or auto")
    if number is None:
        raise UserError("'cuda' stands for every GPU: name it alone", where="device", hint=f"give {expected}")
    if number >= count:
        raise UserError(f"there is no GPU {index}", where="device", hint=f"GPUs here: {_counted(count)}")
    return Device("cuda", number)


def _counted(count: int) -> str:
    return "0" if count == 1 else f"0 to {count - 1}"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arithmetic:
    """How the network is computed, with nothing left open.

    Attributes:
        precision: ``32``, ``bf16`` or ``16``; losses are float32 in any case.
        channels_last: Whether weights lie in memory with the channels last.
        compile: Whether ``torch.compile`` is tried.
        why: A sentence about what was chosen, and by what.
    """

    precision: str
    channels_last: bool
    compile: bool
    why: str


def choose(
    precision: str | int,
    channels_last: bool | Literal["auto"],
    compile: bool | Literal["auto"],
    device: torch.device,
    recorded: Mapping[str, Any] | None = None,
) -> Arithmetic:
    """Resolve "auto" for `device`; what a resumed run has `recorded` stays, on whatever machine it goes on.

    The choices are rules, not timings, so that two runs on one machine never differ: bf16 takes 0.6 times as long as
    float32 on a CPU that has instructions for it, channels-last 0.8 times as long as the other layout, and compiling
    took six minutes there and won nothing (docs/speed.md has the figures).

    Args:
        precision: ``auto``, ``32``, ``bf16`` or ``16``.
        channels_last, compile: As asked.
        device: Where the network is computed.
        recorded: ``precision``, ``channels_last`` and ``compile`` of the run to go on with.
    """
    recorded = recorded or {}
    precision, reason = str(precision), ""
    if precision == "auto":
        precision, reason = best_precision(device)
        if recorded.get("precision"):
            precision, reason = str(recorded["precision"]).split("-")[0], "as the run began"
    if channels_last == "auto":
        faster = device.type == "cpu" or (device.type == "cuda" and precision != "32")
        channels_last = bool(recorded.get("channels_last", faster))
    if compile == "auto":
        compile = bool(recorded.get("compile", False))
    words = [f"precision={precision}" + (f" ({reason})" if reason else "")]
    words += [f"channels_last={str(channels_last).lower()}", f"compile={str(compile).lower()}"]
    return Arithmetic(precision, channels_last, compile, ", ".join(words))


def best_precision(device: torch.device) -> tuple[str, str]:
    """The fastest precision that trains without loss scaling, and why."""
    if device.type == "cuda":
        import torch

        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has it"
        return "32", "the GPU has no bf16"
    if device.type == "cpu":
        found = [name for name in ("amx_tile", "avx512_bf16", "arm_bf16") if _cpu_has(name)]
        return ("bf16", f"the CPU has {found[0]}") if found else ("32", "the CPU has no bf16 instructions")
    return "32", f"nothing else was tried on {device.type}"


def _cpu_has(feature: str) -> bool:
    """Whether torch reports a feature of the CPU; the functions came with different versions."""
    import torch

    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(ask and ask())
