"""Label files: read where Ultralytics expects them, one file an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import UserError

if TYPE_CHECKING:  # the report reads this module, and does without torch
    from torch import Tensor


def label_path(image: str) -> Path:
    """Where the labels of an image lie: the last folder ``images`` becomes ``labels``, the suffix ``.txt``."""
    here, there = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return Path(there.join(image.rsplit(here, 1))).with_suffix(".txt")


def read_boxes(path: Path) -> Tensor:
    """Boxes of a label file, float32 ``(N, 5)``: class, x0, y0, x1, y1 as shares of width and height.

    Boxes and polygons are read; lines that are neither are passed over, as is a file that is not there.
    """
    import torch

    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return torch.zeros(0, 5)
    rows = []
    for line in lines:
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            continue
        if len(values) == 4:
            x, y, width, height = values
            rows.append([label, x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        elif len(values) >= 6 and len(values) % 2 == 0:
            rows.append([label, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])])
    boxes = torch.tensor(rows).reshape(-1, 5)
    boxes[:, 1:].clamp_(0, 1)
    return boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]


def classes_of(image: str, count: int) -> frozenset[int]:
    """The classes of the objects in an image; empty without a label file, as Ultralytics takes it.

    Raises:
        UserError: A line that does not begin with a class number below `count`.
    """
    path = label_path(image)
    found = set()
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                label = int(float(line.split(maxsplit=1)[0]))
                if not 0 <= label < count:
                    raise UserError(f"line {number} has class {label}; there are {count} classes", where=str(path))
                found.add(label)
    except FileNotFoundError:
        return frozenset()
    except ValueError:
        raise UserError(f"line {number} does not begin with a class number", where=str(path)) from None
    return frozenset(found)
