"""The machine: versions, devices that compute, folders that can be written to."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from headstart import machine
from headstart.doctor.findings import Finding, Outcome
from headstart.errors import UserError
from headstart.images.index_cache import default_folder
from headstart.run.provenance import versions

OPTIONAL = {
    "tensorboardX": "loggers=tensorboard",
    "wandb": "loggers=wandb",
    "mlflow": "loggers=mlflow",
    "torchmetrics": "comparing torchvision's detectors",
    "pyarrow": "headstart embed",
    "safetensors": "headstart export",
    "onnxruntime": "headstart export format=onnx",
}
"""Modules that some options need, and what for."""
LITTLE = 2**30
"""Bytes below which a disk, shared memory or memory is said to be short."""
_DRIVER = Path("/proc/driver/nvidia/version")


def version_findings() -> list[Finding]:
    """Versions, those that do not fit what headstart needs, and what is optional."""
    found = versions()
    shown = ", ".join(f"{name} {version}" for name, version in found.items() if name != "platform")
    there = [name for name in OPTIONAL if find_spec(name)]
    absent = {name: use for name, use in OPTIONAL.items() if name not in there}
    optional = f"optional packages: {', '.join(there) or 'none'} installed"
    optional += f"; not {', '.join(f'{name} ({use})' for name, use in absent.items())}" if absent else ""
    facts = {"installed": there, "absent": list(absent)}
    return [
        Finding("versions", "ok", f"{shown}, on {found['platform']}", facts=found),
        *_unfit(),
        Finding("versions.optional", "ok", optional, facts=facts),
    ]


def _unfit() -> Iterator[Finding]:
    """Packages that are missing, or of a version that headstart does not work with."""
    try:
        from packaging.requirements import Requirement

        needed = importlib.metadata.requires("headstart") or []
    except (ImportError, importlib.metadata.PackageNotFoundError):
        yield Finding(
            "versions.needed", "unknown", "headstart is not installed as a package: what it needs is not known"
        )
        return
    for one in map(Requirement, needed):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        wanted, do = f"{one.name}{one.specifier}", f"pip install '{one.name}{one.specifier}'"
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("versions.needed", "wrong", f"{one.name} is not installed; {wanted} is needed", do)
            continue
        if not one.specifier.contains(version, prereleases=True):
            yield Finding("versions.needed", "wrong", f"{one.name} is {version}; {wanted} is needed", do)


def device_findings() -> list[Finding]:
    """Cores and memory, shared memory, and every device that torch can use: whether it computes, and how best."""
    free, limit, cores = machine.memory(), machine.memory_limit(), machine.cores()
    words = f"{cores} cores, {_size(free)} of {_size(limit)} memory free"
    short = "free some memory: loader processes and a small batch need about that much" if free < LITTLE else ""
    facts = {"cores": cores, "memory_free": free, "memory": limit}
    found = [Finding("devices.memory", "note" if short else "ok", words, short, facts=facts)]
    shared = machine.shared_memory()
    if shared is not None and shared < LITTLE:
        words = f"/dev/shm has {_size(shared)} free: loader processes hand images over in pipes, which is slower"
        found.append(
            Finding("devices.shared_memory", "note", words, "with docker: --shm-size=1g", facts={"free": shared})
        )
    devices = list(dict.fromkeys([*machine.parse_devices("auto"), machine.parse_device("auto")]))
    found += [_computes(device) for device in dict.fromkeys([*devices, machine.Device("cpu")])]
    if _DRIVER.exists() and not any(device.kind == "cuda" for device in devices):
        words = "there is an NVIDIA driver, but torch can use no GPU: trainings run on the CPU"
        found.append(Finding("devices.cuda", "note", words, "install the build of torch for your CUDA: pytorch.org"))
    return [*found, *_operators()]


def _computes(device: machine.Device) -> Finding:
    """Whether a product of matrices comes out right on a device."""
    import torch

    try:
        ones = torch.ones(64, 64, device=str(device))
        total = float((ones @ ones).sum())
        name = torch.cuda.get_device_name(device.index) if device.kind == "cuda" else ""
    except (RuntimeError, AssertionError, UserError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Finding("devices.computes", "wrong", f"{device} does not compute: {reason}", "use another device=")
    if total != 64**3:
        return Finding("devices.computes", "wrong", f"{device} computes wrongly: {total} is not {64**3}", "use another")
    precision, why = machine.best_precision(torch.device(str(device)))
    about = f"{name}, {_size(device.memory())}, " if name else ""
    facts = {"device": str(device), "name": name, "memory": device.memory(), "precision": precision}
    return Finding("devices.computes", "ok", f"{device}: {about}precision={precision} ({why})", facts=facts)


def _operators() -> Iterator[Finding]:
    """torchvision's compiled operators are missing where it was built for another torch."""
    import torch

    try:
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (RuntimeError, ImportError, OSError) as error:
        words = f"torchvision does not fit this torch: {str(error).splitlines()[0]}"
        yield Finding(
            "versions.torchvision", "wrong", words, "install both in one go: pip install -U torch torchvision"
        )


def folder_findings() -> list[Finding]:
    """The folders that runs, caches, weights and settings are written to: whether they can be, and their free space."""
    import torch
    from ultralytics.utils import USER_CONFIG_DIR

    temporary = Path(tempfile.gettempdir())
    return [
        _folder("runs", Path.cwd() / "runs", "runs without out=", "wrong", "give out= a folder that can be written to"),
        _folder("temporary", temporary, "temporary files", "wrong", "set TMPDIR to a folder that can be written to"),
        _folder("cache", default_folder(), "decoded images (cache=disk)", "note", "set HEADSTART_CACHE, or cache_dir="),
        _folder("settings", Path(USER_CONFIG_DIR), "settings of Ultralytics", "note", "set YOLO_CONFIG_DIR"),
        _folder("weights", Path(torch.hub.get_dir()), "weights of torchvision", "note", "set TORCH_HOME"),
    ]


def _folder(name: str, path: Path, use: str, outcome: Outcome, do: str) -> Finding:
    """A folder that is written to, or the one that it would be made in; nothing is left there."""
    there = next(one for one in (path, *path.parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    facts = {"path": str(path), "free": free, "writable": True}
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"headstart")
    except OSError as error:
        words = f"{path}, for {use}, cannot be written to: {error.strerror}"
        return Finding(f"folders.{name}", outcome, words, do, facts={**facts, "writable": False})
    words = f"{path}, for {use}: {_size(free)} free"
    if free < LITTLE:
        return Finding(f"folders.{name}", "note", words, f"free some space, or {do}", facts=facts)
    return Finding(f"folders.{name}", "ok", words, facts=facts)


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
