"""The contract of a teacher, over every source that is found: a new file in ``teachers/`` needs a case here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO

from headstart.methods.objects import Settings as Objects
from headstart.teachers.base import Teacher, TeacherSource
from headstart.teachers.load import check_teacher, load_teacher, sources

OWN = """
from torch import nn
def load():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, 4, 1))
"""


def make(kind: str, folder: Path) -> TeacherSource:
    """A small teacher of a kind, whose weights lie in files."""
    if kind == "module":
        return TeacherSource(
            nn.Sequential(nn.Conv2d(3, 7, 3, 2, 1), nn.BatchNorm2d(7)), mean=(0.5,) * 3, std=(0.2,) * 3
        )
    if kind == "detector":
        YOLO("yolo11n.yaml", verbose=False).save(folder / "small.pt")
        return TeacherSource(str(folder / "small.pt"))
    if kind == "own":
        (folder / "mine.py").write_text(OWN)
        return TeacherSource(str(folder / "mine.py"))
    if kind == "hog":
        return TeacherSource("hog")
    if kind == "timm":
        timm = pytest.importorskip("timm")
        torch.save(timm.create_model("test_resnet").state_dict(), folder / "net.pt")
        return TeacherSource("test_resnet", str(folder / "net.pt"))
    raise AssertionError(f"there is no case for {kind}: add one")


@pytest.fixture(scope="module", params=sorted(sources()))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TeacherSource:
    torch.manual_seed(0)
    return make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def teacher(source: TeacherSource) -> Teacher:
    return load_teacher(source)


def images(height: int, width: int) -> Tensor:
    """RGB in [0, 1]."""
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_one_kind_of_source_accepts_it(source: TeacherSource) -> None:
    assert check_teacher(source) == []
    assert sum(kind.accepts(source.teacher) for kind in sources().values()) == 1


def test_it_is_frozen_and_stays_in_evaluation_mode(teacher: Teacher) -> None:
    method = nn.ModuleList([teacher]).train()  # as a method that holds it would
    assert method.training
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    teacher(images(64, 64))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert teacher.name


def test_widths_and_strides_are_those_of_its_maps(teacher: Teacher) -> None:
    with torch.no_grad():
        maps = teacher(images(192, 256))
    assert tuple(one.shape[1] for one in maps) == teacher.widths
    assert tuple(256 / one.shape[3] for one in maps) == teacher.strides
    assert tuple(192 / one.shape[2] for one in maps) == teacher.strides
    assert list(teacher.strides) == sorted(teacher.strides)
    assert all(one.dtype == torch.float32 and bool(one.isfinite().all()) for one in maps)


@pytest.mark.parametrize(("height", "width"), [(97, 131), (32, 33), (224, 96)])
def test_odd_sizes_are_taken(teacher: Teacher, height: int, width: int) -> None:
    with torch.no_grad():
        maps = teacher(images(height, width))
    for one, stride in zip(maps, teacher.strides, strict=True):
        assert height / stride <= one.shape[2] <= height / stride + 32 / stride + 1
        assert width / stride <= one.shape[3] <= width / stride + 32 / stride + 1


def test_images_are_taken_one_by_one(teacher: Teacher) -> None:
    """What an image gives does not depend on those beside it."""
    with torch.no_grad():
        together, alone = teacher(images(64, 96)), teacher(images(64, 96)[1:])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[1:], other, rtol=1e-4, atol=1e-5)


def test_half_precision_is_near(teacher: Teacher) -> None:
    with torch.no_grad():
        exact = teacher(images(64, 96))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = teacher(images(64, 96))
    for one, other in zip(exact, half, strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(1), other.float().flatten(1)).min() > 0.95


def test_options_of_a_method_become_a_source() -> None:
    given = {"teacher": "a.pt", "teacher_weights": "b", "teacher_mean": (0.1,) * 3, "teacher_std": None, "lr": 1}
    assert TeacherSource.of(given) == TeacherSource("a.pt", "b", (0.1,) * 3, None)
    assert {"teacher", "teacher_weights", "teacher_mean", "teacher_std"} <= set(Objects.model_fields)
