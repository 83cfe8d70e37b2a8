"""Single frames of video files: what names one, and decoding exactly that one from any place of the file.

A frame stands in an index, and wherever a path is written, as ``clip.mp4#frame=000241,t=8.041367``: its number in the
order in which it is shown, from 0, and its time in seconds. OpenCV's own seeking by number lands on another frame where
the frame rate varies, and in some containers where it does not (MPEG, transport streams). So frames are looked for by
their time, which every frame tells itself: from somewhat before on, until one has it; where none has, from further
before; in the end from the first frame on, counting. A frame without a time is always counted.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2

from headstart.images import decode
from headstart.images.depth import Pixels
from headstart.images.frames import Frame
from headstart.images.headers import DecodeError

OPEN = 3
"""Videos that each thread of each process has open at most."""
NEAR = 32
"""Frames that are rather passed over than sought."""
MARGINS = (0.25, 1.0, 4.0, 16.0, 64.0)
"""Seconds before a frame from which on it is looked for, one after the other."""
_SAME = 0.4e-3
"""Seconds by which a time that was written down may differ: no two frames of a video are so near."""
_HELD = 18
"""Bytes that decoding one pixel takes: the frames that others refer to, and the picture itself, twice."""
_QUALITY = 95

# FFmpeg would write of every damaged packet to the terminal. Read once by OpenCV, when it opens its first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def save_frame(path: str, target: Path) -> None:
    """Write a frame as a JPEG, for those who label images.

    Raises:
        DecodeError: It cannot be read.
        OSError: The file cannot be written.
    """
    target.write_bytes(as_jpeg(path))


def as_jpeg(path: str) -> bytes:
    """A frame as a JPEG.

    Raises:
        DecodeError: It cannot be read.
    """
    image = cv2.cvtColor(decode.read_image(path), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def read_frame(frame: Frame) -> Pixels:
    """Decode a frame.

    Returns:
        uint8 (H, W, 3), RGB, turned as the video says.

    Raises:
        DecodeError: The video is gone or cannot be read, or has no such frame.
        RunError: Storage fails, also after a few tries: no fault of this file.
    """
    try:
        return _read(frame)
    except DecodeError:
        decode.read_through(frame.video)  # storage that fails says nothing of the video
        _held.videos.clear()
        return _read(frame)


def _read(frame: Frame) -> Pixels:
    decode.head_of(frame.video)
    info = os.stat(frame.video)  # noqa: PTH116 - as in decode.py
    with decode.quiet_opencv():
        image = _opened(frame.video, (info.st_size, info.st_mtime_ns)).frame(frame.number, frame.seconds)
    if image is None:
        raise DecodeError("the video has no such frame (any more)")
    return image


# ---------------------------------------------------------------------------------------------------------------------
# Open videos
# ---------------------------------------------------------------------------------------------------------------------


class Capture:
    """A video that is open, and where in it the next frame comes from.

    Args:
        path: The file.
        threads: That decode; 0: one a core.

    Raises:
        DecodeError: It is no video, or too large.
    """

    def __init__(self, path: str, threads: int = 1) -> None:
        self._path, self._threads = path, threads
        _check_kind(decode.head_of(path))
        self._open()

    def _open(self) -> None:
        # The backend is named: another one would read "%03d.avi" as a pattern of many files.
        options = [cv2.CAP_PROP_N_THREADS, self._threads] if self._threads else []
        try:
            self._capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG, options)
        except UnicodeError:
            raise DecodeError("OpenCV opens no video whose name is no UTF-8: rename it") from None
        if not self._capture.isOpened():
            raise DecodeError("damaged or truncated video, or of a codec that OpenCV does not have")
        decode.refuse_large_frames(*self.size, _HELD)
        self._next = 0

    def _number(self, what: int) -> float:
        return float(self._capture.get(what))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames."""
        return int(self._number(cv2.CAP_PROP_FRAME_WIDTH)), int(self._number(cv2.CAP_PROP_FRAME_HEIGHT))

    @property
    def claimed(self) -> int:
        """Frames that its header claims; of some containers an estimate, or 0."""
        return max(0, int(self._number(cv2.CAP_PROP_FRAME_COUNT)))

    @property
    def rate(self) -> float:
        """Frames a second, as far as one can tell; 25 where it does not say."""
        rate = self._number(cv2.CAP_PROP_FPS)
        return rate if 0 < rate <= 1000 else 25.0

    def grab(self) -> float | None:
        """Go on to the next frame: its time in seconds, 0 where it has none; None at the end."""
        if not self._capture.grab():
            return None
        self._next += 1
        return self._number(cv2.CAP_PROP_POS_MSEC) / 1000

    def image(self) -> Any:
        """The frame that was gone on to, uint8 (H, W, 3), BGR; None where it cannot be decoded."""
        there, image = self._capture.retrieve()
        return image if there else None

    def frame(self, number: int, seconds: float | None) -> Pixels | None:
        """One frame, RGB; None where the video has none of this number at this time."""
        ahead = number - self._next
        if not -1 <= ahead <= (NEAR if seconds is not None else number) and not self._seek(number, seconds):
            self._open()
        while self._next <= number:
            if self.grab() is None:
                self._next = number + 2  # what follows is neither this frame nor one that can be counted to
                return None
        if seconds is not None and abs(self._number(cv2.CAP_PROP_POS_MSEC) / 1000 - seconds) > _SAME:
            return None
        image = self.image()
        return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _seek(self, number: int, seconds: float | None) -> bool:
        """Whether the frame of this time was found, and gone on to."""
        if seconds is None or self.claimed <= 1:  # OpenCV does not seek then, but forgets what frames refer to
            return False
        for margin in MARGINS:
            if margin >= seconds:
                break
            self._capture.set(cv2.CAP_PROP_POS_MSEC, (seconds - margin) * 1000)
            now = self.grab()
            while now is not None and now < seconds - _SAME:
                now = self.grab()
            if now is not None and now <= seconds + _SAME:
                self._next = number + 1
                return True
        return False


