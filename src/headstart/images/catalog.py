"""Where each member of a shard lies: read once from the shard's headers, and kept in the cache folder.

A shard whose size or time has changed (at an address: its ETag and the like) is read through again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.errors import UserError
from headstart.files import write_atomically
from headstart.images import index_cache, tar, zips
from headstart.images.members import clean, is_address

FORMAT = 1
FEWEST = 1_000
"""Members from which on the table of a shard on this machine is kept: those of fewer are read in a moment."""
BESIDE = ".index"
"""Added to the name of a shard: a file beside it that holds its table, which is asked for at addresses."""
_TAR = -1
"""In place of the method of a zip's member."""
_AHEAD = 2**16
"""Bytes that are read at once of a shard at an address, where each read takes its time."""

Table = npt.NDArray[np.int64]


class Stamp(NamedTuple):
    """Of a file as it is now; called as the system calls it."""

    st_size: int
    st_mtime_ns: int


class Place(NamedTuple):
    """Where a member lies: byte, bytes there and unpacked, and of a zip the method and the CRC-32."""

    start: int
    size: int
    full: int
    method: int = _TAR
    crc: int = 0


class Catalog:
    """The members of one shard, found by their names.

    Attributes:
        shard: Its path or address.
        stamp: Of the shard when it was read.
        problems: (name of a member, or nothing for the shard; what is wrong) of what cannot be used.
        twice: Names that more than one member has; the last one counts, as when a tar is unpacked.

    Args:
        keys: uint64 ``(N,)``, ascending: hashes of the names.
        table: int64 ``(N, 2)`` of a tar, ``(N, 5)`` of a zip: the fields of `Place`.
    """

    def __init__(
        self, shard: str, stamp: Stamp, keys: npt.NDArray[np.uint64], table: Table, problems: tar.Problems, twice: int
    ) -> None:
        self.shard, self.stamp, self._keys, self._table = shard, stamp, keys, table
        self.problems, self.twice = problems, twice
        self._names: list[str] | None = None
        self._reasons: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, name: str) -> Place | None:
        """Where the member of this name lies; None where there is none."""
        key = _hash(name)
        at = int(self._keys.searchsorted(np.uint64(key)))
        if at == len(self._keys) or int(self._keys[at]) != key:
            return None
        row = self._table[at].tolist()
        return Place(row[0], row[1], row[1]) if len(row) == 2 else Place(*row)

    def problem(self, name: str) -> str | None:
        """Why the member of this name cannot be used; None where nothing is said of it."""
        if self._reasons is None:
            self._reasons = dict(self.problems)
        return self._reasons.get(name)

    def names(self) -> Sequence[str]:
        """The names, in the order of the table; known until `forget_names`."""
        return self._names or ()

    def forget_names(self) -> None:
        """Give their memory back: what is looked for is known by its hash."""
        self._names = None

    # -- kept ---------------------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Keep it in a file.

        Raises:
            UserError: That cannot be written.
        """
        text = "\0".join(self.names()).encode("utf-8", "surrogateescape")
        about = {"format": FORMAT, "stamp": list(self.stamp), "members": len(self), "columns": self._table.shape[1]}
        numbers = self._keys.astype("<u8").tobytes() + self._table.astype("<i8").tobytes()
        about |= {"bytes": len(text), "problems": self.problems, "twice": self.twice}
        head = json.dumps({**about, "crc32": [zlib.crc32(numbers), zlib.crc32(text)]})

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.write(head.encode("ascii") + b"\n")
                file.write(numbers + text)

        write_atomically(path, write)

    @classmethod
    def read(cls, file: BinaryIO, shard: str, stamp: Stamp, *, names: bool) -> Catalog | None:
        """What `write` has kept; None where it is of another shard, or damaged.

        Args:
            file: Open for reading.
            shard: Whose it is to be.
            stamp: The shard's; a time of -1 fits any.
            names: Whether names are wanted.
        """
        with suppress(OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            whole = file.seek(0, io.SEEK_END)
            file.seek(0)
            about = json.loads(file.readline(2**26))
            size, mtime = about["stamp"]
            if about["format"] != FORMAT or size != stamp.st_size or stamp.st_mtime_ns not in (-1, mtime):
                return None
            members, columns = int(about["members"]), int(about["columns"])
            # What it says of itself is believed when the file is as long: memory is asked for by it.
            if columns not in (2, 5) or file.tell() + 8 * members * (1 + columns) + about["bytes"] != whole:
                return None
            numbers = file.read(8 * members * (1 + columns))
            sums = about.get("crc32")  # without, it would lead to other bytes than a member's where a bit was flipped
            if sums and zlib.crc32(numbers) != sums[0]:
                return None
            keys = np.frombuffer(numbers, "<u8", members).astype(np.uint64)
            table = np.frombuffer(numbers, "<i8", offset=8 * members).astype(np.int64).reshape(members, columns)
            problems = [(str(name), str(what)) for name, what in about["problems"]]
            if len(keys) != members or _leads_out(table, stamp):
                return None
            found = cls(shard, stamp, keys, table, problems, int(about["twice"]))
            if names:
                data = file.read()
                known = data.decode("utf-8", "surrogateescape").split("\0") if members else []
                if len(known) != members or (sums and zlib.crc32(data) != sums[1]):
                    return None
                if not all(name and clean(name) == name for name in known):  # tables come from strangers as shards do
                    return None
                found._names = known
            return found
        return None


def _leads_out(table: Table, stamp: Stamp) -> bool:
    """Whether a table leads to bytes that the shard does not have."""
    start, size = table[:, 0], table[:, 1]
    return bool((table[:, :3] < 0).any() or (start > stamp.st_size - size).any())  # a sum may be too large for a number


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def scan(shard: str, stamp: Stamp, read: tar.Read) -> Catalog:
    """Read the headers of a shard.

    Args:
        shard: Its path or address.
        stamp: Of the shard as it is.
        read: Gives its bytes.

    Raises:
        DecodeError: It is no shard that can be used at all.
    """
    problems: tar.Problems = []
    places: dict[str, Place] = {}
    count = 0
    for name, place in _places(shard, stamp, read, problems):
        places[name] = place
        count += 1
    names = list(places)
    keys = np.fromiter(map(_hash, names), np.uint64, len(names))
    order = np.argsort(keys, kind="stable")
    columns = 5 if shard.lower().endswith(".zip") else 2
    table = np.array([place[:columns] for place in places.values()], np.int64).reshape(len(names), columns)
    found = Catalog(shard, stamp, keys[order], table[order], [(clean(one), why) for one, why in problems], 0)
    found.twice = count - len(names)
    found._names = [names[at] for at in order.tolist()]
    return found


def _places(shard: str, stamp: Stamp, read: tar.Read, problems: tar.Problems) -> Iterator[tuple[str, Place]]:
    if shard.lower().endswith(".zip"):
        for packed in zips.entries(read, stamp.st_size, problems):
            yield clean(packed.name), Place(*packed[1:])
        return
    for entry in tar.entries(read, stamp.st_size, problems):
        yield clean(entry.name), Place(entry.start, entry.size, entry.size)


# ---------------------------------------------------------------------------------------------------------------------
# Those that are known
# ---------------------------------------------------------------------------------------------------------------------

_known: dict[tuple[str, Stamp], Catalog] = {}
"""Of this process; those that were forked from it begin with it, and share its memory."""
_folders: list[Path] = []
"""Cache folders in which tables are kept."""


def look_in(folder: Path) -> None:
    """Look for kept tables in a cache folder, too, and keep new ones there."""
    if folder not in _folders:
        _folders.append(folder)


def known(shard: str, stamp: Stamp) -> Catalog | None:
    """The table of a shard, where this process knows it."""
    return _known.get((shard, stamp))


def forget(found: Catalog) -> None:
    """Give the memory of a table back."""
    _known.pop((found.shard, found.stamp), None)


def catalog_of(shard: str, stamp: Stamp, reading: Callable[[], Catalog], *, names: bool = False) -> Catalog:
    """The table of a shard: the one known, or kept, or what reading it gives.

    Args:
        shard: Its path or address.
        stamp: Of the shard as it is now.
        reading: Reads it.
        names: Whether the names of its members are wanted.

    Raises:
        DecodeError: As `scan`.
    """
    found = _known.get((shard, stamp))
    if found is not None and not (names and found._names is None):
        return found
    for folder in reversed(_folders):
        with suppress(OSError), _kept_at(folder, shard).open("rb") as file:
            if (kept := Catalog.read(file, shard, stamp, names=names)) is not None:
                _known[shard, stamp] = kept
                return kept
    found = reading()
    if _folders and _worth_keeping(found):
        with suppress(UserError):
            found.write(_kept_at(_folders[-1], shard))
    if not names:
        found.forget_names()
    _known[shard, stamp] = found
    return found


def _kept_at(folder: Path, shard: str) -> Path:
    digest = hashlib.blake2b(f"{FORMAT}\0{shard}".encode("utf-8", "surrogateescape"), digest_size=10)
    return folder / "shards" / digest.hexdigest()


def _worth_keeping(found: Catalog) -> bool:
    if is_address(found.shard):
        return True
    return len(found) >= FEWEST and found.stamp.st_mtime_ns / 1e9 < time.time() - index_cache.SETTLED


def ahead(read: tar.Read) -> tar.Read:
    """`read`, which for few bytes asks for more of them at once, and gives from these what is asked for next."""
    held, begin = b"", 0

    def more(at: int, size: int) -> bytes:
        nonlocal held, begin
        if not begin <= at <= at + size <= begin + len(held):
            held, begin = read(at, max(size, _AHEAD)), at
        return held[at - begin : at - begin + size]

    return more


def stat_of(path: str) -> Stamp:
    """Of a file on this machine.

    Raises:
        OSError: There is none.
    """
    info: Any = os.stat(path)  # noqa: PTH116 - called for each of very many images
    return Stamp(info.st_size, info.st_mtime_ns)
