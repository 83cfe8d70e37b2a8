"""Where the time of a run goes: waiting for images, making views, the step itself, everything else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the report reads this module, and does without torch
    import torch

PARTS = ("wait", "views", "step", "other")
_NAMES = {"wait": "waiting for images", "views": "views", "step": "step", "other": "other"}
MUCH = 0.2
"""A share of the time from which on something is said about it."""


class Clock:
    """Sums up the time of the parts of a step.

    On a GPU the host runs ahead of the device, so its clock says little: there the device's own events are read, at
    logged steps only, when the host has waited for the loss anyway. What the device has not been busy with is waiting
    as far as the host waited for images, and other beyond that.

    Args:
        device: Where views and steps are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._total = dict.fromkeys(PARTS, 0.0)
        self._part = "other"
        self._since = self._began = time.perf_counter()

    def start(self, part: str) -> None:
        """What follows belongs to `part`, until the next call."""
        now = time.perf_counter()
        self._spent[self._part] += now - self._since
        self._part, self._since = part, now
        if self._events:
            import torch

            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((part, event))

    def shares(self) -> dict[str, float]:
        """Shares of the time since the last call, by part; they sum to 1. The device must have finished its work."""
        self.start("other")
        now = time.perf_counter()
        elapsed = max(now - self._began, 1e-9)
        spent = self._on_device(elapsed) if self._events else self._spent
        for part in PARTS:
            self._total[part] += spent[part]
        self._spent, self._began = dict.fromkeys(PARTS, 0.0), now
        return _shares(spent)

    def overall(self) -> dict[str, float]:
        """Shares of the time up to the last call of `shares`."""
        return _shares(self._total)

    def _on_device(self, elapsed: float) -> dict[str, float]:
        spent = dict.fromkeys(PARTS, 0.0)
        self._marks[-1][1].synchronize()
        for (part, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if part in ("views", "step"):
                spent[part] += begin.elapsed_time(end) / 1000
        self._marks = self._marks[-1:]
        idle = max(0.0, elapsed - spent["views"] - spent["step"])
        spent["wait"] = min(idle, self._spent["wait"])
        spent["other"] = idle - spent["wait"]
        return spent


def _shares(spent: Mapping[str, float]) -> dict[str, float]:
    total = sum(spent.values())
    return {part: spent[part] / total if total else 0.0 for part in PARTS}


def sentence(shares: Mapping[str, float]) -> str:
    """``'time: waiting for images 3 %, views 12 %, step 84 %, other 1 %'``."""
    return "time: " + ", ".join(f"{_NAMES[part]} {100 * shares[part]:.0f} %" for part in PARTS)


def advice(shares: Mapping[str, float], facts: Mapping[str, Any]) -> str:
    """What would make the run faster, in a sentence.

    Args:
        shares: By part.
        facts: What is known of the run: ``cache``, ``workers``, ``device``, ``precision``.
    """
    cpu = str(facts.get("device", "cpu")) == "cpu"
    with suppress(KeyError):
        if shares["wait"] > MUCH:
            cached = facts.get("cache") in ("disk", "ram", "device")
            more = "more workers" + ("" if cached else ", or cache=disk if the images are seen more than once,")
            return f"waiting {shares['wait']:.0%}: {more} would help" + ("; so would faster cores" if cpu else "")
        if shares["other"] > MUCH:
            return f"other {shares['other']:.0%}: a larger log_every and save_every would help"
        if shares["views"] > shares["step"]:
            return f"views {shares['views']:.0%}: fewer or smaller local crops would help"
        if cpu:
            return "the step is the limit, as it should be: only a GPU, smaller crops or fewer of them would help"
        if str(facts.get("precision", "")).startswith("32"):
            return "the step is the limit, as it should be: precision=bf16 would help where the GPU has it"
    return "the step is the limit, as it should be: a faster GPU or smaller crops would help"
