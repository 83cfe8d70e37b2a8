"""An index kept between runs, so that the second start over a million files does not walk their folders again.

One file: a line of JSON, then the arrays of the index, which are mapped into memory and so shared by all workers. It is
valid as long as every folder that was walked, and every list that was read, has the time and the identity that it had
then: adding, removing or renaming a file changes its folder's time. What changes no folder's time is not seen: a link
to a file that leads elsewhere now, and a clock that was set back. Changed contents of images need no new index; of a
video or a shard they do, so these are watched as folders are.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from headstart.errors import UserError
from headstart.files import write_atomically
from headstart.images.members import is_address
from headstart.paths import home

FORMAT = 6
FEWEST = 20_000
"""Images from which on an index is kept: fewer are found in a moment."""
MOST_FOLDERS = 100_000
"""Folders up to which an index is kept: looking at more takes as long as walking them."""
SETTLED = 2.0
"""Seconds that a folder must have been left alone: some file systems count its time in whole seconds."""

Stamp = tuple[int, int]
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], dict[str, Any]]


def default_folder() -> Path:
    """``HEADSTART_CACHE``, or ``headstart`` in the user's cache folder."""
    if os.environ.get("HEADSTART_CACHE"):
        return Path(os.environ["HEADSTART_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else home() / ".cache") / "headstart"


def stamp(path: str) -> Stamp | None:
    """Time and identity of a folder or file, or of a shard at an address; None where there is none."""
    if is_address(path):
        from headstart.images import remote

        return remote.watched(path)
    try:
        info = os.stat(path)  # noqa: PTH116 - called for each of many folders
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino


def index_path(folder: Path, key: str) -> Path:
    """Where the index of the sources that `key` describes is kept; lists depend on the working folder too."""
    text = f"{FORMAT}\0{Path.cwd()}\0{key}"
    return folder / "index" / f"{hashlib.blake2b(text.encode('utf-8', 'surrogateescape'), digest_size=10).hexdigest()}"


def save(
    path: Path,
    text: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    about: Mapping[str, Any],
    watched: Mapping[str, Stamp],
) -> bool:
    """Keep an index, if it is large enough and what it was made from has settled.

    Args:
        path: From `index_path`.
        text: Bytes of all paths.
        ends: Where each path ends, from 0 on.
        about: What else belongs to the index; plain values.
        watched: Folders and lists, each with its stamp before it was read.

    Returns:
        Whether it was kept. A folder that cannot be written is no error.
    """
    newest = max((mtime for mtime, _ in watched.values()), default=0)
    if len(ends) - 1 < FEWEST or len(watched) > MOST_FOLDERS or newest / 1e9 > time.time() - SETTLED:
        return False
    head = json.dumps({"format": FORMAT, "images": len(ends) - 1, "bytes": len(text), **about, "watched": watched})

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(_padded(head.encode("ascii")))
            file.write(ends.astype("<i8").data)
            file.write(text.data)

    try:
        write_atomically(path, write)
    except UserError:
        return False
    return True


def load(path: Path, *, check: bool = True) -> Arrays | None:
    """The arrays and the rest of a kept index; None where there is none, or it is out of date.

    Args:
        path: From `index_path`.
        check: Whether to look at the folders again.
    """
    damaged = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
    with suppress(OSError, *damaged), path.open("rb") as file:
        about = json.loads(_line(file))
        start, images = file.tell(), about["images"]
        whole = start + 8 * (images + 1) + about["bytes"] == os.fstat(file.fileno()).st_size
        watched = about.pop("watched")
        if not whole or about["format"] != FORMAT:
            return None
        if check and (far := [name for name in watched if is_address(name)]):
            from headstart.images import remote  # fsspec: for those who have addresses

            remote.look_at(far)
        if check and any(stamp(name) != tuple(was) for name, was in watched.items()):
            return None
        ends = np.memmap(path, np.dtype("<i8"), mode="r", offset=start, shape=(images + 1,))
        text = np.memmap(path, np.uint8, mode="r", offset=start + 8 * (images + 1), shape=(about["bytes"],))
        return text, ends, about
    return None


def _padded(head: bytes) -> bytes:
    """The head as a line whose length lets the numbers after it lie at whole eights."""
    return head + b" " * (-(len(head) + 1) % 8) + b"\n"


def _line(file: BinaryIO) -> bytes:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError("cut short")
    return line
