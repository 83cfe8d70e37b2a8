"""From the bytes of an image file to RGB pixels, the same pixels that Ultralytics trains on.

Ultralytics reads with OpenCV: EXIF orientation is applied to JPEG, PNG and WebP, alpha is dropped, of animations and
documents the first frame or page is taken; AVIF and HEIC by their suffixes are read with Pillow. OpenCV, by version,
answers a half-downloaded file with a half-gray image, so what a file claims (headers.py) is looked at first. More than
8 bits are read by the range that they use (depth.py).
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from headstart import machine
from headstart.errors import RunError
from headstart.images.channels import own_channels, with_channels
from headstart.images.depth import Pixels, bits_used, eight_bits
from headstart.images.frames import parse
from headstart.images.headers import TIFF, DecodeError, Header, read_header
from headstart.images.members import split
from headstart.images.resize import within_area

__all__ = ["DecodeError", "Pixels", "bytes_of", "decode", "read_image"]

T = TypeVar("T")

MAX_PIXELS = 2**28
"""A larger image (16384 x 16384) is refused before it is decoded: it would take 800 MB in every worker."""
_MAX_BYTES = 16 * MAX_PIXELS
_HEAD, _CHUNK = 512, 2**24
_SHARE = 8
"""Part of the machine's memory that decoding one image may take: one eighth."""
_FEW = 2**24
_DENSEST = 2**14
"""Pixels that one byte may stand for in an image of more than `_FEW`; in a PNG it is 8256 at most."""
WAITS = (0.1, 0.4, 1.5, 4.0)
"""Seconds before a file is tried again that storage could not give: a network drive may come back."""
_PASSING_NAMES = """
    EIO ESTALE EMFILE ENFILE ETIMEDOUT EAGAIN EINTR ENOMEM ENOBUFS EREMOTEIO ENOTCONN ENETDOWN ENETUNREACH ENETRESET
    EHOSTDOWN EHOSTUNREACH ECONNRESET ECONNABORTED ECONNREFUSED ESHUTDOWN EPROTO ENOLINK ECOMM
"""
_PASSING = frozenset(getattr(errno, name) for name in _PASSING_NAMES.split() if hasattr(errno, name))
"""What says nothing of the file itself. Taken for unreadable, it would change what is trained."""


def read_image(
    path: str | os.PathLike[str], max_area: int | None = None, notes: list[str] | None = None, channels: int = 3
) -> Pixels:
    """Decode the file, member of a shard or frame of a video at `path`; see `decode`. What keeps it is a DecodeError.

    Raises:
        RunError: Storage fails, also after a few tries: no fault of this file.
    """
    path = os.fspath(path)
    if (frame := parse(path)) is not None:
        from headstart.images import video  # which needs what is here

        image = with_channels(video.read_frame(frame), channels)
        return image if max_area is None else within_area(image, max_area)
    return decode(bytes_of(path), max_area=max_area, suffix=os.path.splitext(path)[1], notes=notes, channels=channels)  # noqa: PTH122


def bytes_of(path: str) -> bytes:
    """All bytes of the file, or member of a shard, at `path`.

    Raises:
        DecodeError, RunError: As `read_image`.
    """
    data: bytes = _contents(path)
    return data


def head_of(path: str) -> bytes:
    """The first bytes of a file that may be larger than an image.

    Raises:
        DecodeError, RunError: As `read_image`.
    """
    return with_file(path, lambda file: file.read(_HEAD))


def read_through(path: str) -> None:
    """Read a file to its end and keep nothing, to tell storage that fails from a file that is damaged.

    Raises:
        DecodeError, RunError: As `read_image`.
    """

    def read(file: BinaryIO) -> None:
        while file.read(_CHUNK):
            pass

    with_file(path, read)


def with_file(path: str, read: Callable[[BinaryIO], T]) -> T:
    """What `read` gives of the open file at `path`, which may be larger than an image.

    Raises:
        DecodeError, RunError: As `read_image`.
    """
    found: T = _contents(path, read)
    return found


def _contents(path: str, read: Callable[[BinaryIO], Any] | None = None) -> Any:
    for wait in (*WAITS, None):
        try:
            return _bytes(path, read)
        except FileNotFoundError:
            raise DecodeError("no such file") from None
        except PermissionError:
            raise DecodeError("no permission to read it") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            what = getattr(error, "strerror", None) or error
            if getattr(error, "errno", None) not in _PASSING:
                raise DecodeError(f"cannot be read: {what}") from None
            if wait is None:
                raise _storage_fails(path, f"{what}", error) from None
            time.sleep(wait)
    raise AssertionError


