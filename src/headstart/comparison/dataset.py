"""The user's dataset YAML: classes, the labelled pool and the test images, and which images are on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headstart.detectors.finetuner import Finetuner
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.images.sources import dataset_part

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
    """

    yaml: Path
    names: tuple[str, ...]
    pool: tuple[str, ...]
    test: tuple[str, ...]
    split: str
    others: Mapping[str, Any]

    def write_part(self, path: Path, train: Path, test: Path) -> None:
        """Write a dataset YAML with the same classes whose ``train`` and ``val`` are lists of images."""
        content = {"train": str(train), "val": str(test), "names": dict(enumerate(self.names)), **self.others}
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_dataset(path: str | Path, split: str, trainer: Finetuner) -> Dataset:
    """Read a dataset YAML and find its images; one that the family of `trainer` ships is downloaded where it must be.

    Raises:
        UserError: It cannot be read, has no classes, or a part has no images or no labels.
    """
    file = (trainer.shipped_dataset(str(path)) or Path(path)).resolve()
    content = _content(file)
    if content.get("download") and content.get("train") and not _all_there(file, content):
        trainer.fetch_dataset(file)
    names = _names(content, file)
    pool = _images(file, content, "train")
    test = _images(file, content, split)
    if not any(label_path(image).is_file() for image in pool[:2000]):
        hint = f"expected {label_path(pool[0])} for {pool[0]}"
        raise UserError("train has no labels", where=str(file), hint=hint)
    others = {key: content[key] for key in _CARRIED if key in content}
    return Dataset(file, names, pool, test, split, others)


def _all_there(file: Path, content: Mapping[str, Any]) -> bool:
    return all(Path(path).exists() for path in dataset_part(file, content, "train"))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig", errors="replace"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read: {error}", where=str(file)) from None
    if not isinstance(content, dict):
        raise UserError("is no dataset YAML", where=str(file), hint="it needs train, val and names")
    if "val" not in content and "validation" in content:
        content["val"] = content["validation"]
    return content


def _names(content: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if names is None and isinstance(count, int):
        names = [f"class_{number}" for number in range(count)]
    if not isinstance(names, list) or not names:
        raise UserError("has no class names", where=str(file), hint="names: a list, or numbers from 0 and names")
    if isinstance(count, int) and count != len(names):
        raise UserError(f"nc is {count}, but there are {len(names)} names", where=str(file))
    return tuple(str(name) for name in names)


def _images(file: Path, content: Mapping[str, Any], part: str) -> tuple[str, ...]:
    """The images of one part of a dataset, sorted, each file once."""
    if not content.get(part):
        other = "split=val measures on val" if part == "test" else "it needs train and val"
        raise UserError(f"has no {part} images", where=str(file), hint=other)
    try:
        return tuple(find_images(dataset_part(file, content, part)))
    except UserError as error:
        raise UserError(f"{part}: {error.what}", where=str(file), hint=error.hint) from None
