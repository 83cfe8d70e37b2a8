"""The commands that a run ends with: as they stand, they can be run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.data.loaders import LoadImagesAndVideos

from headstart.detectors.find import load_detector
from headstart.images.index import find_images
from headstart.jobs.finetune_file import commands


def _source(data: list[str]) -> str:
    """What ``predict`` is told to look at, of a run that learnt from `data` and labels."""
    job: Any = SimpleNamespace(
        images=find_images(data), given=True, options=None, detector=load_detector("yolo11n.yaml"), run=None
    )
    return commands(job, Path("w.pt"), None)["predict"].partition("source=")[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("deep/b/2.jpg", "deep/a/1.jpg", "flat/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((40, 60, 3), 99, np.uint8))
    return tmp_path


@pytest.mark.parametrize(("data", "source"), [("flat", "flat"), ("deep", "deep/a"), ("flat/1.jpg", "flat/1.jpg")])
def test_predict_is_given_what_ultralytics_finds_images_in(data: str, source: str, folder: Path) -> None:
    """It looks into no folder of a folder."""
    found = _source([str(folder / data)])
    assert found == str(folder / source)
    assert len(LoadImagesAndVideos(found)) == 1


def test_shards_are_no_source_of_a_trainer(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "000000.tar", "w") as file:
        file.add(folder / "flat/1.jpg", "1.jpg")
    assert _source([str(folder / "000000.tar")]) == "your/images"
