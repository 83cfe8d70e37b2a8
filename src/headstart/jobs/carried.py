"""What the first process sends to the others: pickled, but for large indices, which travel as the files they lie in.

An index that is kept on disk is mapped by every process and loader of a machine, who share its memory. Machines that
have no such file get it in pieces, once each, into a cache folder of their own.
"""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from headstart import ranks
from headstart.errors import UserError
from headstart.files import write_atomically
from headstart.images.index import ImageIndex
from headstart.images.index_cache import default_folder
from headstart.paths import expanded

PIECE = 64 * 2**20
"""Bytes of a file that are sent at once."""


class Kept(NamedTuple):
    """An index that is kept in a file.

    Attributes:
        path: Of the file, in the first process.
        below: The same from the user's cache folder on; None where it lies elsewhere, as with ``cache_dir=``.
        fingerprint: Of the index.
    """

    path: str
    below: str | None
    fingerprint: str

    def here(self) -> Path:
        """Where this process has it, or is to have it: each machine may have another cache folder."""
        return Path(self.path) if self.below is None else _cache_folder() / self.below

    @property
    def hint(self) -> str:
        """What to do where a machine cannot have it."""
        if self.below is None:
            return "give cache_dir= a folder that every machine has and can write to"
        return "set HEADSTART_CACHE to a folder of that machine with more room"

    def load(self) -> ImageIndex | None:
        """The index; None where this process has no such file, or another one."""
        with suppress(OSError):
            found = ImageIndex.load(self.here(), check=False)
            if found is not None and found.fingerprint() == self.fingerprint:
                return found
        return None


def packed(value: object) -> tuple[bytes, list[Kept]]:
    """A value as bytes, and the indices that are not among them; for `unpacked`.

    Raises:
        Exception: Whatever an object raises that cannot be pickled.
    """
    kept: list[Kept] = []
    stream = io.BytesIO()
    _Packer(stream, kept).dump(value)
    return stream.getvalue(), kept


def unpacked(data: bytes, kept: list[Kept]) -> Any:
    """The value of `packed`, in a process that has its indices by `bring`.

    Raises:
        Exception: Whatever an object raises that cannot be made here.
    """
    return _Unpacker(io.BytesIO(data), kept).load()


class _Packer(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, kept: list[Kept]) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self.kept = kept

    def persistent_id(self, one: object) -> int | None:
        """The number of a kept index; None for what is pickled."""
        if not isinstance(one, ImageIndex) or one.kept is None:
            return None
        path, folder = one.kept.absolute(), _cache_folder()
        below = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None
        self.kept.append(Kept(str(path), below, one.fingerprint()))
        return len(self.kept) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, kept: list[Kept]) -> None:
        super().__init__(stream)
        self.kept = kept

    def persistent_load(self, number: Any) -> ImageIndex:
        """The kept index of this number."""
        one = self.kept[int(number)]
        found = one.load()
        if found is None:
            raise UserError(
                "the index of the images has been replaced while the run started",
                where=str(one.here()),
                hint="start again",
            )
        return found


def bring(kept: list[Kept]) -> list[Kept]:
    """Have every machine of the run have the indices of the first process. Called in all processes.

    Args:
        kept: Of the first process.

    Returns:
        The same in all of them.

    Raises:
        UserError: A machine has no room for one, in all processes.
    """
    kept = ranks.from_first(kept)
    for one in kept:
        machine = socket.gethostname()
        lacking = ranks.of_all(machine if one.load() is None else None)
        if any(lacking):
            writes = machine in lacking and lacking.index(machine) == ranks.rank()  # one of each machine
            error = _sent(one) if ranks.first() else _received(one, writes)
            ranks.wait()  # until it is there for all of a machine
            if error is None and one.load() is None:
                what = f"the index of the images did not reach {machine}"
                error = UserError(what, where=str(one.here()), hint=one.hint)
            for fault in ranks.of_all(error):
                if fault is not None:
                    raise fault
    return kept


def _sent(one: Kept) -> UserError | None:
    """Send the file of an index; what went wrong."""
    try:
        with Path(one.path).open("rb") as file:
            while piece := file.read(PIECE):
                ranks.from_first(piece)
    except OSError as error:
        return UserError(f"the index of the images cannot be read: {error.strerror}", where=one.path)
    finally:
        ranks.from_first(b"")  # the others wait for the end
    return None


def _received(one: Kept, writes: bool) -> UserError | None:
    """Take the file of an index, and keep it where `writes` says so; what went wrong."""
    pieces = iter(lambda: ranks.from_first(b""), b"")
    try:
        if writes:
            write_atomically(one.here(), lambda temporary: _write(temporary, pieces))
    except UserError as error:
        return UserError(
            f"the index of the images cannot be kept on {socket.gethostname()}: {error.what}",
            where=str(one.here()),
            hint=one.hint,
        )
    finally:
        for _ in pieces:  # the first process sends all of it, whatever happens here
            pass
    return None


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _cache_folder() -> Path:
    return expanded(default_folder()).absolute()
