"""Which frames of a video are images to learn from: so many a second, near-identical ones left out.

That takes one look through the whole video, in order. What came of it is kept in the cache folder, for the video as it
is: a start after the first looks at none, and a video that was replaced is looked through again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from headstart.errors import UserError
from headstart.files import write_text
from headstart.images import decode
from headstart.images.frames import Frame
from headstart.images.headers import DecodeError
from headstart.images.video import Capture, cut_short
from headstart.reading import parse_json
from headstart.run.display import Filling

CELLS = 32
LEVELS = 8
"""Frames are near-identical where none of 32 x 32 parts of the picture differs by more than so many of 255 gray levels.

By the greatest difference, not the mean: a small thing that moves in front of a fixed camera is what a detector is for.
"""
FORMAT = 1
_TAIL = 16
"""Frames at the end of a video that was cut short which are left out: they may be decoded in part."""
_LEAST = 0.9
"""Share of the time that a header claims, below which a video counts as cut short; some headers estimate."""
_NAMED = 5
"""Videos up to which each is named in what is said."""
_CHECKED = 5
"""Frames that are looked for by their time, to see whether that leads to them."""

Progress = Callable[[float], None]  # share of the video that was looked through, from 0 to 1
Small = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Footage:
    """What is used of a video.

    Attributes:
        frames: How many can be read.
        taken: How many of them there are at the times that are looked at.
        near: How many of those are left out, for they show what the one before shows.
        numbers: Of the frames that are used.
        seconds: Their times; None where the time of a frame does not lead to it.
        ended: Why it is not used to its end; empty where it is.
    """

    frames: int
    taken: int
    near: int
    numbers: list[int]
    seconds: list[float | None]
    ended: str = ""

    def paths(self, video: str) -> list[str]:
        """The frames that are used, as an index names them."""
        return [Frame(video, *one).path for one in zip(self.numbers, self.seconds, strict=True)]

    def said(self, name: str, every: float) -> str:
        """It in words."""
        words = f"{name}: {counts(self.frames, self.taken, self.near, every)}"
        return f"{words}; {self.ended}" if self.ended else words


def counts(frames: int, taken: int, near: int, every: float) -> str:
    """``1,203 frames, every 0.5 s 241, 180 near-identical left out``."""
    shown = f"every {every:g} s {taken:,}" if every else "all looked at"
    return f"{frames:,} frames, {shown}, {near:,} near-identical left out"


def footage_of(video: str, every: float, folder: Path, progress: Progress | None = None) -> Footage:
    """What is used of a video: as it is kept in `folder`, or by looking through it.

    Args:
        video: Absolute path.
        every: Seconds between two frames that are looked at; 0: every frame.
        folder: The cache folder; one that cannot be written is no error.
        progress: Called on the way.

    Raises:
        DecodeError: No frame of it can be used.
    """
    decode.head_of(video)
    info = os.stat(video)  # noqa: PTH116
    key = [FORMAT, video, every, info.st_size, info.st_mtime_ns, CELLS, LEVELS, cv2.__version__]
    name = hashlib.blake2b(repr(key).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    kept = folder / "videos" / name
    if (known := _load(kept)) is not None:
        return known
    found = look_through(video, every, progress)
    with suppress(UserError):
        write_text(kept, json.dumps(asdict(found)) + "\n")
    return found


def _load(path: Path) -> Footage | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = Footage(**parse_json(path.read_bytes()))
        if len(found.numbers) == len(found.seconds) > 0:
            return found
    return None


def look_through(video: str, every: float, progress: Progress | None = None) -> Footage:
    """Read a video from its first frame to its last; see `footage_of`."""
    with decode.quiet_opencv():
        seen = _Seen(Capture(video, threads=0), every, progress)
    if not seen.frames:
        decode.read_through(video)  # storage that fails says nothing of the video
        raise DecodeError("damaged or truncated video: no frame can be read")
    ended = ""
    if seen.short if (short := cut_short(video)) is None else short:
        decode.read_through(video)
        of = f" of {seen.claimed:,}" if seen.claimed > seen.frames else ""
        ended = f"truncated or damaged: used as far as it can be read, {seen.frames:,}{of} frames"
        seen.leave_out_last(_TAIL)
    if not seen.numbers:
        raise DecodeError(f"damaged or truncated video: {seen.frames:,} frames can be read")
    if not seen.times_lead(video):
        seen.seconds = [None] * len(seen.numbers)
    return Footage(seen.frames, seen.taken, seen.taken - len(seen.numbers), seen.numbers, seen.seconds, ended)


class _Seen:
    """One look through a video.

    Attributes:
        frames, taken, numbers, seconds: As `Footage`.
        claimed: Frames that its header claims, or 0.
        short: Whether it ends long before the time that its header claims.
    """

    def __init__(self, capture: Capture, every: float, progress: Progress | None) -> None:
        self.claimed = capture.claimed
        self.frames = self.taken = 0
        self.numbers: list[int] = []
        self.seconds: list[float | None] = []
        self._marks: list[bytes] = []
        last: Small | None = None
        due, now, step = 0.0, -1.0, 1 / capture.rate
        first = 0.0
        while (time := capture.grab()) is not None:
            number, self.frames = self.frames, self.frames + 1
            known = time > now or (number == 0 and time >= 0)
            now = time if known else now + step  # frames at the end of some files have no time
            if number == 0:
                first = due = now
            if now < due - 1e-6:
                continue
            while every and due <= now + 1e-6:
                due += every
            image = capture.image()
            if image is None:
                continue
            self.taken += 1
            small = _small(image)
            if last is None or int(np.abs(small - last).max()) > LEVELS:
                last = small
                self.numbers.append(number)
                self.seconds.append(now if known else None)
                self._marks.append(_mark(image))
            if progress and self.claimed:
                progress(min(1.0, self.frames / self.claimed))
        self.short = now - first + step < _LEAST * self.claimed * step

    def leave_out_last(self, frames: int) -> None:
        """Use none of the last so many frames."""
        while self.numbers and self.numbers[-1] >= self.frames - frames:
            self.taken -= 1
            for some in (self.numbers, self.seconds, self._marks):
                some.pop()

    def times_lead(self, video: str) -> bool:
        """Whether the times of frames lead to these very frames: looked at for a few, the last first."""
        there = [at for at, seconds in enumerate(self.seconds) if seconds is not None]
        every = max(1, len(there) // _CHECKED)
        with decode.quiet_opencv():
            capture = Capture(video)
            for at in there[::-1][::every]:
                image = capture.frame(self.numbers[at], self.seconds[at])
                if image is None or _mark(image[..., ::-1]) != self._marks[at]:
                    return False
        return True


def _small(image: npt.NDArray[np.uint8]) -> Small:
    """Gray levels of `CELLS` x `CELLS` parts of a BGR image."""
    parts = cv2.resize(image, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    small: Small = cv2.cvtColor(parts, cv2.COLOR_BGR2GRAY).astype(np.int16)
    return small


def _mark(image: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()


# ---------------------------------------------------------------------------------------------------------------------
# Several videos
# ---------------------------------------------------------------------------------------------------------------------


class Used(NamedTuple):
    """What is used of videos: the frames, what is said of them, and (path, reason) of what cannot be used whole."""

    frames: list[str]
    notes: list[str]
    skipped: list[tuple[str, str]]


def used_of(videos: Sequence[str], every: float, folder: Path) -> Used:
    """What is used of each video; see `footage_of`. One that cannot be read is skipped, and said."""
    used, found = Used([], [], []), list[Footage]()
    sizes = [_megabytes(video) for video in videos]
    before, total = 0.0, int(sum(sizes)) + 1
    with Filling(label="looking through videos", what="MB") as filling:
        for video, size in zip(videos, sizes, strict=True):

            def tell(share: float, before: float = before, size: float = size) -> None:
                filling(int(before + share * size), total)

            before += size

            try:
                one = footage_of(video, every, folder, tell)
            except DecodeError as error:
                used.skipped.append((video, error.reason))
                continue
            found.append(one)
            used.frames.extend(one.paths(video))
            if one.ended:
                used.skipped.append((video, one.ended))
            if len(videos) <= _NAMED:
                used.notes.append(one.said(Path(video).name, every))
    used.notes.extend(_in_words(found, used.skipped, len(videos), every))
    return used


def _in_words(found: Sequence[Footage], skipped: Sequence[tuple[str, str]], videos: int, every: float) -> Iterator[str]:
    """What is said of all videos together."""
    if len(found) > 1:
        frames, taken, near = (sum(getattr(one, name) for one in found) for name in ("frames", "taken", "near"))
        yield f"{len(found):,} videos: {counts(frames, taken, near, every)}"
    if any(one.near for one in found):
        yield f"near-identical: no part of {CELLS} x {CELLS} differs by more than {LEVELS} of 255 from the frame before"
    if skipped:
        path, reason = skipped[0]
        more = ", ..." if len(skipped) > 1 else ""
        yield f"{len(skipped):,} of {videos:,} videos are not used, or not to their end: {path} ({reason}){more}"


def _megabytes(path: str) -> float:
    with suppress(OSError):
        return os.stat(path).st_size / 2**20  # noqa: PTH116
    return 0.0
