"""The scores of each class of a training, as they lie in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.files import write_text

CLASSES = "classes.json"


@dataclass(frozen=True)
class ClassScore:
    """One class on the test images: its name, box mAP50-95 and mAP50 in [0, 1], and how many objects it has there."""

    name: str
    map50_95: float
    map50: float
    objects: int


def write_scores(folder: Path, scores: Sequence[ClassScore]) -> None:
    """Write ``classes.json``: the scores of each class, of the last epoch measured."""
    write_text(folder / CLASSES, json.dumps([vars(score) for score in scores]) + "\n")


def read_scores(folder: Path) -> tuple[ClassScore, ...]:
    """What `write_scores` wrote; empty where it did not."""
    path = folder / CLASSES
    if not path.is_file():
        return ()
    return tuple(ClassScore(**one) for one in json.loads(path.read_text(encoding="utf-8")))
