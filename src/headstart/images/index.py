"""Which images: folders, globs, lists, files, videos and dataset YAMLs become one compact, sorted index.

The index is one run of bytes and an array of offsets, so that loader processes share it instead of each growing a copy
of a million Python strings.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import UserError
from headstart.images import index_cache
from headstart.images.frames import EVERY, is_video_name
from headstart.images.globs import expression
from headstart.images.lists import base_of, text_of
from headstart.images.outputs import whose
from headstart.images.sources import (
    PASSED_OVER,
    SUFFIXES,
    Data,
    Source,
    absolute,
    channels_of,
    check_sources,
    is_read,
    no_frames_here,
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
        skipped: (path, reason) of the videos that cannot be used, or not to their end.
        channels: With which the images are read: 3 are RGB.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sources: Sequence[str] = (),
        notes: Sequence[str] = (),
        left_out: int = 0,
        skipped: Sequence[tuple[str, str]] = (),
        channels: int = 3,
    ) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text: npt.NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends: npt.NDArray[np.int64] = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=self._ends[1:])
        self.sources = tuple(sources)
        self.notes = tuple(notes)
        self.left_out = left_out
        self.skipped, self.channels = list(skipped), channels
        self._fingerprint = ""
        self._kept: Path | None = None

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
        index.channels = about["channels"]
        return index

    def save(self, path: Path, watched: dict[str, index_cache.Stamp]) -> bool:
        """Keep the index at `path` for as long as what is `watched` stays as it is; whether that was done."""
        about = {name: getattr(self, name) for name in ("sources", "notes", "left_out", "skipped", "channels")}
        return index_cache.save(path, self._text, self._ends, {**about, "fingerprint": self.fingerprint()}, watched)

    def __reduce__(self) -> Any:
        """Pickled for a worker: by its file where it has one, so that workers share the pages of it."""
        if self._kept is not None and self._kept.is_file():
            return _reload, (self._kept, self.fingerprint())
        return super().__reduce__()

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
        return ImageIndex([self.path(row) for row in rows], self.sources, self.notes, self.left_out, (), self.channels)

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


def find_images(data: Data, keep: Path | None = None, *, every: float = EVERY, labelled: bool = False) -> ImageIndex:
    """All images that `data` names: folders (nested), globs, .txt lists, dataset YAMLs (train only), files, videos.

    Sorted by path; a file that is reached in two ways is there once. Hidden files and folders are passed over. Files
    are not opened, nor need those of a list exist: what cannot be read is reported when it is read.

    Args:
        data: What to look for.
        keep: A cache folder: an index kept there is used while it is valid, and a large one is kept for the next run.
        every: Seconds between two frames that are taken of a video; 0: every frame.
        labelled: Whether images with labels are wanted, which frames have not: videos are passed over.

    Raises:
        UserError: A source does not exist or cannot be understood (all of them together), or there is no image.
    """
    sources, problems = parse_sources(data)
    problems += [no_frames_here(source.path, "data") for source in sources if labelled and source.kind == "video"]
    if problems:
        raise UserError.several(problems)
    path = index_cache.index_path(keep, repr((sources, every, labelled))) if keep is not None else None
    if path is not None:
        kept = ImageIndex.load(path)
        if kept is not None:
            return kept
    finder = _Finder()
    for source in sources:
        finder.add(source)
    names, channels = [source.path for source in sources], channels_of(sources)
    frames, said, skipped = _frames([] if labelled else sorted(finder.videos.values()), every, keep)
    if not finder.found and not frames:
        raise finder.nothing(names, skipped)
    notes = [*finder.notes, *finder.passed_over(), *said]
    index = ImageIndex(sorted({*finder.found.values(), *frames}), names, notes, finder.left_out, skipped, channels)
    if path is not None and finder.keepable and index.save(path, finder.watched):
        return ImageIndex.load(path, check=False) or index  # mapped, in place of the copy in memory
    return index


def _frames(
    videos: Sequence[str], every: float, keep: Path | None
) -> tuple[Sequence[str], Sequence[str], Sequence[tuple[str, str]]]:
    """What is used of videos, what is said of them, and what is not used; see `headstart.images.footage.used_of`."""
    if not videos:
        return (), (), ()
    from headstart.images.footage import used_of  # OpenCV: for those who have videos

    return used_of(videos, every, keep or index_cache.default_folder())


class _Finder:
    """Collects images from sources.

    Attributes:
        found: Shown path of each image by its resolved path, which tells duplicates.
        videos: Likewise of each video.
        notes: What was passed over, in sentences.
        other: Number of files passed over for their suffix; `example` is one of them.
        formats: How many of them are images of a format that is not read, by suffix.
        watched: Folders and lists that the outcome depends on, as they were before they were read.
        keepable: Whether these are all that it depends on.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.videos: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out = 0
        self.other = 0
        self.example = ""
        self.formats: Counter[str] = Counter()
        self.watched: dict[str, index_cache.Stamp] = {}
        self.keepable = True
        self._real_folders: dict[str, str] = {}

    def add(self, source: Source) -> None:
        adders: dict[str, Callable[[Source], None]] = {
            "folder": lambda s: self._add_folder(s.path),
            "image": lambda s: self._add_file(s.path),
            "video": lambda s: self._add_file(s.path),
            "list": lambda s: self._add_list(Path(s.path)),
            "glob": lambda s: self._add_glob(s.path),
            "dataset": self._add_dataset,
        }
        adders[source.kind](source)

    def nothing(self, names: Sequence[str], skipped: Sequence[tuple[str, str]]) -> UserError:
        """The error for having found no image at all, nor a video that can be read."""
        what = f"no images found in {', '.join(names)}"
        if skipped:
            what += f": {len(skipped)} videos cannot be read, such as {skipped[0][0]} ({skipped[0][1]})"
            return UserError(what, where="data", hint="look whether a player shows them")
        if self.left_out:
            what += f": all {self.left_out} images of train are also in val or test"
            return UserError(what, where="data", hint="to pretrain on them all the same, give their folder as data")
        if self.other:
            what += f": {self.other} other file{'s' * (self.other > 1)}, such as {self.example}"
        if self.notes:
            what += f" ({'; '.join(self.notes)})"
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        hint = f"looked for {kinds} and videos in any case; hidden files are passed over"
        return UserError(what, where="data", hint=hint)

    def _keep(self, shown: str, resolved: str) -> None:
        kept = self.videos if is_video_name(shown) else self.found
        known = kept.get(resolved)
        kept[resolved] = shown if known is None else min(known, shown)
        if kept is self.videos:  # another one in its place has other frames
            self._watch(shown)

    def _add_folder(self, folder: str) -> None:
        for shown, resolved in self._walk(folder):
            self._keep(shown, resolved)

    def _add_file(self, path: str) -> None:
        """A file by its name; it need not exist."""
        if os.path.islink(path):  # noqa: PTH114
            self._keep(path, os.path.realpath(path))
            return
        folder, name = os.path.split(path)
        if folder not in self._real_folders:  # resolving a folder costs a look at each of its parents
            self._real_folders[folder] = os.path.realpath(folder)
        self._keep(path, os.path.join(self._real_folders[folder], name))  # noqa: PTH118

    def _walk(self, root: str) -> Iterator[tuple[str, str]]:
        """(shown, resolved) path of each image under `root`; each folder once, so that links in a circle end."""
        seen: set[str] = set()
        stack = [(root, os.path.realpath(root))]
        while stack:
            folder, real = stack.pop()
            if real in seen:
                continue
            seen.add(real)
            self._watch(folder)
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
            except OSError as error:
                self.notes.append(f"the folder {folder} was passed over: {error.strerror}")
                self.keepable = False  # a permission that is granted changes no time
                continue
            if folder != root and (made := whose(entry.name for entry in entries)):
                self.notes.append(f"the folder {folder} was passed over: {made}")
                continue
            below = []
            shown_at, real_at = folder.rstrip(os.sep) + os.sep, real.rstrip(os.sep) + os.sep
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                link = entry.is_symlink()
                if _is_folder(entry):
                    below.append((shown_at + name, os.path.realpath(entry.path) if link else real_at + name))
                elif is_read(name):
                    yield shown_at + name, os.path.realpath(entry.path) if link else real_at + name
                else:
                    self._pass_over(name)
            stack += sorted(below, reverse=True)

    def _watch(self, path: str) -> None:
        found = index_cache.stamp(path)
        if found is not None:
            self.watched[path] = found

    def passed_over(self) -> list[str]:
        """What is said of images whose suffix is not read."""
        if not self.formats:
            return []
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(self.formats.items()))
        return [f"passed over, for Ultralytics does not train on such files: {kinds} (convert them to use them)"]

    def _pass_over(self, name: str) -> None:
        self.other += 1
        self.example = min(self.example, name) if self.example else name
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix in PASSED_OVER:
            self.formats[suffix] += 1

    def _add_glob(self, pattern: str) -> None:
        self.keepable = False  # it depends on folders that Python's glob does not tell
        parts = pattern.split(os.sep)  # noqa: PTH206
        if "**" in parts:
            self._add_deep_glob(parts)
            return
        for path in glob.iglob(pattern):  # noqa: PTH207
            if os.path.isdir(path):  # noqa: PTH112
                self._add_folder(path)
            elif is_read(path):
                self._add_file(path)
            else:
                self._pass_over(os.path.basename(path))  # noqa: PTH119

    def _add_deep_glob(self, parts: list[str]) -> None:
        """A pattern with ``**``: by our own walk, for Python's follows links in a circle until the system stops it."""
        deep = parts.index("**")
        above = os.sep.join(parts[:deep]) or os.sep  # noqa: PTH118
        try:
            wanted = re.compile(expression(parts[deep:]), re.DOTALL)
        except re.error as error:
            raise UserError(f"the glob {os.sep.join(parts)} is not valid: {error}", where="data") from None  # noqa: PTH118
        for folder in filter(os.path.isdir, glob.iglob(above)):  # noqa: PTH207
            start = len(folder.rstrip(os.sep)) + 1
            for shown, resolved in self._walk(folder):
                if wanted.fullmatch(shown[start:].replace(os.sep, "/")):
                    self._keep(shown, resolved)

    def _add_list(self, file: Path) -> None:
        """One path a line, ``#`` for comments; a relative one is looked for beside the list."""
        self._watch(str(file))
        lines = [line for line in map(str.strip, text_of(file).split("\n")) if line and not line.startswith("#")]
        names = [line for line in lines if is_read(line) and "\0" not in line]
        if len(names) < len(lines):
            self.notes.append(f"lines of {file} that do not name an image: {len(lines) - len(names)}")
        beside, base = str(file.parent), str(base_of(file.parent, names))
        for name in names:
            self._add_file(absolute(os.path.join(beside if name.startswith("./") else base, name)))  # noqa: PTH118

    def _add_dataset(self, source: Source) -> None:
        """The train part of a dataset, less what val and test list too: they are for judging the outcome."""
        train, held_out = _Finder(), _Finder()
        for named in source.train:
            train.add(named)
        for named in source.held_out:
            held_out.add(named)
        kept = {resolved: shown for resolved, shown in train.found.items() if resolved not in held_out.found}
        left_out = len(train.found) - len(kept)
        if left_out:
            shares = f"{left_out} of {len(train.found)} images of train in {source.path}"
            self.notes.append(f"{shares} are also in val or test, and were left out")
        for part in (train, held_out):
            self.watched |= part.watched
            self.keepable &= part.keepable
        if train.videos:
            what = f"{len(train.videos)} videos in train of {source.path}, such as {min(train.videos.values())}"
            self.notes.append(f"{what}, were passed over: frames have no labels (data= takes videos by themselves)")
        self.notes += train.notes
        self.left_out += left_out
        self.other += train.other
        self.formats += train.formats
        self.example = self.example or train.example
        for resolved, shown in kept.items():
            self._keep(shown, resolved)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
