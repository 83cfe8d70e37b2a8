"""A comparison that is called again after something beside it has changed, or that was stopped before it had looked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageOps
from test_runner import FakeTraining

import headstart
from headstart.comparison import prepare, runner
from headstart.comparison.child import Stopped
from headstart.comparison.label_lists import held_out_part
from headstart.comparison.results import read_results
from headstart.comparison.shown import Detections, ShownImage, there, write_detections
from headstart.comparison.starts import build_starts
from headstart.detectors.finetuner import FinetuneSettings
from headstart.jobs.scenes import draw_dataset


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeTraining:
    shared = tmp_path_factory.getbasetemp() / "changed-starts"
    shared.mkdir(exist_ok=True)
    monkeypatch.setattr(prepare, "build_starts", lambda *given: build_starts(*given[:-1], shared))
    training = FakeTraining()
    monkeypatch.setattr(runner, "finetune", training)
    return training


@pytest.fixture
def options(weights: Path, tmp_path: Path) -> dict[str, Any]:
    data = draw_dataset(tmp_path / "data", unlabelled=2, train=24, val=6, imgsz=64)
    given = {"data": data, "starts": f"scratch,coco={weights}", "labels": "100%", "seeds": 2, "epochs": 4}
    return {**given, "imgsz": 64, "lr": 0.001, "out": tmp_path / "out", "device": "cpu", "jobs": 2, "pictures": 0}


def asked_again(fake: FakeTraining, options: dict[str, Any]) -> int:
    fake.asked.clear()
    assert headstart.compare(**options).ok
    return len(fake.asked)


def test_an_image_that_was_replaced_makes_other_trainings(fake: FakeTraining, options: dict[str, Any]) -> None:
    assert asked_again(fake, options) == 4
    assert asked_again(fake, options) == 0
    image = next((options["data"].parent / "images/train").iterdir())
    ImageOps.invert(Image.open(image).convert("RGB")).resize((80, 80)).save(image)
    assert asked_again(fake, options) == 4
    assert asked_again(fake, options) == 0


def test_other_names_make_other_trainings_and_older_records_are_kept(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    headstart.compare(**options)
    for record in (options["out"] / "cells").glob("*/cell.json"):  # as an earlier version wrote them
        content = json.loads(record.read_text())
        del content["content"]
        record.write_text(json.dumps(content))
    assert asked_again(fake, options) == 0
    shutil.rmtree(options["out"])
    headstart.compare(**options)
    content = yaml.safe_load(options["data"].read_text())
    names = list(content["names"].values()) if isinstance(content["names"], dict) else list(content["names"])
    options["data"].write_text(yaml.safe_dump({**content, "names": [f"{name} 2" for name in names]}))
    assert asked_again(fake, options) == 4


def test_ctrl_c_before_anything_was_looked_at_keeps_the_figures(fake: FakeTraining, options: dict[str, Any]) -> None:
    """A start more, stopped in the search for its rate: what was finished before is still in results.json."""
    given = {**options, "lr": [0.001, 0.01]}
    assert headstart.compare(**given).ok
    before = (options["out"] / "results.json").read_bytes()

    def stop(settings: FinetuneSettings) -> bool:
        raise Stopped

    fake.fail = stop
    assert headstart.compare(**{**given, "starts": f"{given['starts']},coco-backbone"}).interrupted
    assert (options["out"] / "results.json").read_bytes() == before
    fake.fail = lambda settings: False
    assert headstart.compare(**given).ok
    assert len([cell for cell in read_results(options["out"]).cells if cell.kind == "main"]) == 4


def test_trainings_that_were_moved_to_another_disk_and_linked(
    fake: FakeTraining, options: dict[str, Any], tmp_path: Path
) -> None:
    first = headstart.compare(**options).results
    (options["out"] / "cells").rename(tmp_path / "big")
    (options["out"] / "cells").symlink_to(tmp_path / "big")
    assert asked_again(fake, options) == 0
    assert read_results(options["out"]) == first


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_weights_in_a_folder_whose_name_is_no_text(
    fake: FakeTraining, options: dict[str, Any], weights: Path, tmp_path: Path
) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(folder).mkdir()
    shutil.copy(weights, Path(folder) / "w.pt")
    found = headstart.compare(**{**options, "starts": f"scratch,mine={folder}/w.pt"})
    assert found.report is not None
    (mine,) = [one for one in read_results(options["out"]).starts if one.name == "mine"]
    assert mine.weights == f"{tmp_path}/caf\\udce9/w.pt"


def test_pictures_are_of_these_detectors_and_as_many_as_were_asked_for(tmp_path: Path) -> None:
    image = ShownImage(file="a.jpg", width=2, height=2, jpeg="", truth=(), found={"coco": ()})
    known = {"least_confidence": 0.1, "budget": "5%", "seed": 0}
    asked: tuple[Any, ...] = (tmp_path, "5%", 0, ["coco"])
    write_detections(tmp_path, Detections(**known, asked=1, images=(image,)))
    assert there(*asked, ["x/a.jpg"], changed=False)
    assert not there(*asked, ["x/a.jpg"], changed=True), "other detectors: no report is to show the old ones"
    assert not (tmp_path / "detections.json").exists()
    write_detections(tmp_path, Detections(**known, asked=1, images=(image,)))
    assert not there(*asked, ["x/a.jpg", "x/b.jpg"], changed=False)
    write_detections(tmp_path, Detections(**known, asked=2, images=(image,)))
    assert there(*asked, ["x/a.jpg", "x/b.jpg"], changed=False), "one of them cannot be read"


def test_some_images_are_left_to_learn_from() -> None:
    classes = {f"{number}.jpg": frozenset({0}) for number in range(10)}
    assert len(held_out_part(list(classes), classes, 0.99, 0)) == 9
    assert len(held_out_part(list(classes), classes, 0.01, 0)) == 1
