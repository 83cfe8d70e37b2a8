"""The device of a run and what it computes best with: precision, memory layout, compilation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.settings.schema import PretrainSettings


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


def choose(s: PretrainSettings, device: torch.device, recorded: Mapping[str, Any] | None = None) -> Arithmetic:
    """Resolve "auto" for `device`; what a resumed run has `recorded` stays, on whatever machine it goes on.

    The choices are rules, not timings, so that two runs on one machine never differ: bf16 takes 0.6 times as long as
    float32 on a CPU that has instructions for it, channels-last is slower on a CPU, and compiling takes minutes, which
    only a long run earns back (docs/speed.md has the figures).
    """
    recorded = recorded or {}
    precision, reason = str(s.precision), ""
    if precision == "auto":
        precision, reason = best_precision(device)
        if recorded.get("precision"):
            precision, reason = str(recorded["precision"]).split("-")[0], "as the run began"
    channels_last, compiled = s.channels_last, s.compile
    if channels_last == "auto":
        channels_last = bool(recorded.get("channels_last", device.type == "cuda" and precision != "32"))
    if compiled == "auto":
        compiled = bool(recorded.get("compile", False))
    words = [f"precision={precision}" + (f" ({reason})" if reason else "")]
    words += [f"channels_last={str(channels_last).lower()}", f"compile={str(compiled).lower()}"]
    return Arithmetic(precision, channels_last, compiled, ", ".join(words))


def best_precision(device: torch.device) -> tuple[str, str]:
    """The fastest precision that trains without loss scaling, and why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has it"
        return "32", "the GPU has no bf16"
    if device.type == "cpu":
        found = [name for name in ("amx_tile", "avx512_bf16", "arm_bf16") if _cpu_has(name)]
        return ("bf16", f"the CPU has {found[0]}") if found else ("32", "the CPU has no bf16 instructions")
    return "32", f"nothing else was tried on {device.type}"


def _cpu_has(feature: str) -> bool:
    """Whether torch reports a feature of the CPU; the functions came with different versions."""
    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(ask and ask())


def device_problem(device: str) -> UserError | None:
    """Why ``device=`` cannot be used here, or None where it can."""
    name = device.removeprefix("cuda:")
    if name in {"auto", "cpu"}:
        return None
    if name == "mps":
        return None if torch.backends.mps.is_available() else UserError("there is no Apple GPU here", where="device")
    if name != "cuda" and not name.isdigit():
        return UserError(f"must be auto, cpu, cuda, mps or the index of a GPU, not {device!r}", where="device")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return UserError("there is no CUDA GPU that torch can use here", where="device", hint="use device=cpu or auto")
    if name.isdigit() and int(name) >= count:
        return UserError(f"there is no GPU {name}", where="device", hint=f"GPUs here: 0 to {count - 1}")
    return None


def make_fabric(s: PretrainSettings, precision: str = "32") -> Fabric:
    """Device of a run, with "auto" resolved, and the precision of its network."""
    name = s.device.removeprefix("cuda:")
    cuda = torch.cuda.is_available() and name not in {"cpu", "mps"}
    devices: Any = [int(name)] if name.isdigit() else 1
    accelerator = "cuda" if cuda else "mps" if name == "mps" else "cpu" if name == "cpu" else "auto"
    kind: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision]
    # Fabric tells of mixed precision on standard error; the run says it itself, with the reason.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, devices=devices, precision=kind)


def loader_workers(s: PretrainSettings, device: torch.device) -> int:
    """Processes that read images."""
    if s.workers != "auto":
        return s.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16) if device.type == "cuda" else max(1, cores // 2)


def compile_or_not(parts: Mapping[str, nn.Module], module: nn.Module, attempt: Callable[[], Tensor]) -> str:
    """Compile `parts` in place if a trial with them works, and leave them as they were if not.

    A trial runs forward and backward once. Buffers and the state of random numbers are put back, so that it leaves
    nothing behind but compiled code.

    Args:
        parts: The modules to compile, by name. Shapes must stay what they are in the trial.
        module: All that the trial may change.
        attempt: Computes the loss and its gradients.

    Returns:
        What happened, in a sentence.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        for part in parts.values():
            part.compile(dynamic=False)
        attempt()
        return f"compiled: {', '.join(parts)}"
    except Exception as error:  # whatever a compiler may raise
        for part in parts.values():
            part._compiled_call_impl = None
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        return f"torch.compile fails here, going on without it: {reason}"
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        module.zero_grad(set_to_none=True)
        torch.set_rng_state(random[0])
        if random[1]:
            torch.cuda.set_rng_state_all(random[1])
