"""How members of shards are named, wherever a path is written: ``000.tar/cats/1.jpg``; imports nothing that reads."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

SUFFIXES = (".tar", ".zip")
COMPRESSED = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.lzma", ".tar.zst", ".tzst", ".tar.lz4",
)  # fmt: skip
"""Of tars that are compressed as a whole: no member can be read without unpacking all that is before it."""
_INSIDE = re.compile(rf"\.(?:tar|zip)[/{re.escape(os.sep)}]", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_KINDS = {"s3a": "s3", "gcs": "gs"}
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/(?!/)")


class Member(NamedTuple):
    """One member: the path or address of its shard, and its name within, as `clean` gives it."""

    shard: str
    name: str

    @property
    def path(self) -> str:
        """How it is written."""
        return f"{self.shard}/{self.name}"


def is_shard_name(name: str) -> bool:
    """Whether a file of this name counts as a shard, by its suffix alone."""
    return name.lower().endswith(SUFFIXES)


def is_compressed_name(name: str) -> bool:
    """Whether a file of this name is a tar that is compressed as a whole."""
    return name.lower().endswith(COMPRESSED)


def is_address(path: str) -> bool:
    """Whether a path lies elsewhere: ``s3://``, ``https://``."""
    return _ADDRESS.match(path) is not None


def one_spelling(address: str) -> str:
    """An address by which it is known whatever it is written as: ``S3A://`` and ``s3a://`` are ``s3://``."""
    kind, sign, rest = address.partition("://")
    return _KINDS.get(kind.lower(), kind.lower()) + sign + rest


def split(path: str) -> Member | None:
    """The member that `path` names; None for the path of a file. A folder may be called ``x.tar``, too."""
    if _INSIDE.search(path) is None:  # quick, and mostly enough
        return None
    path = _COLLAPSED.sub(r"\1://", path, count=1) if _COLLAPSED.match(path) else path  # pathlib takes a slash away
    for found in _INSIDE.finditer(path):
        shard, name = path[: found.end() - 1], path[found.end() :]
        if name and (is_address(path) or not os.path.isdir(shard)):  # noqa: PTH112
            return Member(shard, name)
    return None


def clean(name: str) -> str:
    """A member's name as it is shown: it leads nowhere, and stays below its shard.

    Without what says nothing (``./``, doubled and leading slashes); ``..`` and NULs, which mean something to a system,
    are written out.
    """
    if "\0" in name:
        name = name.replace("\0", "%00")
    parts = name.split("/")
    if "" not in parts and "." not in parts and ".." not in parts:
        return name
    return "/".join("%2E%2E" if part == ".." else part for part in parts if part not in ("", "."))


def is_hidden(name: str) -> bool:
    """Whether a member, or a folder of it, is hidden, as tools of macOS add them (``._1.jpg`` for ``1.jpg``)."""
    return name.startswith(".") or "/." in name


def key_of(name: str) -> str:
    """What the files of one sample share, as WebDataset has it: up to the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + (base[:1] + base[1:].split(".", 1)[0])
