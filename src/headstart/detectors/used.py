"""What a training really read, counted from the trainer's own data sets: they may leave out images without failing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.files import write_text

USED = "used.json"


@dataclass(frozen=True)
class Counts:
    """Images, how many of them have objects, and their objects."""

    images: int
    labelled: int
    objects: int


@dataclass(frozen=True)
class Used:
    """What was trained on, and what was measured on."""

    train: Counts
    test: Counts


def count(objects: Iterable[int]) -> Counts:
    """The counts of images that have so many objects each."""
    each = list(objects)
    return Counts(len(each), sum(one > 0 for one in each), sum(each))


def write_used(folder: Path, used: Used) -> None:
    """Write ``used.json`` into the folder of a training."""
    content = {"train": vars(used.train), "test": vars(used.test)}
    write_text(folder / USED, json.dumps(content) + "\n")


def read_used(folder: Path) -> Used | None:
    """What `write_used` wrote; None where it did not.

    Raises:
        ValueError, TypeError, KeyError: It is damaged.
    """
    try:
        content: Mapping[str, Any] = json.loads((folder / USED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    train, test = (
        Counts(**{name: int(number) for name, number in content[part].items()}) for part in ("train", "test")
    )
    return Used(train, test)
