"""Members of shards as images: their bytes, from anywhere in a tar or zip, here or at an address."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from headstart.files import content_hash
from headstart.images import catalog, decode, zips
from headstart.images.catalog import Catalog, Place, Stamp, catalog_of, scan
from headstart.images.frames import file_of
from headstart.images.headers import DecodeError
from headstart.images.members import Member, is_address, split
from headstart.images.tar import CUT, Read

OPEN = 32
"""Shards that each thread of each process has open at most."""


def stamp_of(path: str) -> Stamp:
    """Size and time of the file that holds an image: itself, its video, or its shard.

    Raises:
        OSError, ValueError: There is none.
    """
    return _stamp_of_file(file_of(path))


def _stamp_of_file(file: str) -> Stamp:
    if is_address(file):
        from headstart.images import remote  # fsspec: for those who have addresses

        return remote.stamp_of(file)
    return catalog.stat_of(file)


def table_of(shard: str, *, names: bool = False) -> Catalog:
    """The members of a shard.

    Raises:
        DecodeError: It is gone, or none that can be used.
        RunError: Storage fails.
    """
    if is_address(shard):
        from headstart.images import remote

        stamp = remote.stamp_of(shard)
        return catalog_of(shard, stamp, lambda: remote.scanned(shard, stamp), names=names)

    def opened(file: BinaryIO) -> Catalog:
        stamp = Stamp(os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime_ns)
        return catalog_of(shard, stamp, lambda: scan(shard, stamp, lambda at, size: _read(file, at, size)), names=names)

    return decode.with_file(shard, opened)


def bytes_of(member: Member, most: int) -> bytes:
    """The bytes of a member. Called within the retries of decode.py.

    Args:
        member: Which.
        most: Bytes beyond which it is refused.

    Raises:
        DecodeError: There is no such member, or it is damaged or too large.
        OSError: The shard cannot be read.
    """
    shard, name = member
    known = _table_now(shard)
    place = known.find(name)
    if place is None:
        raise DecodeError(known.problem(name) or "the shard has no such member (any more)")
    if max(place.full, place.size) > most:
        raise DecodeError(f"too large: a file of {place.full / 2**30:.1f} GiB")
    if is_address(shard):
        from headstart.images import remote

        return remote.member_bytes(member, place)
    file = _opened(shard, known.stamp)
    return unpacked(place, lambda at, size: _read(file, at, size))


def _table_now(shard: str) -> Catalog:
    """The table of a shard as it is now, by one look at the shard where the table is known."""
    return catalog.known(shard, _stamp_of_file(shard)) or table_of(shard)


def fetch_ahead(paths: Sequence[str]) -> None:
    """Of the images at these paths, fetch those that lie at addresses side by side, to be read in a moment."""
    wanted = []
    for member in filter(None, map(split, paths)):
        if not is_address(member.shard):
            continue
        try:
            place = _table_now(member.shard).find(member.name)
        except DecodeError:  # said where the image is read
            continue
        if place is not None:
            wanted.append((member, place))
    if wanted:
        from headstart.images import remote

        remote.fetch_ahead(wanted)


def unpacked(place: Place, read: Read) -> bytes:
    """The bytes at a place of a shard.

    Raises:
        DecodeError: They are not all there, or damaged.
    """
    if place.method >= 0:
        return zips.unpacked(read, *place)
    data = read(place.start, place.size)
    if len(data) < place.size:
        raise DecodeError(CUT)
    return data


def has(member: Member) -> bool:
    """Whether a member is there, also one that cannot be used: labels that are cut off are not labels that lack."""
    try:
        known = table_of(member.shard)
    except (DecodeError, OSError):
        return False
    return known.find(member.name) is not None or known.problem(member.name) is not None


def size_of(path: str) -> int:
    """Bytes of a file or member; -1 where it is not there."""
    if (member := split(path)) is None:
        try:
            return Path(path).stat().st_size
        except OSError:
            return -1
    try:
        place = _table_now(member.shard).find(member.name)
    except (DecodeError, OSError):
        return -1
    return place.full if place else -1


def hash_of(path: str) -> str:
    """32 hexadecimal digits of the content of a file or member; "" where it cannot be read."""
    if split(path) is None:
        return content_hash(path)
    try:
        return hashlib.blake2b(decode.bytes_of(path), digest_size=16).hexdigest()
    except DecodeError:
        return ""


def save_image(path: str, target: Path) -> None:
    """Write an image that is no file of its own as one: a member as it is, a frame of a video as a JPEG.

    Raises:
        DecodeError: It cannot be read.
        OSError: The file cannot be written.
    """
    if split(path) is not None:
        target.write_bytes(decode.bytes_of(path))
        return
    from headstart.images.video import save_frame

    save_frame(path, target)


def open_all(shards: Sequence[str]) -> None:
    """Have the tables of shards in memory, which processes that are forked from this one then share."""
    for shard in shards:
        try:
            table_of(shard)
        except (DecodeError, OSError):  # said where an image of it is read
            continue


# ---------------------------------------------------------------------------------------------------------------------
# Open shards
# ---------------------------------------------------------------------------------------------------------------------


class _Held(threading.local):
    """The open shards of this thread, the latest last. A place in them is always named, so a fork may share them."""

    def __init__(self) -> None:
        self.files: OrderedDict[tuple[str, Stamp], BinaryIO] = OrderedDict()


_held = _Held()


def _opened(path: str, stamp: Stamp) -> BinaryIO:
    """The shard at `path`, of this size and time, opened where it is not yet.

    Raises:
        OSError: It cannot be, or is another by now.
    """
    key = (path, stamp)
    file = _held.files.pop(key, None)
    if file is None:
        file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115
        info = os.fstat(file.fileno())
        if (info.st_size, info.st_mtime_ns) != stamp:
            file.close()
            raise OSError(errno.ESTALE, "it was replaced in the meantime")  # which is tried again
    _held.files[key] = file
    while len(_held.files) > OPEN:
        _held.files.popitem(last=False)[1].close()
    return file


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """Bytes from a place of a file; fewer at its end."""
    parts = []
    while size > 0:
        if hasattr(os, "pread"):
            part = os.pread(file.fileno(), min(size, 2**30), at)
        else:  # Windows
            file.seek(at)
            part = file.read(min(size, 2**30))
        if not part:
            break
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
