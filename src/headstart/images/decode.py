"""From the bytes of an image file to RGB pixels, the same pixels that Ultralytics trains on.

Ultralytics reads with OpenCV: EXIF orientation is applied to JPEG, PNG and WebP, 16 bit keeps its high byte, alpha
is dropped. OpenCV, by version, answers a half-downloaded file with a half-gray image, so the ends of files are looked
at first, and sizes too: a few bytes can claim a gigapixel.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 2**28
"""A larger image (16384 x 16384) is refused before it is decoded: it would take 800 MB in every worker."""
_MAX_BYTES = 16 * MAX_PIXELS

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's start-of-frame markers, which carry the size


class DecodeError(Exception):
    """A file that gives no pixels.

    Attributes:
        reason: What is wrong with it, in plain words and without its path.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_image(path: str | os.PathLike[str], max_area: int | None = None) -> Pixels:
    """Decode the file at `path`; see `decode`. Whatever keeps it from being read is a DecodeError."""
    path = os.fspath(path)
    try:
        info = os.stat(path)  # noqa: PTH116 - a Path for each of a million reads costs more than the stat
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
            raise DecodeError("a folder, not a file" if stat.S_ISDIR(info.st_mode) else "not an ordinary file")
        if info.st_size > _MAX_BYTES:
            raise DecodeError(f"too large: a file of {info.st_size / 2**30:.0f} GiB")
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read()
    except FileNotFoundError:
        raise DecodeError("no such file") from None
    except PermissionError:
        raise DecodeError("no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DecodeError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return decode(data, max_area=max_area, suffix=os.path.splitext(path)[1])  # noqa: PTH122


def decode(data: bytes, *, max_area: int | None = None, suffix: str = "") -> Pixels:
    """Decode an image file's bytes.

    Args:
        data: The whole file.
        max_area: Where height times width is larger, the image is scaled down to at most that many pixels, aspect
            kept and anti-aliased; None keeps every pixel.
        suffix: The file's suffix, which decides whether Ultralytics reads it as TIFF; by the content when empty.

    Returns:
        uint8 (H, W, 3), RGB, contiguous. Without `max_area`: the pixels of ``ultralytics.utils.patches.imread``.

    Raises:
        DecodeError: The file is empty, truncated, no image, not of 8 or 16 bit, or of more than `MAX_PIXELS`.
    """
    if not data:
        raise DecodeError("empty file")
    size = _checked_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise DecodeError(f"too large: {size[1]} x {size[0]} pixels, more than {MAX_PIXELS}")
    is_tiff = suffix.lower() in (".tif", ".tiff") if suffix else data[:4] in _TIFF
    reduction = 1
    if max_area is not None and size is not None and data[:2] == b"\xff\xd8" and not is_tiff:
        reduction = _jpeg_reduction(*size, max_area)
    try:
        with _quiet_opencv():
            image = _opencv(np.frombuffer(data, np.uint8), is_tiff, reduction)
            return image if max_area is None else _shrunk(image, max_area)
    except (cv2.error, MemoryError) as error:
        raise DecodeError(f"cannot be decoded: {getattr(error, 'err', '') or 'out of memory'}") from None


def _opencv(buffer: Pixels, is_tiff: bool, reduction: int) -> Pixels:
    """RGB pixels of `buffer`, by the calls that Ultralytics makes."""
    image = None
    if is_tiff:  # color keeps its file's layout, which OpenCV's COLOR flag would refuse for some; else as any other
        found, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(0, 1))
        if found and pages[0].ndim == 3 and pages[0].shape[2] >= 3:
            image = pages[0][..., :3]
    if image is None:
        flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
        image = cv2.imdecode(buffer, flags.get(reduction, cv2.IMREAD_REDUCED_COLOR_8))
    if image is None:
        known = _kind(buffer[:16].tobytes())
        raise DecodeError(f"damaged or truncated {known} file" if known else "not an image")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DecodeError(f"pixels are {image.dtype}; only 8 and 16 bit are read")
    pixels: Pixels = np.ascontiguousarray(image[..., ::-1]) if is_tiff else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return pixels


def _shrunk(image: Pixels, max_area: int) -> Pixels:
    """`image` scaled down to at most `max_area` pixels by area averaging; itself where it is small enough."""
    height, width = image.shape[:2]
    if height * width <= max_area:
        return image
    scale = sqrt(max_area / (height * width))
    new_height, new_width = max(1, int(height * scale)), max(1, int(width * scale))
    if new_height * new_width > max_area:  # a line of pixels: the short side cannot shrink with the long one
        new_height, new_width = min(new_height, max_area), min(new_width, max_area)
    small: Pixels = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return small


def _jpeg_reduction(height: int, width: int, max_area: int) -> int:
    """The coarsest of libjpeg's 1/8, 1/4, 1/2 that still leaves `max_area` pixels to average; 1 if none does."""
    return next((n for n in (8, 4, 2) if (height // n) * (width // n) >= max_area), 1)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """A bad file is reported by us, once; OpenCV's own lines on stderr would tear the progress display."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


# ---------------------------------------------------------------------------------------------------------------------
# What a file says about itself: kind, size, and whether its end is there
# ---------------------------------------------------------------------------------------------------------------------


def _kind(head: bytes) -> str | None:
    """The format that a file's first bytes announce, or None."""
    if head[:4] in _TIFF:
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF"}
    return next((name for start, name in starts.items() if head.startswith(start)), None)


def _checked_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) by the header, before orientation; None where the format keeps it elsewhere.

    Raises:
        DecodeError: The header is damaged, or the file's end is missing.
    """
    readers = {"JPEG": _jpeg_size, "PNG": _png_size, "BMP": _bmp_size, "WebP": _webp_size, "TIFF": _tiff_size}
    kind = _kind(data[:16])
    if kind not in readers:
        return None
    try:
        return readers[kind](data)
    except (struct.error, IndexError):
        raise DecodeError(f"truncated {kind} file: its header ends too early") from None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments up to the scan; the end marker must follow the scan (a thumbnail has its own before it)."""
    at, size = 2, None
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # stray or fill bytes between segments, which libjpeg skips too
            at += 1
            continue
        if marker in _FRAMES:
            size = struct.unpack_from(">HH", data, at + 5)
        if marker == 0xDA:
            break
        # Restart markers and the like stand alone; all others carry their length.
        at += 2 if 0xD0 <= marker <= 0xD8 or marker == 0x01 else 2 + struct.unpack_from(">H", data, at + 2)[0]
    if data.rfind(b"\xff\xd9", at) < 0:  # in a scan 0xFF is followed by 0x00 or a restart marker only
        raise DecodeError("truncated JPEG file: its end is missing")
    return size


def _png_size(data: bytes) -> tuple[int, int]:
    if data.rfind(b"IEND\xaeB`\x82") < 0:
        raise DecodeError("truncated PNG file: its end is missing")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's short header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)  # a negative height: rows from top to bottom


def _webp_size(data: bytes) -> None:
    """WebP ends at 16383 x 16383, which is within `MAX_PIXELS`: only its length is looked at."""
    if len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise DecodeError("truncated WebP file: its end is missing")


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Size of the first page: tags 256 (width) and 257 (height) of its directory, in TIFF or BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    first, step = (at + 8, 20) if big else (at + 2, 12)
    size: dict[int, int] = {}
    for entry in range(first, first + step * min(count, 4096), step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            layout = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            size[tag] = struct.unpack_from(order + layout, data, entry + (12 if big else 8))[0]
    return (size[257], size[256]) if len(size) == 2 else None
