"""The types of ``detections.json``: a few test images with their labels and what each start's detector finds there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from headstart.comparison.records import plain
from headstart.comparison.results import read_json, validated
from headstart.comparison.start_records import Record
from headstart.errors import UserError
from headstart.files import write_text

FILE = "detections.json"


class LabelBox(NamedTuple):
    """A labelled box: index of its class, its corners as shares of the image's sides."""

    label: int
    x0: float
    y0: float
    x1: float
    y1: float


class FoundBox(NamedTuple):
    """A box that was found: index of its class, confidence in [0, 1], its corners as shares of the image's sides."""

    label: int
    confidence: float
    x0: float
    y0: float
    x1: float
    y1: float


class ShownImage(Record):
    """A test image.

    Attributes:
        file: Its name.
        width: In pixels, as it is shown.
        height: Likewise.
        jpeg: Its pixels: a JPEG file in Base64.
        truth: Its labels.
        found: Start -> what its detector finds.
    """

    file: str
    width: int = Field(gt=0, le=10_000)
    height: int = Field(gt=0, le=10_000)
    jpeg: str = Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")
    truth: tuple[LabelBox, ...]
    found: dict[str, tuple[FoundBox, ...]]


class Detections(Record):
    """The whole file. `least_confidence`: boxes below it are left out."""

    format: Literal[2] = 2
    least_confidence: float
    images: tuple[ShownImage, ...]


def write_detections(folder: Path, content: Detections) -> Path:
    """Write ``detections.json`` into the comparison's folder."""
    path = folder / FILE
    write_text(path, json.dumps(plain(content), allow_nan=False) + "\n")
    return path


def there(folder: Path) -> bool:
    """Whether there is one that can be read; a damaged one is removed."""
    try:
        return read_detections(folder) is not None
    except UserError:
        (folder / FILE).unlink()
        return False


def read_detections(folder: Path) -> Detections | None:
    """What `write_detections` wrote; None where there is none.

    Raises:
        UserError: It is cut or damaged; with the fields.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = read_json(path, "")
    if isinstance(content, dict) and "format" not in content:
        content = {"format": 2, **content}  # format 1 had no number, and is the same apart from that
    return validated(Detections, content, path)
