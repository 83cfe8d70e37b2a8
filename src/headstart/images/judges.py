"""Images that are to judge what others teach: val and test of the dataset that ``labels=`` names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from headstart.errors import UserError
from headstart.images.dataset_yaml import DatasetYaml, dataset_of
from headstart.images.index import ImageIndex, find_images


def without_judges(images: ImageIndex, data: str | Sequence[str], labels: str) -> ImageIndex:
    """The images but for those that the dataset of ``labels=`` lists as val or test: they are to judge the outcome.

    Pretrained on, and labelled by a teacher for an export, they would say more than is so. Whoever names such a part
    itself as ``data`` (its folder, or one in it) wants it, and has it.

    Args:
        images: The run's images, those of the dataset among them.
        data: The option.
        labels: The dataset YAML.
    """
    dataset = dataset_of(labels)
    judges = judges_among(images, data, dataset)
    if not judges:
        return images
    kept = images.subset([row for row in range(len(images)) if row not in judges])
    said = f"{len(judges):,} images are in val or test of {dataset.file}, and were left out, to judge the outcome"
    whole = f"data={dataset.file} leaves them out"  # what is said of a folder that is used with all that is in it
    kept.notes = (*(note for note in images.notes if whole not in note), said)
    kept.left_out, kept.skipped = images.left_out + len(judges), images.skipped
    return kept


def judges_among(images: ImageIndex, data: str | Sequence[str], dataset: DatasetYaml) -> set[int]:
    """The rows of the images that a dataset lists as val or test, and not as train; none where `data` names a part."""
    there = [part for part in ("val", "test") if part in dataset.parts and dataset.there(part)]
    parts = [path for part in there for path in dataset.paths(part)]
    named = [os.path.realpath(one) for one in ([data] if isinstance(data, str) else data)]
    if not parts or any(one == part or one.startswith(part + os.sep) for one in named for part in parts):
        return set()
    try:
        learnt = {os.path.realpath(path) for path in find_images([], labels=str(dataset.file))}
        judges = {os.path.realpath(path) for path in find_images(parts)} - learnt
    except UserError:  # nothing is there
        return set()
    return {row for row, path in enumerate(images) if os.path.realpath(path) in judges}
