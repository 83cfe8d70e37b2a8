"""The labels of a teacher as an ordinary Ultralytics data set, for people who correct them and go on."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headstart.errors import UserError
from headstart.files import explained, write_text
from headstart.images.index import ImageIndex
from headstart.jobs.labelled import dataset_of
from headstart.methods.base import GivenLabels, Method
from headstart.pseudolabels.labelling import Detections
from headstart.pseudolabels.pictures import write_taught

MARK = "confidences.csv"
SHOWN = 256
"""Unlabelled images that are labelled at the end to be looked at."""
if TYPE_CHECKING:  # which asks `refusal` before there is a job
    from headstart.jobs.prepare import Job

Box = tuple[float, float, float, float]


def refusal(folder: Path) -> UserError | None:
    """Why the labels cannot be written there: a file, or a folder that holds something; None otherwise."""
    if not folder.exists():
        return None
    if folder.is_dir() and not any(folder.iterdir()):
        return None
    return UserError(f"{folder} is not an empty folder", where="export_labels", hint="give a new one")


def label_all(job: Job, method: Method, images: ImageIndex, run: Path) -> list[str]:
    """Label images as the detector that is handed back does: for the report in `run`, and for ``export_labels``.

    Returns:
        What was written, in sentences.
    """
    given, folder = job.given, getattr(job.options, "export_labels", None)
    if given is None or not (folder or job.run.report):
        return []
    known = set(given.rows.tolist())
    rows = [row for row in range(len(images)) if row not in known]
    if rows and not folder:  # a part is enough to look at
        rows = rows[:: -(-len(rows) // SHOWN)]
    found = method.label(rows)
    if found is None:
        return []
    write_taught(run / "assets" / "taught.png", found, images, given.names)
    if not folder:
        return []
    path, dataset = Path(folder).expanduser(), dataset_of(str(job.asked["labels"]))
    number = export_labels(path, images, given, found, dataset.paths("val") if "val" in dataset.parts else [])
    return [f"labels:    {path}, an Ultralytics data set of {number:,} images"]


def export_labels(
    folder: Path, images: ImageIndex, given: GivenLabels, found: Detections, val: Sequence[str] = ()
) -> int:
    """Write ``images`` (links, or copies where there are no links), ``labels``, ``data.yaml`` and ``confidences.csv``.

    The user's own labels stay what they are; of the other images those that the teacher is sure of are written.
    Nothing is written beside the user's files.

    Args:
        folder: New or empty.
        images: The run's index.
        given: The labels of the user.
        found: Those of the teacher.
        val: What the user's own data set is validated on; without it ``val`` is ``train``, for Ultralytics wants one.

    Returns:
        How many images have labels.

    Raises:
        UserError: The folder cannot be written.
    """
    labels: dict[int, list[tuple[int, Box, float, str]]] = defaultdict(list)
    owner, boxes, classes = given.labels.of(given.rows)
    for place, box, label in zip(owner.tolist(), boxes.tolist(), classes.tolist(), strict=True):
        labels[int(given.rows[place])].append((label, tuple(box), 1.0, "given"))
    parts = (found.rows.tolist(), found.boxes.tolist(), found.labels.tolist(), found.scores.tolist())
    for row, box, label, score in zip(*parts, strict=True):
        labels[row].append((label, tuple(box), score, "teacher"))
    background = set(given.rows.tolist()) - labels.keys()
    with explained(folder):
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        names = _names(images, sorted({*labels, *background}))
        lines = []
        for row, name in names.items():
            _link(Path(images.path(row)), folder / "images" / name)
            text = [f"{label} {_middle(box)}" for label, box, _, _ in labels.get(row, [])]
            path = (folder / "labels" / name).with_suffix(".txt")
            path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
            for label, box, score, source in labels.get(row, []):
                words = _middle(box).split()
                lines.append([f"images/{name}", label, given.names[label], *words, f"{score:.4f}", source])
        with (folder / MARK).open("w", newline="", encoding="utf-8") as stream:
            header = ["image", "class", "name", "x", "y", "width", "height", "confidence", "from"]
            csv.writer(stream).writerows([header, *lines])
        content: dict[str, Any] = {"path": str(folder.resolve()), "train": "images", "val": list(val) or "images"}
        content |= {"names": dict(enumerate(given.names))}
        write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return len(names)


def _middle(box: Sequence[float]) -> str:
    x0, y0, x1, y1 = box
    return f"{(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}"


def _names(images: ImageIndex, rows: Sequence[int]) -> dict[int, str]:
    """A name for each image: its own, or with its row where two would have the same label file."""
    taken: set[str] = set()
    names = {}
    for row in rows:
        path = Path(images.path(row))
        name = path.name if path.stem not in taken else f"{path.stem}-{row}{path.suffix}"
        taken.add(Path(name).stem)
        names[row] = name
    return names


def _link(source: Path, target: Path) -> None:
    """A symbolic link: no second copy, and the user's file is not touched; a copy where there are no links."""
    target.unlink(missing_ok=True)  # of a run that was killed while it wrote
    try:
        target.symlink_to(source.resolve())
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)
