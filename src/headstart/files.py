"""Writing files so that a reader never sees half of one, a full disk is said in words, and a folder has one writer."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from headstart.errors import UserError

LOCK = ".lock"
"""File in a folder that one process at a time may write to."""

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another folder with out="),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or choose another folder with out="),
    errno.EACCES: ("no permission to write here", "choose another folder with out="),
    errno.EROFS: ("this file system is read-only", "choose another folder with out="),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a `UserError`."""
    try:
        yield
    except OSError as error:
        what, hint = _REASONS.get(error.errno or 0, (f"cannot be written: {error.strerror or error}", None))
        raise UserError(what, where=str(path), hint=hint) from error


def lock(folder: Path) -> FileLock:
    """Take the lock of a folder, until it is released or this process ends.

    Raises:
        UserError: Another run holds it; or the folder cannot be written to.
    """
    taken = FileLock(folder / LOCK)
    # A file system that knows no locks leaves the folder unguarded: better than no run at all.
    with explained(folder), suppress(NotImplementedError):
        try:
            taken.acquire(timeout=0)
        except Timeout:
            hint = "wait until it has ended, or choose another folder with out="
            raise UserError("another run is at work in this folder", where=f"out={folder}", hint=hint) from None
    return taken


def in_use(folder: Path) -> UserError | None:
    """Why a folder cannot be written to now: another run is at work in it; None where none is."""
    if not (folder / LOCK).is_file():
        return None
    try:
        lock(folder).release()
    except UserError as error:
        return error
    return None


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Raises:
        UserError: Full disk, no permission; `path` is then as it was before, and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(temporary)
            except RuntimeError as error:
                # torch.save reports a failed write of its zip file as a RuntimeError without an errno.
                raise _disk_error(temporary, error) from error
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _disk_error(path: Path, error: RuntimeError) -> Exception:
    stat = os.statvfs(path.parent)
    full = stat.f_bavail * stat.f_frsize < 2**20
    told = any(word in str(error) for word in ("write", "PytorchStreamWriter", "inline_container"))
    if not full and not told:
        return error
    return OSError(errno.ENOSPC if full else errno.EIO, str(error).splitlines()[0])


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def content_hash(path: str) -> str:
    """32 hexadecimal digits of a file's content; "" where it cannot be read."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""