def _storage_fails(path: str, what: str, error: Exception) -> RunError:
    tried = f"cannot be read: {what}, {len(WAITS) + 1} times in {sum(WAITS):.0f} seconds"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        hint = "raise the limit of open files (ulimit -n), or use fewer workers"
    else:
        hint = "look at the disk or the network drive, or take this one file away"
    return RunError(tried, where=path, hint=hint)


def _bytes(path: str, read: Callable[[BinaryIO], Any] | None) -> Any:
    most = min(_MAX_BYTES, _room())
    if read is None and (member := split(path)) is not None:
        from headstart.images import shards  # which needs what is here

        return shards.bytes_of(member, most)
    info = os.stat(path)  # noqa: PTH116 - a Path for each of a million reads costs more than the stat
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise DecodeError("a folder, not a file" if stat.S_ISDIR(info.st_mode) else "not an ordinary file")
    if read is None and info.st_size > most:
        raise DecodeError(f"too large: a file of {info.st_size / 2**30:.1f} GiB")
    with open(path, "rb") as file:  # noqa: PTH123
        return read(file) if read else file.read()


def decode(
    data: bytes,
    *,
    max_area: int | None = None,
    suffix: str = "",
    notes: list[str] | None = None,
    channels: int = 3,
) -> Pixels:
    """Decode an image file's bytes.

    Args:
        data: The whole file.
        max_area: Where height times width is larger, the image is scaled down to at most that many pixels, aspect
            kept and anti-aliased; None keeps every pixel.
        suffix: The file's suffix, which decides whether Ultralytics reads it as TIFF; by the content when empty.
        notes: Gets what was done to read it, beyond decoding, in words.
        channels: As a dataset YAML says: 3 are RGB, 1 is gray, of other numbers the file has as many.

    Returns:
        uint8 (H, W, channels), RGB where these are 3, contiguous. Without `max_area`: the pixels of
        ``ultralytics.utils.patches.imread``, but for what depth.py reads by its range.

    Raises:
        DecodeError: The file is empty, truncated, no image, of more than `MAX_PIXELS`, or too large for this machine.
    """
    if not data:
        raise DecodeError("empty file")
    header = read_header(data)
    suffix = suffix.lower()
    is_tiff = suffix in (".tif", ".tiff") if suffix else data[:4] in TIFF
    reduction = 1
    if max_area is not None and header.kind == "JPEG" and not is_tiff:
        reduction = _jpeg_reduction(header.height, header.width, max_area)
    _refuse_too_large(header, len(data), reduction, channels)
    if not header.ended:
        data = _with_end(data)
        _note(notes, "JPEG without its end marker: nothing of the picture is missing")
    try:
        with quiet_opencv():
            pillow = suffix in (".avif", ".heic", ".heif") and channels in (1, 3)
            image = _pillow(data, header.kind) if pillow else None
            if image is not None:
                image = with_channels(image, channels)
            elif channels == 3:
                image = _decoded(data, header, is_tiff, reduction, notes)
            else:
                image, note = own_channels(data, channels, is_tiff, header.depth, reduction)
                _note(notes, note)
            return image if max_area is None else within_area(image, max_area)
    except (cv2.error, MemoryError) as error:
        raise DecodeError(f"cannot be decoded: {getattr(error, 'err', '') or 'out of memory'}") from None


def _note(notes: list[str] | None, text: str) -> None:
    if notes is not None and text:
        notes.append(text)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused before it is decoded
# ---------------------------------------------------------------------------------------------------------------------


@cache
def _room() -> int:
    """Bytes that decoding one image may take: of the memory there is, not of what is free, so that it is the same
    for a run that goes on."""
    return machine.memory_limit() // _SHARE


