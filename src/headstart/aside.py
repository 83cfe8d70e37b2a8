"""What folders of ours hold, and what is to be replaced in them: kept there until it has been, whatever is killed.

All of it moves into ``.replaced-moving``, which then becomes ``.replaced`` in one step; back again the same way. What
is to be removed becomes ``.replaced-gone`` first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GONE = ".replaced-gone"
"""In a folder: what was replaced and is being removed."""
_ASIDE, _MOVING = ".replaced", ".replaced-moving"


def empty(folder: Path, mark: str, but: str = "") -> None:
    """Remove all that is in a folder, `but` for one file; what marks it as ours last: killed, it can still be emptied.

    Raises:
        OSError: Something cannot be removed.
    """
    for item in sorted(folder.iterdir(), key=lambda item: item.name == mark):
        if item.name == but:
            continue
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()


@dataclass(frozen=True)
class Contents:
    """What one kind of folder holds, and so all that may ever be removed from it.

    Attributes:
        what: What such a folder is, for messages: ``"a run"``.
        mark: The file that makes it one.
        files: Names of the files that are written, `mark` among them.
        folders: Names of the folders that are written.
        before: Of these the names of what is written before the mark; folders are still empty then.
    """

    what: str
    mark: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    before: tuple[str, ...] = ()


class Aside:
    """What is set aside in a folder; one process at a time may change it.

    Args:
        path: The folder.
        names: Of what may be set aside.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names

    def __bool__(self) -> bool:
        """Whether something is, or is on its way."""
        return any((self.path / name).is_dir() for name in (_ASIDE, _MOVING))

    def settle(self) -> None:
        """Take back, or finish, a move that was cut short: nothing of a replacement is there then."""
        moving = self.path / _MOVING
        if moving.is_dir():
            self._move(moving, self.path)
            moving.rmdir()
        shutil.rmtree(self.path / GONE, ignore_errors=True)

    def set(self, clear: Callable[[], None]) -> None:
        """Set aside what is there; or, where something is already, `clear` what was to replace it and ended early."""
        moving = self.path / _MOVING
        if self:
            clear()
            return
        moving.mkdir()
        self._move(self.path, moving)
        moving.rename(self.path / _ASIDE)

    def put_back(self, clear: Callable[[], None]) -> None:
        """`clear` what is there, and bring back what was set aside."""
        if (self.path / _ASIDE).is_dir():
            clear()
            (self.path / _ASIDE).rename(self.path / _MOVING)
        self.settle()

    def remove(self) -> None:
        """Remove it: it is replaced."""
        with suppress(OSError):
            if (self.path / _ASIDE).is_dir():
                (self.path / _ASIDE).rename(self.path / GONE)
            shutil.rmtree(self.path / GONE, ignore_errors=True)

    def _move(self, source: Path, target: Path) -> None:
        for path in [source / name for name in self.names]:
            if path.exists():
                path.rename(target / path.name)
