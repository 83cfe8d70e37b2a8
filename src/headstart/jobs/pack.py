"""Images in a few large tar files: ``headstart pack``.

The shards have WebDataset's form: the files of one sample stand one after the other and share their name up to its
first dot. They are numbered in the order of the index, so that a run from them is, bit by bit, the one from the files.
The same images give the same bytes. A shard is written beside its place and then put there; stopped on the way, the
same command goes on with the first shard that is not there.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import tarfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from headstart.errors import UserError
from headstart.files import explained, lock, sweep_unfinished, write_atomically, write_text
from headstart.images import catalog, decode, shards
from headstart.images.cache import gigabytes
from headstart.images.catalog import BESIDE
from headstart.images.frames import parse, saved_name
from headstart.images.headers import DecodeError
from headstart.images.index import ImageIndex, find_images
from headstart.images.judges import without_judges
from headstart.jobs.csv_files import write_csv
from headstart.jobs.pack_folder import (
    CLASSES,
    DATASET,
    REMARK,
    SKIPPED,
    STATE,
    TRAIN,
    begun,
    clear,
    of_an_end,
    refuse_within,
)
from headstart.jobs.pack_labels import Labelled, mark_of
from headstart.paths import expanded
from headstart.run.display import Filling
from headstart.settings.tools import PackSettings

FORMAT = 1
SMALLEST = 100_000
"""Bytes of a shard at least: each is a file to open, and a table to read."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)
_STEM = 60
"""Characters of an image's own name that its name in a shard keeps."""
_HEADS = 2048
"""Bytes that a member may take beside its own."""
_END = 10_240
"""Bytes that a tar may take for its end."""


@dataclass
class Packed:
    """What was written.

    Attributes:
        folder: Where.
        shards: Name of each shard -> how many images it has.
        bytes: Of all shards.
        labels: Images with labels.
        skipped: Path of each image that could not be read, and why.
        classes: Names of the classes, where there are labels.
        kept: Shards that an earlier call, which was stopped, has written.
        notes: What is worth knowing, in sentences.
    """

    folder: Path
    shards: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    labels: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    kept: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The same in words."""
        images = sum(self.shards.values())
        kept = f", {self.kept} of them there already" if self.kept else ""
        said = [*self.notes, f"{self.folder}: {images:,} images in {len(self.shards):,} shards{kept}"]
        said[-1] += f", {gigabytes(self.bytes)}"
        if self.labels:
            said.append(f"{self.labels:,} images have labels beside them, of {len(self.classes):,} classes ({CLASSES})")
        if self.skipped:
            said.append(f"{self.folder / SKIPPED}: {len(self.skipped):,} images could not be read")
        said.append(f"use them: headstart pretrain data={shlex.quote(str(self.folder))}")
        if self.labels:
            said.append(f"with their labels: method=selftrain labels={shlex.quote(str(self.folder / DATASET))}")
        first, last = next(iter(self.shards), ""), next(reversed(self.shards), "")
        braces = f"{{{first[:-4]}..{last[:-4]}}}.tar" if len(self.shards) > 1 else first
        said.append(f"from elsewhere: copy the folder there, and data='s3://BUCKET/FOLDER/{braces}'")
        return said


def pack(s: PackSettings) -> Packed:
    """Write images, and labels that they have, as shards.

    Raises:
        UserError: There is no image, the folder is not free, or it cannot be written.
    """
    size = bytes_of_size(s.shard_size)
    images = find_images(s.data, labels=s.labels or None, every=s.every)
    labelled = Labelled(s)
    for dataset in labelled.files:  # from shards nobody can tell val and test any more
        images = without_judges(images, s.data, dataset)
    folder = expanded(s.out).absolute()
    refuse_within(images, folder)
    plan = {"format": FORMAT, "images": images.fingerprint(), "shard_size": size, **labelled.plan()}
    state = begun(folder, plan, overwrite=s.overwrite)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder)
    try:
        if state is None:
            clear(folder)
            state = {**plan, "finished": False, "shards": [], "marks": [], "skipped": []}
        sweep_unfinished(folder)
        return _Packing(folder, images, labelled, size, state).run()
    finally:
        held.release()


def bytes_of_size(text: str) -> int:
    """Bytes of ``1GB``, ``500 MB``, ``2GiB`` or a plain number.

    Raises:
        UserError: It is none, or too few.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UserError(f"is not a size: {text!r}", where="shard_size", hint="such as 500MB, 1GB or 2GiB")
    number, power, binary = float(found[1]), "kmgt".find(found[2].lower()) + 1 if found[2] else 0, bool(found[3])
    size = int(number * (1024 if binary else 1000) ** power)
    if size < SMALLEST:
        raise UserError(f"must be {SMALLEST // 1000} kB at least, not {text}", where="shard_size")
    return size


