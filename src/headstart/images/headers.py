"""What an image file says about itself before it is decoded: kind, size, depth, and whether its end is there.

Every format that the decoder knows is looked at here first, for a few bytes can claim a gigapixel; what is of no known
kind is not decoded at all.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"#?RADIANCE": "HDR",
    b"#?RGBE": "HDR",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"P7\n": "PAM",
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's start-of-frame markers, which carry the size
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_MARKER = re.compile(rb"\xff[^\0\xff]")
_MOST_SEGMENTS = 10_000
_MOST_SCANS = 500  # each is a pass over the whole image, whatever it holds
_NUMBERS = re.compile(rb"P[1-6Ff](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:(?:\s+|#[^\n]*\n)+(\S+))?")


class DecodeError(Exception):
    """A file that gives no pixels.

    Attributes:
        reason: What is wrong with it, in plain words and without its path.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file claim.

    Attributes:
        kind: The format, as it is called.
        height, width: In pixels, before orientation is applied.
        depth: Bits of one value of a pixel.
        held: Bytes that decoding one pixel takes beside the pixels themselves: coefficients that are kept whole.
        ended: Whether the end of the file is there; only a JPEG may lack it.
    """

    kind: str
    height: int
    width: int
    depth: int = 8
    held: int = 0
    ended: bool = True

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width


def kind_of(head: bytes) -> str | None:
    """The format that a file's first 32 bytes announce, or None."""
    if head[:4] in TIFF:
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, 32, 4))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if any(brand in _HEIC for brand in brands) else None
    if re.match(rb"P[1-6Ff]\s", head):
        return "PFM" if head[1:2] in b"Ff" else "PNM"
    return next((name for start, name in _STARTS.items() if head.startswith(start)), None)


def read_header(data: bytes) -> Header:
    """What an image file claims to be.

    Raises:
        DecodeError: It is no image, its header is damaged, or its end is missing.
    """
    kind = kind_of(data[:32])
    if kind is None:
        raise DecodeError("not an image")
    try:
        header = _READERS[kind](data)
    except (struct.error, IndexError):
        raise DecodeError(f"truncated {kind} file: its header ends too early") from None
    if header.height < 1 or header.width < 1:
        raise DecodeError(f"damaged {kind} file: it claims {header.width} x {header.height} pixels")
    return header


def _jpeg(data: bytes) -> Header:
    """Walk the segments up to the scan; the end marker must follow the scan (a thumbnail has its own before it)."""
    at, size, frame = 2, (0, 0), 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)  # bytes between segments are skipped, as libjpeg does
        if found is None:
            raise IndexError
        at, marker = found.end() - 2, data[found.end() - 1]
        if marker in _FRAMES:
            size, frame = struct.unpack_from(">HH", data, at + 5), marker
        if marker == 0xDA:
            break
        # Restart markers and the like stand alone; all others carry their length.
        at += 2 if 0xD0 <= marker <= 0xD8 or marker == 0x01 else 2 + struct.unpack_from(">H", data, at + 2)[0]
    else:
        raise DecodeError("damaged JPEG file: its header does not end")
    progressive = frame in _PROGRESSIVE
    if progressive and data.count(b"\xff\xda", at) > _MOST_SCANS:
        raise DecodeError(f"damaged JPEG file: more than {_MOST_SCANS} scans")
    ended = data.rfind(b"\xff\xd9", at) >= 0  # in a scan 0xFF is followed by 0x00 or a restart marker only
    return Header("JPEG", size[0], size[1], held=6 if progressive else 0, ended=ended)


def _png(data: bytes) -> Header:
    if data.rfind(b"IEND\xaeB`\x82") < 0:
        raise DecodeError("truncated PNG file: its end is missing")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return Header("PNG", height, width, depth)


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's short header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", abs(height), abs(width))  # a negative height: rows from top to bottom


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", height, width, held=4)


def _webp(data: bytes) -> Header:
    if len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise DecodeError("truncated WebP file: its end is missing")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("WebP", height, width, held=4)


