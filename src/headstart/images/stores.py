"""The stores of decoded images that are kept: which there are, of what, how large; old ones are removed.

A store is removed once no run has used it for `UNUSED` days, when another run makes use of a store beside it, or by
``headstart cache clear=true``. Nothing is lost by it but time: its images are decoded again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headstart.errors import UserError
from headstart.files import write_text
from headstart.images.index import ImageIndex
from headstart.images.store import waited_for
from headstart.reading import parse_json

try:
    import fcntl
except ImportError:  # Windows: without locks
    fcntl = None  # type: ignore[assignment]

UNUSED = 30.0
"""Days after which a store that no run has used is removed."""
ABOUT, LOCK = "about.json", "lock"
_NAME = re.compile(r"[0-9a-f]{20}")
_DAY = 86_400.0


@dataclass(frozen=True)
class Kept:
    """A store.

    Attributes:
        path: Its folder.
        sources: Of its images; empty where it does not say (those of older versions).
        max_area: Pixels to which its images are scaled down; None where they are not, or it does not say.
        bytes: What it takes of the disk.
        used: When a run last began to use it, in seconds since 1970.
    """

    path: Path
    sources: tuple[str, ...]
    max_area: int | None
    bytes: int
    used: float

    @property
    def days(self) -> float:
        """Since it was used."""
        return (time.time() - self.used) / _DAY


def use(folder: Path, index: ImageIndex, max_area: int | None) -> BinaryIO:
    """Make the folder of a store, note that it is used now, and keep it from being removed.

    Returns:
        A file; the store may be removed once it is closed, or this process and those that it started have ended.

    Raises:
        OSError: The folder cannot be written.
    """
    file = _locked(folder)
    while not _is(file, folder / LOCK):  # it was removed while we waited
        file.close()
        file = _locked(folder)
    about = {"sources": [name.encode("utf-8", "backslashreplace").decode() for name in index.sources]}
    with suppress(UserError):  # a full disk: the store says more
        write_text(folder / ABOUT, json.dumps({**about, "max_area": max_area}) + "\n")
    return file


def _locked(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return waited_for(folder / LOCK, shared=True)


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether what is open is what lies at a path: only a file that was removed has no name any more."""
    return path.exists() and os.fstat(file.fileno()).st_nlink > 0


def kept(parent: Path) -> list[Kept]:
    """The stores in a cache folder, the largest first."""
    return sorted(map(_read, _stores(parent)), key=lambda one: -one.bytes)


def remove(one: Kept) -> bool:
    """Remove a store; False where a run uses it, or it cannot be removed."""
    with suppress(OSError), (one.path / LOCK).open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:  # a file system without locks
                pass
        shutil.rmtree(one.path)
        return True
    return False


def prune(parent: Path, leave: Path, days: float = UNUSED) -> tuple[int, int]:
    """Remove the stores beside `leave` that were not used for so many `days`; how many, and their bytes."""
    old = [one for one in map(_read, _stores(parent)) if one.path != leave and one.days > days]
    gone = [one.bytes for one in old if remove(one)]
    return len(gone), sum(gone)


def index_files(parent: Path) -> list[Path]:
    """Kept indexes of large data (`headstart.images.index_cache`), of frames of videos (``footage``) and of shards."""
    found: list[Path] = []
    for folder in ("index", "videos", "shards"):
        with suppress(OSError):
            found += [path for path in (parent / folder).iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found)


def _stores(parent: Path) -> Iterator[Path]:
    with suppress(OSError):
        folders = [path for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        yield from [path for path in folders if any(path.glob("*.table"))]


def _read(path: Path) -> Kept:
    sizes, times, files = [0], [0.0], list[Path]()
    with suppress(OSError):  # another process has removed it meanwhile
        files += path.iterdir()
    for file in files:
        with suppress(OSError):
            info = file.stat()
            # What is reserved for a table but not written yet is counted by its blocks, where the system has them.
            sizes.append(info.st_blocks * 512 if hasattr(info, "st_blocks") else info.st_size)
            times.append(info.st_mtime)
    sources, area = _about(path / ABOUT)
    with suppress(OSError):  # of older versions the newest file tells
        times = [(path / ABOUT).stat().st_mtime]
    return Kept(path, sources, area, sum(sizes), max(times))


def _about(path: Path) -> tuple[tuple[str, ...], int | None]:
    with suppress(OSError, ValueError):
        found = parse_json(path.read_bytes())
        if isinstance(found, dict) and isinstance(found.get("sources"), Sequence):
            area = found.get("max_area")
            return tuple(map(str, found["sources"])), area if isinstance(area, int) else None
    return (), None