class _Held(threading.local):
    """The open videos of this thread, the latest last."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.videos: OrderedDict[tuple[str, tuple[int, int]], Capture] = OrderedDict()


_held = _Held()
_inherited: list[Any] = []


def _opened(path: str, mark: tuple[int, int]) -> Capture:
    """The video at `path`, of this size and time, opened where it is not yet."""
    if _held.process != os.getpid():  # a fork shares the place in the file with its parent: never read, never closed
        _inherited.append(_held.videos)
        _held.process, _held.videos = os.getpid(), OrderedDict()
    key = (path, mark)
    found = _held.videos.pop(key, None) or Capture(path)
    _held.videos[key] = found
    while len(_held.videos) > OPEN:
        _held.videos.popitem(last=False)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What a file says about itself
# ---------------------------------------------------------------------------------------------------------------------

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_STARTS = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\x01\xba", b"\0\0\x01\xb3")


def _check_kind(head: bytes) -> None:
    """Refuse what is no video by its first bytes: FFmpeg would also play lists of addresses, whatever their suffix.

    Raises:
        DecodeError: It is none.
    """
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    stream = head[:1] == b"\x47" and head[188:189] == b"\x47"
    if not (avi or stream or head[4:8] in _BOXES or head.startswith(_STARTS)):
        raise DecodeError("not a video" if head else "empty file")


def cut_short(path: str) -> bool | None:
    """Whether a video lacks bytes that its own header counts; None for containers that do not count them."""
    size = os.stat(path).st_size  # noqa: PTH116
    with open(path, "rb") as file:  # noqa: PTH123
        head = file.read(16)
        if head[:4] == b"RIFF":
            claimed: int = struct.unpack_from("<I", head, 4)[0]
            return claimed + 8 > size
        if head[4:8] not in _BOXES:
            return None
        at = 0
        while at + 16 <= size:
            file.seek(at)
            length, _, large = struct.unpack(">I4sQ", file.read(16))
            length = large if length == 1 else length
            if length < 8:  # to the end of the file, or no box
                return False
            at += length
        return at > size
