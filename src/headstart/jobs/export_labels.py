"""The labels of a teacher as an ordinary Ultralytics data set, for people who correct them and go on."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headstart.errors import UserError
from headstart.files import explained, write_text
from headstart.images.frames import file_of, saved_name
from headstart.images.headers import DecodeError
from headstart.images.index import ImageIndex
from headstart.images.members import is_address
from headstart.images.shards import save_image
from headstart.images.sources import Source, parse_sources
from headstart.jobs.csv_files import write_csv
from headstart.methods.base import GivenLabels
from headstart.paths import expanded
from headstart.pseudolabels.labelling import Labelling

UNFINISHED = ".unfinished"
"""File in the folder while it is written: one that was left behind says that it may be written again."""
_FOLDERS, _FILES = ("images", "labels"), ("data.yaml", "classes.txt", "confidences.csv", "left_out.csv")
_BOX = ("image", "class", "name", "x", "y", "width", "height", "confidence", "from")
_LEFT = ("image", "unsure", "best", "reason")
_LONGEST = 230
"""Bytes of a name, of the 255 that file systems have: a number and a suffix come behind it."""


class Box(NamedTuple):
    """A label of an image.

    Attributes:
        label: Class.
        corners: x0, y0, x1, y1 as shares of the image's sides.
        score: 1 where it was given.
        source: ``given`` or ``teacher``.
    """

    label: int
    corners: tuple[float, ...]
    score: float
    source: str

    def line(self) -> str:
        """As in a label file."""
        x0, y0, x1, y1 = self.corners
        return f"{self.label} {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}"


def refusals(folder: Path, out: str | None, data: Any) -> list[UserError]:
    """Why the labels cannot be written to `folder`, as far as it shows before a run.

    Args:
        folder: What ``export_labels`` names.
        out: The run folder, where one is named.
        data: As the option.
    """
    where, path = "export_labels", folder.resolve()
    if not free(path):
        return [UserError(f"{path} is not an empty folder", where=where, hint="give a new one")]
    run = expanded(out).resolve() if out else None
    if run and (run == path or path in run.parents):
        return [UserError(f"{path} holds the run folder, out={run}", where=where, hint="give a folder of its own")]
    for source in _folders(data):
        if source == path or source in path.parents:
            what = f"{path} lies among the images of data, in {source}: the next run would take its images for more"
            return [UserError(what, where=where, hint="give a folder elsewhere")]
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return [UserError(f"no permission to write to {above}", where=where, hint="give a folder elsewhere")]
    return []


def free(folder: Path) -> bool:
    """Whether labels can be written there: it is new or empty, or was left unfinished."""
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / UNFINISHED).is_file() or not any(folder.iterdir()))


def _folders(data: Any) -> Iterator[Path]:
    """The folders that `data` names, those of dataset YAMLs among them."""
    sources: list[Source] = parse_sources(data)[0] if data else []
    for source in sources:
        yield from (Path(one.path).resolve() for one in (source, *source.train) if one.kind == "folder")


def export_labels(
    folder: Path,
    images: ImageIndex,
    given: GivenLabels,
    labelled: Labelling,
    held_out: Mapping[str, Sequence[str]] | None = None,
) -> tuple[int, int]:
    """Write ``images`` (links), ``labels``, ``data.yaml``, ``classes.txt``, ``confidences.csv`` and ``left_out.csv``.

    The user's own boxes stay what they are; of the other images the boxes that the teacher is sure of are written. One
    on which it is sure of nothing is not written as one without objects: nobody has said that. It stands in
    ``left_out.csv``. Nothing is written beside the user's files.

    Frames of videos are saved as JPEGs, members of shards as they are.

    Args:
        folder: One that is `free`.
        images: The run's index.
        given: The labels of the user.
        labelled: Those of the teacher.
        held_out: ``val`` and ``test`` of the user's data set, as far as it has them: paths.

    Returns:
        Images with labels, those among them that the user labelled; and images that were left out.

    Raises:
        UserError: The folder is not free, or cannot be written.
    """
    if not free(folder):
        raise UserError(f"{folder} is not an empty folder", where="export_labels", hint="give a new one")
    boxes = _boxes(given, labelled)
    rows = [row for row in sorted({*boxes, *given.rows.tolist()}) if _is_there(images.path(row))]
    names = dict(zip(rows, file_names([images.path(row) for row in rows]), strict=True))
    with explained(folder):
        _begin(folder)
        written: dict[int, str] = {}
        for row, name in names.items():
            if not _put(images.path(row), folder / "images" / name):
                continue
            written[row] = name
            text = "".join(f"{box.line()}\n" for box in boxes[row])
            (folder / "labels" / name).with_suffix(".txt").write_text(text, encoding="utf-8")
        write_csv(folder / "confidences.csv", _BOX, _confidences(written, boxes, given.names))
        write_csv(folder / "left_out.csv", _LEFT, _left_out(images, written, labelled))
        write_text(folder / "classes.txt", "".join(f"{' '.join(name.split())}\n" for name in given.names))
        write_text(folder / "data.yaml", _dataset(given.names, held_out or {}))
        (folder / UNFINISHED).unlink()
    return len(written), len(images) - len(written)


def _is_there(path: str) -> bool:
    file = file_of(path)
    return is_address(file) or Path(file).is_file()


def _boxes(given: GivenLabels, labelled: Labelling) -> dict[int, list[Box]]:
    """The boxes of each row of the index that has any."""
    boxes: dict[int, list[Box]] = defaultdict(list)
    owner, corners, classes = given.labels.of(given.rows)
    for place, box, label in zip(owner.tolist(), corners.tolist(), classes.tolist(), strict=True):
        boxes[int(given.rows[place])].append(Box(label, tuple(box), 1.0, "given"))
    sure = labelled.sure
    parts = (sure.rows.tolist(), sure.boxes.tolist(), sure.labels.tolist(), sure.scores.tolist())
    for row, box, label, score in zip(*parts, strict=True):
        boxes[row].append(Box(label, tuple(box), score, "teacher"))
    return boxes


def _begin(folder: Path) -> None:
    """Make the folder, without what a run that was killed while it wrote has left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()


