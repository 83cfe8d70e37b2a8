"""What Ultralytics' own validation says of each class, kept beside the figures of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.detectors.scores import ClassScore, write_scores
from headstart.images.class_names import told_apart


class ScoreWriter:
    """Writes ``classes.json`` into a run folder after every epoch; the last epoch's stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, trainer: Any) -> None:
        """A callback of Ultralytics' trainer, for ``on_fit_epoch_end``."""
        metrics = trainer.validator.metrics
        # Ultralytics may validate once more after the last epoch, with other weights.
        if trainer.epoch < trainer.epochs and getattr(metrics, "nt_per_class", None) is not None:
            write_scores(self.folder, class_scores(metrics))


def class_scores(metrics: Any) -> list[ClassScore]:
    """The classes that have objects among the test images, `told_apart`; one that is never found has an AP of 0."""
    box = metrics.box
    names = told_apart([str(metrics.names[number]) for number in range(len(metrics.names))])
    found = {int(number): at for at, number in enumerate(box.ap_class_index)}
    return [
        ClassScore(
            name=names[number],
            map50_95=round(float(box.ap[found[number]]), 5) if number in found else 0.0,
            map50=round(float(box.ap50[found[number]]), 5) if number in found else 0.0,
            objects=int(objects),
        )
        for number, objects in enumerate(metrics.nt_per_class)
        if objects
    ]
