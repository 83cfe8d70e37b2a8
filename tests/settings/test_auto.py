from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from headstart.jobs import choosing
from headstart.jobs.choosing import with_choice
from headstart.settings import resolve
from headstart.settings.auto import Situation, choose, weights_beside

GPU = Situation(images=5_000, trained=False, weights=None, teacher=False, device="cuda", memory=24)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"method": "pyramid", "batch": 64, "steps": 15_000, "lr": 1e-3}),
        ({"teacher": True}, {"method": "distill"}),
        ({"trained": True}, {"steps": 5_000, "lr": 2e-4}),
        ({"weights": "yolo11n.pt"}, {"init": "yolo11n.pt", "steps": 5_000, "lr": 2e-4}),
        ({"trained": True, "boxes": True}, {"method": "objects", "steps": 5_000, "lr": 1e-3}),
        ({"boxes": True}, {"method": "pyramid"}),  # random weights find nothing
        ({"boxes": True, "teacher": True}, {"method": "distill"}),
        ({"trained": True, "boxes": True, "teacher": True}, {"method": "objects"}),
        ({"trained": True, "teacher": True}, {"method": "distill"}),
        ({"images": 500}, {"steps": 5_000}),
        ({"images": 500, "trained": True}, {"steps": 2_000}),
        ({"images": 1_000_000}, {"batch": 128, "steps": 78_125}),  # 10 epochs
        ({"images": 1_000_000, "memory": 8.0}, {"batch": 64, "steps": 156_250}),
        ({"images": 1_000_000, "trained": True}, {"steps": 20_000}),
        ({"device": "cpu"}, {"batch": 32, "steps": 3_000, "imgsz": 160}),
    ],
)
def test_what_is_chosen(change: dict[str, object], expected: dict[str, object]) -> None:
    options = choose(dataclasses.replace(GPU, **change)).options
    assert {name: options[name] for name in expected} == expected
    more = {"teacher": "a.pt"} if change.get("teacher") else {}
    resolve.resolve({"data": "x", **options, **more})


def test_why_is_said_in_two_lines() -> None:
    first, second = choose(dataclasses.replace(GPU, weights="yolo11n.pt", images=12_345)).why
    assert first == (
        "method=pyramid, continued from yolo11n.pt: it trains backbone and neck and needs no teacher"
    )  # fmt: skip
    assert second == "5,000 steps of 128 for 12,345 images; lr=0.0002: gentle, since the weights are trained"
    first, second = choose(dataclasses.replace(GPU, trained=True, boxes=True)).why
    assert first == (
        "method=objects, continued from the model's own weights: those weights find the objects on which the whole "
        "detector is then trained"
    )
    taught = choose(dataclasses.replace(GPU, trained=True, boxes=True, teacher=True)).why[0]
    assert taught == f"{first}, the teacher tells their kinds apart"
    assert second == "5,000 steps of 256 for 5,000 images; lr=0.001: full, as in a detector's training"


def test_what_the_user_gives_is_kept(image_folder: Path, capsys, tmp_path: Path) -> None:
    given = {"data": str(image_folder), "method": "auto", "device": "cpu", "epochs": 3, "batch": 8, "lr": 0.5}
    found = with_choice(given)
    assert (found["method"], found["epochs"], found["batch"], found["lr"]) == ("pyramid", 3, 8, 0.5)
    assert "steps" not in found
    assert capsys.readouterr().err.startswith("method=pyramid, from random weights")
    resolve.resolve(found)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"method": "auto", "data": str(image_folder), "device": "cpu"}))
    assert with_choice({"cfg": str(path)})["steps"] == 3_000


def test_other_methods_are_left_alone() -> None:
    assert with_choice({"data": "x", "method": "byol"}) == {"data": "x", "method": "byol"}


def test_without_images_the_usual_message_is_given() -> None:
    assert with_choice({"data": "no/such/folder", "method": "auto"})["method"] == "dino"


def test_weights_that_lie_beside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights_beside("yolo11n.yaml") is None
    (tmp_path / "yolo11n.pt").write_bytes(b"")
    assert weights_beside("yolo11n.yaml") == "yolo11n.pt"
    assert weights_beside("yolo11n.pt") is None
    assert choosing.situation({"data": _image(tmp_path), "device": "cpu"}).weights == "yolo11n.pt"


def test_heads_without_plain_boxes_are_not_trained_on_objects(tmp_path: Path) -> None:
    image = _image(tmp_path)
    for name, expected in (("yolo11n.yaml", True), ("yolo11n-seg.yaml", False), ("missing.yaml", False)):
        assert choosing.situation({"data": image, "model": name, "init": "a.pt", "device": "cpu"}).boxes == expected


def _image(folder: Path) -> str:
    (folder / "a.jpg").write_bytes(b"x")
    return str(folder / "a.jpg")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": "yolo11n.yaml", "init": "WEIGHTS"}, "objects"),
        ({"model": "yolo11n.yaml", "init": "WEIGHTS", "clusters": 8}, "objects"),
        ({"model": "yolo11n.yaml", "init": "WEIGHTS", "teacher": "vit_tiny"}, "objects"),
        ({"model": "yolo11n.yaml", "init": "missing.pt"}, None),  # what is wrong is said in its place
        ({"model": "yolo11n.yaml"}, None),  # random weights: dino
        ({"model": "yolo11n.yaml", "init": "WEIGHTS", "preset": "tutorial"}, None),  # a preset of dino's
        ({"model": "yolo11n.yaml", "init": "WEIGHTS", "teacher_temperature": 0.1}, None),  # an option of another method
        ({"model": "yolo11n-seg.yaml", "init": "WEIGHTS"}, None),
        ({"model": "yolo11n.yaml", "init": "WEIGHTS", "method": "byol"}, "byol"),
    ],
)
def test_the_default_from_trained_weights_is_objects(
    given: dict[str, object], expected: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    given = {key: str(tmp_path / "a.pt") if value == "WEIGHTS" else value for key, value in given.items()}
    assert with_choice({"data": "x", **given}).get("method") == expected
    assert capsys.readouterr().err.startswith("method=objects: the run starts from trained weights") == (
        expected == "objects"
    )
