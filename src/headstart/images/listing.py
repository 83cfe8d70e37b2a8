"""Which members of shards are images to learn from, and what is said of the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from headstart.images import catalog, tar
from headstart.images.catalog import Catalog
from headstart.images.headers import DecodeError
from headstart.images.members import Member, is_address, is_hidden
from headstart.images.shards import table_of
from headstart.images.sources import PASSED_OVER, is_image_name
from headstart.run.display import Filling

_NAMED = 5
"""Shards up to which each is named in what is said."""
_KINDS = 6


class Used(NamedTuple):
    """What is used of shards: the images, what is said of them, and (path, reason) of what cannot be used."""

    images: list[str]
    notes: list[str]
    skipped: list[tuple[str, str]]


def used_of(shards: Sequence[str], folder: Path) -> Used:
    """The images in each shard. One that cannot be read is skipped, and said.

    Args:
        shards: Paths and addresses.
        folder: The cache folder, where tables of shards are kept; one that cannot be written is no error.

    Raises:
        RunError: Storage fails.
    """
    catalog.look_in(folder)
    used, others, twice, good = Used([], [], []), Counter[str](), 0, 0
    with Filling(label="reading the tables of shards", what="shards") as filling:
        for done, (shard, found) in enumerate(zip(shards, _tables(shards), strict=True), start=1):
            filling(done, len(shards))
            if isinstance(found, DecodeError):
                used.skipped.append((shard, found.reason))
                continue
            good, twice = good + 1, twice + found.twice
            before = len(used.images)
            for name in found.names():
                if is_hidden(name):  # as in folders
                    continue
                if is_image_name(name):
                    used.images.append(Member(shard, name).path)
                else:
                    others[os.path.splitext(name)[1].lower() or "without suffix"] += 1  # noqa: PTH122
            found.forget_names()
            used.skipped.extend(_problems(shard, found))
            if len(shards) <= _NAMED:
                used.notes.append(f"{os.path.basename(shard)}: {len(used.images) - before:,} images")  # noqa: PTH119
    used.notes.extend(_in_words(used, good, others, twice))
    return used


def images_of(shard: str) -> list[str]:
    """The names of the images in a shard; none of one that cannot be read.

    Raises:
        RunError: Storage fails.
    """
    found = _table(shard)
    if isinstance(found, DecodeError):
        return []
    return [name for name in found.names() if is_image_name(name) and not is_hidden(name)]


def _tables(shards: Sequence[str]) -> Iterator[Catalog | DecodeError]:
    """The table of each, or why there is none; those at addresses are waited for side by side."""
    if not any(map(is_address, shards)):
        yield from map(_table, shards)
        return
    from headstart.images import remote  # fsspec: for those who have addresses

    with ThreadPoolExecutor(remote.THREADS) as pool:
        yield from pool.map(_table, shards)


def _table(shard: str) -> Catalog | DecodeError:
    try:
        return table_of(shard, names=True)
    except DecodeError as error:
        return error


def _problems(shard: str, found: Catalog) -> Iterable[tuple[str, str]]:
    """Of the shard itself, and of its images and labels."""
    for name, what in found.problems:
        if not name or (what == tar.CUT and not _is_told(name)):
            yield shard, what if not name else "truncated: it ends in the midst of a member"
        elif _is_told(name):
            yield Member(shard, name).path, what


def _is_told(name: str) -> bool:
    return not is_hidden(name) and (is_image_name(name) or name.lower().endswith(".txt"))


def _in_words(used: Used, good: int, others: Counter[str], twice: int) -> Iterator[str]:
    """What is said of all shards together."""
    if good > 1:
        yield f"{good:,} shards: {len(used.images):,} images"
    if unread := Counter({kind: number for kind, number in others.items() if kind in PASSED_OVER}):
        yield f"passed over in shards, for Ultralytics does not train on such files: {_listed(unread)}"
    if others := others - unread:
        yield f"members of shards that are no images: {_listed(others)}"
    if twice:
        yield f"{twice:,} members of shards have the name of a later one, which counts, as when they are unpacked"
    if used.skipped:
        path, reason = used.skipped[0]
        more = ", ..." if len(used.skipped) > 1 else ""
        yield f"{len(used.skipped):,} shards or members of shards cannot be used: {path} ({reason}){more}"


def _listed(kinds: Counter[str]) -> str:
    shown = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(_KINDS))
    return shown + (", ..." if len(kinds) > _KINDS else "")
