"""What a whole run says of the labels that its teacher gives, and leaves of them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

import small
from headstart.errors import RunError, UserError
from headstart.images.labels import read_labels
from headstart.jobs import teacher
from headstart.jobs.pretrain import pretrain
from headstart.jobs.scenes import draw_dataset
from headstart.pseudolabels.labeller import Labeller

LABELLED = 8
UNLABELLED = 24 - LABELLED


@pytest.fixture(scope="module")
def few(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset YAML of a third of the images, each with an object in the middle; val is one of the others."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "val").mkdir()
    for number, path in enumerate(sorted(image_folder.iterdir())):
        part = "images" if number % 3 == 0 else "val" if number == 1 else ""
        if part:
            shutil.copy(path, folder / part / path.name)
        if part == "images":
            (folder / "labels" / path.name).with_suffix(".txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.6\n")
    data = folder / "few.yaml"
    data.write_text("train: images\nval: val\nnames: [disk, ring]\n")
    return data


@pytest.fixture
def options(image_folder: Path, few: Path, tmp_path: Path) -> dict[str, Any]:
    """A run whose teacher takes whatever it sees for an object: nobody has taught it anything."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for number, path in enumerate(sorted(image_folder.iterdir())):
        if number % 3:
            shutil.copy(path, pool / path.name)
    torch.manual_seed(3)
    YOLO(small.small_yaml(), verbose=False).save(tmp_path / "start.pt")
    short = {"batch": 4, "imgsz": 64, "steps": 6, "save_every": 2, "log_every": 1, "workers": 0, "device": "cpu"}
    method = {"burn_in": 0.3, "rounds": 2, "settle": 0.2, "keep": 1e-4, "unsure": 1e-5, "max_objects": 3, "held_out": 0}
    given = {"data": str(pool), "labels": str(few), "model": str(tmp_path / "start.pt"), "out": str(tmp_path / "run")}
    return {**short, **method, **given, "method": "selftrain", "report": False}


def test_labels_whose_val_is_their_train_are_learnt_from(options: dict[str, Any], few: Path) -> None:
    """As in coco128.yaml. The start knows the user's classes in the end: nothing of it starts fresh for them."""
    data = few.with_name("both.yaml")
    data.write_text("train: images\nval: images\nnames: [disk, ring]\n")
    run = pretrain(**{**options, "labels": str(data), "teacher": "none", "steps": 2, "burn_in": 1, "settle": 0})
    log = (run.folder / "log.txt").read_text()
    assert f"{LABELLED} labelled images ({LABELLED} boxes, 2 classes; 0 show no object), {UNLABELLED} without" in log
    assert f"all images of train in {data} are also in val or test, and are learnt from all the same" in log
    assert "your 2 classes are its own: a training on them takes every tensor; with others (3 tried in place" in log
    assert "teacher: null" in (run.folder / "settings.yaml").read_text()


def test_what_is_handed_back_finds_objects_in_images_of_the_size_that_it_learnt(
    options: dict[str, Any], few: Path
) -> None:
    """Ultralytics takes the size of a checkpoint where it is given none, and of a training from it, too."""
    run = pretrain(**{**options, "imgsz": 72, "teacher": "none", "steps": 2, "settle": 0, "model": "yolo11n.yaml"})
    model: Any = YOLO(run.checkpoint)
    assert model.overrides["imgsz"] == 96, "72 is no multiple of the stride: it was shown in 96"
    model.predict(next((few.parent / "images").iterdir()), verbose=False)
    assert model.predictor.args.imgsz in (96, [96, 96])


