"""A comparison knows no family of detectors: the whole way with one that is not Ultralytics'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml

import headstart
from headstart.errors import UserError
from headstart.jobs.scenes import draw_dataset

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("compare") / "data", unlabelled=4, train=8, val=3, imgsz=64)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> headstart.Run:
    return headstart.pretrain(
        data=str(data.parent / "images/unlabelled"), model=f"torchvision:{NAME}", method="pyramid", steps=1, imgsz=64,
        batch=2, workers=0, device="cpu", report=False, precision="32", out=str(tmp_path_factory.mktemp("run") / "a"),
    )  # fmt: skip


def test_a_pretraining_hands_back_what_torchvision_loads(run: headstart.Run) -> None:
    assert run.handback is not None
    assert run.handback.ok
    assert [run.handback.parts[part].trained for part in ("backbone", "neck", "head")] == [308, 8, 0]
    assert run.checkpoint is not None
    model = getattr(torchvision.models.detection, NAME)(weights=None, weights_backbone=None, num_classes=91)
    model.load_state_dict(torch.load(run.checkpoint, weights_only=True))
    facts = yaml.safe_load((run.folder / "settings.yaml").read_text())["resolved"]["detector"]
    assert (facts["name"], len(facts["levels"])) == (NAME, 3)


def test_a_comparison_from_scratch_and_from_the_run(run: headstart.Run, data: Path, tmp_path: Path) -> None:
    found = headstart.compare(
        data=str(data), model=f"torchvision:{NAME}", starts=["scratch", f"ssl={run.folder}"], labels=["8"], seeds=1,
        epochs=1, imgsz=64, batch=4, lr=0.001, device="cpu", out=str(tmp_path / "out"), pictures=1, longer="false",
        scale_min=0.8,
    )  # fmt: skip
    assert found.failed == ()
    content = found.results
    assert content.settings.extra == {"scale_min": 0.8}
    taken = {start.name: start.taken for start in content.starts}
    assert taken["scratch"] == {"backbone": (0, 308), "neck": (0, 8), "head": (0, 14)}
    # The run's 91 classes are not ours: four tensors of the box predictor start fresh.
    assert taken["ssl"] == {"backbone": (308, 308), "neck": (8, 8), "head": (10, 14)}
    for cell in content.cells:
        assert cell.figures is not None
        assert cell.figures.arrived.model_dump() == {"tensors": 330, "model": 330, "ema": 330}
        assert cell.figures.initial_sha256 == cell.start_sha256
        mean = np.mean([one.map50_95 for one in cell.figures.class_scores])
        assert mean == pytest.approx(cell.figures.map50_95, abs=1e-4), "mAP is the mean over the classes"
    shown = json.loads((found.folder / "detections.json").read_text())["images"]
    assert set(shown[0]["found"]) == {"scratch", "ssl"}


def test_problems_are_told_together(data: Path) -> None:
    options = {"model": "torchvision:retinanet_resnet50_fp", "optimizer": "MuSGD", "close_mosaic": 0}
    with pytest.raises(UserError) as caught:
        headstart.compare(data=str(data), starts="scratch", **options)
    for message in ("did you mean 'retinanet_resnet50_fpn'", "'MuSGD' is not known", "close_mosaic"):
        assert message in str(caught.value)
