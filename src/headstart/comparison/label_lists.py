"""Which labelled images a cell may use: nested subsets, stratified by class, one order a seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.comparison.dataset import Dataset
from headstart.comparison.used_records import CountFacts, UsedFacts
from headstart.errors import UserError
from headstart.files import content_hash, write_text
from headstart.images.labels import label_path
from headstart.images.shards import size_of

LEAST = 10
"""Labelled images below which no part is split off to choose a learning rate on."""


@dataclass(frozen=True)
class LabelList:
    """The labelled images of one budget and seed.

    Attributes:
        file: A text file, one path a line.
        yaml: The dataset YAML whose ``train`` is this list, and whose ``val`` is what its trainings are measured on.
        labels: The dataset YAML that has this list alone, for a pretraining that uses labels.
        images: How many.
        test_images: How many its trainings are measured on.
        sha256: Of the file.
        test_sha256: Of the list of images that its trainings are measured on.
        annotations_sha256: Of what the label files of both lists hold: a corrected label makes it another training.
        own_annotations_sha256: Of what those of this list hold.
        content_sha256: Of how many bytes the images of both lists have, and of what else the dataset YAML says of them
            (names of the classes, keypoints): other images or names make it another training.
        meaning_sha256: Of the latter alone, which is what the numbers in the label files mean.
        counts: Images and objects of this list, and of what its trainings are measured on.
    """

    file: Path
    yaml: Path
    labels: Path
    images: int
    test_images: int
    sha256: str
    test_sha256: str
    annotations_sha256: str
    own_annotations_sha256: str
    content_sha256: str
    meaning_sha256: str
    counts: UsedFacts

    def check(self) -> None:
        """Raise a `UserError` where the file is no longer what it was: the starts would not get the same images."""
        if file_hash(self.file) != self.sha256:
            hint = "put the file back, or start again with overwrite=true"
            raise UserError("the list of labelled images was changed", where=str(self.file), hint=hint)


def label_marks(images: Iterable[str]) -> dict[str, str]:
    """A mark of what the label file of each image holds; "" for one without."""
    return {image: content_hash(str(label_path(image))) for image in images}


def image_sizes(images: Iterable[str]) -> dict[str, int]:
    """How many bytes each image has; -1 where that cannot be told."""
    return {image: size_of(image) for image in images}


def stratified_order(classes: Mapping[str, frozenset[int]], seed: int) -> list[str]:
    """All images in an order whose every beginning is stratified by class.

    Each image stands in the group of the rarest class that it shows; images without objects are a group. Within a
    group the order is drawn from `seed`. The k-th image (from 0) of a group of m has the place k / m: this is Adams'
    method of apportionment. So a beginning as long as there are groups has one image of each, and any longer one has
    the same share of every group, rounded up (among equals, where it ends, the order is drawn).

    Args:
        classes: Path of each image -> classes in it.
        seed: Draws the order within groups and among equals.
    """
    counts = Counter(label for found in classes.values() for label in found)
    groups: dict[int, list[str]] = defaultdict(list)
    for image in sorted(classes):
        groups[min(classes[image], key=lambda label: (counts[label], label), default=-1)].append(image)
    random = np.random.default_rng([seed, 4711])
    placed = []
    for label in sorted(groups):
        drawn = [groups[label][at] for at in random.permutation(len(groups[label]))]
        ties = random.random(len(drawn))
        placed += [(at / len(drawn), tie, image) for at, (tie, image) in enumerate(zip(ties, drawn, strict=True))]
    return [image for _, _, image in sorted(placed)]


def held_out_part(images: Sequence[str], classes: Mapping[str, frozenset[int]], share: float, seed: int) -> list[str]:
    """A stratified part of `images` to choose a learning rate on.

    Raises:
        UserError: There are too few images to give any away.
    """
    if len(images) < LEAST:
        what = f"{len(images)} labelled images are too few to choose a learning rate on a part of them"
        raise UserError(what, where="lr", hint="give one rate, e.g. lr=0.001")
    number = min(len(images) - 1, max(1, round(share * len(images))))  # one is left to learn from
    return stratified_order({image: classes[image] for image in images}, seed)[:number]


def write_list(
    folder: Path,
    name: str,
    dataset: Dataset,
    images: Sequence[str],
    test: Path,
    marks: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> LabelList:
    """Write a list and its dataset YAML into `folder`; the order in the file is that of the paths.

    Args:
        folder: Where to.
        name: Of the files.
        dataset: That the images are of.
        images: Paths.
        test: The list of the images to measure on.
        marks: `label_marks` of the images of both lists, where they have been read.
        sizes: `image_sizes` of them, likewise.
    """
    path, yaml, labels = folder / f"{name}.txt", folder / f"{name}.yaml", folder / f"{name}-labels.yaml"
    write_text(path, "".join(f"{image}\n" for image in sorted(images)))
    dataset.write_part(yaml, path.resolve(), test.resolve())
    dataset.write_part(labels, path.resolve())
    both = [*sorted(images), *test.read_text(encoding="utf-8").splitlines()]
    marks = label_marks(both) if marks is None else marks
    held, own = (
        hashlib.sha256("\n".join(marks[image] for image in some).encode()).hexdigest()
        for some in (both, both[: len(images)])
    )
    measured = len(both) - len(images)
    counts = UsedFacts(train=_counted(images, dataset), test=_counted(both[len(images) :], dataset))
    sizes = image_sizes(both) if sizes is None else sizes
    meaning = [list(dataset.names), dataset.others]
    about = (_hashed([[sizes[image] for image in both], *meaning]), _hashed(meaning))
    hashes = file_hash(path), file_hash(test), held, own, *about
    return LabelList(path, yaml, labels, len(images), measured, *hashes, counts)


def _hashed(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def _counted(images: Sequence[str], dataset: Dataset) -> CountFacts:
    objects = [dataset.objects.get(image, 0) for image in images]
    return CountFacts(images=len(images), labelled=sum(one > 0 for one in objects), objects=sum(objects))


def file_hash(path: Path) -> str:
    """sha256 of a file; "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
