from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny

from headstart.settings.auto import Situation, choose, weights_beside

GPU = Situation(images=5_000, trained=False, init=None, teacher=False, device="cuda", memory=24)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"method": "pyramid", "batch": 64, "steps": 15_000, "lr": 1e-3}),
        ({"teacher": True}, {"method": "distill"}),
        ({"trained": True}, {"steps": 5_000, "lr": 2e-4}),
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
    tiny.resolve({"data": "x", **options, **more})


def test_why_is_said_in_two_lines() -> None:
    first, second = choose(dataclasses.replace(GPU, trained=True, init="yolo11n.pt", images=12_345)).why
    assert first == (
        "method=pyramid, continued from init=yolo11n.pt: it trains backbone and neck and needs no teacher"
    )  # fmt: skip
    assert second == "5,000 steps of 128 for 12,345 images; lr=0.0002: gentle, since the weights are trained"
    first, second = choose(dataclasses.replace(GPU, trained=True, boxes=True)).why
    assert first == (
        "method=objects, continued from the model's own weights: those weights find the objects on which the whole "
        "detector is then trained"
    )
    taught = choose(dataclasses.replace(GPU, trained=True, boxes=True, teacher=True)).why[0]
    assert taught == f"{first}, the teacher's features are clustered"
    assert second == "5,000 steps of 256 for 5,000 images; lr=0.001: full, as in a detector's training"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"steps": 7, "batch": 8, "lr": 1e-4},
            "steps=7, as given, in batches of 8 for 5,000 images; lr=0.0001, as given",
        ),
        ({"budget": "2h"}, "budget=2h, as given, in batches of 64 for 5,000 images; lr=0.001: full, since the weights"),
        ({"batch": 8, "steps": None}, "15,000 steps of 8 for 5,000 images; lr=0.001: full, since the weights"),
    ],
)
def test_what_was_given_is_kept_and_said(given: dict[str, object], said: str) -> None:
    found = choose(GPU, {"method": "auto", **given})
    assert found.why[1].startswith(said)
    asked = {key: value for key, value in given.items() if value is not None}
    assert found.options == {"method": "pyramid", "batch": 64, "lr": 1e-3} | asked | (
        {} if {"steps", "budget"} & asked.keys() else {"steps": 15_000}
    )


def test_weights_that_lie_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights_beside("yolo11n.yaml") is None
    (tmp_path / "yolo11n.pt").write_bytes(b"")
    assert weights_beside("yolo11n.yaml") == "yolo11n.pt"
    assert weights_beside("yolo11n.pt") is None
