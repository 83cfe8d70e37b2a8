"""The user's data stay as they are during a training: Ultralytics writes, mends and removes files beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PIXELS = "pixels"
"""Folder below that of the run for the decoded images of ``cache=disk``; it is gone when the training ends."""
_MARGIN = 1.1
"""Room on the disk that decoded images must find, as a multiple of their size."""
_SAMPLED = 30


@contextmanager
def leaving_data_alone(folder: Path) -> Iterator[None]:
    """For the rest of this process, Ultralytics changes and adds nothing beside images and labels.

    - Label caches (``labels/train.cache``) are neither written nor read. One serves all lists of a folder: trainings
      side by side delete it under each other's hands, and fail. They are pickles, and older versions know a changed
      label file by its size alone.
    - A JPEG that lacks its end is read as it is; Ultralytics would write it anew in its place, compressed once more,
      for OpenCV (since version 5) decodes none without an end.
    - Decoded images (``cache=disk``) are kept below `folder`. A user's own array beside an image, of the same name, is
      not taken for one: Ultralytics would train on it, write over it, or remove it.

    Args:
        folder: Of the run.
    """
    from ultralytics.data import base, dataset, utils

    pixels = folder / PIXELS
    dataset.save_dataset_cache_file = _keep_in_memory
    dataset.load_dataset_cache_file = _none_there
    # Versions differ in what writes a JPEG: the image that PIL gives, or a function that replaces the file.
    utils.ImageOps = SimpleNamespace(exif_transpose=lambda image: SimpleNamespace(save=_write_nothing))
    if hasattr(utils, "_replace_image"):
        utils._replace_image = _write_nothing
    base.imread = _reading(base.imread)
    base.BaseDataset.npy_files = _ElsewhereFiles(pixels)
    base.BaseDataset.check_cache_disk = _has_room
    try:
        yield
    finally:
        shutil.rmtree(pixels, ignore_errors=True)


def _keep_in_memory(prefix: str, path: Path, x: dict[str, Any], version: str) -> None:
    x["version"] = version


def _none_there(path: Path) -> Any:
    raise FileNotFoundError(path)


def _write_nothing(*_: Any, **__: Any) -> None:
    pass


def _reading(own: Callable[..., Any]) -> Callable[..., Any]:
    """Ultralytics' function that reads an image, and reads JPEGs that lack their end as well."""

    def imread(filename: str, *flags: Any, **more: Any) -> Any:
        image = own(filename, *flags, **more)
        return _ended(filename, *flags, **more) if image is None else image

    return imread


def _ended(filename: str, flags: int = 1) -> Any:
    """A JPEG with the end that it lacks, decoded; None for another file."""
    import cv2
    import numpy as np

    data = Path(filename).read_bytes()
    if not data.startswith(b"\xff\xd8"):
        return None
    return cv2.imdecode(np.frombuffer(data + b"\xff\xd9", np.uint8), flags)


class _ElsewhereFiles:
    """An attribute whose files, wherever they are said to be, lie in one folder, under names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else owner.__dict__["npy_files"]

    def __set__(self, owner: Any, files: Iterable[Path]) -> None:
        owner.__dict__["npy_files"] = [self.folder / self._name(path) for path in files]

    def _name(self, path: Path) -> str:
        return f"{hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()}.npy"


def _has_room(dataset: Any, safety_margin: float = _MARGIN - 1) -> bool:
    """Whether the disk of the run has room for the decoded images of a dataset of Ultralytics; else it reads files.

    Takes the place of ``BaseDataset.check_cache_disk``, which asks for room, and leave to write, beside the images.
    """
    from ultralytics.utils import LOGGER
    from ultralytics.utils.patches import imread

    folder = type(dataset).npy_files.folder
    folder.mkdir(parents=True, exist_ok=True)
    every = max(1, len(dataset.im_files) // _SAMPLED)
    sizes = [im.nbytes for path in dataset.im_files[::every] if (im := imread(path)) is not None]
    wanted = (1 + safety_margin) * len(dataset.im_files) * sum(sizes) / max(1, len(sizes))
    free = shutil.disk_usage(folder).free
    if wanted > free:
        dataset.cache = None
        need = f"{wanted / 2**30:.1f} GiB of decoded images do not fit into the {free / 2**30:.1f} GiB that are free"
        LOGGER.warning(f"{need} at {folder}: they are not kept")
        return False
    return True
