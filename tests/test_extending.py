"""The examples of docs/adding-a-*.md, run as they stand there (the method: `test_own_method.py`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import headstart
from headstart import plugins
from headstart.detectors import find
from headstart.errors import UserError
from headstart.teachers.base import TeacherSource
from headstart.teachers.load import load_teacher
from installed import install

EXAMPLES = Path(__file__).parent.parent / "examples" / "extending"
SMALL = {"batch": 4, "imgsz": 64, "local_imgsz": 32, "workers": 0, "device": "cpu", "log_every": 1, "report": False}


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A ResNet-18 whose weights the teacher's example reads."""
    torch.manual_seed(7)
    made = resnet18().eval()
    torch.save(made.state_dict(), tmp_path / "resnet.pt")
    monkeypatch.setenv("HEADSTART_TEACHER", str(tmp_path / "resnet.pt"))
    return made


def test_the_teacher_gives_the_maps_of_its_network(network: nn.Module) -> None:
    teacher = load_teacher(TeacherSource(str(EXAMPLES / "my_teacher.py")))
    assert (teacher.widths, teacher.strides) == ((512,), (32.0,))
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    (found,) = teacher(images)
    mean, std = (torch.tensor(one)[:, None, None] for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    seen = (images - mean) / std
    with torch.no_grad():
        expected = network.maxpool(network.relu(network.bn1(network.conv1(seen))))
        for number in range(1, 5):
            expected = getattr(network, f"layer{number}")(expected)
    assert torch.allclose(found, expected, atol=1e-5)


def test_teacher_and_logger_in_a_run(network: nn.Module, image_folder: Path, tmp_path: Path) -> None:
    run = headstart.pretrain(
        data=image_folder, method="distill", teacher=EXAMPLES / "my_teacher.py", steps=3,
        loggers=[str(EXAMPLES / "my_logger.py")], out=tmp_path / "run", **SMALL,
    )  # fmt: skip
    assert run.ok
    lines = [json.loads(line) for line in (tmp_path / "run/loggers/lines.jsonl").read_text().splitlines()]
    assert (lines[0]["what"], lines[0]["method"]) == ("start", "distill")
    assert (lines[-1]["what"], lines[-1]["status"]) == ("finish", "done")
    logged = {one["step"]: one["loss"] for one in lines if one["what"] == "metrics"}
    own = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert logged == pytest.approx({one["step"]: one["loss"] for one in own})
    assert set(logged) == {1, 2, 3}


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The detector's example, installed as a package would bring it."""
    (tmp_path / "site").mkdir()
    files = {"my_detector.py": (EXAMPLES / "my_detector.py").read_text(encoding="utf-8")}
    install(monkeypatch, tmp_path / "site", files, {"headstart.detectors": {"tiny": "my_detector"}})
    yield
    sys.modules.pop("my_detector", None)


@pytest.mark.usefixtures("family")
def test_the_detector_is_trained_and_handed_back(image_folder: Path, tmp_path: Path) -> None:
    run = headstart.pretrain(
        data=image_folder, model="tiny:4", method="pyramid", steps=2, out=tmp_path / "run", **SMALL
    )
    assert run.ok
    state = torch.load(run.checkpoint, weights_only=True)["state"]
    plain = plugins.import_file(EXAMPLES / "my_detector.py").Network(4)
    plain.load_state_dict(state)  # as the family's own training code would
    parts = {part: run.handback.parts[part] for part in ("backbone", "neck", "head")}
    # Five blocks of a convolution and a batch norm (5 tensors); three convolutions with a bias each in neck and head.
    assert {part: (one.total, one.trained, one.arrived) for part, one in parts.items()} == {
        "backbone": (30, 30, 30), "neck": (6, 6, 6), "head": (6, 0, 6),
    }  # fmt: skip
    again = find.load_detector(run.checkpoint)
    assert again.trained
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.module.state_dict().items())


@pytest.mark.usefixtures("family")
def test_the_maps_of_the_detector_are_those_it_declares() -> None:
    detector = find.load_detector("tiny:4")
    images = torch.rand(2, 3, 64, 64)
    (last,), pyramid = detector.trunk()(images), detector.trunk(neck=True)(images)
    for level, one in zip((detector.backbone, *detector.levels), (last, *pyramid), strict=True):
        assert one.shape == (2, level.width, 64 // level.stride, 64 // level.stride)
    assert set(detector.trunk(neck=True).state_dict()) <= set(detector.module.state_dict())


@pytest.mark.usefixtures("family")
def test_weights_that_did_not_arrive_are_seen(tmp_path: Path) -> None:
    detector = find.load_detector("tiny:4")
    detector.save(tmp_path / "headstart.pt", {})
    with torch.no_grad():
        detector.module.head[0].weight[0] += 1
    found = detector.verify(tmp_path / "headstart.pt", [])
    assert [(one.name, one.part) for one in found.dropped] == [("head.0.weight", "head")]


@pytest.mark.usefixtures("family")
def test_what_is_no_detector_of_the_family_is_said(tmp_path: Path) -> None:
    (problem,) = find.check_model("tiny:wide")
    assert str(problem).startswith("model: tiny:wide is no tiny detector")
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"cannot be read: UnpicklingError"):
        find.load_detector("tiny:4", init=tmp_path / "broken.pt")
