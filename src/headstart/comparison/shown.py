"""The types of ``detections.json``: a few test images with their labels and what each start's detector finds there."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
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
    """The whole file.

    Attributes:
        least_confidence: Boxes below it are left out.
        budget: The label budget that the detectors were trained with; "" in older files: the largest.
        seed: Their seed; None in older files: the first.
        asked: How many images were to be shown; None in older files.
        images: The images.
    """

    format: Literal[2] = 2
    least_confidence: float
    budget: str = ""
    seed: int | None = None
    asked: int | None = None
    images: tuple[ShownImage, ...]


def write_detections(folder: Path, content: Detections) -> Path:
    """Write ``detections.json`` into the comparison's folder."""
    path = folder / FILE
    write_text(path, json.dumps(plain(content), allow_nan=False) + "\n")
    return path


def there(
    folder: Path, budget: str, seed: int, starts: Collection[str], images: Sequence[str], *, changed: bool
) -> bool:
    """Whether there is one of these detectors and images: a comparison may be called again with other budgets.

    Where it is not, whatever is there is removed, so that no report shows it.

    Args:
        folder: The comparison's folder.
        budget: That the detectors were trained with.
        seed: Likewise.
        starts: That there is a detector of.
        images: Paths of the images; those that cannot be read are not among what is shown.
        changed: Whether something was trained since: the detectors may be others.
    """
    try:
        known = read_detections(folder)
    except UserError:
        known = None
    same = known and (known.budget, known.seed) == (budget, seed) and known.asked in (None, len(images))
    if known and same and not changed and _shows(known, starts, images):
        return True
    (folder / FILE).unlink(missing_ok=True)
    return False


def _shows(known: Detections, starts: Collection[str], images: Sequence[str]) -> bool:
    left = iter(Path(image).name for image in images)
    return all(one.file in left and set(one.found) == set(starts) for one in known.images)


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
