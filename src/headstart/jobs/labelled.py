"""The labels that a user gives for some of the images, and the images themselves by their rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile

import torch

from headstart import ranks
from headstart.errors import UserError, few
from headstart.images.dataset_yaml import dataset_of
from headstart.images.decode import DecodeError, read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import Survey, expected, is_there, keypoints_for, label_path, read_labels, survey
from headstart.images.loader import ImageLoader, PixelBatch
from headstart.images.members import is_address, split
from headstart.images.readers import DeviceReader, FileReader, Reader
from headstart.images.resolved import Resolver
from headstart.images.shards import fetch_ahead
from headstart.images.stream import Stream
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labeller import TOGETHER
from headstart.run.folder import RunFolder

LOOKED_AT = 32
"""Images with labels that are decoded before a run begins, to see whether they can be."""
_SMALL = 64 * 64
"""Pixels that they are scaled down to: of a large JPEG most is then left out in decoding."""


def given_labels(labels: str, images: ImageIndex, task: str = "detect") -> tuple[GivenLabels, tuple[str, ...]]:
    """The labels of the images of a dataset's train part, by their rows in the index, and what cannot be used of them.

    Args:
        labels: The dataset YAML.
        images: The run's images, those of the dataset among them.
        task: Of the detector that learns from them.

    Raises:
        UserError: No image has an object, or none that has can be read.
    """
    dataset, resolved = dataset_of(labels), Resolver()
    names, keypoints = dataset.class_names(), keypoints_for(task, dataset.keypoints())
    row_of = {resolved(path): row for row, path in enumerate(images)}
    train = find_images([], labels=str(dataset.file))
    row_by = {path: row_of[real] for path in train if (real := resolved(path)) in row_of}
    known = survey(row_by, len(names), keypoints)
    rows, owners, boxes, classes, beyond = [], [], [], [], ""
    for path in known.classes:
        row = row_by[path]
        rows.append(row)
        read = read_labels(label_path(path), len(names), keypoints)
        for one in read.rows:
            owners.append(row)
            boxes.append(one.box)
            classes.append(one.label)
        if read.poses or any(one.points for one in read.rows):
            beyond = "keypoints" if keypoints else "polygons"
    if not boxes:
        hint = expected(next(iter(row_by))) if row_by else "look at its train part"
        raise UserError("none of the labelled images has an object", where=str(dataset.file), hint=hint)
    gathered = PseudoLabels.gather(
        len(images), torch.tensor(owners), torch.tensor(boxes), torch.ones(len(boxes)), torch.tensor(classes)
    )
    empty = len(rows) - len(set(owners))
    lines = [
        f"{len(rows):,} labelled images ({len(boxes):,} boxes, {len(names)} classes; {empty:,} show no object), "
        f"{len(images) - len(rows):,} without labels",
        *_not_shown(names, set(classes)),
        *unread([path for path, objects in known.objects.items() if objects], str(dataset.file), images.channels),
        *_passed_over(known),
    ]
    return GivenLabels(names, torch.tensor(sorted(rows)), gathered, beyond), tuple(lines)


def _not_shown(names: Sequence[str], classes: set[int]) -> list[str]:
    missing = [name for at, name in enumerate(names) if at not in classes]
    if not missing:
        return []
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return [f"no labelled image shows {shown}: nothing can be learnt of {'it' if len(missing) == 1 else 'them'}"]


def unread(images: Sequence[str], where: str, channels: int = 3) -> list[str]:
    """What is said of images with labelled objects that cannot be read: others would come in their place, unlabelled.

    Whether they are there is looked at of all, whether they can be decoded of `LOOKED_AT`, spread over them; of more
    where none of these can.

    Args:
        images: Those that show labelled objects.
        where: What names them.
        channels: As the images are read.

    Raises:
        UserError: None of them can be read. A run would learn none of the classes, and look healthy.
    """
    lost = [path for path in images if not _may_be_there(path)]
    there = [path for path in images if _may_be_there(path)] if lost else list(images)
    step = max(1, -(-len(there) // LOOKED_AT))
    first = there[::step]
    fetch_ahead(first)
    bad = _undecoded(first, channels)
    if len(bad) == len(first):  # all of them, or a part that is not like the others
        rest = (path for at, path in enumerate(there) if at % step)
        more = list(takewhile(lambda one: one is not None, (_reason(path, channels) for path in rest)))
        if len(more) == len(there) - len(first):
            some = [(path, "no such file") for path in lost] + bad
            what = f"none of the {len(images):,} images with labelled objects can be read"
            hint = "bring the images themselves here (git lfs pull, dvc pull), or mend what train names"
            raise UserError(f"{what}: {few([f'{path}: {why}' for path, why in some])}", where=where, hint=hint)
    lines = []
    if lost:
        lines.append(
            f"{len(lost):,} of {len(images):,} images with labelled objects are not there, such as {lost[0]}: "
            "nothing is learnt of their labels"
        )
    if bad:
        looked = "" if step == 1 else " that were looked at"
        lines.append(
            f"{len(bad):,} of {len(first):,} images with labelled objects{looked} cannot be read, such as {bad[0][0]} "
            f"({bad[0][1]}): nothing is learnt of their labels"
        )
    return lines


def _may_be_there(path: str) -> bool:
    """Whether a file is there; members of shards stand in their table, and addresses are not asked one by one."""
    return split(path) is not None or is_address(path) or os.path.exists(path)  # noqa: PTH110 - of many


def _undecoded(images: Sequence[str], channels: int) -> list[tuple[str, str]]:
    return [(path, why) for path in images if (why := _reason(path, channels)) is not None]


def _reason(path: str, channels: int) -> str | None:
    """Why an image cannot be read; None where it can."""
    try:
        read_image(path, _SMALL, channels=channels)
    except DecodeError as error:
        return error.reason
    return None


def _passed_over(known: Survey) -> list[str]:
    """What is not learnt from as its user may think: label files with errors, and those that are not there."""
    lines = list(known.notes)
    if known.dropped:
        lines.append(
            f"{len(known.dropped):,} images whose label files have errors are used without labels: the teacher labels "
            "them, for export_labels= too; mend the files and begin anew to have yours learnt"
        )
    without = [path for path, objects in known.objects.items() if not objects and not is_there(label_path(path))]
    if len(without) > len(known.objects) / 2:
        lines.append(
            f"{len(without):,} of {len(known.objects):,} images of train have no label file, and are taught as images "
            "that show nothing, as a trainer does: where they are not labelled yet, leave them out of train (a .txt "
            "with the paths of those that are labelled)"
        )
    return lines


class _Once(Stream):
    """Some rows, each once; in the place of what cannot be read another one comes, which has a place of its own."""

    def __init__(self, rows: Sequence[int], batch: int, images: int) -> None:
        super().__init__(len(rows), batch, 0)
        self._rows, self._all = list(rows), range(images)

    def rows(self, step: int) -> list[int]:
        return self._rows[step * self.batch : (step + 1) * self.batch]

    def spares(self, step: int, kind: int = 0) -> Iterator[int]:
        return chain(self._rows[(step + 1) * self.batch :], self._rows, self._all)


@dataclass
class RowReader:
    """Brings the images at some rows, each once.

    Attributes:
        images: The index.
        workers: Processes that read.
        reader: Of the training's own cache, once it is open.
        area: Pixels to which images in that cache are scaled down at most.
        skipped: Path of each image that could not be read, and why.
        noted: Path of each that was read in a way worth knowing, and what was done.
        progress: Called with the number of images that were brought, and of all that were asked for.
        together: Images of a batch at most.
    """

    images: ImageIndex
    workers: int
    reader: Reader | None = None
    area: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    noted: list[tuple[str, str]] = field(default_factory=list)
    progress: Callable[[int, int], None] | None = None
    together: int = TOGETHER

    def __call__(self, rows: Sequence[int], area: int) -> Iterable[PixelBatch]:
        """Batches of them; see `headstart.methods.base.Context.read`."""
        batch = min(TOGETHER, self.together, max(1, len(rows)))
        kept = self.reader is not None and area <= self.area
        with ImageLoader(
            self.images,
            batch=batch,
            max_area=area,
            # What lies on a device is read here: another process could not take it up.
            workers=0 if kept and isinstance(self.reader, DeviceReader) else self.workers,
            seed=0,
            steps=-(-len(rows) // batch),
            reader=self.reader if kept else FileReader(self.images, area),
            stream=_Once(rows, batch, len(self.images)),
        ) as loader:
            for step, one in enumerate(loader):
                self.skipped += one.skipped
                self.noted += one.notes
                asked = rows[step * batch : (step + 1) * batch]
                if self.progress:
                    self.progress(step * batch + len(asked), len(rows))
                pairs = zip(one.indices.tolist(), asked, strict=True)
                if places := [at for at, (row, wanted) in enumerate(pairs) if row == wanted]:
                    parts = one.pixels[places], one.sizes[places], one.indices[places]
                    yield PixelBatch(*parts, one.skipped, one.notes)

    def tell(self, folder: RunFolder) -> None:
        """List what was found on the way in the run's folder; all processes of a run together."""
        for skipped, noted in ranks.of_all((self.skipped, self.noted)):
            folder.skip(skipped)
            folder.note(noted)
        self.skipped, self.noted = [], []