def _refuse_too_large(header: Header, size: int, reduction: int, channels: int = 3) -> None:
    shown = f"{header.width} x {header.height} pixels"
    if header.pixels > MAX_PIXELS:
        raise DecodeError(f"too large: {shown}, more than {MAX_PIXELS}")
    if header.pixels > max(_FEW, _DENSEST * size):
        raise DecodeError(f"a plain color or a false claim: {shown} in {size} bytes")
    # As decoded and as RGB, in turn; libjpeg scales down while it decodes, but for what progressive files keep whole.
    pages = 2 * channels + 1 if channels > 3 else 0  # and their stack
    held = header.held + pages * (max(8, header.depth) // 8)
    needed = header.pixels * (3 * (max(8, header.depth) // 8) + 6) // reduction**2 + header.pixels * held
    _refuse_beyond_room(shown, needed)


def refuse_large_frames(width: int, height: int, held: int) -> None:
    """Refuse a video of frames that are too large, each pixel of which takes `held` bytes.

    Raises:
        DecodeError: It is too large, or claims no pixels.
    """
    shown = f"frames of {width} x {height} pixels"
    if width < 1 or height < 1:
        raise DecodeError(f"damaged video: it claims {shown}")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"too large: {shown}, more than {MAX_PIXELS}")
    _refuse_beyond_room(shown, width * height * held)


def _refuse_beyond_room(shown: str, needed: int) -> None:
    if needed > _room():
        most = f"{_room() / 2**30:.1f} GiB are allowed on this machine (1/{_SHARE} of its memory)"
        raise DecodeError(f"too large: {shown} take {needed / 2**30:.1f} GiB to decode; {most}")


def _with_end(data: bytes) -> bytes:
    """A JPEG with the end marker that it lacks.

    Whether anything else is missing: two different fillings give the same pixels only where no decoder needs them.
    Pillow decodes them, for it prints nothing.

    Raises:
        DecodeError: A part of the picture is missing.
    """
    whole = data.rstrip(b"\0")  # a file of full size that was never filled
    whole += b"\0" * whole.endswith(b"\xff")
    fillings = (b"\x55\x2a" * 40, b"\xa3\x1c\x77" * 30)
    first, second = (_pillow(whole + filling + b"\xff\xd9", "JPEG") for filling in fillings)
    if first is None or second is None or not np.array_equal(first, second):
        raise DecodeError("truncated JPEG file: its end is missing")
    return whole + b"\xff\xd9"


# ---------------------------------------------------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------------------------------------------------


def _decoded(data: bytes, header: Header, is_tiff: bool, reduction: int, notes: list[str] | None) -> Pixels:
    """RGB pixels by OpenCV; what has more than 8 bits by the range that it uses."""
    buffer = np.frombuffer(data, np.uint8)
    deep = _deep(buffer, header) if header.depth > 8 else None
    if deep is not None and not _as_ultralytics(deep):
        pixels, note = eight_bits(deep)
        _note(notes, note)
        return _rgb(pixels)
    image = _opencv(buffer, is_tiff, reduction)
    if image is None:
        raise DecodeError(_unreadable(header.kind))
    pixels, note = eight_bits(image)
    _note(notes, note)
    return _rgb(pixels)


def _rgb(pixels: Pixels) -> Pixels:
    turned: Pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2RGB)
    return turned


def _unreadable(kind: str) -> str:
    if kind == "HEIC":
        return "HEIC file: it can be read when pi-heif is installed (pip install pi-heif), and named .heic"
    return f"damaged or truncated {kind} file"


def _as_ultralytics(deep: npt.NDArray[Any]) -> bool:
    """Whether the high byte is all that there is to see; Ultralytics' own calls are made then."""
    return bool(deep.dtype == np.uint8 or (deep.dtype == np.uint16 and bits_used(deep) == 16))


def _deep(buffer: Pixels, header: Header) -> npt.NDArray[Any] | None:
    """Pixels in the file's own numbers, (H, W, 3), BGR; None where OpenCV has none."""
    flags = cv2.IMREAD_UNCHANGED if header.kind == "TIFF" else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(buffer, flags)
    if image is None:
        return None
    if image.ndim == 2 or image.shape[2] < 3:  # gray, with alpha or without
        image = np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _opencv(buffer: Pixels, is_tiff: bool, reduction: int) -> npt.NDArray[Any] | None:
    """BGR pixels of `buffer`, by the calls that Ultralytics makes."""
    if is_tiff:  # color keeps its file's layout, which OpenCV's COLOR flag would refuse for some; else as any other
        found, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(0, 1))
        if found and pages[0].ndim == 3 and pages[0].shape[2] >= 3:
            return np.asarray(pages[0][..., :3])
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    return cv2.imdecode(buffer, flags.get(reduction, cv2.IMREAD_REDUCED_COLOR_8))


def _pillow(data: bytes, kind: str) -> Pixels | None:
    """RGB pixels by Pillow, turned upright; None where it cannot.

    By the format's own class: once Ultralytics is imported, ``Image.open`` has pip install something for a file that it
    does not know.
    """
    modules = {
        "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
        "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
        "HEIC": ("pi_heif", "HeifImageFile"),
    }
    if kind not in modules:
        return None
    from PIL import ImageOps

    module, name = modules[kind]
    try:
        with getattr(importlib.import_module(module), name)(io.BytesIO(data)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # whatever a plugin raises; its absence too
        return None


def _jpeg_reduction(height: int, width: int, max_area: int) -> int:
    """The coarsest of libjpeg's 1/8, 1/4, 1/2 that still leaves `max_area` pixels to average; 1 if none does."""
    return next((n for n in (8, 4, 2) if (height // n) * (width // n) >= max_area), 1)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """A bad file is reported by us, once; OpenCV's own lines on stderr would tear the progress display."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
