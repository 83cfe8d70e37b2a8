"""Where the members of a tar lie: its headers alone are read, those of USTAR, GNU and PAX.

Nothing is ever unpacked to the disk. What is damaged or cut short is said, and what comes before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from headstart.images.headers import DecodeError

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MOST = 2**20
"""Bytes of a long name or of PAX records: more are no names."""
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
COMPRESSED = (
    "a compressed tar: its members cannot be read one by one (unpack it with gunzip or the like: JPEGs hardly shrink)"
)

CUT = "truncated: the shard ends in the midst of it"
"""Of the last member of a tar that is cut short."""
_LINKS = {
    b"1": "a hard link to what is no file of the tar",
    b"2": "a symbolic link: pack what it leads to (tar --dereference)",
}
_JOINED = "more follows after its end mark, as where tars are joined by cat: not read (tar --concatenate joins them)"
_LOOKED = 2**16
"""Bytes after the end mark that are looked at: those that fill a tar up are zeros."""

Read = Callable[[int, int], bytes]  # from where, how many bytes; fewer at the end
Problems = list[tuple[str, str]]  # name of a member, or nothing for the shard; what is wrong


class Entry(NamedTuple):
    """One member: its own name, where its bytes begin, and how many they are."""

    name: str
    start: int
    size: int


class _DamagedError(Exception):
    pass


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes
    link: str
    sparse_goes_on: bool


def entries(read: Read, size: int, problems: Problems) -> Iterator[Entry]:
    """The files in a tar, in order; hard links to members of it are files too. Other things are passed over.

    Args:
        read: Gives bytes of the tar.
        size: Of the tar.
        problems: Gets what cannot be used.

    Raises:
        DecodeError: It is no tar that can be used at all.
    """
    at, begun = 0, False
    fixed: dict[str, str] = {}  # PAX records for all members, and for the next one
    once: dict[str, str] = {}
    places: dict[str, Entry] = {}
    while True:
        block = read(at, BLOCK)
        if block == _ZEROS:
            if read(at, _LOOKED).strip(b"\0"):
                problems.append(("", _JOINED))
            return
        if len(block) < BLOCK:
            if not begun:
                raise _no_tar(block)
            problems.append(("", f"truncated: it ends at byte {size:,} without an end mark; used up to there"))
            return
        try:
            header = _header(block)
            begun, at = True, at + BLOCK
            if header.kind in b"LKxXg":
                held = _held(read, at, header.size)
                (fixed if header.kind == b"g" else once).update(_said(header.kind, held))
                at += _padded(header.size)
                continue
            known = {**fixed, **once}
            name, data = known.get("path", header.name), _size(known, header.size)
        except _DamagedError as error:
            if not begun:
                raise _no_tar(block) from None
            problems.append(("", f"damaged at byte {at:,} ({error}): used up to there"))
            return
        once = {}
        if header.kind == b"S":  # the map of a sparse member may go on in blocks of its own
            goes_on = header.sparse_goes_on
            while goes_on:
                more, at = read(at, BLOCK), at + BLOCK
                goes_on = len(more) == BLOCK and more[504] != 0
        if header.kind == b"1" and (target := places.get(known.get("linkpath", header.link))):
            yield target._replace(name=name)
            continue
        if header.kind in b"123456":  # links, devices, folders, pipes: they have no bytes
            if header.kind in _LINKS:
                problems.append((name, _LINKS[header.kind]))
            continue
        start, at = at, at + _padded(data)
        if start + data > size:
            problems.append((name, CUT))
            return
        if header.kind == b"S" or any(key.startswith("GNU.sparse") for key in known):
            problems.append((known.get("GNU.sparse.name", name), "a sparse member: pack it as an ordinary one"))
        elif header.kind in (b"0", b"\0", b"7") and not name.endswith("/"):
            places[name] = Entry(name, start, data)
            yield places[name]


def _no_tar(begin: bytes) -> DecodeError:
    return DecodeError(COMPRESSED if begin.startswith(_PACKED) else "not a tar file" if begin else "empty file")


def _header(block: bytes) -> _Header:
    stored = _number(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if stored != total and stored != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise _DamagedError("the checksum of a header is wrong")  # the other sum: of signed bytes
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return _Header(name, _number(block[124:136]), block[156:157], _text(block[157:257]), block[482] != 0)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Octal digits, or, with the first bit set, the bytes of a large number."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        found = int(digits or b"0", 8)
    except ValueError:
        found = -1
    if found < 0:
        raise _DamagedError("a header has a number that is none")
    return found


def _held(read: Read, at: int, size: int) -> bytes:
    """The bytes that belong to a header: a long name, or PAX records."""
    held = read(at, size) if size <= _MOST else b""
    if len(held) < size:
        raise _DamagedError("a long name is cut short" if size <= _MOST else "a name is longer than any can be")
    return held


def _said(kind: bytes, held: bytes) -> Mapping[str, str]:
    """What a header says of the next member, or of all that follow."""
    if kind in b"LK":
        return {"path" if kind == b"L" else "linkpath": _text(held)}
    said = {}
    while held.rstrip(b"\0"):
        digits, space, _ = held.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = held[len(digits) + 1 : length - 1].partition(b"=")
        if not space or not equals or not len(digits) + 2 < length <= len(held):
            raise _DamagedError("a PAX record cannot be read")
        said[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        held = held[length:]
    return said


def _size(known: Mapping[str, str], size: int) -> int:
    said = known.get("size", "")
    if not said:
        return size
    if not said.isdecimal() or len(said) > 18:
        raise _DamagedError("a PAX record has a size that is none")
    return int(said)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
