"""Files that are whole or not there, folders that are ours and have one writer, JSON lines.

A reader never sees half of a file, nor does a crash of the machine leave one; a full disk is said in words.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows, whose locks are of another kind
    fcntl = None  # type: ignore[assignment]

from headstart.aside import GONE, Aside, Contents
from headstart.errors import GAVE_OUT, RunError, UserError, gave_out
from headstart.reading import looked_at

LOCK = ".lock"
"""File in a folder that one process at a time may write to."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system says that knows no locks: it leaves a folder unguarded, which is better than no run at all."""
PATIENCE = 10.0
"""Seconds that one that goes on waits for the folder: loader processes of a run that was killed look every five seconds
whether it is there, and hold its lock until then."""
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_HINT_OTHER = "choose an empty or new folder"

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another folder"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or choose another folder"),
    errno.EACCES: ("no permission to write here", "choose a folder that you may write to"),
    errno.EROFS: ("this file system is read-only", "choose a folder that you may write to"),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a `UserError`, or a `RunError` where storage gave out."""
    try:
        yield
    except OSError as error:
        what, hint = _REASONS.get(error.errno or 0, (f"cannot be written: {error.strerror or error}", None))
        kind = RunError if error.errno in GAVE_OUT else UserError
        raise kind(what, where=str(path), hint=hint) from error


def lock(folder: Path, patience: float = 0.0) -> FileLock:
    """Take the lock of a folder, until it is released or this process ends.

    Args:
        folder: The folder.
        patience: Seconds to wait where another process holds it.

    Raises:
        UserError: Another run holds it; or the folder cannot be written to.
    """
    taken = FileLock(folder / LOCK)
    with explained(folder):
        no_link(folder / LOCK)
        try:
            _ask_for_locks(folder / LOCK)
            taken.acquire(timeout=patience)
        except Timeout:
            hint = "wait until it has ended, or choose another folder"
            raise UserError("another run is at work in this folder", where=f"out={folder}", hint=hint) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return taken


def _ask_for_locks(path: Path) -> None:
    """Have the file system of a file, which is made, say whether it has locks; nothing is held that is let go here.

    Where it has none filelock would put up a file that says "locked", and stays for ever where its process is killed.

    Raises:
        OSError: It has none, or storage fails.
    """
    if fcntl is not None:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_UN)
        finally:
            os.close(number)


def in_use(folder: Path) -> UserError | None:
    """Why a folder cannot be written to now: another run is at work in it; None where none is."""
    if not (folder / LOCK).is_file():
        return None
    try:
        lock(folder).release()
    except UserError as error:
        return error
    return None


def no_link(path: Path) -> None:
    """Remove a link from where a file of ours is written: a stranger's folder may lead to a file of the user's so."""
    if path.is_symlink() and (path.is_file() or not path.exists()):  # one to a device leads to no file
        path.unlink()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step, safe on the disk.

    Raises:
        UserError: Full disk, no permission; `path` is then as it was before, and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            no_link(temporary)
            try:
                write(temporary)
            except RuntimeError as error:
                # torch.save reports a failed write of its zip file as a RuntimeError without an errno.
                raise _disk_error(temporary, error) from error
            _sync(temporary, os.O_RDWR)
            temporary.replace(path)
            with suppress(OSError):  # some systems cannot open a folder
                _sync(path.parent, os.O_RDONLY)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    number = os.open(path, flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sweep_unfinished(folder: Path, *, deep: bool = False) -> None:
    """Remove what killed writes have left in `folder`, and with `deep` below it; no other process may write there."""
    found = folder.rglob(".*.tmp") if deep else folder.glob(".*.tmp")
    for path in [one for one in found if _TEMPORARY.fullmatch(one.name)]:
        with suppress(OSError):
            path.unlink()


def _disk_error(path: Path, error: RuntimeError) -> Exception:
    stat = os.statvfs(path.parent)
    full = stat.f_bavail * stat.f_frsize < 2**20
    told = any(word in str(error) for word in ("write", "PytorchStreamWriter", "inline_container"))
    if not full and not told:
        return error
    return OSError(errno.ENOSPC if full else errno.EIO, str(error).splitlines()[0])


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write `text` as UTF-8, atomically; `errors` as for `str.encode`: what becomes of a path whose name is none."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors=errors))


def content_hash(path: str, *, ours: bool = False) -> str:
    """32 hexadecimal digits of a file's content; "" where there is none, or it may not be read.

    Args:
        path: The file.
        ours: Whether something depends on it that would be made anew: it is to be readable then, where it is there.

    Raises:
        RunError: Storage gave out: whether its content has changed is not known.
    """
    with suppress(ValueError), looked_at(path):
        try:
            with Path(path).open("rb") as file:
                return _digest(file, os.fstat(file.fileno()).st_size, 16)
        except PermissionError:
            if ours:
                raise
    return ""


# -- checksums ---------------------------------------------------------------------------------------------------------

_SEAL = b"headstart blake2b "
_DIGITS = 64
_END = b"PK\x05\x06"  # of the record that ends a zip file, 22 bytes long where it has no comment


def seal(path: Path) -> None:
    """Give a zip file, which ``torch.save`` writes, a checksum of all its bytes: as its comment, which readers skip.

    Raises:
        ValueError: It is no zip file, or has a comment already.
    """
    with path.open("r+b") as file:
        file.seek(-22, os.SEEK_END)
        end = file.read()
        if not end.startswith(_END) or end[-2:] != b"\0\0":
            raise ValueError(f"{path} does not end as a zip file")
        file.seek(-2, os.SEEK_END)
        file.write((len(_SEAL) + _DIGITS).to_bytes(2, "little") + _SEAL)
        file.seek(0)
        digest = _digest(file, os.fstat(file.fileno()).st_size)
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def check_seal(path: Path) -> bool:
    """Whether a file has the checksum of `seal`; without one (older files) the sums of its parts are looked at.

    Raises:
        ValueError: It is not what was written; says what was found.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(_SEAL) - _DIGITS))
        tail = file.read()
        if tail.startswith(_SEAL):
            file.seek(0)
            if _digest(file, size - _DIGITS).encode() != tail[len(_SEAL) :]:
                raise ValueError("its bytes are not those that were written: the checksum differs")
            return True
    try:
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is cut short or no zip file: {str(error).lower()}") from error
    except Exception as error:  # what its damage provokes: a name that is no UTF-8, a method that does not exist
        if gave_out(error):
            raise
        raise ValueError(f"its table of contents is damaged: {type(error).__name__}") from error
    if broken:
        raise ValueError(f"the checksum of its part {broken} differs")
    return False


