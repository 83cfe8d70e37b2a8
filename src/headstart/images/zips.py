"""Where the members of a zip lie, and their bytes: stored ones as they are, deflated ones through zlib."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from headstart.images.headers import DecodeError
from headstart.images.tar import Problems, Read

HEAD = 30
"""Bytes of the header before a member, without its name."""
_SPARE = 512
"""Bytes of a name and of extra fields that are read with a member at once."""
_BACKSLASHES = {0, 10, 14}
"""Systems of which a name may have backslashes between folders, as older tools for Windows write it."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Packed(NamedTuple):
    """One member: its name, where its header begins, its bytes in the zip and unpacked, method, and CRC-32."""

    name: str
    start: int
    size: int
    full: int
    method: int
    crc: int


class _File(io.RawIOBase):
    """What reads bytes from anywhere, as a file."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError("before the beginning")
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = self._read(self._at, left if size is None or size < 0 else min(size, left)) if left else b""
        self._at += len(data)
        return data


def entries(read: Read, size: int, problems: Problems) -> Iterator[Packed]:
    """The files in a zip that can be read; see `headstart.images.tar.entries`.

    Raises:
        DecodeError: It is no zip, or its table, which is at its end, is damaged or cut off.
    """
    try:
        with zipfile.ZipFile(_File(read, size)) as found:
            listed = found.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        what = str(error).lower()
        raise DecodeError(f"not a zip file, or truncated: its table is at its end ({what})") from None
    for one in listed:
        name = one.filename.replace("\\", "/") if one.create_system in _BACKSLASHES else one.filename
        if name.endswith("/"):
            continue
        if stat.S_ISLNK(one.external_attr >> 16):
            problems.append((name, "a link: pack what it leads to"))
        elif one.flag_bits & 0x1:
            problems.append((name, "encrypted"))
        elif one.compress_type not in _METHODS:
            problems.append((name, f"packed by method {one.compress_type}: pack it stored or deflated"))
        elif not 0 <= one.header_offset <= one.header_offset + HEAD + one.compress_size <= size:
            problems.append((name, "the table of the zip is damaged"))
        else:
            yield Packed(name, one.header_offset, one.compress_size, one.file_size, one.compress_type, one.CRC)


def unpacked(read: Read, start: int, size: int, full: int, method: int, crc: int) -> bytes:
    """The bytes of a member.

    Args:
        read: Gives bytes of the zip.
        start, size, full, method, crc: As in `Packed`.

    Raises:
        DecodeError: They are not what was packed.
    """
    held = read(start, HEAD + _SPARE + size)
    if held[:4] != b"PK\x03\x04" or len(held) < HEAD:
        raise DecodeError("damaged zip: there is no header where its table says")
    begin = HEAD + sum(struct.unpack_from("<HH", held, HEAD - 4))
    packed = held[begin : begin + size]
    if len(packed) < size:  # a very long name
        packed = read(start + begin, size)
    data = packed
    if method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, full + 1)
        except zlib.error as error:
            raise DecodeError(f"damaged zip: {error}") from None
    if len(data) != full or zlib.crc32(data) != crc:
        raise DecodeError("damaged zip: its bytes are not those that were packed")
    return data
