"""Which images: folders, globs, lists, files, videos, shards and dataset YAMLs become one compact, sorted index.

The index is one run of bytes and an array of offsets, so that loader processes share it instead of each growing a copy
of a million Python strings.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import UserError
from headstart.images import catalog, index_cache
from headstart.images.finder import Finder
from headstart.images.frames import EVERY, file_of
from headstart.images.members import is_address, is_shard_name, split
from headstart.images.sources import (
    SUFFIXES,
    Data,
    Source,
    channels_of,
    check_sources,
    keypoints_of,
    no_frames_here,
    no_shards_here,
    parse_sources,
)

__all__ = ["SUFFIXES", "ImageIndex", "check_sources", "find_images"]


class ImageIndex:
    """The paths of a set of images, sorted.

    Args:
        paths: Absolute paths in the order to keep.
        sources: What the user named.
        notes: What was left out on the way, in sentences.
        left_out: Images of a dataset's train part that its val or test also list, and that were left out.
        skipped: (path, reason) of the videos and shards that cannot be used, or not to their end.
        shards: Those that hold images of it.
        channels: With which the images are read: 3 are RGB.
        keypoints: ``kpt_shape`` of what they come from, where that is a data set of poses.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sources: Sequence[str] = (),
        notes: Sequence[str] = (),
        left_out: int = 0,
        skipped: Sequence[tuple[str, str]] = (),
        channels: int = 3,
        shards: Sequence[str] = (),
    ) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text: npt.NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends: npt.NDArray[np.int64] = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=self._ends[1:])
        self.sources = tuple(sources)
        self.notes = tuple(notes)
        self.left_out = left_out
        self.skipped, self.channels, self.shards = list(skipped), channels, tuple(shards)
        self.keypoints: tuple[int, int] | None = None
        self._fingerprint = ""
        self._kept: Path | None = None
        self._tables: Path | None = None  # cache folder with the tables of the shards

    @classmethod
    def load(cls, path: Path, *, check: bool = True) -> ImageIndex | None:
        """The index kept at `path`, mapped, not read; None where there is none or it is out of date."""
        found = index_cache.load(path, check=check)
        if found is None:
            return None
        index = cls([])
        index._text, index._ends, about = found
        index.sources, index.notes = (tuple(about[name]) for name in ("sources", "notes"))
        index.skipped = [(str(one), str(reason)) for one, reason in about["skipped"]]
        index.left_out, index._fingerprint, index._kept = about["left_out"], about["fingerprint"], path
        index.channels, index.shards = about["channels"], tuple(about["shards"])
        index.keypoints = tuple(about["keypoints"]) if about["keypoints"] else None
        if index.shards:
            catalog.look_in(path.parent.parent)
        return index

    @property
    def kept(self) -> Path | None:
        """The file that it is kept in; None where there is none (any more)."""
        return self._kept if self._kept is not None and self._kept.is_file() else None

    def save(self, path: Path, watched: dict[str, index_cache.Stamp]) -> bool:
        """Keep the index at `path` for as long as what is `watched` stays as it is; whether that was done."""
        names = ("sources", "notes", "left_out", "skipped", "channels", "shards", "keypoints")
        about = {name: getattr(self, name) for name in names}
        return index_cache.save(path, self._text, self._ends, {**about, "fingerprint": self.fingerprint()}, watched)

    def __reduce__(self) -> Any:
        """Pickled for a worker: by its file where it has one, so that workers share the pages of it."""
        if self.kept is not None:
            return _reload, (self.kept, self.fingerprint())
        return super().__reduce__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.shards and self._tables is not None:
            catalog.look_in(self._tables)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self.path(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"ImageIndex({len(self)} images from {', '.join(self.sources)})"

    def path(self, i: int) -> str:
        """The path of image `i`, 0 <= i < len."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return os.fsdecode(self._text[self._ends[i] : self._ends[i + 1]].tobytes())

    def paths(self, which: slice = slice(None)) -> list[str]:
        """The paths of a slice of the index."""
        return [self.path(i) for i in range(*which.indices(len(self)))]

    def subset(self, rows: Sequence[int]) -> ImageIndex:
        """An index of some of the images, in the order of `rows`."""
        about = self.sources, self.notes, self.left_out, (), self.channels, self.shards
        found = ImageIndex([self.path(row) for row in rows], *about)
        found._tables, found.keypoints = self._tables, self.keypoints
        return found

    def far(self) -> npt.NDArray[np.uint32] | None:
        """Of each image the number of its shard, where shards lie at addresses; None where all is on this machine.

        Images that lie here all have the number 0.
        """
        shards = [shard for shard in self.shards if is_address(shard)]
        if not shards:
            return None
        numbers = np.zeros(len(self), np.uint32)
        for number, shard in enumerate(shards, start=1):  # of one shard all stand together, as they are sorted
            bounds = [bisect_left(range(len(self)), f"{shard}{end}", key=self.path) for end in ("/", "0")]
            numbers[bounds[0] : bounds[1]] = number
        return numbers

    def fingerprint(self) -> str:
        """32 hexadecimal digits, equal for the same paths in the same order; says nothing of the files' contents."""
        if not self._fingerprint:
            digest = hashlib.blake2b(self._text.data, digest_size=16)
            digest.update(self._ends.astype("<i8").data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def _reload(path: Path, fingerprint: str) -> ImageIndex:
    index = ImageIndex.load(path, check=False)
    if index is None or index.fingerprint() != fingerprint:
        raise UserError("the index has been replaced while the run started", where=str(path), hint="start again")
    return index


def find_images(
    data: Data,
    keep: Path | None = None,
    *,
    labels: str | None = None,
    every: float = EVERY,
    labelled: bool = False,
) -> ImageIndex:
    """All images that `data` names: folders (nested), globs, lists, dataset YAMLs (train), files, videos, shards.

    Sorted by path; a file that is reached in two ways is there once. Hidden files and folders are passed over. Files
    are not opened, nor need those of a list exist: what cannot be read is reported when it is read.

    Args:
        data: What to look for; empty for what `labels` names alone.
        labels: A dataset YAML whose labels are learnt from. Images of its train part that its val or test list as well
            are left out, as of any other, unless that were all.
        keep: A cache folder: an index kept there is used while it is valid, and a large one is kept for the next run.
        every: Seconds between two frames that are taken of a video; 0: every frame.
        labelled: Whether files with labels are wanted: videos and shards are passed over, and refused where named.

    Raises:
        UserError: A source does not exist or cannot be understood (all of them together), or there is no image.
    """
    sources = _sources(data, labels, labelled=labelled)
    if any(is_address(source.path) for source in sources):
        from headstart.images import remote  # fsspec: for those who have addresses

        remote.look_anew()
    path = index_cache.index_path(keep, repr((sources, every, labelled))) if keep is not None else None
    if path is not None:
        kept = ImageIndex.load(path)
        if kept is not None:
            return _opened(kept)
    finder = Finder()
    for source in sources:
        finder.add(source)
    names, channels = [source.path for source in sources], channels_of(sources)
    frames, said, skipped = _frames([] if labelled else sorted(finder.videos.values()), every, keep)
    shards = sorted(finder.shards.values())
    members, told, unread = _members([] if labelled else shards, keep)
    if labelled:
        _leave_files(finder)
    if not finder.found and not frames and not members:
        raise finder.nothing(names, [*skipped, *unread], told)
    notes = [*finder.notes, *finder.passed_over(), *said, *told]
    listed, skipped = finder.known_by_shards(), [*skipped, *unread]
    holding = sorted({*(shards if members else ()), *_shards_of(listed, sources)})
    paths = sorted({*listed, *frames, *members})
    index = ImageIndex(paths, names, notes, finder.left_out, skipped, channels, holding)
    index._tables, index.keypoints = keep or index_cache.default_folder(), keypoints_of(sources)
    finder.watched |= {shard: seen for shard in shards if is_address(shard) and (seen := index_cache.stamp(shard))}
    if path is not None and finder.keepable and index.save(path, finder.watched):
        return ImageIndex.load(path, check=False) or index  # mapped, in place of the copy in memory
    return index


def _sources(data: Data, labels: str | None, *, labelled: bool) -> list[Source]:
    """What `find_images` looks in; all that is wrong with it together."""
    sources, problems = parse_sources(data) if data or labels is None else ([], [])
    if labels is not None:
        more, wrong = parse_sources(labels)
        sources = [one for one in sources if one not in more] + [replace(one, labels=True) for one in more]
        problems += wrong
    refusals = {"video": no_frames_here, "shard": no_shards_here, "address": no_shards_here} if labelled else {}
    refused: dict[Callable[[str, str], UserError], list[str]] = {}
    for source in sources:
        if source.kind in refusals:
            refused.setdefault(refusals[source.kind], []).append(source.path)
    problems += [refusal(_first_of(paths), "data") for refusal, paths in refused.items()]
    if problems:
        raise UserError.several(problems)
    return sources


def _shards_of(images: Sequence[str], sources: Sequence[Source]) -> set[str]:
    """The shards of which single members were named: in folders none are."""
    if all(source.kind in ("folder", "glob", "shard", "address", "video") for source in sources):
        return set()
    return {member.shard for path in images if (member := split(path)) is not None}


def _leave_files(finder: Finder) -> None:
    """Leave out the members of shards, and the frames, that lists name; refuse where nothing else is named."""
    parts = {real: file for real, shown in finder.found.items() if (file := file_of(shown)) != shown}
    for real in parts:
        del finder.found[real]
    others = {*parts.values(), *finder.shards.values(), *finder.videos.values()}
    if not finder.found and others:
        shards, videos = (sorted(one for one in others if is_shard_name(one) is kind) for kind in (True, False))
        raise (no_shards_here if shards else no_frames_here)(_first_of([*shards, *videos]), "data")
    if parts:
        what = f"{len(parts):,} images that lists name within shards or videos, such as {min(parts)}"
        finder.notes.append(f"{what}, were passed over: images with labels are read from files here")


def _first_of(paths: Sequence[str]) -> str:
    """The first of them, and how many more there are: braces name many at once."""
    return paths[0] if len(paths) == 1 else f"{paths[0]}, one of {len(paths):,},"


def _opened(index: ImageIndex) -> ImageIndex:
    """The index, with the tables of its shards in memory."""
    if index.shards:
        from headstart.images import shards

        shards.open_all(index.shards)
    return index


def _frames(
    videos: Sequence[str], every: float, keep: Path | None
) -> tuple[Sequence[str], Sequence[str], Sequence[tuple[str, str]]]:
    """What is used of videos, what is said of them, and what is not used; see `headstart.images.footage.used_of`."""
    if not videos:
        return (), (), ()
    from headstart.images.footage import used_of  # OpenCV: for those who have videos

    return used_of(videos, every, keep or index_cache.default_folder())


def _members(
    shards: Sequence[str], keep: Path | None
) -> tuple[Sequence[str], Sequence[str], Sequence[tuple[str, str]]]:
    """Likewise of shards; see `headstart.images.listing.used_of`."""
    if not shards:
        return (), (), ()
    from headstart.images.listing import used_of

    return used_of(shards, keep or index_cache.default_folder())
