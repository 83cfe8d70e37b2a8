"""A checkpoint of every family that the installed Ultralytics builds, saved by Ultralytics, is read without trust.

``pytest -m slow tests/security/test_families.py``: a second each.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import ultralytics
from ultralytics import RTDETR, YOLO, YOLOE, YOLOWorld

from headstart.detectors.find import load_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
YAMLS = sorted((Path(ultralytics.__file__).parent / "cfg/models").glob("*/*.yaml"))
SCALED = re.compile(r"^(yolov?\d+|yoloe-v?\d+)(?=[-.])")
"""The name of a family that has scales; the smallest is taken."""


def model_of(name: str) -> type:
    if "rtdetr" in name:
        return RTDETR
    if "world" in name:
        return YOLOWorld
    return YOLOE if name.startswith("yoloe") else YOLO


@pytest.mark.parametrize("name", [path.name for path in YAMLS])
def test_it_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the weights are is no matter, and drawing those of the large families takes most of the time.
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor.data.fill_(0.01))
    text = next(path for path in YAMLS if path.name == name).read_text()
    if "torchvision" in text.lower():
        pytest.skip("its layers are torchvision's, whose weights are downloaded")
    scaled = SCALED.sub(r"\1n", name) if re.search(r"^scales:", text, re.MULTILINE) else name
    live = model_of(name)(scaled)
    live.save(tmp_path / "given.pt")
    found = load_detector(str(tmp_path / "given.pt"))
    given = live.model.state_dict()
    assert found.task == live.task
    assert found.module.state_dict().keys() == given.keys()
