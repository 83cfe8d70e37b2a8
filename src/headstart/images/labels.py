"""Label files: one reader for all that looks at labels, which reads and leaves out what Ultralytics does.

A label file lies where Ultralytics expects it, one an image, one object a line: ``class x y width height``, a polygon
``class x y x y ...``, or a box with keypoints behind it; all coordinates are shares of the sides of the image. An
image without a label file is background.
"""

from __future__ import annotations

import math
import os
import stat
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.errors import few
from headstart.images.members import Member, is_address, key_of, split

_TOLERANCE = 0.01
"""How far Ultralytics lets coordinates lie outside [0, 1]."""
_MOST_CLASSES = 2**24
"""Larger numbers are not kept exactly among coordinates, as float32."""
_MOST_BYTES = 2**26
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def label_path(image: str) -> Path:
    """Where the labels of an image lie: the last folder ``images`` becomes ``labels``, the suffix ``.txt``.

    Of a member of a shard they are the member of the same sample, as WebDataset has it (the same name up to its first
    dot), where that is there; else what they would be of a file.
    """
    if (member := split(image)) is not None:
        plain, beside = _in_folders(image), Member(member.shard, f"{key_of(member.name)}.txt").path
        return Path(plain if is_there(plain) and not is_there(beside) else beside)
    return Path(_in_folders(image))


def _in_folders(image: str) -> str:
    here, there = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    path = there.join(image.rsplit(here, 1))
    return path if is_address(path) else str(Path(path).with_suffix(".txt"))


OTHER_FORMS = (".TXT", ".json", ".xml", ".cls")
"""Of labels that others write beside an image; there is no common form of them."""


def expected(image: str) -> str:
    """Where the labels of an image are looked for, and what to do with those that are there in another form."""
    path = str(label_path(image))
    stems = (path[: -len(".txt")], os.path.splitext(image)[0])  # noqa: PTH122
    other = next((stem + suffix for suffix in OTHER_FORMS for stem in stems if is_there(stem + suffix)), "")
    if not other:
        return f"expected {path} for {image}"
    if other.endswith(".TXT"):
        return f"expected {path} for {image}; {other} is not read: rename such files, for Ultralytics reads .txt alone"
    how = "write a .txt for each image (a line for each object: class x y width height, as shares of the sides)"
    how += ", and pack both into shards anew" if split(image) else ""
    return f"expected {path} for {image}; {other} is not read, for there is no common form of such labels: {how}"


def is_there(path: str | Path) -> bool:
    """Whether a file, or a member of a shard, is there."""
    if (member := split(str(path))) is None:
        return Path(path).is_file()
    from headstart.images import shards  # OpenCV: for those who have shards

    return shards.has(member)


class Keypoints(NamedTuple):
    """``kpt_shape`` of a pose data set.

    Attributes:
        number: Keypoints of an object.
        values: Numbers of each: 2, or 3 with its visibility.
        learnt: Whether the detector learns them. Of a pose, one that does not is taught the box alone.
    """

    number: int
    values: int
    learnt: bool = True

    @property
    def words(self) -> int:
        """Numbers of an object's line: class, box and keypoints."""
        return 5 + self.number * self.values


def keypoints_for(task: str, shape: Sequence[int] | None) -> Keypoints | None:
    """What the keypoints of a data set are to a detector.

    Args:
        task: Of the detector: only "pose" learns keypoints.
        shape: ``kpt_shape`` of the data set, None for one without.
    """
    return Keypoints(shape[0], shape[1], learnt=task == "pose") if shape else None


class Row(NamedTuple):
    """One object.

    Attributes:
        label: Its class, from 0.
        box: x0, y0, x1, y1 as shares of the sides of the image, within [0, 1] and with an area.
        points: What the line has beyond the box: x, y, ... of a polygon, or its keypoints; empty for a box.
        line: Number of its line, from 1.
    """

    label: int
    box: tuple[float, float, float, float]
    points: tuple[float, ...]
    line: int


@dataclass(frozen=True)
class Problem:
    """Something in a label file that cannot be used.

    Attributes:
        what: What is wrong, for after ``line 3`` or the path.
        line: Number of the line, from 1; None where it concerns the file.
        drops_image: Whether Ultralytics leaves out the whole image for it, or this line alone.
    """

    what: str
    line: int | None = None
    drops_image: bool = True

    def __str__(self) -> str:
        return self.what if self.line is None else f"line {self.line} {self.what}"


