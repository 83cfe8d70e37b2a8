"""The labels of a teacher as an ordinary Ultralytics data set, for people who correct them and go on."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headstart.errors import UserError
from headstart.files import LOCK, explained, lock, write_text
from headstart.images.decode import DecodeError, read_image
from headstart.images.frames import file_of, saved_name
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
_SMALL = 64 * 64
"""Pixels as which an image is decoded to see whether it can be read: a JPEG is quick so."""
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


class Exported(NamedTuple):
    """What was written.

    Attributes:
        images: With labels.
        given: Those among them that the user labelled.
        unsure: Left out: images on which the teacher is sure of nothing.
        unread: Left out: images that cannot be read.
    """

    images: int
    given: int
    unsure: int
    unread: int


def refusals(folder: Path, out: str | None, data: Any, labels: Any = None) -> list[UserError]:
    """Why the labels cannot be written to `folder`, as far as it shows before a run.

    Args:
        folder: What ``export_labels`` names.
        out: The run folder, where one is named.
        data, labels: As the options.
    """
    where, path = "export_labels", folder.resolve()
    if not free(path):
        return [UserError(f"{path} is not an empty folder", where=where, hint="give a new one")]
    run = expanded(out).resolve() if out else None
    if run and (run == path or path in run.parents):
        return [UserError(f"{path} holds the run folder, out={run}", where=where, hint="give a folder of its own")]
    for option, sources, taken in (
        ("data", _folders(data), "its images for more"),
        ("labels", _labelled_folders(labels), "the teacher's labels for yours"),
    ):
        for source in sources:
            what = ""
            if source == path or source in path.parents:
                what = f"lies among the images of {option}, in {source}: the next run would take {taken}"
            elif path in source.parents:  # one that was left unfinished, which is emptied
                what = f"holds images of {option}, in {source}"
            if what:
                return [UserError(f"{path} {what}", where=where, hint="give a folder elsewhere")]
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return [UserError(f"no permission to write to {above}", where=where, hint="give a folder elsewhere")]
    return []


def free(folder: Path) -> bool:
    """Whether labels can be written there: it is new or empty, or was left unfinished."""
    if not folder.exists():
        return True
    return folder.is_dir() and (
        (folder / UNFINISHED).is_file() or not any(one.name != LOCK for one in folder.iterdir())
    )


def _folders(data: Any) -> Iterator[Path]:
    """The folders that `data` names, those of dataset YAMLs among them."""
    sources: list[Source] = parse_sources(data)[0] if data else []
    for source in sources:
        yield from (Path(one.path).resolve() for one in (source, *source.train) if one.kind == "folder")


def _labelled_folders(labels: Any) -> Iterator[Path]:
    """Those of the dataset YAML that ``labels`` names; what is none is told elsewhere."""
    sources: list[Source] = parse_sources(str(labels))[0] if labels else []
    for source in sources:
        yield from (Path(one.path).resolve() for one in source.train if one.kind == "folder")


def boxes_only(task: str, given: GivenLabels) -> str:
    """What somebody who trains on the export has to know: that all its lines are boxes, where more could be expected.

    A teacher gives boxes alone, and Ultralytics trains no masks or keypoints on images of which some have boxes only.

    Args:
        task: Of the detector that is trained.
        given: The labels of the user.

    Returns:
        "" where boxes are all that was given and is trained.
    """
    if task not in ("segment", "pose") and not given.beyond:
        return ""
    lost = f"; {given.beyond} of your own labels are left out" if given.beyond else ""
    return f"boxes only: for `yolo detect train`{lost}"


def export_labels(
    folder: Path,
    images: ImageIndex,
    given: GivenLabels,
    labelled: Labelling,
    held_out: Mapping[str, Sequence[str]] | None = None,
    *,
    task: str = "detect",
    keypoints: Sequence[int] | None = None,
) -> Exported:
    """Write ``images`` (links), ``labels``, ``data.yaml``, ``classes.txt``, ``confidences.csv`` and ``left_out.csv``.

    The user's own boxes stay what they are; of the other images the boxes that the teacher is sure of are written. One
    on which it is sure of nothing is not written as one without objects: nobody has said that. It stands in
    ``left_out.csv``, and so does one that cannot be read, whoever labelled it. Nothing is written beside the user's
    files.

    Frames of videos are saved as JPEGs, members of shards as they are.

    Args:
        folder: One that is `free`.
        images: The run's index.
        given: The labels of the user.
        labelled: Those of the teacher.
        held_out: ``val`` and ``test`` of the user's data set, as far as it has them: paths.
        task: Of the detector that is trained.
        keypoints: ``kpt_shape`` of the user's data set, by which its ``val`` and ``test`` are read as boxes.

    Raises:
        UserError: The folder is not free, or cannot be written.
    """
    boxes, own = _boxes(given, labelled), set(given.rows.tolist())
    wanted = sorted({*boxes, *own})
    rows = [row for row in wanted if _can_be_read(images, row, looked=row not in own)]
    names = dict(zip(rows, file_names([images.path(row) for row in rows]), strict=True))
    with _held(folder), explained(folder):
        if not free(folder):
            raise UserError(f"{folder} is not an empty folder", where="export_labels", hint="give a new one")
        _begin(folder)
        written: dict[int, str] = {}
        for row, name in names.items():
            if not _put(images.path(row), folder / "images" / name):
                continue
            written[row] = name
            text = "".join(f"{box.line()}\n" for box in boxes[row])
            (folder / "labels" / name).with_suffix(".txt").write_text(text, encoding="utf-8")
        write_csv(folder / "confidences.csv", _BOX, _confidences(written, boxes, given.names))
        seen = {*labelled.sure.looked.tolist()}.difference(wanted)
        unread = set(range(len(images))).difference(written, seen)
        write_csv(folder / "left_out.csv", _LEFT, _left_out(images, written, labelled, unread))
        write_text(folder / "classes.txt", "".join(f"{' '.join(name.split())}\n" for name in given.names))
        remark = boxes_only(task, given)
        write_text(folder / "data.yaml", _dataset(given.names, held_out or {}, remark, keypoints, images.channels))
        (folder / UNFINISHED).unlink()
    unsure = len(images) - len(written) - len(unread)
    return Exported(len(written), len(own & written.keys()), unsure, len(unread))


def _can_be_read(images: ImageIndex, row: int, *, looked: bool) -> bool:
    """Whether an image can be read; of one that the teacher has `looked` at, whether it is there still.

    What cannot be read no training has seen: with labels in the data set it would be counted, and never used.
    """
    path = images.path(row)
    if looked:
        file = file_of(path)
        return is_address(file) or Path(file).is_file()
    try:
        read_image(path, _SMALL, channels=images.channels)
    except DecodeError:
        return False
    return True


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


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder for one run alone: another one would empty it as one that was left unfinished."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(folder)
    except UserError as error:
        raise UserError(error.what, where=f"export_labels={folder}", hint=error.hint) from None
    try:
        yield
    finally:
        with suppress(OSError):  # where what is open cannot be removed, it stays
            (folder / LOCK).unlink()
        held.release()


def _begin(folder: Path) -> None:
    """Make the folder, without what a run that was killed while it wrote has left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()


