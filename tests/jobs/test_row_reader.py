"""Images by their rows, each in the batch in which it was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from headstart.images.index import ImageIndex, find_images
from headstart.jobs import labelled
from headstart.jobs.labelled import RowReader


@pytest.fixture
def images(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    """Ten, of which the second and the last two cannot be read; they are read four at a time."""
    monkeypatch.setattr(labelled, "TOGETHER", 4)
    for number, path in enumerate(sorted(image_folder.iterdir())[:10]):
        shutil.copy(path, tmp_path / path.name)
        if number in (1, 8, 9):
            (tmp_path / path.name).write_text("no image")
    return find_images(str(tmp_path))


def test_what_cannot_be_read_is_left_out_and_none_comes_in_its_place(images: ImageIndex) -> None:
    done: list[tuple[int, int]] = []
    reader = RowReader(images, 0, progress=lambda *told: done.append(told))
    batches = list(reader(range(10), 10_000))
    assert [batch.indices.tolist() for batch in batches] == [[0, 2, 3], [4, 5, 6, 7]]
    assert [len(batch.pixels) for batch in batches] == [len(batch.sizes) for batch in batches] == [3, 4]
    assert sorted(Path(path).name for path, _ in reader.skipped) == ["01.jpg", "08.jpg", "09.jpg"]
    assert done == [(4, 10), (8, 10), (10, 10)]


def test_rows_of_which_none_can_be_read_bring_nothing(images: ImageIndex) -> None:
    """As the part of one of several processes may be."""
    reader = RowReader(images, 0)
    assert list(reader([8, 9], 10_000)) == []
    assert {"08.jpg", "09.jpg"} <= {Path(path).name for path, _ in reader.skipped}


def test_what_is_found_on_the_way_is_listed_in_the_folder_of_the_run(tmp_path: Path, images: ImageIndex) -> None:
    """Before, notes of images that the teacher read first were lost, and what it could not read mostly as well."""
    deep = images.path(2)
    done, data = cv2.imencode(".png", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    assert done
    Path(deep).write_bytes(data.tobytes())
    reader = RowReader(images, 0)
    batches = list(reader(range(10), 10_000))
    note = (deep, "12 bits in 16: scaled by 12 bits, of which Ultralytics sees the high byte")
    assert [batch.notes for batch in batches] == [[note], []]
    skipped: list[str] = []
    told: list[tuple[str, str]] = []
    folder: Any = SimpleNamespace(
        skip=lambda items: skipped.extend(Path(path).name for path, _ in items), note=lambda items: told.extend(items)
    )
    reader.tell(folder)
    reader.tell(folder)
    assert (sorted(skipped), told) == (["01.jpg", "08.jpg", "09.jpg"], [note])
