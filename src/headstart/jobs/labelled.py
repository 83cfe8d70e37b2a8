"""The labels that a user gives for some of the images, and the images themselves by their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch

from headstart.errors import UserError
from headstart.images.dataset_yaml import dataset_of
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import Survey, expected, is_there, keypoints_for, label_path, read_labels, survey
from headstart.images.loader import ImageLoader, PixelBatch
from headstart.images.readers import DeviceReader, FileReader, Reader
from headstart.images.stream import Stream
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labeller import TOGETHER


def given_labels(labels: str, images: ImageIndex, task: str = "detect") -> tuple[GivenLabels, tuple[str, ...]]:
    """The labels of the images of a dataset's train part, by their rows in the index, and what cannot be used of them.

    Args:
        labels: The dataset YAML.
        images: The run's images, those of the dataset among them.
        task: Of the detector that learns from them.

    Raises:
        UserError: No image has an object.
    """
    dataset = dataset_of(labels)
    names, keypoints = dataset.class_names(), keypoints_for(task, dataset.keypoints())
    row_of = {str(Path(path).resolve()): row for row, path in enumerate(images)}
    wanted = [path for path in find_images([], labels=str(dataset.file)) if str(Path(path).resolve()) in row_of]
    known = survey(wanted, len(names), keypoints)
    rows, owners, boxes, classes, beyond = [], [], [], [], ""
    for path in known.classes:
        row = row_of[str(Path(path).resolve())]
        rows.append(row)
        read = read_labels(label_path(path), len(names), keypoints)
        for one in read.rows:
            owners.append(row)
            boxes.append(one.box)
            classes.append(one.label)
        if read.poses or any(one.points for one in read.rows):
            beyond = "keypoints" if keypoints else "polygons"
    if not boxes:
        hint = expected(wanted[0]) if wanted else "look at its train part"
        raise UserError("none of the labelled images has an object", where=str(dataset.file), hint=hint)
    gathered = PseudoLabels.gather(
        len(images), torch.tensor(owners), torch.tensor(boxes), torch.ones(len(boxes)), torch.tensor(classes)
    )
    missing = [name for at, name in enumerate(names) if at not in set(classes)]
    empty = len(rows) - len(set(owners))
    lines = [
        f"{len(rows):,} labelled images ({len(boxes):,} boxes, {len(names)} classes; {empty:,} show no object), "
        f"{len(images) - len(rows):,} without labels"
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        lines.append(
            f"no labelled image shows {shown}: nothing can be learnt of {'it' if len(missing) == 1 else 'them'}"
        )
    lines += _passed_over(known)
    return GivenLabels(names, torch.tensor(sorted(rows)), gathered, beyond), tuple(lines)


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
        progress: Called with the number of images that were brought, and of all that were asked for.
    """

    images: ImageIndex
    workers: int
    reader: Reader | None = None
    area: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    progress: Callable[[int, int], None] | None = None

    def __call__(self, rows: Sequence[int], area: int) -> Iterable[PixelBatch]:
        """Batches of them; see `headstart.methods.base.Context.read`."""
        batch = min(TOGETHER, max(1, len(rows)))
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
                asked = rows[step * batch : (step + 1) * batch]
                if self.progress:
                    self.progress(step * batch + len(asked), len(rows))
                pairs = zip(one.indices.tolist(), asked, strict=True)
                if places := [at for at, (row, wanted) in enumerate(pairs) if row == wanted]:
                    yield PixelBatch(one.pixels[places], one.sizes[places], one.indices[places], one.skipped)
