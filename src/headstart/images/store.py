"""Decoded images kept in files, so that each is decoded once: memory-mapped, shared by workers and by later runs.

A store is a folder for one set of sources at one size. Pixels lie in *segments*, files that only the process that made
them appends to; where an image lies is told by its slot in the *table*, a file with 64 bytes for each image of the
index. A slot is written after its pixels and carries a checksum of them and of itself, so that whatever a kill, a full
disk or a power cut leaves behind reads as "not there", and the image is decoded again. A slot also holds the size and
the time of the file that was decoded: a file that has changed since is decoded again as well.

Several processes and several runs may use a store at once: none waits for another, and the worst outcome is an image
that was written twice.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from headstart.images.catalog import Stamp
from headstart.images.decode import Pixels
from headstart.images.index import ImageIndex

try:
    import fcntl
except ImportError:  # Windows: without locks no segment is ever given back, but reading and writing work
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
SLOT = np.dtype(
    [
        ("segment", "<u8"), ("offset", "<u8"), ("size", "<u8"), ("mtime", "<i8"), ("path", "<u8"), ("sum", "<u8"),
        ("height", "<u4"), ("width", "<u4"), ("check", "<u4"), ("note", "<u4"),
    ]
)  # fmt: skip
DECODING = "by the range, bilinear"
"""Changed when the same file gives other pixels than before: what is kept is then decoded anew."""
_LAYOUT = struct.Struct("<QQQqQQIIII")
_HEADER = 64  # bytes before the first slot: format, number of images, estimated bytes an image
_ALIGN = 64
RESERVE = 2**30
"""Bytes of the disk that a store leaves free: it stops growing before."""
_LOOK_EVERY = 64  # images between two looks at the free space


class ImageStore:
    """The pixels of the images of one index.

    Args:
        folder: Of this store; made if it is not there.
        index: The images. Slots of an earlier index in the same folder are taken over.
        temporary: Whether `close` removes the folder.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, index: ImageIndex, *, temporary: bool = False) -> None:
        self.folder, self.temporary, self.channels = folder, temporary, index.channels
        self.full = False
        self._table_path = folder / f"{index.fingerprint()}.table"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._is_whole(len(index)):
            with waited_for(folder / "making"):  # or processes replace each other's tables
                if not self._is_whole(len(index)):
                    self._make_table(index)
        self._table = self._open_table(_HEADER + 64 * len(index))
        self._forget()

    def _open_table(self, length: int) -> mmap.mmap:
        """The table, mapped; where another run has replaced it, an empty one that nobody else sees."""
        try:
            with self._table_path.open("r+b") as file:
                return mmap.mmap(file.fileno(), length)
        except (OSError, ValueError):
            self.full = True
            return mmap.mmap(-1, length)

    def _forget(self) -> None:
        """Hold no segment open: the state in which a store is handed to another process."""
        self._owner = os.getpid()
        self._maps: dict[int, npt.NDArray[np.uint8]] = {}
        self._writer: BinaryIO | None = None
        self._segment = self._end = self._written = 0
        self._notes: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        state = {"folder": self.folder, "temporary": self.temporary, "full": self.full, "channels": self.channels}
        return {**state, "_table_path": self._table_path, "length": len(self._table)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        length = state.pop("length")
        self.__dict__.update(state)
        self._table = self._open_table(length)
        self._forget()

    # -- one image ----------------------------------------------------------------------------------------------------

    def get(self, row: int, info: Stamp | os.stat_result) -> Pixels | None:
        """The pixels of image `row`, uint8 (H, W, C) and read-only; None where they are not there or out of date.

        Args:
            row: Position in the index.
            info: Of the file that holds the image, as it is now.
        """
        slot = self._table[_HEADER + 64 * row : _HEADER + 64 * row + 64]
        segment, offset, size, mtime, _, total, height, width, check, note = _LAYOUT.unpack(slot)
        if note and not self._note_at(note):  # what was done to the image is to be told in this run as well
            return None
        if not check or check != _check(slot) or (size, mtime) != (info.st_size, info.st_mtime_ns):
            return None
        length = height * width * self.channels
        block = self._block(segment, offset, _padded(length))
        if block is None or _sum(block) != total:
            return None
        return block[:length].reshape(height, width, self.channels)

    def has(self, row: int) -> bool:
        """Whether image `row` has a slot; whether its file has changed shows when it is read."""
        return bool(self._table[_HEADER + 64 * row + 56 : _HEADER + 64 * row + 60].strip(b"\0"))

    def note(self, row: int) -> str:
        """What was done to image `row` when it was decoded, beyond decoding; empty where nothing was."""
        (number,) = struct.unpack_from("<I", self._table, _HEADER + 64 * row + 60)
        return self._note_at(number) if number else ""

    def put(self, row: int, path: str, info: Stamp | os.stat_result, pixels: Pixels, note: str = "") -> None:
        """Keep the pixels that the file at `path` had when `info` was read; does nothing on a full disk."""
        if self.full:
            return
        length = pixels.size
        block = np.zeros(_padded(length), np.uint8)
        block[:length] = pixels.reshape(-1)
        try:
            file = self._open_segment(len(block))
            if file is None:
                return
            if file.write(block.data) < len(block):
                raise OSError("the disk took a part of it")
        except OSError:  # what is kept so far stays usable
            self.full = True
            return
        where = self._segment, self._end, info.st_size, info.st_mtime_ns, path_hash(path), _sum(block)
        number = self._keep_note(note)
        slot = _LAYOUT.pack(*where, *pixels.shape[:2], 0, number)
        slot = _LAYOUT.pack(*where, *pixels.shape[:2], _check(slot), number)
        self._table[_HEADER + 64 * row : _HEADER + 64 * row + 64] = slot
        self._end += len(block)

    def _keep_note(self, note: str) -> int:
        """The number that slots have for a note: each of the few that there are is a file, named by it; 0 for none."""
        number = zlib.crc32(note.encode()) if note else 0
        if number and self._note_at(number) != note:
            temporary = self.folder / f".{secrets.token_hex(8)}.tmp"
            try:
                temporary.write_text(note, encoding="utf-8")
                temporary.replace(self.folder / f"{number:08x}.note")
            except OSError:  # a full disk: the pixels are worth more than what is said of them
                return 0
            self._notes[number] = note
        return number

    def _note_at(self, number: int) -> str:
        """The note with a number; empty where it is not there."""
        if not self._notes.get(number):
            with suppress(OSError, ValueError):
                self._notes[number] = (self.folder / f"{number:08x}.note").read_text(encoding="utf-8")
        return self._notes.get(number, "")

    def _block(self, segment: int, offset: int, length: int) -> npt.NDArray[np.uint8] | None:
        if self._owner != os.getpid():
            self._forget()  # a fork: files that are written to are not shared
        found = self._maps.get(segment)
        if found is None or len(found) < offset + length:  # not seen yet, or it has grown
            path = self._path(segment)
            try:
                if path.stat().st_size < offset + length:
                    return None
                found = self._maps[segment] = np.memmap(path, np.uint8, mode="r")
            except OSError:
                return None
        return found[offset : offset + length].view(np.ndarray)

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:016x}.pixels"

    def _open_segment(self, length: int) -> BinaryIO | None:
        """The file to append to, made at the first image; None where the disk has no room for `length` bytes."""
        if self._written % _LOOK_EVERY == 0 and self._room() < length * _LOOK_EVERY:
            self.full = True
            return None
        self._written += 1
        if self._owner != os.getpid():
            self._forget()
        if self._writer is None:
            self._segment, self._end = secrets.randbits(64), 0
            self._writer = self._path(self._segment).open("xb", buffering=0)
            _lock(self._writer)
        return self._writer

    def _room(self) -> int:
        reserve = 0 if self.temporary else RESERVE
        return shutil.disk_usage(self.folder).free - reserve

    # -- the table ----------------------------------------------------------------------------------------------------

    def slots(self) -> npt.NDArray[Any]:
        """All slots, as a structured array that is mapped, not read."""
        return np.frombuffer(self._table, SLOT, offset=_HEADER)

    def __len__(self) -> int:
        """Images of the index."""
        return len(self.slots())

    def kept(self) -> int:
        """Images that have a slot; whether their files have changed shows when they are read."""
        return int(np.count_nonzero(self.slots()["check"]))

    @property
    def bytes_an_image(self) -> float:
        """What was noted with `note_bytes`; 0 where nothing was."""
        return float(struct.unpack_from("<d", self._table, 16)[0])

    def note_bytes(self, value: float) -> None:
        """Remember the estimated bytes an image for the next start."""
        struct.pack_into("<d", self._table, 16, value)

    def _is_whole(self, images: int) -> bool:
        """Whether the table of this index is there."""
        try:
            with self._table_path.open("rb") as file:
                kind, count = struct.unpack("<QQ", file.read(16))
                return kind == FORMAT and count == images and os.fstat(file.fileno()).st_size == _HEADER + 64 * images
        except (OSError, struct.error):
            return False

    def _make_table(self, index: ImageIndex) -> None:
        """Make the table, with the slots of earlier tables for the files that are still in the index."""
        earlier = sorted(self.folder.glob("*.table"), key=lambda path: path.stat().st_mtime_ns)
        temporary = self._table_path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(struct.pack("<QQ", FORMAT, len(index)).ljust(_HEADER, b"\0"))
                _reserve(file, _HEADER + 64 * len(index))
            if earlier:
                slots = np.memmap(temporary, SLOT, mode="r+", offset=_HEADER)
                hashes = np.fromiter(map(path_hash, index), np.uint64, len(index))
                for path in earlier:
                    _take_over(slots, hashes, path)
                slots.flush()
            self._table_path.unlink(missing_ok=True)  # one that is not whole
            _publish(temporary, self._table_path)
        finally:
            temporary.unlink(missing_ok=True)
        for path in earlier:  # a run that still uses one keeps its mapping
            if path != self._table_path:
                with suppress(OSError):
                    path.unlink()

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of all files, and give back what no slot refers to any more. Called by the process of the run."""
        self._forget()
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        with suppress(OSError):
            self._sweep()

    def _sweep(self) -> None:
        """Remove segments of which less than half is used; the rest of their images is decoded again in time."""
        every = self.slots()
        slots = every[every["check"] != 0]
        names, which = np.unique(slots["segment"], return_inverse=True)
        lengths = slots["height"].astype(np.float64) * slots["width"] * self.channels
        used = dict(zip(names.tolist(), np.bincount(which, lengths, len(names)).tolist(), strict=True))
        for path in self.folder.glob("*.pixels"):
            with path.open("r+b") as file:
                # Locked: a process still writes to it, and its slots may be on their way.
                if _lock(file) and used.get(segment := int(path.stem, 16), 0) < os.fstat(file.fileno()).st_size / 2:
                    path.unlink()
                    every["check"][every["segment"] == segment] = 0


def store_folder(parent: Path, index: ImageIndex, max_area: int | None) -> Path:
    """Where the store of these sources at this size lies: another OpenCV may decode to other pixels."""
    key = "\0".join([*index.sources, str(max_area), cv2.__version__, str(FORMAT), DECODING])
    key += f"\0{index.channels} channels" if index.channels != 3 else ""
    return parent / hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def path_hash(path: str) -> int:
    """64 bits that stand for a path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")


