"""Where paths of images really lead, by which the same image is known however it is named."""

from __future__ import annotations

import os

from headstart.images.members import is_address, one_spelling, split


class Resolver:
    """Follows the links in paths of images, of members of shards, and of frames.

    What was found of a folder, or of a shard, is remembered: resolving one costs a look at each of its parents, which
    a million images share.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._shards: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """The real path; of an address the one spelling that it is known by."""
        if (member := split(path)) is not None:  # its name is no path of this system
            if member.shard not in self._shards:
                self._shards[member.shard] = self._file(member.shard)
            return f"{self._shards[member.shard]}/{member.name}"
        return self._file(path)

    def _file(self, path: str) -> str:
        if is_address(path):
            return one_spelling(path)
        if os.path.islink(path):  # noqa: PTH114 - a Path for each of a million costs more than the look
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)  # noqa: PTH118