@dataclass(frozen=True)
class Labels:
    """What a label file holds.

    Attributes:
        path: The file.
        rows: The objects that can be used, in their order.
        problems: What cannot be used; empty for a file that is all right, or not there.
        poses: Whether lines have keypoints that the detector does not learn, and that are not in `rows`.
    """

    path: Path
    rows: tuple[Row, ...] = ()
    problems: tuple[Problem, ...] = ()
    poses: bool = False

    @property
    def dropped(self) -> bool:
        """Whether Ultralytics leaves out the whole image."""
        return any(problem.drops_image for problem in self.problems)

    @property
    def classes(self) -> frozenset[int]:
        """The classes of the objects."""
        return frozenset(row.label for row in self.rows)

    def array(self) -> npt.NDArray[np.float32]:
        """The objects as ``(N, 5)``: class, x0, y0, x1, y1."""
        return np.array([(row.label, *row.box) for row in self.rows], dtype=np.float32).reshape(-1, 5)


def read_labels(path: Path, classes: int | None = None, keypoints: Keypoints | None = None) -> Labels:
    """Read a label file: all that can be used of it, and what cannot, with line and reason.

    Args:
        path: The file; without one the image is background.
        classes: How many classes there are; None where that is not known.
        keypoints: Of a pose data set.

    Returns:
        Rows and problems. Never raises for what is in the file. UTF-16 and Latin-1 are read, and named as problems,
        for Ultralytics reads UTF-8 alone.
    """
    data = _bytes_of(path)
    if data is None or isinstance(data, Problem):
        return Labels(path, (), () if data is None else (data,))
    text, problems = _decoded(data)
    pose = keypoints if keypoints and keypoints.learnt else None
    only_box = keypoints.words if keypoints and not keypoints.learnt else 0
    rows: dict[bytes, Row] = {}
    widths, twice, poses = set(), 0, False
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            if len(words) == only_box:
                words, poses = words[:5], True
            widths.add(len(words) == 5)
            found = _row(words, number, classes, pose)
            if isinstance(found, Problem):
                problems.append(found)
            elif (same := _numbers(words)) in rows:
                twice += 1
            else:
                rows[same] = found
    if len(widths) > 1 and not pose and any(row.points for row in rows.values()):
        problems.append(Problem("mixes boxes and polygons"))
    if twice:
        problems.append(Problem(f"has {twice} lines twice", drops_image=False))
    return Labels(path, tuple(rows.values()), tuple(problems), poses)