def _digest(file: BinaryIO, length: int, size: int = _DIGITS // 2) -> str:
    """Of the next `length` bytes; read in parts, so that a large file takes no memory."""
    found = hashlib.blake2b(digest_size=size)
    while length > 0 and (part := file.read(min(length, 2**20))):
        found.update(part)
        length -= len(part)
    return found.hexdigest()


# -- JSON lines --------------------------------------------------------------------------------------------------------


def json_line(values: Mapping[str, Any]) -> str:
    """One line of a JSON-lines file; its numbers must be finite.

    Raises:
        ValueError: A number is not.
    """
    return json.dumps(values, allow_nan=False) + "\n"


def write_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file, atomically."""
    write_text(path, "".join(map(json_line, lines)))


# -- folders that are ours ---------------------------------------------------------------------------------------------


class OwnedFolder:
    """A folder that is ours, with one writer at a time: the protocol of pretrainings and comparisons.

    Ask `refusal`, then `take` it; `clear` removes what was ours, and `release` lets others in.

    Args:
        path: The folder, which need not exist.
        contents: What it holds.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path, self.contents = path, contents
        self._lock: FileLock | None = None
        self._aside = Aside(path, (*contents.folders, *contents.files))

    @property
    def begun(self) -> bool:
        """Whether it holds its mark, and so something of ours to go on with, or to replace."""
        return (self.path / self.contents.mark).is_file()

    @property
    def replacing(self) -> bool:
        """Whether something of ours is set aside in it, which what is written there now has not replaced yet."""
        return bool(self._aside)

    @property
    def unbegun(self) -> bool:
        """Whether it holds nothing but what is written before the mark: of ours, killed so early."""
        try:
            left = [item for item in self.path.iterdir() if not _passing(item.name)]
            ours = all(item.name in self.contents.before for item in left)
            return bool(left) and ours and (self.path / LOCK).is_file() and not any(map(_filled, left))
        except OSError:
            return False

    def refusal(self) -> UserError | None:
        """Why nothing of ours may be written here: a file, files of others, another run at work; None otherwise."""
        where = f"out={self.path}"
        if self.path.exists() and not self.path.is_dir():
            return UserError("is a file, not a folder", where=where)
        if busy := in_use(self.path):
            return busy
        if self.begun or self.unbegun or self.replacing or not self.path.is_dir():
            return None
        try:
            names = [item.name for item in self.path.iterdir()]
        except OSError as error:
            return UserError(f"cannot be read: {error.strerror}", where=where, hint=_HINT_OTHER)
        if all(map(_passing, names)):
            return None
        what = f"the folder holds files that are not {self.contents.what} of headstart"
        return UserError(what, where=where, hint=_HINT_OTHER)

    def take(self) -> None:
        """Make the folder, keep others out of it until `release`, and remove what killed writes have left.

        Raises:
            UserError: Another is at work in it, or it cannot be written to.
        """
        if self._lock is not None:
            return
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.path, PATIENCE if self.begun else 0.0)
        sweep_unfinished(self.path)
        for name in self.contents.folders:
            sweep_unfinished(self.path / name, deep=True)
        with explained(self.path):
            self._aside.settle()

    def set_aside(self) -> None:
        """Keep what is ours within the folder, out of the way of what is to replace it; killed, nothing is lost.

        Raises:
            UserError: It cannot be moved.
        """
        with explained(self.path):
            self._aside.set(self.clear)

    def put_back(self) -> None:
        """Bring back what was set aside, in place of what was to replace it."""
        with explained(self.path):
            self._aside.put_back(self.clear)

    def replaced(self) -> None:
        """Remove what was set aside."""
        self._aside.remove()

    def release(self, *, trace: bool = True) -> None:
        """Let others in; without a `trace`, nothing says that they were kept out."""
        if not trace:
            with suppress(OSError):  # of Windows, for it is open
                (self.path / LOCK).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def clear(self) -> None:
        """Remove what is ours, and nothing else; the mark last, so that it stays ours if this is cut short."""
        for name in self.contents.folders:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in sorted(self.contents.files, key=self.contents.mark.__eq__):
            (self.path / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what is ours and release the folder; the folder goes too, where nothing else is in it."""
        self.clear()  # locked: once it is not, another may write there
        self.release(trace=False)
        with suppress(OSError):  # something of the user's is in it as well
            self.path.rmdir()


def _passing(name: str) -> bool:
    """Whether it is a lock, or what a killed write or removal has left: no reason not to write here."""
    return name in (LOCK, GONE) or _TEMPORARY.fullmatch(name) is not None


def _filled(item: Path) -> bool:
    return item.is_dir() and any(item.iterdir())
