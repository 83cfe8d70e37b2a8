"""Class layers for other classes: the row of a class goes where its name is, as in Ultralytics' own training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO

import headstart
from headstart.detectors.find import finetuner, load_detector
from headstart.detectors.finetuner import StartSettings
from headstart.errors import UserError
from small import small_yaml

THINGS = [f"thing {at}" for at in range(80)]


def saved(path: Path, names: Sequence[str], model: str = "yolo11n.yaml") -> dict[str, torch.Tensor]:
    """A checkpoint as Ultralytics saves it, of a network with these classes; its state."""
    torch.manual_seed(len(names))
    yolo: Any = YOLO(model)
    kind = type(yolo.model)
    yolo.model = kind(yolo.model.yaml, nc=len(names), verbose=False)
    yolo.model.names = dict(enumerate(names))
    with torch.no_grad():
        for parameter in yolo.model.parameters():
            parameter.copy_((parameter + torch.rand_like(parameter) / 9).half())  # as precise as it saves
    yolo.save(path)
    return dict(YOLO(path).model.float().state_dict())


def logits(state: dict[str, Any], classes: int) -> list[str]:
    """The last convolutions of the class branches, weights and biases."""
    names = [name for name in state if ".cv3." in name.replace("one2one_", "") and name.split(".")[-2] == "2"]
    assert names
    assert all(len(state[name]) == classes for name in names)
    return names


@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolo26n.yaml", "yolov8n-seg.yaml"])
@pytest.mark.parametrize("names", [["bolt", "nut"], ["washer", " Bolt", "nut"]])
def test_the_row_of_a_class_follows_its_name(model: str, names: list[str], tmp_path: Path) -> None:
    given = saved(tmp_path / "nut-bolt.pt", ["nut", "bolt"], model)
    made = load_detector(tmp_path / "nut-bolt.pt").with_classes(names)
    own: dict[str, Any] = made.module.state_dict()
    bolt = next(at for at, name in enumerate(names) if name.strip().lower() == "bolt")
    for name in logits(own, len(names)):
        assert torch.equal(own[name][bolt], given[name][1]), name
        assert torch.equal(own[name][names.index("nut")], given[name][0]), name
    (said,) = made.notes
    assert said.endswith(f"tensors kept, of the rest the rows of {names[bolt]}, nut, by their names")


def test_numbers_are_no_names(tmp_path: Path) -> None:
    """A network from a YAML calls its classes 0, 1, 2: a data set with a class "1" does not mean its second."""
    given = load_detector("yolo11n.yaml")
    made = given.with_classes(["1", "other"])
    assert made.notes == ("head for 2 classes: 115 of 121 tensors kept, the rest random",)


@pytest.mark.parametrize("theirs", [THINGS, THINGS[:7], [*THINGS, *(f"more {at}" for at in range(90))]])
def test_a_start_has_the_rows_of_classes_of_the_same_name(theirs: list[str], tmp_path: Path) -> None:
    """Of weights with as many classes as the model's YAML, with fewer, and with more."""
    given = saved(tmp_path / "given.pt", theirs)
    names = ["none", theirs[-1].upper(), theirs[3]]

    def start(weights: str | None, parts: Any) -> dict[str, Any]:
        settings = StartSettings("yolo11n.yaml", names, 0, weights=weights, parts=parts)
        finetuner("yolo11n.yaml").build_start(settings, tmp_path / "start.pt")
        return dict(YOLO(tmp_path / "start.pt").model.state_dict())

    whole = start(str(tmp_path / "given.pt"), ("backbone", "neck", "head"))
    backbone, scratch = start(str(tmp_path / "given.pt"), ("backbone",)), start(None, ())
    for name in logits(whole, 3):
        if whole[name].shape[1:] == given[name].shape[1:]:  # a branch made for few classes is narrower
            assert torch.equal(whole[name][1], given[name][len(theirs) - 1]), name
            assert torch.equal(whole[name][2], given[name][3]), name
            assert torch.equal(whole[name][0], scratch[name][0]), name
        assert torch.equal(backbone[name], scratch[name]), "what a start does not bring is alike for all"


