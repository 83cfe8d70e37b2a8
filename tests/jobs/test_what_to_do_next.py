"""The commands that a run ends with: as they stand, they can be run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.data.loaders import LoadImagesAndVideos

import packs
from headstart.detectors.find import load_detector
from headstart.images.index import find_images
from headstart.jobs.finetune_file import commands, finetune_settings, text
from headstart.jobs.labelled import given_labels
from headstart.methods import selftrain
from headstart.settings.method_options import LabelOptions, MethodSettings


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


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        ("train: images\nval: images\n", True),
        ("train: images\nvalidation: images\n", True),
        ("train: images\n", False),
        ("train: images\ntest: images\n", False),
        ("train: 0.tar\nval: images\n", False),
        ("train: images\nval: 0.tar\n", False),
        ("train: shards\nval: images\n", False),
        ("train: train.txt\nval: images\n", False),
    ],
)
def test_a_training_is_given_the_labels_that_a_trainer_reads(parts: str, taken: bool, tmp_path: Path) -> None:
    """Ultralytics ends where there is no val, and reads no shards."""
    for name in ("0.tar", "shards/0.tar"):
        packs.tar(tmp_path / name, {"1.png": packs.picture(1), "1.txt": b"0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images/1.png").write_bytes(packs.picture(2))
    (tmp_path / "labels/1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "train.txt").write_text("./0.tar/1.png\n")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/2.png").write_bytes(packs.picture(3))
    labels = tmp_path / "my.yaml"
    labels.write_text(f"{parts}names: [thing]\n")
    images = find_images(str(tmp_path / "pool"), labels=str(labels))
    given, _ = given_labels(str(labels), images)
    options = LabelOptions(labels=str(labels))
    job: Any = SimpleNamespace(
        images=images, given=given, options=options, detector=load_detector("yolo11n.yaml"), run=None
    )
    command = commands(job, Path("w.pt"), None)["train"]
    assert f"data={labels if taken else 'your.yaml'}" in command.split()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("flip", "advised"), [(0.0, 0.0), (0.25, 0.25), (0.5, None), (None, None)])
def test_a_fine_tuning_mirrors_as_the_run_did(flip: float | None, advised: float | None, labelled: bool) -> None:
    """Where left and right tell classes apart they do so in the training that follows; Ultralytics mirrors half."""
    options = MethodSettings() if flip is None else selftrain.Settings(flip=flip)
    given = SimpleNamespace(rows=[1, 2]) if labelled else None
    detector, run = load_detector("yolo11n.yaml"), SimpleNamespace(imgsz=160)
    job: Any = SimpleNamespace(given=given, options=options, detector=detector, run=run)
    settings = finetune_settings(job)
    assert settings is not None
    found = yaml.safe_load(text(settings))
    assert found.get("fliplr") == advised
    assert DEFAULT_CFG_DICT["fliplr"] == 0.5, "what is not written down"
