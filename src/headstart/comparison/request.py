"""What each training of a comparison is asked for, and whether it was finished before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.comparison.figures import figures_of
from headstart.comparison.grid import Cell
from headstart.comparison.label_lists import LabelList
from headstart.comparison.pool import Done
from headstart.comparison.records import CellResult
from headstart.comparison.starts import StartFile
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import FIGURES, RESULT, UNDER_WAY, FinetuneResult, FinetuneSettings, read_result
from headstart.errors import RunError, UserError, few
from headstart.files import content_hash, write_text
from headstart.reading import looked_at
from headstart.settings.schema import CompareSettings

RECORD = "cell.json"
PARENTS = {"main": "cells", "search": "search", "longer": "longer"}
"""Kind of a cell -> the folder that holds those of its kind."""

_NOT_PART_OF_THE_RESULT = ("out", "name", "device", "workers", "threads", "key")


@dataclass(frozen=True)
class Training:
    """A cell with the files that it needs.

    Attributes:
        cell: The cell.
        settings: What its training is asked for.
        labels: Its list of labelled images.
        start: Its start.
    """

    cell: Cell
    settings: FinetuneSettings
    labels: LabelList
    start: StartFile

    @property
    def key(self) -> str:
        """Equal for trainings that must give the same: settings, start, images, labels. Not folder, device, threads."""
        asked = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(self.settings).items()
            if key not in (*_NOT_PART_OF_THE_RESULT, "start", "data")
        }
        lists = [self.labels.sha256, self.labels.test_sha256, self.labels.annotations_sha256]
        content = {"asked": asked, "start": self.start.sha256, "lists": lists}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def mark(self) -> str:
        """Likewise of one that goes on: for images that have been replaced since, which no older record of a finished
        training tells, it begins again."""
        return hashlib.sha256(f"{self.key} {self.labels.content_sha256}".encode()).hexdigest()

    @property
    def settings_sha256(self) -> str:
        """Equal for trainings that were asked for the same but for start, list, seed, rate and length."""
        varied = (*_NOT_PART_OF_THE_RESULT, "start", "data", "seed", "lr0", "epochs")
        asked = {key: value for key, value in dataclasses.asdict(self.settings).items() if key not in varied}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    def finished(self) -> FinetuneResult | None:
        """The result of this very training, where it was finished before; what is damaged is trained again.

        Raises:
            RunError: Storage gave out: it may have been finished.
        """
        folder = self.settings.folder
        try:
            with looked_at(folder / RECORD):
                known = json.loads((folder / RECORD).read_text(encoding="utf-8"))
                marks = _marks(folder)
                if known["key"] != self.key or known.get("files", marks) != marks:
                    return None
                if not isinstance(known["device"], str):
                    return None
                if known.get("content", now := self.labels.content_sha256) != now:  # which older records do not have
                    return None
                return read_result(folder)
        except RunError:
            raise
        except (ValueError, UserError):
            return None

    def device(self) -> str:
        """The kind of device that it was trained on."""
        return str(json.loads((self.settings.folder / RECORD).read_text(encoding="utf-8"))["device"])

    def record(self, result: FinetuneResult, device: str) -> None:
        """Say in the run's folder which training it was and on what, so that it is found again."""
        content = {"key": self.key, **dataclasses.asdict(self.cell), "labels": self.labels.sha256}
        content |= {"files": _marks(self.settings.folder), "content": self.labels.content_sha256}
        content |= {"start_sha256": self.start.sha256, "seconds": result.seconds, "device": device}
        write_text(self.settings.folder / RECORD, json.dumps(content, indent=1) + "\n")
        (self.settings.folder / UNDER_WAY).unlink(missing_ok=True)  # not before: it would be trained from its beginning

    def changed(self) -> str:
        """Why what was trained to its end in this cell is trained anew, in words; "" where nothing was."""
        folder = self.settings.folder
        try:
            known = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if not (folder / RESULT).is_file() or not isinstance(known["key"], str):
                return ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        if known.get("lr", self.cell.lr) != self.cell.lr:
            return f"their learning rate was {known['lr']:g} and is {self.cell.lr:g}"
        if known.get("epochs", self.cell.epochs) != self.cell.epochs:
            return f"they had {known['epochs']} epochs and have {self.cell.epochs}"
        if known.get("labels") != self.labels.sha256:
            return "their labelled images are others"
        if known.get("start_sha256", self.start.sha256) != self.start.sha256:
            return "their start is another"
        if known["key"] != self.key or known.get("content") != self.labels.content_sha256:
            return "labels, images or options are others"
        return "their files were changed or damaged"


def told_before(
    known: Mapping[Cell, FinetuneResult], todo: Sequence[Training], versions: Mapping[str, str]
) -> list[str]:
    """What is to be known before anything is trained, in sentences: what is lost by it, and what does not fit it.

    Args:
        known: Trainings that were finished before and are kept.
        todo: Those that are trained now.
        versions: Of the packages that train.
    """
    lost: dict[str, list[str]] = {}
    for one in todo:
        if why := one.changed():
            lost.setdefault(why, []).append(one.cell.shown)
    told = [f"trained anew, for {why}: {few(cells)}" for why, cells in lost.items()]
    if todo:
        other = {
            f"{name} {before}"
            for result in known.values()
            for name, before in result.arrival.versions.items()
            if _released(versions.get(name, before)) != _released(before)
        }
        if other:
            now = ", ".join(f"{name} {one}" for name, one in versions.items())
            what = f"what is kept was trained with {', '.join(sorted(other))}, and here is {now}"
            told.append(f"{what}: the two cannot be compared; install those versions, or give another out=")
    return told


def _released(version: str) -> str:
    """A version without what a build of it is called: torch says 2.9.0+cpu of itself, and its package 2.9.0."""
    return version.partition("+")[0]


def record_of(done: Done[Training, FinetuneResult]) -> CellResult:
    """What ``results.json`` says of a training that ended, or was not begun."""
    task, figures, error = done.task, None, done.error
    if done.result is not None:
        try:
            figures = figures_of(done.result, task.device())
        except UserError as problem:
            error = str(problem)
    return CellResult(
        **dataclasses.asdict(task.cell),
        folder=f"{PARENTS[task.cell.kind]}/{task.cell.name}",
        labels_sha256=task.labels.sha256,
        start_sha256=task.start.sha256,
        settings_sha256=task.settings_sha256,
        state="done" if figures else "failed" if error else "missing",
        error=error,
        figures=figures,
        meant=task.labels.counts,
    )


def _marks(folder: Path) -> dict[str, str]:
    """Of each file that the figures of a training are in: one that was changed behind our back may still be read."""
    return {name: content_hash(str(folder / name), ours=True) for name in FIGURES}


def request(
    settings: CompareSettings, cell: Cell, labels: LabelList, start: StartFile, folder: Path
) -> FinetuneSettings:
    """What a cell's training is asked for; device and threads are filled in when it is started."""
    return FinetuneSettings(
        model=finetuner(settings.model).architecture(settings.model),
        data=labels.yaml,
        start=start.path,
        out=folder / PARENTS[cell.kind],
        name=cell.name,
        epochs=cell.epochs,
        imgsz=settings.imgsz,
        batch=settings.batch,
        optimizer=settings.optimizer,
        lr0=cell.lr,
        seed=cell.seed,
        workers=settings.workers,
        extra=dict(settings.extra),
    ).resolved()
