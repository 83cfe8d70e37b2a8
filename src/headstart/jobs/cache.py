"""The caches of decoded images: which there are, and removing them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from headstart.images.cache import gigabytes
from headstart.images.index_cache import default_folder
from headstart.images.stores import Kept, index_files, kept, remove
from headstart.paths import expanded
from headstart.settings.schema import CacheSettings


def cache(s: CacheSettings) -> list[str]:
    """What is kept, or what was removed, a line each.

    Args:
        s: Which folder, and what to remove.
    """
    folder = expanded(s.cache_dir).absolute() if s.cache_dir else expanded(default_folder()).absolute()
    stores = [one for one in kept(folder) if one.days >= s.unused]
    indexes = index_files(folder) if not s.unused else []
    if s.clear:
        return _cleared(folder, stores, indexes)
    lines = [f"{folder}: {_sum(stores)}"]
    lines += [_line(one) for one in stores]
    if indexes:
        size = sum(path.stat().st_size for path in indexes)
        kept_lists = f"{len(indexes)} kept lists of the images of large data and of shards, and of the frames of videos"
        lines.append(f"{gigabytes(size):>10}  {kept_lists}")
    return lines + (["headstart cache clear=true removes all of it"] if stores or indexes else [])


def _cleared(folder: Path, stores: list[Kept], indexes: list[Path]) -> list[str]:
    gone = [one for one in stores if remove(one)]
    for path in indexes:
        with suppress(OSError):
            path.unlink()
    lines = [f"{folder}: removed {_sum(gone)}"]
    return lines + [f"{one.path} stays: a run uses it, or it cannot be removed" for one in stores if one not in gone]


def _sum(stores: list[Kept]) -> str:
    return f"{len(stores)} stores of decoded images, {gigabytes(sum(one.bytes for one in stores))}"


def _line(one: Kept) -> str:
    size = f", at most {one.max_area:,} pixels each" if one.max_area else ""
    return (
        f"{gigabytes(one.bytes):>10}  {', '.join(one.sources) or 'of an older version'}{size}, "
        f"used {one.days:.0f} days ago, in {one.path.name}"
    )