def _dataset(names: Sequence[str], held_out: Mapping[str, Sequence[str]]) -> str:
    """``data.yaml``; it names no ``path``, so that the folder may be moved."""
    content: dict[str, Any] = {"train": "images", "val": None}
    content |= {part: list(paths) for part, paths in held_out.items() if paths}
    content |= {"names": dict(enumerate(names))}
    remark = "" if content["val"] else "# Name images to validate on as val: a training of Ultralytics needs some.\n"
    return remark + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _confidences(
    names: Mapping[int, str], boxes: Mapping[int, Sequence[Box]], classes: Sequence[str]
) -> Iterator[list[Any]]:
    """A line for each box."""
    for row, name in names.items():
        for box in boxes.get(row, ()):
            place = box.line().split()[1:]
            yield [f"images/{name}", box.label, classes[box.label], *place, f"{box.score:.4f}", box.source]


def _left_out(images: ImageIndex, names: Mapping[int, str], labelled: Labelling) -> Iterator[list[Any]]:
    """A line for each image that is not written, the likeliest to show an object first."""
    unsure = labelled.unsure
    scores: dict[int, list[float]] = defaultdict(list)
    for row, score in zip(unsure.rows.tolist(), unsure.scores.tolist(), strict=True):
        scores[row].append(score)
    looked = set(labelled.sure.looked.tolist())
    rows = [row for row in range(len(images)) if row not in names]
    for row in sorted(rows, key=lambda row: -max(scores.get(row, [0.0]))):
        own = scores.get(row, [])
        seen = "the teacher is not sure" if own else "the teacher sees nothing"
        reason = seen if row in looked else "the image cannot be read"
        yield [images.path(row), len(own), f"{max(own):.4f}" if own else "", reason]


def file_names(paths: Sequence[str]) -> list[str]:
    """A name for each image: its own, or with a number where another has the same label file; also where capitals
    alone tell them apart, or its own is no text; cut where it is longer than a file's may be, as members' names may be.
    """
    taken: dict[str, int] = {}  # and the number that was tried last: the images of very many folders may have one name
    names = []
    for path in paths:
        stem, suffix = os.path.splitext(saved_name(path))  # noqa: PTH122
        stem = _short(stem) if stem.isprintable() else "image"  # bytes that are no text are not printable
        unique, number = stem, taken.get(stem.casefold(), 1)
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken[unique.casefold()] = 1
        taken[stem.casefold()] = number
        names.append(f"{unique}{suffix}")
    return names


def _short(stem: str) -> str:
    """A name that, with a number and a suffix, is none too long for a file system."""
    return stem.encode()[:_LONGEST].decode(errors="ignore")


def _put(image: str, target: Path) -> bool:
    """Whether an image is there under another name: a file as a link, a member of a shard or a frame saved as one."""
    if file_of(image) == image:
        _link(Path(image), target)
        return True
    try:
        save_image(image, target)
    except DecodeError:
        return False
    return True


def _link(source: Path, target: Path) -> None:
    """A symbolic link: no second copy, and the user's file is not touched; else a hard link, else a copy."""
    for link in (target.symlink_to, target.hardlink_to):
        try:
            link(source.resolve())
            return
        except (OSError, NotImplementedError):
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