def _tiff(data: bytes) -> Header:
    """The first page, by its directory, in TIFF or BigTIFF; of one in tiles, whichever is larger."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    first, step = (at + 8, 20) if big else (at + 2, 12)
    tags: dict[int, int] = {}
    for entry in range(first, first + step * min(count, 4096), step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag not in (256, 257, 258, 277, 322, 323):
            continue
        size, layout = {3: (2, "H"), 4: (4, "I"), 16: (8, "Q")}.get(kind, (4, "I"))
        number = struct.unpack_from(order + ("Q" if big else "I"), data, entry + 4)[0]
        value = entry + (12 if big else 8)
        if number * size > (8 if big else 4):  # too many for the entry, which says where they are
            value = struct.unpack_from(order + ("Q" if big else "I"), data, value)[0]
        tags[tag] = struct.unpack_from(order + layout, data, value)[0]
    width, height, depth, values = (tags.get(tag, other) for tag, other in ((256, 0), (257, 0), (258, 1), (277, 1)))
    tile = tags.get(322, 0) * tags.get(323, 0)
    spare = max(0, tile - width * height) // max(1, width * height)
    return Header("TIFF", height, width, depth, held=(max(0, values - 3) + spare * values) * max(1, depth // 8))


# A box of 20 bytes, of which these are the first: four letters alone would be found in what is compressed, too.
_ISPE = rb"\0\0\0\x14ispe"


def _iso(data: bytes) -> Header:
    """AVIF and HEIC: the largest of the sizes that the properties of its images and tiles name."""
    kind = kind_of(data[:32]) or ""
    sizes = [struct.unpack_from(">II", data, found.end() + 4)[::-1] for found in re.finditer(_ISPE, data[: 2**20])]
    if not sizes:
        raise IndexError
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    return Header(kind, height, width, held=6)


def _jpeg2000(data: bytes) -> Header:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise IndexError
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    depth = (struct.unpack_from(">B", data, at + 42)[0] & 0x7F) + 1
    if data.rfind(b"\xff\xd9", at) < 0:
        raise DecodeError("truncated JPEG 2000 file: its end is missing")
    return Header("JPEG 2000", bottom - top, right - left, depth, held=12)


def _sun(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 4)
    return Header("Sun raster", height, width)


def _radiance(data: bytes) -> Header:
    found = re.search(rb"\n[-+]Y +(\d+) +[-+]X +(\d+)", data[:4096])
    if found is None:
        raise IndexError
    return Header("HDR", int(found[1]), int(found[2]), 32)


def _portable(data: bytes) -> Header:
    """Netpbm's text headers, and the float maps that look like them."""
    found = _NUMBERS.match(data[:4096])
    if found is None:
        raise IndexError
    floats = data[1:2] in b"Ff"
    most = int(found[3]) if found[3] and found[3].isdigit() and data[1:2] not in b"14" else 255
    depth = 32 if floats else 16 if most > 255 else 8
    return Header("PFM" if floats else "PNM", int(found[2]), int(found[1]), depth)


def _pam(data: bytes) -> Header:
    values = dict(re.findall(rb"(WIDTH|HEIGHT|MAXVAL) +(\d+)", data[:4096]))
    if not {b"WIDTH", b"HEIGHT"} <= values.keys():
        raise IndexError
    depth = 16 if int(values.get(b"MAXVAL", b"255")) > 255 else 8
    return Header("PAM", int(values[b"HEIGHT"]), int(values[b"WIDTH"]), depth)


_READERS: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "BMP": _bmp,
    "GIF": _gif,
    "WebP": _webp,
    "TIFF": _tiff,
    "AVIF": _iso,
    "HEIC": _iso,
    "JPEG 2000": _jpeg2000,
    "Sun raster": _sun,
    "HDR": _radiance,
    "PNM": _portable,
    "PFM": _portable,
    "PAM": _pam,
}