# ---------------------------------------------------------------------------------------------------------------------
# What is packed
# ---------------------------------------------------------------------------------------------------------------------


class _Packing:
    """Writes the shards that are not there yet, and what belongs to them."""

    def __init__(self, folder: Path, images: ImageIndex, labelled: Labelled, size: int, state: dict[str, Any]) -> None:
        self.folder, self.images, self.labelled, self.size, self.state = folder, images, labelled, size, state
        self.made = Packed(folder, classes=labelled.names, kept=len(state["shards"]), notes=list(images.notes))
        self.progress: Filling
        self._last: tuple[int, list[tuple[str, bytes]]] = -1, []

    def run(self) -> Packed:
        """All that is left to do."""
        if self.labelled.files:
            self._leave_relabelled()
        row = self.state["shards"][-1][2] if self.state["shards"] else 0
        self._forget_skipped(row)
        write_text(self.folder / STATE, json.dumps(self.state) + "\n")
        with Filling(label="packing images") as self.progress:
            while row < len(self.images):
                row = self._shard(row)
        self._ending()
        return self.made

    def _leave_relabelled(self) -> None:
        """Keep the shards before the first whose labels are no longer those that lie beside the images."""
        shards, left_out = self.state["shards"], {path for path, _ in self.state["skipped"]}
        ends = [0, *(end for _, _, end, *_ in shards)]
        for at, (begin, end) in enumerate(pairwise(ends)):
            paths = [path for path in map(self.images.path, range(begin, end)) if path not in left_out]
            if mark_of(map(self.labelled.found, paths)) != self.state["marks"][at]:
                self.made.notes.append(f"labels have changed: shards from {shards[at][0]} on were written anew")
                self.made.kept, shards[at:], self.state["marks"][at:] = at, [], []
                return

    def _forget_skipped(self, row: int) -> None:
        """Of what could not be read keep what comes before `row`, with the shards that are kept: all else is read."""
        if skipped := dict(self.state["skipped"]):
            before = filter(skipped.__contains__, map(self.images.path, range(row)))
            self.state["skipped"] = [(path, skipped[path]) for path in before]

    def _shard(self, row: int) -> int:
        """Write one shard from image `row` on; the row of the first image that is not in it."""
        name = f"{len(self.state['shards']):06d}.tar"
        done = {"images": 0, "labels": 0, "row": row}
        skipped: list[tuple[str, str]] = []
        texts: list[bytes | None] = []

        def write(temporary: Path) -> None:
            with (
                temporary.open("wb") as stream,
                tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file,
            ):
                while done["row"] < len(self.images):
                    files = self._sample(done["row"], skipped)
                    room = self.size - stream.tell() - _END
                    if files and done["images"] and sum(_HEADS + len(data) for _, data in files) > room:
                        return
                    for at, (member, data) in enumerate(files):
                        file.addfile(_about(member, len(data)), io.BytesIO(data))
                        done["labels" if at else "images"] += 1
                    if files:
                        texts.append(files[1][1] if len(files) > 1 else None)
                    done["row"] += 1
                    self.progress(done["row"], len(self.images))

        write_atomically(self.folder / name, write)
        self._write_table(self.folder / name)
        size = (self.folder / name).stat().st_size
        self.state["shards"].append([name, done["images"], done["row"], done["labels"], size])
        self.state["marks"].append(mark_of(texts))
        self.state["skipped"] += skipped
        write_text(self.folder / STATE, json.dumps(self.state) + "\n")
        return done["row"]

    def _sample(self, row: int, skipped: list[tuple[str, str]]) -> list[tuple[str, bytes]]:
        """Name and bytes of an image and its labels; nothing where it cannot be read."""
        if self._last[0] != row:  # one that did not fit into a shard is the first of the next
            self._last = row, self._read(row, skipped)
        return self._last[1]

    def _read(self, row: int, skipped: list[tuple[str, str]]) -> list[tuple[str, bytes]]:
        path = self.images.path(row)
        key, suffix = _key(row, path)
        try:
            if parse(path) is not None:
                from headstart.images.video import as_jpeg  # OpenCV: for those who have videos

                return [(f"{key}.jpg", as_jpeg(path))]
            files = [(f"{key}{suffix}", decode.bytes_of(path))]
            if (labels := self.labelled.of(path)) is not None:
                files.append((f"{key}.txt", labels))
        except DecodeError as error:
            skipped.append((path, error.reason))
            return []
        return files

    def _write_table(self, path: Path) -> None:
        """The table of a shard beside it: at an address it is read in place of the headers."""
        table = shards.table_of(str(path), names=True)
        catalog.forget(table)
        table.stamp = table.stamp._replace(st_mtime_ns=0)  # the same for the same images
        table.write(path.with_name(path.name + BESIDE))

    def _ending(self) -> None:
        made = self.made
        made.shards = {name: images for name, images, *_ in self.state["shards"]}
        made.labels = sum(labels for _, _, _, labels, _ in self.state["shards"])
        made.skipped = list(dict.fromkeys([*self.images.skipped, *self.state["skipped"]]))
        made.bytes = sum(size for *_, size in self.state["shards"])
        if not sum(made.shards.values()):
            clear(self.folder)  # or the same command would not look at them again
            raise UserError("no image can be read of those that are there", where="data", hint="look at the files")
        for path in of_an_end(self.folder):  # of an earlier call, which may have found other files
            path.unlink(missing_ok=True)
        if made.classes:
            lines = "".join(f"{' '.join(name.split())}\n" for name in made.classes)
            write_text(self.folder / CLASSES, lines)
            train = self._train()
            if train is not None:
                write_text(self.folder / TRAIN, REMARK + "".join(f"./{member}\n" for member in train))
            write_text(self.folder / DATASET, self._dataset(list(made.shards) if train is None else TRAIN))
        if made.skipped:
            write_csv(self.folder / SKIPPED, ["path", "reason"], made.skipped)
        write_text(self.folder / STATE, json.dumps({**self.state, "finished": True}) + "\n")

    def _train(self) -> list[str] | None:
        """The members that are labelled images; None where all are.

        An image without a label file is one that shows nothing where it is of train, and an image without labels where
        it is not: in the shards both look alike.
        """
        bad, begin, train = {path for path, _ in self.state["skipped"]}, 0, list[str]()
        for shard, _, end, *_ in self.state["shards"]:
            for row in range(begin, end):
                path = self.images.path(row)
                if path not in bad and self.labelled.names_image(path):
                    train.append(f"{shard}/{''.join(_key(row, path))}")
            begin = end
        return train if len(train) < sum(self.made.shards.values()) else None

    def _dataset(self, train: str | list[str]) -> str:
        """``data.yaml`` for ``labels=`` of headstart; it names no ``path``, so that the folder may be moved."""
        content: dict[str, Any] = {"train": train, "names": dict(enumerate(self.made.classes))}
        content |= {"channels": self.images.channels} if self.images.channels != 3 else {}
        content |= {"kpt_shape": list(self.labelled.keypoints)} if self.labelled.keypoints else {}
        return REMARK + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _key(row: int, path: str) -> tuple[str, str]:
    """What the members of an image share in their names, and the suffix of the image itself."""
    stem, suffix = os.path.splitext(saved_name(path))  # noqa: PTH122
    return f"{row:09d}-{_plain(stem)}", suffix


def _plain(stem: str) -> str:
    """A name without dots, which would end the key of its sample, and without what is no text."""
    return re.sub(r"[^\w\- ]", "_", stem.encode("utf-8", "replace").decode())[:_STEM]


def _about(name: str, size: int) -> tarfile.TarInfo:
    """The header of a member: of no time and no owner, so that the same images give the same bytes."""
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o644
    return found