def _dataset(
    names: Sequence[str],
    held_out: Mapping[str, Sequence[str]],
    remark: str,
    keypoints: Sequence[int] | None,
    channels: int,
) -> str:
    """``data.yaml``; it names no ``path``, so that the folder may be moved."""
    content: dict[str, Any] = {"train": "images", "val": None}
    content |= {part: list(paths) for part, paths in held_out.items() if paths}
    content |= {"names": dict(enumerate(names))}
    # Without it Ultralytics would take the poses of the user's val for polygons, or for damaged lines.
    content |= {"kpt_shape": list(keypoints)} if keypoints and held_out else {}
    content |= {"channels": channels} if channels != 3 else {}
    head = f"# {remark[0].upper()}{remark[1:]}.\n" if remark else ""
    head += "" if content["val"] else "# Name images to validate on as val: a training of Ultralytics needs some.\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _confidences(
    names: Mapping[int, str], boxes: Mapping[int, Sequence[Box]], classes: Sequence[str]
) -> Iterator[list[Any]]:
    """A line for each box."""
    for row, name in names.items():
        for box in boxes.get(row, ()):
            place = box.line().split()[1:]
            yield [f"images/{name}", box.label, classes[box.label], *place, f"{box.score:.4f}", box.source]


def _left_out(
    images: ImageIndex, names: Mapping[int, str], labelled: Labelling, unread: Container[int]
) -> Iterator[list[Any]]:
    """A line for each image that is not written, the likeliest to show an object first."""
    unsure = labelled.unsure
    scores: dict[int, list[float]] = defaultdict(list)
    for row, score in zip(unsure.rows.tolist(), unsure.scores.tolist(), strict=True):
        scores[row].append(score)
    rows = [row for row in range(len(images)) if row not in names]
    for row in sorted(rows, key=lambda row: -max(scores.get(row, [0.0]))):
        own = scores.get(row, [])
        seen = "the teacher is not sure" if own else "the teacher sees nothing"
        reason = "the image cannot be read" if row in unread else seen
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
