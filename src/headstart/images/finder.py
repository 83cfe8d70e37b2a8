"""Collects the images, videos and shards that sources name, and what each kind of source means."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from headstart.errors import UserError
from headstart.images import index_cache
from headstart.images.braces import named_by
from headstart.images.dataset_yaml import datasets_in
from headstart.images.frames import is_video_name
from headstart.images.globs import expression
from headstart.images.lists import base_of, text_of
from headstart.images.members import is_address, is_compressed_name, is_shard_name, split
from headstart.images.outputs import whose
from headstart.images.resolved import Resolver
from headstart.images.sources import PASSED_OVER, SUFFIXES, Source, absolute, is_read


class Finder:
    """Collects images from sources.

    Attributes:
        found: Shown path of each image by its resolved path, which tells duplicates.
        videos: Likewise of each video.
        shards: Likewise of each shard.
        notes: What was passed over, in sentences.
        other: Number of files passed over for their suffix; `example` is one of them.
        formats: How many of them are images of a format that is not read, by suffix.
        watched: Folders and lists that the outcome depends on, as they were before they were read.
        keepable: Whether these are all that it depends on.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.videos: dict[str, str] = {}
        self.shards: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out = 0
        self.other = 0
        self.example = ""
        self.formats: Counter[str] = Counter()
        self.compressed: list[str] = []
        self.watched: dict[str, index_cache.Stamp] = {}
        self.keepable = True
        self._resolved = Resolver()

    def add(self, source: Source) -> None:
        """Collect what a source names."""
        adders: dict[str, Callable[[Source], None]] = {
            "folder": lambda s: self._add_folder(s.path),
            "shard": lambda s: self._add_file(s.path),
            "address": lambda s: self._add_address(s.path),
            "image": lambda s: self._add_file(s.path),
            "video": lambda s: self._add_file(s.path),
            "list": lambda s: self._add_list(Path(s.path)),
            "glob": lambda s: self._add_glob(s.path),
            "dataset": self._add_dataset,
        }
        adders[source.kind](source)

    def known_by_shards(self) -> list[str]:
        """The images found; those in a shard that was found whole as well by the name that this has.

        A list, or a dataset beside it, may reach the shard by another way: its members are there once all the same.
        """
        if not self.shards:
            return list(self.found.values())
        return [self._within_shard(resolved) or shown for resolved, shown in self.found.items()]

    def _within_shard(self, resolved: str) -> str:
        member = split(resolved)
        shard = self.shards.get(member.shard) if member else None
        return f"{shard}/{member.name}" if member and shard else ""

    def nothing(self, names: Sequence[str], skipped: Sequence[tuple[str, str]], told: Sequence[str] = ()) -> UserError:
        """The error for having found no image at all, nor a video or a shard that can be read.

        Args:
            names: The sources.
            skipped: Videos and shards that cannot be used, or parts of them.
            told: What is said of the shards.
        """
        what = f"no images found in {', '.join(names)}"
        if skipped:
            kind, hint = "videos", "look whether a player shows them"
            if self.shards:
                kind, hint = "shards or their members", "list them (tar -tf, unzip -l), and make or copy them anew"
            what += f": {len(skipped)} {kind} cannot be read, such as {skipped[0][0]} ({skipped[0][1]})"
            return UserError(what, where="data", hint=hint)
        if self.left_out:
            what += f": all {self.left_out} images of train are also in val or test"
            return UserError(what, where="data", hint="to pretrain on them all the same, give their folder as data")
        if self.other:
            what += f": {self.other} other file{'s' * (self.other > 1)}, such as {self.example}"
        if notes := [*self.notes, *told]:
            what += f" ({'; '.join(notes)})"
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        hint = f"looked for {kinds}, videos and shards (tar, zip) in any case; hidden files are passed over"
        return UserError(what, where="data", hint=hint)

    def _keep(self, shown: str, resolved: str) -> None:
        shard = is_shard_name(shown)
        kept = self.shards if shard else self.videos if is_video_name(shown) else self.found
        known = kept.get(resolved)
        kept[resolved] = shown if known is None else min(known, shown)
        if kept is not self.found and not is_address(shown):  # another one in its place has other frames, or members
            self._watch(shown)

    def _keep_all(self, found: Iterable[tuple[str, str]], where: str) -> None:
        """What one source names, of which shards count where nothing else is there: as a rule they hold the same."""
        shards, others = list[tuple[str, str]](), 0
        for shown, resolved in found:
            if is_shard_name(shown):
                shards.append((shown, resolved))
            else:
                self._keep(shown, resolved)
                others += 1
        if shards and others:
            said = f"{len(shards):,} tar or zip files beside the images in {where}, such as {min(shards)[0]}"
            self.notes.append(f"{said}, were passed over: name them as data= to use them too")
            return
        for shown, resolved in shards:
            self._keep(shown, resolved)

    def _add_folder(self, folder: str) -> None:
        self._keep_all(self._walk(folder), folder)
        held_out = next((one for one in datasets_in(Path(folder)) if {"val", "test"} & one.parts.keys()), None)
        if held_out:
            said = f"{folder} is used whole, with the val and test images that {held_out.file.name} in it names"
            self.notes.append(f"{said}: data={held_out.file} leaves them out, so that they can judge the outcome")

    def _add_address(self, address: str) -> None:
        """Shards of a folder or glob at an address, which is asked each time."""
        from headstart.images import remote  # fsspec: for those who have addresses

        self.keepable = False
        for name in remote.listed(address):
            if is_shard_name(name):
                self._add_file(name)
            else:
                self._pass_over(name.rpartition("/")[2])

    def _add_file(self, path: str) -> None:
        """A file by its name, or a member of a shard; it need not exist."""
        self._keep(path, self._resolved(path))

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
                elif is_read(name) or is_shard_name(name):
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
        said = []
        if self.formats:
            kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(self.formats.items()))
            said.append(
                f"passed over, for Ultralytics does not train on such files: {kinds} (convert them to use them)"
            )
        if self.compressed:
            what = f"{len(self.compressed):,} compressed tars, such as {min(self.compressed)}"
            said.append(f"{what}, were passed over: their members cannot be read one by one (unpack them with gunzip)")
        return said

    def _pass_over(self, name: str) -> None:
        self.other += 1
        self.example = min(self.example, name) if self.example else name
        if is_compressed_name(name):
            self.compressed.append(name)
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix in PASSED_OVER:
            self.formats[suffix] += 1

    def _add_glob(self, pattern: str) -> None:
        self.keepable = False  # it depends on folders that Python's glob does not tell
        parts = pattern.split(os.sep)  # noqa: PTH206
        if "**" in parts:
            self._add_deep_glob(parts)
            return
        files = []
        for path in glob.iglob(pattern):  # noqa: PTH207
            if os.path.isdir(path):  # noqa: PTH112
                self._add_folder(path)
            elif is_read(path) or is_shard_name(path):
                files.append(path)
            else:
                self._pass_over(os.path.basename(path))  # noqa: PTH119
        self._keep_all(((path, self._resolved(path)) for path in files), pattern)

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
            found = [one for one in self._walk(folder) if wanted.fullmatch(one[0][start:].replace(os.sep, "/"))]
            self._keep_all(found, os.sep.join(parts))  # noqa: PTH118

    def _add_list(self, file: Path) -> None:
        """One path a line, ``#`` for comments; a relative one is looked for beside the list."""
        self._watch(str(file))
        lines = [line for line in map(str.strip, text_of(file).split("\n")) if line and not line.startswith("#")]
        names = [line for line in lines if (is_read(line) or is_shard_name(line)) and "\0" not in line]
        if len(names) < len(lines):
            self.notes.append(f"lines of {file} that do not name an image: {len(lines) - len(names)}")
        beside, base = str(file.parent), str(base_of(file.parent, names))
        for name in (one for line in names for one in (named_by(line) if is_shard_name(line) else [line])):
            below = beside if name.startswith("./") else base
            self._add_file(name if is_address(name) else absolute(os.path.join(below, name)))  # noqa: PTH118

    def _add_dataset(self, source: Source) -> None:
        """The train part of a dataset, less what val and test list too: they are for judging the outcome."""
        train, held_out = Finder(), Finder()
        for named in source.train:
            train.add(named)
        for named in source.held_out:
            held_out.add(named)
        kept, shards = _less(train.found, held_out.found), _less(train.shards, held_out.shards)
        every = len(train.found)
        for resolved in shards.keys() & {member.shard for one in held_out.found if (member := split(one))}:
            members = _members(resolved, shards.pop(resolved))
            every += len(members)
            kept |= _less(members, held_out.found)
        kept = {one: kept[one] for one in kept if (member := split(one)) is None or member.shard not in held_out.shards}
        left_out = every - len(kept)
        if source.labels and not (kept or shards) and (train.found or train.shards):
            # As in coco128.yaml. Who names a YAML for its labels wants these, and there are no others in it.
            kept, shards, left_out = train.found, train.shards, 0
            what = f"all images of train in {source.path} are also in val or test, and are learnt from all the same"
            self.notes.append(f"{what}: what is measured on val or test then says nothing of new images")
        if left_out:
            shares = f"{left_out} of {every} images of train in {source.path}"
            self.notes.append(f"{shares} are also in val or test, and were left out")
        for part in (train, held_out):
            self.watched |= part.watched
            self.keepable &= part.keepable
        if train.videos:
            what = f"{len(train.videos)} videos in train of {source.path}, such as {min(train.videos.values())}"
            self.notes.append(f"{what}, were passed over: frames have no labels (data= takes videos by themselves)")
        self.notes += train.notes
        self.compressed += train.compressed
        self.left_out += left_out
        self.other += train.other
        self.formats += train.formats
        self.example = self.example or train.example
        for resolved, shown in (kept | shards).items():
            self._keep(shown, resolved)


def _less(some: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    return {resolved: shown for resolved, shown in some.items() if resolved not in others}


def _members(resolved: str, shown: str) -> dict[str, str]:
    """The images of a shard, one by one; of one that cannot be read the shard itself, which is said later."""
    from headstart.images import listing  # OpenCV: for those who have shards

    return {f"{resolved}/{name}": f"{shown}/{name}" for name in listing.images_of(shown)} or {resolved: shown}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
