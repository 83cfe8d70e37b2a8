"""Random numbers of a process: their state is kept, and put back, in what `torch.load` reads without running code."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

CPU = torch.device("cpu")


def random_state(device: torch.device) -> dict[str, Any]:
    """Of Python, NumPy and torch, on the CPU and on the one device that is computed on: others may be missing later."""
    generator = np.random.get_state(legacy=False)
    assert isinstance(generator, dict), "legacy=False"
    words, place = generator["state"]["key"], generator["state"]["pos"]
    state: dict[str, Any] = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    state["numpy"] = [torch.from_numpy(words.astype(np.int64)), place, generator["has_gauss"], generator["gauss"]]
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state(*_which(device))
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_state` gave; what an earlier version did not keep stays as it is."""
    if "python" in state:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
    if "numpy" in state:
        words, place, has_gauss, gauss = state["numpy"]
        np.random.set_state(("MT19937", words.numpy().astype(np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(state["cpu"])
    # Earlier versions kept a list, of every GPU that there was.
    kept = state.get("device", (state.get("cuda") or [None])[0])
    if kept is not None and device.type != "cpu":
        with suppress(RuntimeError, TypeError):  # the state of another kind of device
            torch.get_device_module(device).set_rng_state(kept, *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """Of several GPUs that one, whichever is the current one; Apple's, which are one, are not asked for by number."""
    return (device,) if device.type == "cuda" else ()


@contextmanager
def undrawn() -> Iterator[None]:
    """Whatever is seeded and drawn meanwhile: afterwards the state is what it was, of every device that is there."""
    device = torch.device("mps") if torch.backends.mps.is_available() else CPU
    with kept_random_state(device):
        seed, states = torch.initial_seed(), None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            states = torch.cuda.get_rng_state_all()
        try:
            yield
        finally:
            if states is not None:
                torch.cuda.set_rng_state_all(states)
            elif torch.cuda.is_available():  # nobody had drawn there: the state was that of the seed
                torch.cuda.manual_seed_all(seed)


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Whatever is drawn meanwhile: afterwards the state is what it was."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
