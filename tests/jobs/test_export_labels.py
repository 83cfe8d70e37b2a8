"""The labels of a teacher on disk: what Ultralytics reads of them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset

from headstart.images.index import ImageIndex, find_images
from headstart.jobs.export_labels import export_labels, refusal
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections

NAMES = ("bolt", "nut: M8")


@pytest.fixture
def images(tmp_path: Path) -> ImageIndex:
    """Two folders with images of the same names."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            cv2.imwrite(str(tmp_path / folder / f"{number}.jpg"), np.full((40, 60, 3), 99, np.uint8))
    return find_images([str(tmp_path / "a"), str(tmp_path / "b")])


def test_ultralytics_reads_what_was_written(images: ImageIndex, tmp_path: Path) -> None:
    """Row 0 has a given box, row 1 is given as background, row 2 has two boxes of the teacher, row 3 none."""
    boxes, classes = torch.tensor([[0.1, 0.2, 0.5, 0.6]]), torch.tensor([1])
    labels = PseudoLabels.gather(4, torch.tensor([0]), boxes, torch.ones(1), classes)
    found = Detections(
        torch.tensor([2, 2]),
        torch.tensor([[0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]]),
        torch.tensor([0.9, 0.6]),
        torch.tensor([0, 1]),
        torch.tensor([2, 3]),
    )
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*.jpg")}
    out = tmp_path / "out"
    assert export_labels(out, images, GivenLabels(NAMES, torch.tensor([0, 1]), labels), found) == 3
    data = check_det_dataset(str(out / "data.yaml"))
    assert list(data["names"].values()) == list(NAMES)
    read = YOLODataset(img_path=data["train"], data=data, task="detect", hyp=get_cfg(), augment=False, cache=False)
    got = {
        Path(one["im_file"]).name: (one["cls"][:, 0].tolist(), one["bboxes"].round(4).tolist()) for one in read.labels
    }
    assert got == {
        "0.jpg": ([1.0], [[pytest.approx(0.3), pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4)]]),
        "1.jpg": ([], []),
        "0-2.jpg": ([0.0, 1.0], [[0.125, 0.25, 0.25, 0.5], [0.75, 0.75, 0.5, 0.5]]),
    }
    rows = list(csv.DictReader((out / "confidences.csv").open(encoding="utf-8")))
    assert [(row["image"], row["name"], row["confidence"], row["from"]) for row in rows] == [
        ("images/0.jpg", "nut: M8", "1.0000", "given"),
        ("images/0-2.jpg", "bolt", "0.9000", "teacher"),
        ("images/0-2.jpg", "nut: M8", "0.6000", "teacher"),
    ]
    for path, mark in before.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == mark
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0.jpg", "1.jpg"]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "new") is None
    assert refusal(tmp_path) is None
    (tmp_path / "note.txt").write_text("mine")
    assert "is not an empty folder" in str(refusal(tmp_path))
    assert "is not an empty folder" in str(refusal(tmp_path / "note.txt"))
