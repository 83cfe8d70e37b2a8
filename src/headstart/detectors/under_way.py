"""The state of a training that is under way: kept now and then, so that one that was stopped goes on from there.

A training of some hours on a machine that is taken away in between would else never end. ``under-way.pt`` lies in the
training's folder until its result is recorded. Where one process reads the images, what comes out is bit for bit what
it would have been; worker processes have random states of their own, and then images come in another order from there
on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from headstart.detectors.finetuner import UNDER_WAY, Arrival, FinetuneSettings
from headstart.errors import UserError, gave_out, may_be_out_of_memory
from headstart.files import check_seal, seal, write_atomically
from headstart.reading import looked_at, unread

EVERY = 60.0
"""Seconds between two states that are kept, at least."""
_SHARE = 0.03
"""Of a training's time that keeping its state may take."""
_FORMAT = 1


class UnderWay:
    """What is kept of one training.

    Args:
        settings: Of the training; without a `key` nothing is kept.
        initial: sha256 of the weights that it began with.
        versions: Of the packages that train: another version may read a state in another way.
        device: Where it trains.
        workers: Processes that load its images.
    """

    def __init__(
        self,
        settings: FinetuneSettings,
        initial: str,
        versions: Mapping[str, str],
        device: torch.device,
        workers: int,
    ) -> None:
        self.path, self.wanted = settings.folder / UNDER_WAY, bool(settings.key)
        self.marks = {
            "format": _FORMAT,
            "key": settings.key,
            "initial": initial,
            "versions": {name: f"{one}" for name, one in versions.items()},
            "device": device.type,
        }
        self.workers, self.breaks = workers, tuple[int, ...]()
        self._began = self._kept = time.monotonic()
        self._before, self._took = 0.0, 0.0

    def go_on(self, put_back: Callable[[Mapping[str, Any]], None]) -> None:
        """Go on from the state that was kept of this very training, where there is one that is whole.

        Args:
            put_back: Is given what `keep` was, on the CPU, with ``epoch`` and ``seconds``.

        Raises:
            UserError: It could not be put back; it is removed then, for the training would fail each time.
            RunError: Storage or memory gave out, that of a GPU which others use among it; it is kept.
        """
        if (state := self._read()) is None:
            return
        try:
            put_back(state)
        except Exception as error:
            if gave_out(error) or may_be_out_of_memory(error):
                raise unread(self.path, error) from error
            self.path.unlink(missing_ok=True)
            what = f"the state that was kept of this training could not be put back: {type(error).__name__}: {error}"
            hint = "it is removed: the same command begins the training again"
            raise UserError(what, where=str(self.path), hint=hint) from error

    def _read(self) -> Mapping[str, Any] | None:
        if not self.wanted or not self.path.is_file():
            return None
        try:
            with looked_at(self.path):
                if not check_seal(self.path):
                    raise ValueError("it has no checksum")
                found = torch.load(self.path, map_location="cpu", weights_only=True)
                if other := [name for name, value in self.marks.items() if found[name] != value]:
                    raise ValueError(f"it is of another training: its {', '.join(other)} differ")
                epoch, seconds, breaks, state = (found[name] for name in ("epoch", "seconds", "breaks", "state"))
        except ValueError as error:
            print(f"{self.path} is not used, the training begins again: {error}", flush=True)
            return None
        print(f"going on after epoch {epoch}", flush=True)
        self._before = seconds
        self.breaks = (*breaks, epoch) if self.workers or found["workers"] else tuple(breaks)
        return {"epoch": epoch, "seconds": seconds, **state}

    def told(self, arrival: Arrival) -> Arrival:
        """`arrival` with what there was before the training went on."""
        return dataclasses.replace(arrival, before=self._before, breaks=self.breaks)

    def due(self) -> bool:
        """Whether a state is to be kept now."""
        return self.wanted and time.monotonic() - self._kept >= max(EVERY, self._took / _SHARE)

    def keep(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Keep the state after `epoch`, from 1; where the disk does not take it, the training goes on without.

        Args:
            epoch: How many epochs are done.
            state: Tensors, numbers, strings, lists and dicts.
        """
        began = time.monotonic()
        content = {**self.marks, "workers": self.workers, "breaks": list(self.breaks)}
        content |= {"epoch": epoch, "seconds": self.seconds(), "state": state}

        def write(temporary: Path) -> None:
            torch.save(content, temporary)
            seal(temporary)

        try:
            write_atomically(self.path, write)
        except Exception as error:
            print(f"the state after epoch {epoch} is not kept: {error}", flush=True)
        self._kept = time.monotonic()
        self._took = self._kept - began

    def seconds(self) -> float:
        """Seconds of training, those before it was stopped among them."""
        return self._before + time.monotonic() - self._began