def test_the_passes_are_told_and_recorded(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = pretrain(**{**options, "report": True})
    assert capsys.readouterr().err.count("teacher=tf_efficientnet_lite0") == 1, "what was shown to help is named"
    record = json.loads((run.folder / "teacher.json").read_text())
    assert record["names"] == ["disk", "ring"]
    assert (record["labelled"], record["unlabelled"], record["held_out"]) == (LABELLED, UNLABELLED, 0)
    assert [one["step"] for one in record["passes"]] == [2, 3]  # burn-in ends at 2; the last part begins at 5
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert [one["kind"] for one in events] == ["info"] * 5
    assert events[0]["message"].startswith(f"burn-in: 2 steps on {LABELLED} labelled images")
    assert events[3]["step"] == 6
    assert "the last part begins" in events[3]["message"]
    assert events[4]["message"].startswith("handed back: the teacher as it is at the end")
    for one, event in zip(record["passes"], events[1:3], strict=True):
        assert f"{one['with_labels']} of {one['images']} images: {one['labels']} boxes" in event["message"]
    assert (run.folder / "log.txt").read_text().count(events[0]["message"]) == 1
    final = record["handed_back"]
    assert final["images"] == UNLABELLED
    assert final["labels"] == sum(final["classes"].values()) > 0
    assert {"sure.png", "least-sure.png"} <= {path.name for path in (run.folder / "assets").iterdir()}
    page = (run.folder / "report.html").read_text()
    assert "picture-sure" in page
    assert "What the teacher labelled" in page


def test_all_images_are_labelled_and_exported(options: dict[str, Any], tmp_path: Path, few: Path) -> None:
    labels = tmp_path / "labels"
    run = pretrain(**options, export_labels=str(labels))
    final = json.loads((run.folder / "teacher.json").read_text())["handed_back"]
    with (labels / "confidences.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["from"] == "given" for row in rows) == LABELLED
    assert sum(row["from"] == "teacher" for row in rows) == final["labels"]
    files = sorted((labels / "labels").iterdir())
    assert len(files) == LABELLED + final["with_labels"]
    read = [read_labels(path, classes=2) for path in files]
    assert not any(one.problems for one in read)
    assert sum(len(one.rows) for one in read) == len(rows)
    with (labels / "left_out.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == UNLABELLED - final["with_labels"]
    assert str(few.parent / "val") in (labels / "data.yaml").read_text()
    assert f"data={few}" in (run.folder / "finetune.yaml").read_text()

    # Whoever has corrected them goes on with the run, and keeps them.
    files[0].write_text("0 0.5 0.5 0.1 0.1\n")
    pretrain(out=str(run.folder), resume=True)
    assert files[0].read_text() == "0 0.5 0.5 0.1 0.1\n"
    with pytest.raises(UserError, match=r"export_labels: .* is not an empty folder"):
        pretrain(**{**options, "out": str(tmp_path / "other")}, export_labels=str(labels))
    assert not (tmp_path / "other").exists()


def test_a_finished_run_writes_another_export(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that had none, and then to one more place: the same labels, and not a step more."""
    run = pretrain(**options)
    first, second = tmp_path / "first", tmp_path / "second"
    again = pretrain(**options, resume=True, export_labels=str(first))
    assert again.step == run.step
    assert f"labels:    {first}, an Ultralytics data set of" in capsys.readouterr().err
    pretrain(out=str(run.folder), resume=True, export_labels=str(second))
    texts = [{path.name: path.read_text() for path in (one / "labels").iterdir()} for one in (first, second)]
    assert len(texts[0]) > LABELLED
    assert texts[0] == texts[1]
    with pytest.raises(UserError, match=r"export_labels: .* is not an empty folder"):
        pretrain(out=str(run.folder), resume=True, export_labels=str(second))
    among = Path(str(options["labels"])).parent / "images" / "mine"
    with pytest.raises(UserError, match=r"export_labels: .* lies among the images of labels"):
        pretrain(out=str(run.folder), resume=True, export_labels=str(among))


def test_where_all_images_are_labelled_the_users_own_labels_are_written(
    options: dict[str, Any], few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    given = {**options, "data": str(few), "report": True}
    run = pretrain(**given, export_labels=str(out))
    said = capsys.readouterr().err
    assert f"data set of {LABELLED} images, all labelled by you: the teacher had nothing to label" in said
    own = sorted(path.read_text().split() for path in (few.parent / "labels").iterdir())
    written = sorted(path.read_text().split() for path in (out / "labels").iterdir())
    assert len(written) == LABELLED
    assert [[float(word) for word in line] for line in written] == [[float(word) for word in line] for line in own]
    page = (run.folder / "report.html").read_text()
    assert "all of them labelled" in page
    assert "some of them labelled" not in page


def test_a_run_whose_labels_cannot_be_written_is_whole_and_writes_them_later(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **more: Any) -> Any:
        raise UserError("the disk is full", where=str(tmp_path / "labels"), hint="free some space")

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "export_labels", full)
        with pytest.raises(UserError, match=r"the disk is full\n.*resume=true"):
            pretrain(**options, export_labels=str(tmp_path / "labels"))
    assert (tmp_path / "run" / "headstart.pt").is_file()
    pretrain(out=str(tmp_path / "run"), resume=True)
    assert (tmp_path / "labels" / "data.yaml").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_while_images_are_labelled_stops_at_once(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was learnt is saved before; the same command goes on to the very weights of a run that was left alone."""
    given = {**options, "model": small.small_yaml(), "save_every": 100, "precision": "32"}
    whole = pretrain(**{**given, "out": str(tmp_path / "whole")})
    detected, seen = Labeller._detected, []

    def asked(self: Labeller, *more: Any, **others: Any) -> Any:
        for found in detected(self, *more, **others):
            os.kill(os.getpid(), number)
            seen.append(found)
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "_detected", asked)
        stopped = pretrain(**given)
    assert stopped.interrupted
    assert seen == []
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == f"step-{stopped.step:08d}.pt"
    run = pretrain(**given, resume=True)
    assert run.ok
    left_alone, stopped_once = (one.yolo().model.state_dict() for one in (whole, run))
    assert left_alone.keys() == stopped_once.keys()
    assert all(torch.equal(value, stopped_once[name]) for name, value in left_alone.items())


def test_storage_that_fails_while_images_are_labelled_costs_no_step(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelling may take hours: what was trained until then is saved first."""
    given = {**options, "model": small.small_yaml(), "save_every": 100}

    def fail(*_: object, **__: object) -> None:
        raise RunError("the storage does not answer", where="data")

    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "found", fail)
        with pytest.raises(RunError, match="the storage does not answer"):
            pretrain(**given)
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    run = pretrain(**given, resume=True)
    first = json.loads((run.folder / "teacher.json").read_text())["passes"][0]["step"]
    assert first > 0
    assert saved == [f"step-{first:08d}.pt"]
    assert run.ok


@pytest.mark.parametrize("cache", ["off", "disk"])
def test_what_the_teacher_alone_reads_is_listed(options: dict[str, Any], tmp_path: Path, cache: str) -> None:
    """Half of the labelled images judge it, and are learnt from by nobody.

    Without a report or an export nothing is labelled at the end, when alone it was listed what the teacher had met.
    """
    data = draw_dataset(tmp_path / "data", unlabelled=4, train=24, val=2, imgsz=64)
    train = sorted((data.parent / "images/train").iterdir())
    for path in train:  # the same picture in 12 bits, called as before
        path.write_bytes(cv2.imencode(".png", cv2.imread(str(path)).astype(np.uint16) << 4)[1].tobytes())
    train[5].write_text("no image")
    more = {"data": str(data.parent / "images/unlabelled"), "labels": str(data), "cache": cache, "held_out": 0.5}
    more |= {"cache_dir": str(tmp_path / "cache"), "steps": 12, "burn_in": 0.5, "rounds": 1, "settle": 0.0}
    run = pretrain(**{**options, **more})
    lines = {name: list(csv.reader((run.folder / f"{name}.csv").open()))[1:] for name in ("skipped", "noted")}
    assert [path for path, _ in lines["skipped"]] == [str(train[5])]
    assert sorted(path for path, _ in lines["noted"]) == [str(path) for path in train if path != train[5]]
    assert "23 images: 12 bits in 16" in (run.folder / "log.txt").read_text()