def sweep_temporary(parent: Path, prefix: str) -> None:
    """Remove the temporary stores below `parent` whose run was killed."""
    for folder in _folders(parent, prefix):
        with suppress(OSError), (folder / "lock").open("r+b") as file:
            if _lock(file):
                shutil.rmtree(folder, ignore_errors=True)


def hold(folder: Path) -> BinaryIO:
    """Mark a temporary store as in use until the file that is returned is closed, or this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("wb")
    _lock(file)
    return file


def _folders(parent: Path, prefix: str) -> Iterator[Path]:
    with suppress(OSError):
        yield from [path for path in parent.iterdir() if path.name.startswith(prefix) and path.is_dir()]


def _take_over(slots: npt.NDArray[Any], hashes: npt.NDArray[np.uint64], path: Path) -> None:
    """Copy the slots of the table at `path` to the places of the same files."""
    try:
        old = np.memmap(path, SLOT, mode="r", offset=_HEADER)
    except (OSError, ValueError):  # empty, or not a whole number of slots
        return
    old = old[old["check"] != 0]
    order = np.argsort(old["path"], kind="stable")
    known = old["path"][order]
    if len(known):
        place = np.searchsorted(known, hashes).clip(max=len(known) - 1)
        same = known[place] == hashes
        slots[same] = old[order[place[same]]]


def _publish(temporary: Path, path: Path) -> None:
    """Put a file in place unless another run was faster, whose file is as good."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        temporary.replace(path)


def _reserve(file: BinaryIO, length: int) -> None:
    """Give a file its length and its place: a hole that a full disk cannot fill would end a process that maps it."""
    file.truncate(length)
    with suppress(AttributeError):  # no such call on this system
        try:
            os.posix_fallocate(file.fileno(), 0, length)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise


def _lock(file: BinaryIO) -> bool:
    """Whether this process got the lock of `file`, which it keeps until it closes it or ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def waited_for(path: Path, *, shared: bool = False) -> BinaryIO:
    """Open a file, once other processes let go of its lock, which is then held until it is closed."""
    file = path.open("ab")
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    return file


def _padded(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN


def _sum(block: npt.NDArray[np.uint8]) -> int:
    """A checksum at the speed of memory: pages that never reached the disk read as zeros, and change it."""
    return int(block.view(np.uint64).sum())


def _check(slot: bytes) -> int:
    """Checksum of a slot without its own field; never 0, which an unwritten slot has."""
    return zlib.crc32(slot[:56]) or 1
