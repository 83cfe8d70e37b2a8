"""The devices that a run trains on, this process's own among them, and Lightning's Fabric on that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headstart import ranks
from headstart.errors import UserError
from headstart.launch.places import launched
from headstart.machine import Arithmetic, Device, parse_device, parse_devices

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric


def training_devices(device: str | int, devices: str) -> tuple[Device, ...]:
    """The devices of this machine that a run trains on.

    Args:
        device: As `headstart.machine.parse_device` takes it.
        devices: How many of that kind, as ``4`` or ``all``; or which GPUs, as ``0,2``. On a CPU: how many processes.

    Raises:
        UserError: They are not there, or the two do not go together.
    """
    devices, any_gpu = devices.strip().lower(), str(device).strip().lower() in ("auto", "cuda")
    if "," in devices:
        if not any_gpu:
            raise UserError(
                f"names GPUs, and device={device} something else", where="devices", hint="leave out device="
            )
        return parse_devices(devices.strip(","))
    one = parse_device(device)
    if devices == "all":
        return parse_devices("cuda") if one.kind == "cuda" and any_gpu else (one,)
    if not (devices.isascii() and devices.isdecimal() and len(devices) < 5 and int(devices)):
        hint = "how many, as 4 or all, or which GPUs, as 0,2"
        raise UserError(f"{devices!r} is not a number of devices", where="devices", hint=hint)
    number = int(devices)
    if number == 1 or one.kind == "cpu":
        return (one,) * number
    if not any_gpu or one.kind == "mps":
        what = f"device={device} is one device, not {number}"
        raise UserError(what, where="devices", hint="name the GPUs, as devices=0,1, and leave out device=")
    there = parse_devices("cuda")
    if number > len(there):
        raise UserError(f"there are not {number} GPUs here", where="devices", hint=f"GPUs here: {len(there)}")
    return there[:number]


def own_device(device: str | int, devices: str) -> Device:
    """The device of this process, by its place on the machine."""
    found, place = training_devices(device, devices), launched()
    if not ranks.joined() or place is None:  # it started the others itself, and is the first here
        return found[0]
    if len(found) == 1 and found[0].kind == "cuda":  # torchrun and srun say how many, and may show each its own alone
        found = parse_devices("cuda")
    return found[place.local_rank % len(found)]


def processes(device: str | int, devices: str, nodes: int) -> int:
    """Processes that a run with these options has.

    Raises:
        UserError: The devices are not there; or this process was started as one of another number.
    """
    local, place = len(training_devices(device, devices)), launched()
    if place is None:
        return local * nodes
    hint = "leave it out: torchrun and srun say how many there are"
    if devices != "1" and local != place.local_world:
        what = f"are {local}, and {place.local_world} processes were started on this machine"
        raise UserError(what, where="devices", hint=hint)
    if nodes > 1 and place.world != nodes * place.local_world:
        what = f"are {nodes}, and {place.world} processes were started, {place.local_world} on this machine"
        raise UserError(what, where="nodes", hint=hint)
    return place.world


def layout_of(arithmetic: Arithmetic) -> torch.memory_format:
    """How the weights of a network that is computed so lie in memory, in whatever is measured of it, too."""
    import torch

    return torch.channels_last if arithmetic.channels_last else torch.contiguous_format


def make_fabric(device: Device, precision: str = "32") -> Fabric:
    """What a run computes with: its device, and the precision of its network (``32``, ``bf16`` or ``16``).

    With several processes gradients are averaged over them.
    """
    from lightning_fabric import Fabric

    kind: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision]
    # Fabric tells of mixed precision on standard error; the run says it itself, with the reason.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    devices: Any = 1 if device.index is None else [device.index]
    # Asked for one process, too: Fabric would look into the environment itself, and refuse a batch script of Slurm.
    plugins = [_places(ranks.world(), ranks.rank())]
    if ranks.world() == 1:
        return Fabric(accelerator=device.kind, devices=devices, precision=kind, plugins=plugins)
    from lightning_fabric.strategies import DDPStrategy

    # Losses leave parts of a network out: a head of the detector, a branch without objects in this step.
    strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(accelerator=device.kind, devices=devices, precision=kind, strategy=strategy, plugins=plugins)
    strategy.setup_environment()  # not `launch`, which starts processes, and sets threads for one alone
    fabric._launched = True
    return fabric


def _places(world: int, rank: int) -> Any:
    """What Fabric asks about the processes, which are there: each has one device."""
    from lightning_fabric.plugins.environments import LightningEnvironment

    class Joined(LightningEnvironment):  # type: ignore[misc]
        creates_processes_externally = True

        def world_size(self) -> int:
            return world

        def set_world_size(self, size: int) -> None:
            pass

        def global_rank(self) -> int:
            return rank

        def set_global_rank(self, rank: int) -> None:
            pass

        def local_rank(self) -> int:
            return 0

        def node_rank(self) -> int:
            return rank

    return Joined()
