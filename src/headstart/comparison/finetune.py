"""One training from one start, in a process of its own: begun, waited for, and what came out of it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from headstart.aside import empty
from headstart.comparison import child
from headstart.comparison.pool import Slot
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import (
    CURVE,
    FAILED,
    LOG,
    REQUEST,
    RESULT,
    UNDER_WAY,
    FinetuneResult,
    FinetuneSettings,
    read_curve,
    read_result,
    write_json,
)
from headstart.errors import UserError
from headstart.files import explained

__all__ = ["FinetuneResult", "FinetuneSettings", "finetune", "read_result"]


def finetune(
    settings: FinetuneSettings, stop: threading.Event | None = None, place: Slot | None = None
) -> FinetuneResult:
    """Train once, wait for the end, and read what came out.

    An unfinished or earlier run of the same name is removed first, but for the state from which a training of the same
    `key` goes on; a folder that is no such run is left alone.

    Args:
        settings: The training.
        stop: Once set, the training is ended.
        place: Where it runs, on the device and threads of the settings; by default on this machine.

    Raises:
        Stopped: `stop` was set, or Ctrl-C reached the training.
        UserError: Settings that cannot work, a start that did not arrive whole, or a training that failed; then with
            the last lines of its log.
    """
    trainer = finetuner(settings.model)
    trainer.check(settings)
    folder = settings.folder
    there = {item.name for item in folder.iterdir()} - {UNDER_WAY} if folder.exists() else set()
    if there and REQUEST not in there:
        raise UserError("holds something that is not a run of this kind", where=str(folder), hint="choose another name")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        empty(folder, REQUEST, but=UNDER_WAY if settings.key else "")
    started = time.monotonic()
    write_json(folder / REQUEST, settings.resolved())
    asked = [str(folder / REQUEST)]
    place = place or Slot(str(settings.device), settings.threads)
    code = place.run("headstart.comparison.child", asked, folder / LOG, stop, trainer.environment)
    if code != 0:
        raise _failure(folder, code)
    curve = read_curve(folder / CURVE)
    if len(curve) != max(1, settings.epochs):  # without any, the start alone is measured
        raise UserError(
            f"{len(curve)} of {settings.epochs} epochs were trained", where=str(folder), hint=child.tail(folder / LOG)
        )
    seconds = round(time.monotonic() - started, 2)
    write_json(folder / RESULT, {**vars(curve[-1]), "seconds": seconds})
    if not settings.key:  # else until it is written down which training it was: see `Training.record`
        (folder / UNDER_WAY).unlink(missing_ok=True)
    return read_result(folder)


def _failure(folder: Path, code: int) -> UserError:
    """What to tell the user of a child that failed: its own words, or else the end of its log."""
    failed = folder / FAILED
    if failed.is_file():
        return UserError(**json.loads(failed.read_text(encoding="utf-8")))
    why = f"was killed by signal {-code} (out of memory?)" if code < 0 else "failed"
    return UserError(f"the training {why}; the end of its log:\n{child.tail(folder / LOG)}", where=str(folder / LOG))
