"""Images that look the same though their files differ: saved anew, in another format, at another quality or size.

Every image becomes a thumbnail of 32 x 32 gray levels less their mean; the distance of two is the root mean square of
their differences. Hashes of so few bits as is usual fail on plain ground, where all images have the same; a fixed
distance fails on frames of a video, whose neighbors are nearer than copies elsewhere. So a copy must also be much
nearer than what else is near the image, though not than other copies: of 180 frames of a video with the frames beside
them on the other side, 2 were taken for copies, and 95 to 100 % of the copies saved anew, halved or enlarged were
found.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from headstart import machine
from headstart.files import write_atomically
from headstart.images.decode import DecodeError, read_image
from headstart.images.frames import parse
from headstart.images.shards import stamp_of

SIDE = 32
_AREA = 128 * 128
"""Pixels to which an image is reduced at least while it is decoded."""
PEAK = 6.0
"""Gray levels by which a copy may differ at any place of the thumbnail: a thing that moved makes more."""
CONTRAST = 0.3
"""Distance of a copy, as a share of the image's own contrast: plain images are all near each other."""
NEARER = 0.4
"""Distance and greatest difference of a copy, as shares of those of an image near it that is no copy."""
OTHERS = 2
"""Copies that are told without a gap behind them: the next nearest is held to be none."""
_FLAT = 0.5
"""Contrast in gray levels below which an image, such as a black frame, looks like too many others."""
_NEAREST = 12
"""Of so many that are near an image all but one may be copies of it."""
_BLOCK = 4096

