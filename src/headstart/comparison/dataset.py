"""The user's dataset YAML: classes, the labelled pool and the test images, and which images are on both sides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart.detectors.finetuner import Finetuner
from headstart.errors import UserError, few
from headstart.images.dataset_yaml import DatasetYaml, find_dataset_yaml, meant_dataset, read_dataset_yaml
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import Keypoints, expected, keypoints_for, label_path, survey
from headstart.paths import located

_CARRIED = ("kpt_shape", "flip_idx", "kpt_names", "channels")


@dataclass(frozen=True)
class Dataset:
    """A labelled data set.

    Attributes:
        yaml: Its YAML.
        names: Class names, by index.
        pool: Paths of the labelled images that the budgets are cut from.
        test: Paths of the images that the figures are measured on.
        split: The part of the YAML that `test` is.
        others: What else the YAML says that a training needs (``kpt_shape`` ...).
        keypoints: Those that the labels hold; None for labels of other than poses.
        classes: Image of the pool -> classes of its objects.
        objects: Image of the pool or the test -> how many objects it has.
        notes: What of the label files cannot be used, and why: such images are in neither `pool` nor `test`.
    """

    yaml: Path
    names: tuple[str, ...]
    pool: tuple[str, ...]
    test: tuple[str, ...]
    split: str
    others: Mapping[str, Any]
    keypoints: Keypoints | None = None
    classes: Mapping[str, frozenset[int]] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write_part(self, path: Path, train: Path, test: Path | None = None) -> None:
        """Write a dataset YAML with the same classes whose ``train`` and, if given, ``val`` are lists of images."""
        parts = {"train": str(train)} | ({"val": str(test)} if test else {})
        content = {**parts, "names": dict(enumerate(self.names)), **self.others}
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_dataset(path: str | Path, split: str, trainer: Finetuner, model: str = "") -> Dataset:
    """Read a dataset YAML, find its images, and read their label files.

    A data set that says how is downloaded by the family of `trainer`, where its images are not there yet.

    Raises:
        UserError: It cannot be read, has no classes, or a part has no images or no labels; or its images are not of
            the kind that `model` takes, where that is given.
    """
    file = find_dataset_yaml(str(path))
    if file is None and (hint := meant_dataset(str(path))):
        raise UserError(f"{path} is no dataset YAML", where="data", hint=hint)
    found = read_dataset_yaml(located(file or path))
    if found.download and "train" in found.parts and not found.there("train"):
        trainer.fetch_dataset(found.file)
        found = read_dataset_yaml(found.file)
    if problems := trainer.data_problems(model, found.content) if model else []:
        raise UserError.several(problems)
    names = found.class_names()
    keypoints = keypoints_for("pose" if trainer.learns_keypoints(model) else "", found.keypoints())
    images = {part: _images(found, part) for part in ("train", split)}
    (pool, lost), (test, lost_test) = (_there(tuple(one), found, part, trainer) for part, one in images.items())
    if not any(label_path(image).is_file() for image in pool):
        raise UserError("train has no labels", where=str(found.file), hint=expected(pool[0]))
    trained = survey(pool, len(names), keypoints)
    tested = survey(test, len(names), keypoints)
    for part, one in (("train", trained), (split, tested)):
        if not one.classes:
            raise UserError(f"none of the label files of {part} can be used: {one.notes[0]}", where=str(found.file))
    told = (*images["train"].notes, *lost, *trained.notes), (*images[split].notes, *lost_test, *tested.notes)
    notes = [f"{part}: {note}" for part, some in zip(("train", split), told, strict=True) for note in some]
    others = {key: found.content[key] for key in _CARRIED if key in found.content}
    objects = {**trained.objects, **tested.objects}
    kept = tuple(trained.classes), tuple(tested.classes)
    return Dataset(found.file, names, *kept, split, others, keypoints, trained.classes, objects, tuple(notes))


def _there(
    images: Sequence[str], found: DatasetYaml, part: str, trainer: Finetuner
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The images that trainings can be given, and what is to be said of the others: a trainer would leave them out in
    silence, or end at them."""
    there: list[str] = []
    lost: list[str] = []
    unlisted: list[str] = []
    for image in images:
        kept = there if _listable(image) else unlisted
        (kept if os.path.exists(image) else lost).append(image)  # noqa: PTH110 - a Path for each costs more
    why = ("are not there", "have a name that cannot stand in a list of images: rename them, they are left out")
    told = tuple(
        f"{len(some):,} of {len(images):,} images {what}, such as {some[0]!r}"
        for some, what in zip((lost, unlisted), why, strict=True)
        if some
    )
    if not there:
        what = f"none of the {len(images):,} images of {part} is there: {images[0]}"
        raise UserError(what if lost else f"{part}: {told[-1]}", where=str(found.file))
    refused = trainer.rejected(there)
    if refused:
        some = few([f"{path!r}: {why}" for path, why in refused.items()])
        what = f"{len(refused):,} of {len(images):,} images are left out, for a training does not take them: {some}"
        if len(refused) == len(there):
            raise UserError(f"{part}: {what}", where=str(found.file))
        told = (*told, what)
    return tuple(image for image in there if image not in refused), told


def _listable(path: str) -> bool:
    """Whether a list of images, one a line in UTF-8, can have this path: no line break in it, no undecodable byte."""
    return path.isprintable() or (
        path.splitlines() == [path] and not any("\ud800" <= sign <= "\udfff" for sign in path)
    )


def _images(found: DatasetYaml, part: str) -> ImageIndex:
    """The images of one part of a dataset, sorted, each file once."""
    if part not in found.parts:
        other = "split=val measures on val" if part == "test" else "it needs train and val"
        raise UserError(f"has no {part} images", where=str(found.file), hint=other)
    if absent := found.absent(part):
        raise UserError(f"{part}: {absent.what}", where="data", hint=absent.hint)
    try:
        return find_images(found.paths(part), labelled=True)
    except UserError as error:
        told = f"{part}: {error.what}{found.looked_for(part)}"
        raise UserError(told, where=str(found.file), hint=error.hint) from None