def test_a_head_that_comes_as_a_whole_brings_its_names(tmp_path: Path) -> None:
    saved(tmp_path / "things.pt", THINGS)
    detector = load_detector("yolo11n.yaml", init=tmp_path / "things.pt")
    detector.save(tmp_path / "mine.pt", {})
    assert list(YOLO(tmp_path / "mine.pt").names.values()) == THINGS == list(detector.names.values())
    saved(tmp_path / "few.pt", THINGS[:3])
    other = load_detector("yolo11n.yaml", init=tmp_path / "few.pt")
    assert other.names[0] == "0", "of another number of classes the head stays that of the YAML"


def test_a_head_that_is_loaded_into_a_live_object_brings_its_names(tmp_path: Path) -> None:
    """The run finds a, b, c; the object is of c, b, a: its detections would have other names than what they show."""
    saved(tmp_path / "abc.pt", ["a", "b", "c"])
    detector = load_detector(tmp_path / "abc.pt")
    detector.graft({name: tensor + 1 for name, tensor in detector.module.state_dict().items() if "weight" in name})
    (tmp_path / "run").mkdir()
    detector.save(tmp_path / "run" / "headstart.pt", {})
    saved(tmp_path / "cba.pt", ["c", "b", "a"])
    live = YOLO(tmp_path / "cba.pt")
    found = headstart.load_into(live, SimpleNamespace(folder=str(tmp_path / "run")))  # as pretrain() returns it
    assert found.parts["head"].arrived == found.parts["head"].total
    assert list(live.names.values()) == ["a", "b", "c"]
    saved(tmp_path / "two.pt", ["x", "y"])
    other = YOLO(tmp_path / "two.pt")
    assert {one.part for one in headstart.load_into(other, tmp_path / "run").dropped} == {"head"}
    assert list(other.names.values()) == ["x", "y"]


ALIKE = ["Bolt", "nut", " bolt"]


def test_classes_that_are_one_to_ultralytics_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """Its training would begin both with the row of one: named by number, with what to do."""
    told = r"labels: 'Bolt' \(0\) and ' bolt' \(2\) are one class to Ultralytics.*\n.*a name of its own"
    with pytest.raises(UserError, match=told):
        load_detector(small_yaml()).with_classes(ALIKE)
    settings = StartSettings(small_yaml(), ALIKE, None, (), 0)
    with pytest.raises(UserError, match=r"data: 'Bolt' \(0\)"):
        finetuner("yolo11n.yaml").build_start(settings, tmp_path / "start.pt")


@pytest.mark.parametrize(("model", "rows"), [(small_yaml(), 6), ("yolo26n.yaml", 12)], ids=["small", "yolo26n"])
def test_a_model_whose_own_classes_are_alike_is_handed_back(model: str, rows: int, tmp_path: Path) -> None:
    """Its head may not have been trained at all; rows of three maps, weights and biases, are exchanged."""
    saved(tmp_path / "own.pt", ALIKE, model)
    detector = load_detector(tmp_path / "own.pt")
    detector.save(tmp_path / "back.pt", {})
    found = detector.verify(tmp_path / "back.pt", [])
    assert found.ok
    assert (found.alike, found.shared) == (("'Bolt' (0) and ' bolt' (2)",), rows)
    tensors = len(detector.module.state_dict())
    assert any(line.startswith(f"all {tensors - rows} tensors bitwise equal") for line in found.lines())
    assert any(f"{rows} tensors arrive with one row for classes called alike" in line for line in found.lines())


def test_what_else_is_lost_of_classes_that_are_alike_is_no_excuse(tmp_path: Path) -> None:
    saved(tmp_path / "own.pt", ALIKE, small_yaml())
    detector = load_detector(tmp_path / "own.pt")
    detector.save(tmp_path / "back.pt", {})
    (name,) = (one for one in detector.module.state_dict() if one.endswith("cv3.0.2.weight"))
    with torch.no_grad():
        detector.module.state_dict()[name][1] += 1  # nut, which has its own row
    assert [one.name for one in detector.verify(tmp_path / "back.pt", []).dropped] == [name]