Vectors = npt.NDArray[np.float16]
Distances = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of images.

    Attributes:
        paths: Of the images that could be read.
        values: float16 ``(N, SIDE * SIDE)``, gray levels less their mean.
        unread: Path of each other image, and why.
    """

    paths: tuple[str, ...]
    values: Vectors
    unread: tuple[tuple[str, str], ...] = ()


def thumbnail(path: str) -> npt.NDArray[np.float32]:
    """The thumbnail of one image, ``(SIDE * SIDE,)``.

    Raises:
        DecodeError: It cannot be read.
    """
    gray = cv2.cvtColor(read_image(path, _AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    small: npt.NDArray[np.float32] = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    less: npt.NDArray[np.float32] = small - small.mean()
    return less


def thumbnails(paths: Sequence[str], cache: Path | None = None) -> Thumbnails:
    """The thumbnails of images, decoded side by side.

    Args:
        paths: Of the images.
        cache: A file that keeps them for the next time; of an image that has changed since, one is made anew.
    """
    marks = [_mark(path) for path in paths]
    known = _read(cache) if cache else {}

    def one(at: int) -> Vectors | str:
        if marks[at] in known:
            return known[marks[at]]
        try:
            return thumbnail(paths[at]).astype(np.float16)
        except DecodeError as error:
            return error.reason

    with ThreadPoolExecutor(max(1, machine.cores())) as pool:
        made = list(pool.map(one, range(len(paths))))
    kept = [at for at, found in enumerate(made) if not isinstance(found, str)]
    values = np.stack([made[at] for at in kept]) if kept else np.zeros((0, SIDE * SIDE), np.float16)
    if cache and any(marks[at] not in known for at in kept):
        _write(cache, [marks[at] for at in kept], values)
    unread = tuple((path, found) for path, found in zip(paths, made, strict=True) if isinstance(found, str))
    return Thumbnails(tuple(paths[at] for at in kept), values, unread)


def _mark(path: str) -> str:
    """Of a file as it is now, in one line."""
    try:
        info = stamp_of(path)
    except (OSError, ValueError, DecodeError):
        return ""
    return f"{info.st_size} {info.st_mtime_ns} {path!r}"


def _read(cache: Path) -> dict[str, Vectors]:
    # None, or a damaged one: numpy and zipfile raise whatever its damage provokes.
    with suppress(Exception), np.load(cache) as held:
        marks = bytes(held["marks"]).decode("utf-8").splitlines()
        if held["values"].shape == (len(marks), SIDE * SIDE):
            return dict(zip(marks, held["values"], strict=True))
    return {}


def _write(cache: Path, marks: Sequence[str], values: Vectors) -> None:
    text = np.frombuffer("\n".join(marks).encode("utf-8"), np.uint8)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, marks=text, values=values)

    write_atomically(cache, write)


@dataclass(frozen=True)
class Nearest:
    """Of every image of some, the nearest of others, the nearest first.

    Attributes:
        rows: int64 ``(N, K)``, rows of the others.
        distances: float32 ``(N, K)``, gray levels; infinity where there are fewer others.
    """

    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


def nearest(some: Vectors, others: Vectors) -> Nearest:
    """The nearest `others` of each of `some`; block by block, so that memory stays small.

    Args:
        some: ``(N, SIDE * SIDE)``.
        others: ``(M, SIDE * SIDE)``.
    """
    count = _NEAREST
    wanted = some.astype(np.float32)
    own = (wanted**2).mean(1)
    rows = np.zeros((len(some), count), np.int64)
    best = np.full((len(some), count), np.inf, np.float32)
    for begin in range(0, len(others), _BLOCK):
        block = others[begin : begin + _BLOCK].astype(np.float32)
        squares = own[:, None] + (block**2).mean(1)[None] - 2 / block.shape[1] * (wanted @ block.T)
        found = np.concatenate([best**2, squares], axis=1)
        order = np.argpartition(found, min(count, found.shape[1] - 1), axis=1)[:, :count]
        numbered = np.concatenate([rows, np.broadcast_to(np.arange(begin, begin + len(block)), squares.shape)], axis=1)
        rows = np.take_along_axis(numbered, order, 1)
        best = np.sqrt(np.take_along_axis(found, order, 1).clip(min=0))
    order = np.argsort(best, axis=1, kind="stable")
    return Nearest(np.take_along_axis(rows, order, 1), np.take_along_axis(best, order, 1))


def look_alike(test: Thumbnails, others: Thumbnails, near: Nearest | None = None) -> list[tuple[str, str]]:
    """Pairs (test image, other image) that look the same, among files that are not the same.

    Args:
        test: The test images.
        others: Images that something was trained on.
        near: `nearest` of both, where it was looked for.
    """
    near = near or nearest(test.values, others.values)
    contrast = np.sqrt((test.values.astype(np.float32) ** 2).mean(1))
    limit = np.where(contrast > _FLAT, CONTRAST * contrast, 0.0)
    suspects = np.flatnonzero(near.distances[:, 0] < limit)
    beside = nearest(test.values[suspects], test.values)  # the image itself is the first of these
    pairs = []
    for row, at in enumerate(suspects):
        images = np.concatenate([others.values[near.rows[at]], test.values[beside.rows[row]]])
        own = np.where(beside.rows[row] == at, np.inf, beside.distances[row])
        far = np.concatenate([near.distances[at], own])
        order = np.argsort(far, kind="stable")
        peaks = np.array([_peak(test.values[at], images[one]) for one in order])
        # Beyond the last of either list there may be images that are not in it.
        whole = far[order] <= min(near.distances[at, -1], beside.distances[row, -1])
        copies = order[_copies(far[order], peaks, whole, limit[at])]
        pairs += [(test.paths[at], others.paths[near.rows[at, one]]) for one in copies if one < len(near.rows[at])]
    return pairs


def _copies(far: Distances, peaks: Distances, whole: npt.NDArray[np.bool_], limit: float) -> npt.NDArray[np.bool_]:
    """Which of the images near a test image are copies of it.

    Up to `OTHERS` of them are held against the next one. More hide each other so, and are told by a gap behind the last
    of them: the distances of frames grow step by step.

    Args:
        far: ``(K,)`` distances, the nearest first; infinity where there are fewer images.
        peaks: ``(K,)`` greatest differences.
        whole: ``(K,)`` whether nothing that is nearer is missing.
        limit: Distance of a copy at most.
    """
    greatest = NEARER * peaks[OTHERS] if np.isfinite(far[OTHERS]) else PEAK
    places = np.arange(len(far))
    found = (places < OTHERS) & (far < NEARER * far[OTHERS]) & (peaks < greatest)
    for behind in range(OTHERS + 1, len(far)):
        if whole[behind] and np.isfinite(far[behind]) and far[behind - 1] < NEARER * far[behind]:
            found |= (places < behind) & (peaks < NEARER * peaks[behind])
    copies: npt.NDArray[np.bool_] = found & (far < limit) & (peaks < PEAK)
    return copies


def _peak(one: Vectors, other: Vectors) -> float:
    """The greatest difference of two thumbnails, gray levels; a change of brightness as a whole is none."""
    difference = one.astype(np.float32) - other.astype(np.float32)
    return float(np.abs(difference - np.median(difference)).max())


# ---------------------------------------------------------------------------------------------------------------------
# Frames of one recording
# ---------------------------------------------------------------------------------------------------------------------

_EXPORTED = re.compile(r"(_(jpe?g|png|bmp|webp))?\.rf\.[0-9a-f]+$", re.IGNORECASE)
"""What an exporter of data sets appends to the names of images."""
_BESIDE = 2
"""Images before and after an image that count as beside it."""
CHANCE = 0.001
"""Chance of as many neighbors among images without an order, below which they are said to be of one recording."""


def numbered(path: str) -> tuple[str, int] | None:
    """The name of an image without its last number, and that number; None where it has none."""
    if frame := parse(path):  # called as frames that were saved are, mostly
        return f"{Path(frame.video).stem}_#", frame.number
    stem = _EXPORTED.sub("", Path(path).stem)
    found = re.search(r"(\d+)(\D*)$", stem)
    return (f"{stem[: found.start()]}#{found[2]}", int(found[1])) if found else None


def beside_each_other(test: Thumbnails, others: Thumbnails, near: Nearest | None = None) -> list[tuple[str, str]]:
    """Pairs (test image, other image) that follow one another by number, and of which the other is the likest of all.

    Empty where so many may come about by chance, as with images that were numbered in no order.
    """
    near = near or nearest(test.values, others.values)
    places: dict[str, list[tuple[int, int]]] = {}
    for row, path in enumerate(others.paths):
        if known := numbered(path):
            places.setdefault(known[0], []).append((known[1], row))
    for name in places:
        places[name].sort()
    pairs, looked = [], 0
    for at, path in enumerate(test.paths):
        known = numbered(path)
        if known is None or known[0] not in places:
            continue
        looked += 1
        if int(near.rows[at, 0]) in _around(places[known[0]], known[1]):
            pairs.append((path, others.paths[near.rows[at, 0]]))
    share = min(1.0, 2 * _BESIDE / max(1, len(others.paths)))
    return pairs if pairs and _at_least(len(pairs), looked, share) < CHANCE else []


def _around(ordered: Sequence[tuple[int, int]], number: int) -> set[int]:
    """Rows of the images before and after a number."""
    at = bisect_left(ordered, (number, -1))
    return {row for _, row in ordered[max(0, at - _BESIDE) : at + _BESIDE]}


def _at_least(hits: int, draws: int, share: float) -> float:
    """The chance of `hits` or more of `draws`, each with the chance `share`."""
    if share >= 1:
        return 1.0
    log = math.lgamma
    ways = [log(draws + 1) - log(k + 1) - log(draws - k + 1) for k in range(hits, draws + 1)]
    chances = [
        math.exp(ways[k - hits] + k * math.log(share) + (draws - k) * math.log1p(-share))
        for k in range(hits, draws + 1)
    ]
    return math.fsum(chances)
