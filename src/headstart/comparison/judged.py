"""What a training's own validation says of each class, kept beside its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.files import write_text

FILE = "classes.json"


@dataclass(frozen=True)
class ClassScore:
    """One class on the test images: its name, box mAP50-95 and mAP50 in [0, 1], and how many objects it has there."""

    name: str
    map50_95: float
    map50: float
    objects: int


class Judged:
    """Writes ``classes.json`` into a run folder after every epoch; the last epoch's stays."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def write(self, trainer: Any) -> None:
        """A callback of Ultralytics' trainer, for ``on_fit_epoch_end``."""
        metrics = trainer.validator.metrics
        # Ultralytics may validate once more after the last epoch, with other weights.
        if trainer.epoch < trainer.epochs and getattr(metrics, "nt_per_class", None) is not None:
            write_text(self.path, json.dumps([vars(score) for score in scores(metrics)]) + "\n")


def scores(metrics: Any) -> list[ClassScore]:
    """The classes that have objects among the test images; one that is never found has an AP of 0."""
    box = metrics.box
    found = {int(number): at for at, number in enumerate(box.ap_class_index)}
    return [
        ClassScore(
            name=str(metrics.names[number]),
            map50_95=round(float(box.ap[found[number]]), 5) if number in found else 0.0,
            map50=round(float(box.ap50[found[number]]), 5) if number in found else 0.0,
            objects=int(objects),
        )
        for number, objects in enumerate(metrics.nt_per_class)
        if objects
    ]


def read(folder: Path) -> tuple[ClassScore, ...]:
    """The scores in a run folder; empty where it has none."""
    path = folder / FILE
    if not path.is_file():
        return ()
    return tuple(ClassScore(**one) for one in json.loads(path.read_text(encoding="utf-8")))