def _bytes_of(path: Path) -> bytes | Problem | None:
    """What is in a label file, or why that cannot be used; None where there is none."""
    if (member := split(str(path))) is not None:
        return _bytes_of_member(member)
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            return Problem("is a folder: its image counts as background", drops_image=False)
        if not stat.S_ISREG(info.st_mode):  # a pipe is waited for without end
            return Problem("is not an ordinary file")
        if info.st_size > _MOST_BYTES:
            return Problem(f"is too large: {info.st_size / 2**20:,.0f} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(f"cannot be read: {error.strerror}")


def _bytes_of_member(member: Member) -> bytes | Problem | None:
    from headstart.images import decode  # OpenCV: for those who have shards

    if not is_there(member.path):
        return None
    try:
        data = decode.bytes_of(member.path)
    except decode.DecodeError as error:
        return Problem(f"cannot be read: {error.reason}")
    return data if len(data) <= _MOST_BYTES else Problem(f"is too large: {len(data) / 2**20:,.0f} MiB")


def _numbers(words: Sequence[str]) -> bytes:
    """Equal for lines of the same numbers, however they are written: in float32, as Ultralytics compares them."""
    return array("f", [float(word) + 0.0 for word in words]).tobytes()


def _decoded(data: bytes) -> tuple[str, list[Problem]]:
    if data.startswith(_UTF16):
        return data.decode("utf-16", errors="replace"), [Problem("is UTF-16: save it as UTF-8")]
    if b"\0" in data:
        return "", [Problem("is not a text file")]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return data.decode("latin-1"), [Problem("is not UTF-8: save it as UTF-8")]


def _row(words: Sequence[str], line: int, classes: int | None, keypoints: Keypoints | None) -> Row | Problem:
    """One line; the rules are those of Ultralytics' ``verify_image_label``."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return Problem(f"has a word that is not a number: {_first_word(words)!r}", line)
    if problem := _class_problem(values[0], words[0], classes) or _count_problem(len(words), keypoints):
        return Problem(problem, line)
    rest = tuple(values[1:])
    polygon = len(rest) > 4 and not keypoints
    box = _around(rest) if polygon else (rest[0], rest[1], rest[2], rest[3])
    points = rest if polygon else rest[4:]
    # Of keypoints Ultralytics checks the places, and not the box; of polygons the box around them.
    bounded = _places(points, keypoints.values) if keypoints else box
    if not all(map(math.isfinite, rest)):
        return Problem("has a coordinate that is not a finite number", line)
    if max(bounded) > 1 + _TOLERANCE:
        return Problem(f"has a coordinate of {max(bounded):g}, beyond 1: they are shares of the sides", line)
    least = min(*box, *(points if keypoints else ()))
    if least < -_TOLERANCE or min(box[2:]) < 0:
        return Problem(f"has a negative coordinate: {min(least, *box[2:]):g}", line)
    corners = _corners(box)
    if not (corners[2] > corners[0] and corners[3] > corners[1]):
        return Problem("has a box without area", line, drops_image=False)
    return Row(int(values[0]), corners, points, line)


def _first_word(words: Sequence[str]) -> str:
    for word in words:
        try:
            float(word)
        except ValueError:
            return word
    return ""


def _class_problem(value: float, word: str, classes: int | None) -> str:
    if not math.isfinite(value) or value != int(value) or not 0 <= value < _MOST_CLASSES:
        return f"has the class {word}: classes are whole numbers from 0"
    if classes is not None and value >= classes:
        return f"has the class {int(value)}; there are {classes} classes, from 0"
    return ""


def _count_problem(count: int, keypoints: Keypoints | None) -> str:
    if keypoints:
        return "" if count == keypoints.words else f"has {count} numbers; a pose has {keypoints.words}"
    if count == 5 or (count >= 7 and count % 2):
        return ""
    return f"has {count} numbers; a box has 5, a polygon 7, 9, 11 or more"


def _places(points: Sequence[float], each: int) -> list[float]:
    """x and y of keypoints, without their visibility."""
    return [value for at in range(0, len(points), each) for value in points[at : at + 2]]


def _around(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Center, width and height of the box around a polygon."""
    left, top, right, bottom = min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Many files together
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """What the label files of many images amount to.

    Attributes:
        classes: Image -> the classes of its objects, for the images that Ultralytics uses; empty for background.
        dropped: Images that Ultralytics leaves out.
        errors: Of each of these its label file, and the first error there.
        ineffective: What has no effect on the images that are used, with a count and examples; empty where all has.
        objects: Image -> how many objects it has, for the images of `classes`.
    """

    classes: dict[str, frozenset[int]]
    dropped: tuple[str, ...]
    errors: tuple[str, ...]
    ineffective: tuple[str, ...]
    objects: dict[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be used and why, with counts and examples; empty where all is well."""
        if not self.dropped:
            return self.ineffective
        out, total = len(self.dropped), len(self.classes) + len(self.dropped)
        told = f"{out:,} of {total:,} images are left out for their label files: {few(self.errors)}"
        return (told, *self.ineffective)


def survey(images: Iterable[str], classes: int | None = None, keypoints: Keypoints | None = None) -> Survey:
    """Read the label files of `images`.

    Args:
        images: Paths.
        classes, keypoints: As for `read_labels`.
    """
    found: dict[str, frozenset[int]] = {}
    objects: dict[str, int] = {}
    dropped: list[str] = []
    errors: list[str] = []
    lines: list[str] = []
    for image in images:
        labels = read_labels(label_path(image), classes, keypoints)
        if labels.dropped:
            first = next(problem for problem in labels.problems if problem.drops_image)
            dropped.append(image)
            errors.append(f"{labels.path}: {first}")
        else:
            found[image], objects[image] = labels.classes, len(labels.rows)
            lines += [f"{labels.path}: {problem}" for problem in labels.problems]
    ineffective = (f"{len(lines):,} lines or files of labels have no effect: {few(lines)}",) if lines else ()
    return Survey(found, tuple(dropped), tuple(errors), ineffective, objects)
