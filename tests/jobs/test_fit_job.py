"""The look at the objects of a few images, with a real detector: what it may read, and that it leaves no trace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from headstart.detectors.find import load_detector
from headstart.images.index import find_images
from headstart.jobs.fit import fit_of
from headstart.methods.objects import Settings
from headstart.settings.schema import PretrainSettings


@pytest.fixture
def labelled(image_folder: Path, tmp_path: Path) -> Path:
    """24 images in ``images``, and a label of the whole image beside each."""
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "labels").mkdir()
    for image in (tmp_path / "images").iterdir():
        (tmp_path / "labels" / f"{image.stem}.txt").write_text("0 0.5 0.5 1 1\n")
    return tmp_path / "images"


def test_labels_are_looked_at_where_that_is_allowed(labelled: Path) -> None:
    images, detector = find_images(str(labelled)), load_detector("yolo11n.yaml")
    for allowed, number in ((False, 0), (True, 24)):
        run = PretrainSettings(data=str(labelled), device="cpu", probe_labels=allowed)
        fit = fit_of(run, Settings(proposal_imgsz=64), detector, images)
        assert fit is not None
        assert (fit.images, fit.labelled, fit.ok) == (24, number, False)


def test_the_look_leaves_no_trace(image_folder: Path, tmp_path: Path) -> None:
    YOLO("yolo11n.yaml", verbose=False).save(tmp_path / "other.pt")
    images, detector = find_images(str(image_folder)), load_detector("yolo11n.yaml")
    before = {name: tensor.clone() for name, tensor in detector.module.state_dict().items()}
    random = torch.get_rng_state()
    for options in (Settings(proposal_imgsz=64), Settings(proposal_imgsz=64, proposals=str(tmp_path / "other.pt"))):
        fit_of(PretrainSettings(data=str(image_folder), device="cpu"), options, detector, images)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.module.state_dict().items())
    assert detector.module.training


def test_without_a_readable_image_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    run = PretrainSettings(data=str(tmp_path), device="cpu")
    assert fit_of(run, Settings(), load_detector("yolo11n.yaml"), find_images(str(tmp_path))) is None
