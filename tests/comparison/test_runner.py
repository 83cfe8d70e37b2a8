"""The comparison as a whole, with trainings that are made up in a moment; one test trains for real."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import yaml
from ultralytics import YOLO
from ultralytics.utils import SETTINGS_FILE

import headstart
from headstart.cli.command import parse
from headstart.cli.options import values
from headstart.comparison import cost, leaks, origins, pace, prepare, runner
from headstart.comparison.child import Stopped
from headstart.comparison.dataset import read_dataset
from headstart.comparison.facts import facts
from headstart.comparison.grid import Cell, choose_rates, epochs_for, longer_cell
from headstart.comparison.pool import Slot
from headstart.comparison.records import Arrived
from headstart.comparison.results import read_results
from headstart.comparison.shown import read_detections
from headstart.comparison.start_records import PretrainingFacts
from headstart.comparison.starts import Start, build_starts
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import (
    ARRIVED,
    COLUMNS,
    CURVE,
    RESULT,
    Arrival,
    FinetuneResult,
    FinetuneSettings,
    StartSettings,
    read_result,
    write_json,
)
from headstart.detectors.scores import ClassScore, write_scores
from headstart.detectors.used import Counts, Used, write_used
from headstart.errors import UserError
from headstart.files import OwnedFolder
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.jobs.compare_options import resolve
from headstart.jobs.scenes import CLASSES, draw_dataset
from headstart.run.loggers import Logger
from headstart.run.loggers.csv import CsvLogger
from small import small_yaml
from untouched import own_settings, untouched

GAIN = {"scratch": 0.1, "coco": 0.3, "ssl": 0.2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("compare") / "data", unlabelled=6, train=24, val=6, imgsz=64)


class FakeTraining:
    """Stands in for `finetune`: writes what a training leaves behind, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[FinetuneSettings] = []
        self.fail: Callable[[FinetuneSettings], bool] = lambda settings: False
        self.random: Callable[[FinetuneSettings], list[int]] = lambda s: [s.seed, *map(ord, s.name)]
        self.arrival: dict[str, Any] = {}

    def __call__(
        self, settings: FinetuneSettings, stop: threading.Event | None = None, place: Slot | None = None
    ) -> FinetuneResult:
        self.asked.append(settings)
        if self.fail(settings):
            raise UserError("it diverged", where=settings.name)
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir(parents=True)
        self.write(settings)
        return read_result(settings.folder)

    def write(self, s: FinetuneSettings) -> None:
        random = np.random.default_rng(self.random(s))
        final = next((gain for name, gain in GAIN.items() if s.name.startswith(name)), 0.1)
        if "search" in str(s.folder.parent):
            final += {0.001: 0.0, 0.01: 0.5 if "coco" in s.name else -0.05}[s.lr0]
        with (s.folder / CURVE).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, "train/box_loss"])
            for epoch in range(1, s.epochs + 1) if s.epochs else (0,):
                value = round(max(0.0, final * epoch / max(1, s.epochs) + 0.01 * random.normal()), 5)
                writer.writerow([epoch, 2.0 * epoch, value, min(1, 1.5 * value), random.normal()])
        start = json.loads(Path(s.start).with_suffix(".json").read_text())
        arrival = Arrival(499, 499, 499, (), 499, start["parameters"], start["sha256"], {"torch": "2"})
        write_json(s.folder / ARRIVED, dataclasses.replace(arrival, **self.arrival))
        write_json(s.folder / RESULT, {"seconds": 2.0 * s.epochs + 5})
        write_scores(s.folder, [ClassScore(CLASSES[0], final, final, 3)])
        write_used(s.folder, self.read(s))

    def read(self, s: FinetuneSettings) -> Used:
        """Every image of the lists, and every line of the labels beside them."""
        content = yaml.safe_load(Path(s.data).read_text())
        parts = [Path(content[part]).read_text().splitlines() for part in ("train", "val")]
        found = [
            [len(path.read_text().splitlines()) if (path := label_path(image)).is_file() else 0 for image in images]
            for images in parts
        ]
        return Used(*(Counts(len(each), sum(map(bool, each)), sum(each)) for each in found))


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("starts")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, starts: Path) -> FakeTraining:
    def shared(*given: Any) -> Any:
        return build_starts(*given[:-1], starts)  # built once for all tests

    monkeypatch.setattr(prepare, "build_starts", shared)
    training = FakeTraining()
    monkeypatch.setattr(runner, "finetune", training)
    return training


@pytest.fixture
def options(data: Path, weights: Path, tmp_path: Path) -> dict[str, Any]:
    given = {"data": data, "starts": f"scratch,coco={weights}", "labels": "25%,100%", "seeds": 2, "epochs": 4}
    given |= {"model": small_yaml(), "out": tmp_path / "out", "pictures": 0}
    return {**given, "imgsz": 64, "lr": 0.001, "device": "cpu", "jobs": 2}


def test_the_cells_differ_in_the_start_alone(fake: FakeTraining, options: dict[str, Any]) -> None:
    found = headstart.compare(**options)
    assert found.failed == ()
    assert len(fake.asked) == 2 * 2 * 2
    asked: dict[str, list[Any]] = {}
    for one in fake.asked:
        start, _, rest = one.name.partition("-")
        same = (one.data, one.seed, one.lr0, one.epochs, one.optimizer, one.imgsz, one.batch, one.extra, one.workers)
        assert Path(one.start).name == f"{start}-seed{one.seed}.pt"
        asked.setdefault(rest, []).append(same)
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in asked.values())
    lists = {one.data: yaml.safe_load(Path(one.data).read_text()) for one in fake.asked}
    sizes = sorted(len(Path(content["train"]).read_text().split()) for content in lists.values())
    assert sizes == [6, 6, 24, 24]
    small = {c["train"]: set(Path(c["train"]).read_text().split()) for c in lists.values() if "25pc" in c["train"]}
    assert len(set(map(frozenset, small.values()))) == 2, "every seed has a list of its own"
    assert {one.threads for one in fake.asked} == {fake.asked[0].threads}


def test_results_say_it_all(fake: FakeTraining, options: dict[str, Any]) -> None:
    found = headstart.compare(**options)
    assert found.results is not None
    content = read_results(found.folder)
    assert content == found.results
    assert [(c.start, c.budget, c.seed) for c in content.cells][:2] == [
        ("scratch", "25%", 0),
        ("coco", "25%", 0),
    ]
    by_hand = []
    for seed in (0, 1):
        (coco,) = [c for c in content.of("coco", "100%") if c.seed == seed]
        (scratch,) = [c for c in content.of("scratch", "100%") if c.seed == seed]
        by_hand.append(coco.measured.map50_95 - scratch.measured.map50_95)
    pair = next(one for one in content.differences if one.budget == "100%")
    assert (pair.start, pair.reference) == ("coco", "scratch")
    assert pair.map50_95.differences == pytest.approx(by_hand)
    assert found.failed_checks == ()
    assert found.ok
    outcomes = {one.outcome: one.key for one in content.checks}
    assert outcomes.keys() == {"passed", "not known"}
    assert [one.key for one in content.checks if one.outcome == "not known"] == ["pretraining leak"], "of COCO's images"
    assert shlex.split(content.command) == sys.argv
    assert "coco against scratch" in found.verdict
    assert found.report is not None
    assert found.report.is_file()
    assert found.markdown in (found.folder / "results.md").read_text()


def test_finished_cells_are_kept_and_more_may_be_added(fake: FakeTraining, options: dict[str, Any]) -> None:
    headstart.compare(**options)
    fake.asked.clear()
    headstart.compare(**options)
    assert fake.asked == []
    headstart.compare(**{**options, "seeds": 3})
    assert sorted({one.seed for one in fake.asked}) == [2]
    with pytest.raises(UserError, match=r"(?s)epochs: was 4 when the comparison began, is 5 now.*choose another out="):
        headstart.compare(**{**options, "epochs": 5})
    fake.asked.clear()
    headstart.compare(**{**options, "epochs": 5, "overwrite": True})
    assert len(fake.asked) == 8
    (options["out"].parent / "mine").mkdir()
    (options["out"].parent / "mine/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not a comparison"):
        headstart.compare(**{**options, "out": options["out"].parent / "mine", "overwrite": True})


def test_a_plan_locks_no_options_and_removes_nothing(options: dict[str, Any]) -> None:
    given = {**options, "data": str(options["data"]), "out": str(options["out"])}
    for more in ({"plan": True, "epochs": 100}, {"epochs": 30}):
        with prepare.open_folder(resolve({**given, **more})) as opened:
            folder = opened.path
            assert yaml.safe_load((folder / "compare.yaml").read_text())["epochs"] == more["epochs"]
    (folder / "cells/coco").mkdir(parents=True)
    with prepare.open_folder(resolve({**given, "epochs": 30, "plan": True, "overwrite": True})):
        assert (folder / "cells/coco").is_dir()
    other = prepare.open_folder(resolve({**given, "epochs": 31, "plan": True, "overwrite": True}))
    with pytest.raises(UserError, match=r"epochs: was 30 when the comparison began, is 31 now") as caught, other:
        pass
    assert "overwrite" not in str(caught.value), "which would not help a plan"


def test_cells_measured_on_other_test_images_are_trained_anew(
    fake: FakeTraining, options: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    test = sorted((data.parent / "images/val").iterdir())
    (tmp_path / "val.txt").write_text("\n".join(map(str, test)))
    content = yaml.safe_load(data.read_text()) | {"train": str(data.parent / "images/train")}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**content, "val": str(tmp_path / "val.txt")}))
    headstart.compare(**{**options, "data": tmp_path / "my.yaml", "labels": "100%"})
    (tmp_path / "val.txt").write_text("\n".join(map(str, test[1:])))
    fake.asked.clear()
    headstart.compare(**{**options, "data": tmp_path / "my.yaml", "labels": "100%"})
    assert len(fake.asked) == 4


def test_cells_with_corrected_labels_are_trained_anew(
    fake: FakeTraining, options: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    given = {**options, "data": tmp_path / "copy" / data.name, "labels": "25%,100%"}
    found = headstart.compare(**given)
    few = {seed: (found.folder / f"labels/25pc-seed{seed}.txt").read_text() for seed in (0, 1)}
    pool = (found.folder / "labels/100pc-seed0.txt").read_text().split()
    image = next(path for path in pool if not any(path in text for text in few.values()))
    label = label_path(image)
    label.write_text(label.read_text().rstrip() + "  \n")  # of the same class: the lists stay as they are
    fake.asked.clear()
    headstart.compare(**given)
    assert sorted(Path(one.data).stem for one in fake.asked) == ["100pc-seed0"] * 2 + ["100pc-seed1"] * 2


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("results.csv", lambda text: text[: len(text) * 3 // 4]),
        ("results.csv", lambda text: text.replace(",", ";")),
        ("arrived.json", lambda text: "{}"),
        ("arrived.json", lambda text: text[:-5]),
        ("result.json", lambda text: "[]"),
        ("result.json", lambda text: text.replace('"seconds": ', '"seconds": 9')),
        ("classes.json", lambda text: text.replace('"objects": 3', '"objects": 7')),
        ("cell.json", lambda text: text.replace('"device"', '"devise"')),
        ("cell.json", lambda text: "null"),
        ("classes.json", lambda text: "[3]"),
    ],
)
def test_a_training_whose_files_are_damaged_is_trained_again(
    fake: FakeTraining, options: dict[str, Any], name: str, damage: Callable[[str], str]
) -> None:
    found = headstart.compare(**options)
    before, path = len(fake.asked), next((found.folder / "cells").glob("coco*/" + name))
    path.write_text(damage(path.read_text()))
    again = headstart.compare(**options)
    assert [one.name for one in fake.asked[before:]] == [path.parent.name]
    assert again.results == found.results


@pytest.mark.parametrize("left", ["", "data: ["])
def test_a_damaged_record_is_written_anew(
    fake: FakeTraining, options: dict[str, Any], left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What each training was asked for lies beside it: those that are done are kept, and others are not taken."""
    found = headstart.compare(**{**options, "labels": "25%"})
    for name in ("compare.yaml", "results.json", "detections.json"):
        (found.folder / name).write_text(left)
    before = len(fake.asked)
    again = headstart.compare(**{**options, "labels": "25%"})
    assert "compare.yaml is damaged and is written anew" in capsys.readouterr().err
    assert len(fake.asked) == before
    assert again.results == found.results
    assert again.report is not None
    (found.folder / "compare.yaml").write_text(left)
    headstart.compare(**{**options, "labels": "25%", "epochs": 5})
    assert [one.epochs for one in fake.asked[before:]] == [5] * 4, "another training"


def test_ctrl_c_while_detecting_keeps_the_results(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any) -> None:
        raise Stopped  # as a process does that Ctrl-C reached

    monkeypatch.setattr("headstart.comparison.detections.detect", pressed)
    assert headstart.compare(**{**options, "labels": "100%", "pictures": 2}).interrupted
    assert [cell.state for cell in read_results(options["out"]).cells] == ["done"] * 4


def test_a_failed_cell_is_told_and_sinks_nothing(fake: FakeTraining, options: dict[str, Any]) -> None:
    fake.fail = lambda settings: settings.name == "coco-25pc-seed1"
    found = headstart.compare(**options)
    assert found.failed == ("coco, 25%, seed 1: coco-25pc-seed1: it diverged",)
    assert found.results is not None
    pair = next(one for one in found.results.differences if one.budget == "25%")
    assert pair.seeds == (0,)
    assert [check.key for check in found.failed_checks] == ["complete"]
    assert not found.ok
    assert found.report is not None
    assert "it diverged" in found.report.read_text()
    fake.fail = lambda settings: False
    fake.asked.clear()
    assert headstart.compare(**options).failed == ()
    assert [one.name for one in fake.asked] == ["coco-25pc-seed1"]


@pytest.mark.parametrize("ended", ["error", "ctrl-c", "system", "none finished"])
def test_a_comparison_is_replaced_when_the_new_one_has_a_finished_training(
    fake: FakeTraining, options: dict[str, Any], capsys: pytest.CaptureFixture[str], ended: str
) -> None:
    given = {**options, "labels": "25%", "report": False}
    headstart.compare(**given)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in options["out"].rglob("*") if path.is_file()}

    before = content()
    new = {**given, "epochs": 5, "overwrite": True, "jobs": 1}
    asked: list[str] = []

    def stop(settings: FinetuneSettings) -> bool:
        asked.append(settings.name)
        # Each settings folder is still empty of what is new, and what is replaced lies beside.
        assert (options["out"] / ".replaced").is_dir() == (len(asked) < 2 or ended == "none finished")
        if ended == "system":
            os.kill(os.getpid(), signal.SIGTERM)
            raise Stopped
        if ended == "ctrl-c":
            raise Stopped
        return ended == "none finished"

    fake.fail = stop
    if ended == "error":
        with pytest.raises(UserError):
            headstart.compare(**{**new, "unlabelled": "nowhere/at/all"})
        assert content() == before
    else:
        found = headstart.compare(**new)
        assert found.interrupted == (ended != "none finished")
        said = capsys.readouterr().err
        assert ("is there again, as it was" in said) == (ended != "system")
        assert ("To go on:" in said) == (ended == "system")
    if ended != "system":
        assert content() == before
        return
    (line,) = [line for line in said.splitlines() if line.startswith("  headstart compare ")]
    fake.fail = lambda settings: False
    words = parse(shlex.split(line)[1:])
    assert words is not None
    assert "overwrite" not in words.given
    again = headstart.compare(**values("compare", words.given))
    assert again.ok
    assert not (options["out"] / ".replaced").exists()
    assert {one.epochs for one in fake.asked[4:]} == {5}


@pytest.mark.parametrize("kept", [False, True])
def test_what_replaces_a_comparison_and_was_killed(fake: FakeTraining, options: dict[str, Any], kept: bool) -> None:
    """Between a finished training and the removal of what it replaces; or before, and the old one is asked for."""
    given = {**options, "labels": "25%", "report": False}
    old = headstart.compare(**given).results
    new = resolve({**given, "data": str(given["data"]), "out": str(given["out"]), "epochs": 5, "overwrite": True})
    with prepare.open_folder(new) as folder:  # and killed
        assert folder.replacing
    if not kept:
        assert headstart.compare(**given).results == old
        assert len(fake.asked) == 4
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnedFolder, "replaced", lambda self: None)
        headstart.compare(**{**given, "epochs": 5})
    assert (options["out"] / ".replaced").is_dir()
    headstart.compare(**{**given, "epochs": 5})
    assert len(fake.asked) == 8
    assert not (options["out"] / ".replaced").exists()


def test_ctrl_c_keeps_what_is_finished(fake: FakeTraining, options: dict[str, Any]) -> None:
    def stop(settings: FinetuneSettings) -> bool:
        if settings.seed == 1:
            raise Stopped
        return False

    fake.fail = stop
    found = headstart.compare(**options)
    assert found.interrupted
    states = [cell.state for cell in read_results(options["out"]).cells]
    assert states.count("done") == 4
    assert states.count("missing") == 4
    fake.fail = lambda settings: False
    fake.asked.clear()
    assert not headstart.compare(**options).interrupted
    assert {one.seed for one in fake.asked} == {1}


def test_the_rate_is_chosen_on_a_validation_part_and_never_on_test_images(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    found = headstart.compare(**{**options, "labels": "100%", "lr": [0.001, 0.01]})
    search = [one for one in fake.asked if one.folder.parent.name == "search"]
    assert len(search) == 2 * 2
    test = set((found.folder / "labels/test.txt").read_text().split())
    for one in search:
        content = yaml.safe_load(Path(one.data).read_text())
        train, val = (set(Path(content[part]).read_text().split()) for part in ("train", "val"))
        assert len(train) == 19
        assert len(val) == 5
        assert not val & train
        assert not (val | train) & test
    assert found.results is not None
    rates = {one.start: one.lr for one in found.results.rates}
    assert rates == {"scratch": 0.001, "coco": 0.01}, "what the made-up trainings say"
    assert {one.lr0 for one in fake.asked if one.folder.parent.name == "cells" and "coco" in one.name} == {0.01}


@pytest.mark.parametrize("lr", [[0.001], [0.001, 0.01]])
def test_a_start_may_have_a_rate_of_its_own(fake: FakeTraining, options: dict[str, Any], lr: list[float]) -> None:
    """Neither searched for nor overruled; the others are as they would be without it."""
    found = headstart.compare(**{**options, "labels": "100%", "lr": lr, "start_lr": {"coco": 0.0002}})
    trained = {one.name.split("-")[0]: one.lr0 for one in fake.asked if one.folder.parent.name == "cells"}
    assert trained == {"scratch": 0.001, "coco": 0.0002}
    assert not [one for one in fake.asked if one.folder.parent.name == "search" and "coco" in one.name]
    assert found.results is not None
    assert {one.start: one.lr for one in found.results.rates} == {"scratch": 0.001, "coco": 0.0002}


def test_a_rate_of_no_start_is_refused(fake: FakeTraining, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="start_lr: mine is no start"):
        headstart.compare(**{**options, "start_lr": {"mine": 0.1}})


def test_of_equal_rates_the_first_is_taken() -> None:
    settings = resolve({"data": "VOC.yaml", "starts": "scratch", "lr": [0.001, 0.1, 0.01]})
    cells = {rate: Cell("search", "scratch", "100%", 0, rate, 3, 10) for rate in settings.lr}
    assert choose_rates(settings, [(cells[r], 0.0) for r in (0.1, 0.001, 0.01)]) == {("scratch", "100%"): 0.001}
    scores = [(cells[0.001], None), (cells[0.1], 0.2), (cells[0.01], 0.3)]
    assert choose_rates(settings, scores) == {("scratch", "100%"): 0.01}
    with pytest.raises(UserError, match="no learning rate worked for any start"):
        choose_rates(settings, [(cells[0.1], None)])


def test_a_start_without_a_rate_sinks_only_itself(fake: FakeTraining, options: dict[str, Any]) -> None:
    fake.fail = lambda settings: settings.folder.parent.name == "search" and "coco-50pc" in settings.name
    found = headstart.compare(**{**options, "labels": "50%,100%", "lr": [0.001, 0.01]})
    trained = sorted(one.name for one in fake.asked if one.folder.parent.name == "cells")
    assert trained == [
        f"{name}-seed{seed}" for name in ("coco-100pc", "scratch-100pc", "scratch-50pc") for seed in (0, 1)
    ]
    why = "not trained, for no learning rate worked at 50%; look into train.log of the folders below search/"
    assert [one for one in found.failed if "not trained" in one] == [
        f"coco, 50%, seed {seed}: {why}" for seed in (0, 1)
    ]
    (check,) = found.failed_checks
    told = "2 of 8 trainings failed or are missing: coco at 50%, seed 0, coco at 50%, seed 1"
    assert (check.key, check.evidence) == ("complete", told)
    assert not found.ok
    assert "100% of the labels" in found.verdict


class Cells(Logger):
    """Notes what it is told, of all runs together."""

    told: ClassVar[list[tuple[str, Any]]] = []

    def start(self, settings: Any) -> None:
        self.told.append((self.run.name, (self.run.group, settings["options"]["start"], settings["options"]["seed"])))

    def metrics(self, step: int, values: Any) -> None:
        self.told.append((self.run.name, (step, values)))

    def event(self, step: int, kind: str, message: str) -> None:
        self.told.append((self.run.name, (kind, message)))

    def finish(self, status: str) -> None:
        self.told.append((self.run.name, status))


def test_each_training_is_logged_once_as_a_run_of_the_group(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.run.loggers.find.built_in", lambda: {"cells": Cells, "csv": CsvLogger})
    monkeypatch.setattr(Cells, "told", told := [])
    fake.fail = lambda settings: settings.name == "coco-25pc-seed1"
    asked = {**options, "labels": "25%", "loggers": ["cells"]}
    found = headstart.compare(**asked)
    runs = {name for name, _ in told}
    assert runs == {f"{start}-25pc-seed{seed}" for start in ("scratch", "coco") for seed in (0, 1)}
    of_one = [what for name, what in told if name == "scratch-25pc-seed1"]
    cell = next(one for one in found.results.cells if one.folder == "cells/scratch-25pc-seed1")
    assert of_one[0] == ("out", "scratch", 1)
    assert [(step, values["map50_95"]) for step, values in of_one[1:5]] == [
        (point.epoch, point.map50_95) for point in cell.measured.curve
    ]
    assert of_one[5][1]["final/map50_95"] == cell.measured.map50_95
    assert of_one[5][1]["final/seconds"] == 2.0 * 4 + 5
    assert of_one[6:] == ["done"]
    of_failed = [what for name, what in told if name == "coco-25pc-seed1"]
    assert of_failed == [("out", "coco", 1), ("alarm", "coco-25pc-seed1: it diverged"), "failed"]

    told.clear()
    fake.fail = lambda settings: False
    headstart.compare(**{**asked, "loggers": ["cells", "csv"]})  # what failed is trained now; csv knows none yet
    assert {name for name, _ in told} == {"coco-25pc-seed1"}
    assert told[-1] == ("coco-25pc-seed1", "done")
    assert len(list((options["out"] / "loggers").glob("*/csv/version_0/metrics.csv"))) == 4
    assert "loggers" not in json.loads((options["out"] / "results.json").read_text())["settings"]


def test_a_logger_that_fails_sinks_no_training(
    fake: FakeTraining, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from headstart.run.loggers import Logger\nclass Mine(Logger):\n"
        "    def metrics(self, step, values): raise ValueError('no route to host')\n"
    )
    found = headstart.compare(**{**options, "labels": "25%", "loggers": [tmp_path / "mine.py"]})
    assert found.failed == ()
    assert len(fake.asked) == 4
    assert capsys.readouterr().err.count("failed and is left out from here on: ValueError: no route to host") == 1


def test_the_loggers_of_a_comparison_are_looked_at_before_it(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="loggers: there is no logger 'cvs'"):
        headstart.compare(**{**options, "loggers": "cvs"})
    assert not options["out"].exists()


def test_steps_become_whole_epochs() -> None:
    settings = resolve({"data": "VOC.yaml", "starts": "scratch", "steps": 100, "batch": 16})
    # 59 images are 4 batches, 5,948 are 372.
    assert (epochs_for(settings, 59), epochs_for(settings, 5948)) == (25, 1)


def run_folder(folder: Path, weights: Path, data: object, **resolved: int) -> Path:
    """What a pretraining leaves behind, as far as a comparison reads it."""
    folder.mkdir()
    shutil.copy(weights, folder / "headstart.pt")
    options = {"data": str(data), "method": "dino", "model": "yolo11n.yaml", "batch": 8}
    content = {"options": options, "resolved": {"images": 6, **resolved}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(content))
    (folder / "metrics.jsonl").write_text(json.dumps({"seconds": 24.0}) + "\n")
    return folder


def test_the_longer_scratch_run_gets_the_steps_of_the_pretraining(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "ssl", weights, data.parent / "images/unlabelled", steps=40, shown=4)
    found = headstart.compare(**{**options, "starts": f"scratch,ssl={run}"})
    longer = [one for one in fake.asked if one.folder.parent.name == "longer"]
    # 40 steps show 160 images, 10 batches of 16. An epoch of 24 images is 2 batches: 5 epochs more.
    assert [(one.name, one.epochs, one.seed) for one in longer] == [("scratch-100pc-seed0", 9, 0)]
    assert found.report is not None
    assert "9 epochs in place of 4" in found.report.read_text()
    assert longer_cell(Cell("main", "scratch", "1%", 0, 0.1, 10, 5), 16, 1).epochs == 11


def test_coco_is_fine_tuned_for_as_long_as_the_longest_start(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    images = data.parent / "images/unlabelled"
    run = run_folder(tmp_path / "ssl", weights, images, steps=40, shown=4)
    other = run_folder(tmp_path / "long", weights, images, steps=33)  # says no images a step: its batch of 8
    starts = f"coco={weights},coco-longer,{run},{other}"
    found = headstart.compare(**{**options, "starts": starts, "labels": "50%,100%", "lr": [0.001, 0.01]})
    # 33 steps of 8 are 16.5 batches of 16, so 17: at 12 images (50 %) 17 epochs of one batch, at 24 (100 %) 9 of two.
    # The search has 10 and 19 images: one batch, and two.
    epochs = {(one.folder.parent.name, one.name): one.epochs for one in fake.asked}
    assert {epochs["cells", f"coco-longer-50pc-seed{seed}"] for seed in (0, 1)} == {4 + 17}
    assert {epochs["cells", f"coco-longer-100pc-seed{seed}"] for seed in (0, 1)} == {4 + 9}
    assert epochs["search", "coco-longer-50pc-seed0-lr0.01"] == 4 + 17
    assert {epochs["cells", f"{name}-50pc-seed0"] for name in ("coco", "ssl", "long")} == {4}
    assert found.results is not None
    told = {
        start.name: [(one.budget, one.follows, one.steps) for one in start.longer] for start in found.results.starts
    }
    assert told["coco-longer"] == [("50%", "long", 17), ("100%", "long", 17)]
    assert not told["coco"]
    assert found.failed_checks == (), "it is longer than the others, and meant to be"
    assert {one.reference for one in found.results.differences} == {"coco", "coco-longer"}
    assert found.verdict.startswith("long against coco-longer: ")
    shas = {start.name: start.sha256 for start in found.results.starts}
    assert shas["coco"] == shas["coco-longer"]
    with pytest.raises(UserError, match="coco-longer is fine-tuned for as many steps as a pretrained start takes"):
        headstart.compare(**{**options, "starts": f"coco={weights},coco-longer"})
    unknown = run_folder(tmp_path / "unknown", weights, images)
    with pytest.raises(UserError, match="no start tells how many steps its pretraining took"):
        headstart.compare(**{**options, "starts": f"coco={weights},coco-longer,{unknown}", "out": tmp_path / "b"})


def test_a_detector_of_the_classes_is_measured_as_it_is(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    """Without fine-tuning, without a rate, and beside the same start fine-tuned."""
    own = Path(shutil.copy(classified(tmp_path / "own.pt"), tmp_path / "mine.pt"))
    starts = f"coco={weights},mine={own},mine-as-is"
    found = headstart.compare(**{**options, "starts": starts, "labels": "50%", "lr": [0.001, 0.01], "longer": False})
    assert found.results is not None
    assert found.report is not None
    assert found.failed_checks == ()
    epochs = {(one.folder.parent.name, one.name): one.epochs for one in fake.asked}
    assert {name: one for (kind, name), one in epochs.items() if kind == "cells"} == {
        **{f"{start}-50pc-seed{seed}": 4 for start in ("coco", "mine") for seed in (0, 1)},
        **{f"mine-as-is-50pc-seed{seed}": 0 for seed in (0, 1)},
    }
    assert not [name for kind, name in epochs if kind == "search" and "as-is" in name]
    assert {one.start for one in found.results.rates} == {"coco", "mine"}
    assert [(start.name, start.as_is) for start in found.results.starts] == [
        ("coco", False), ("mine", False), ("mine-as-is", True),
    ]  # fmt: skip
    cost = next(one for one in found.results.costs if one.start == "mine-as-is")
    assert (cost.finetuning_steps, cost.steps) == (0, None), "what it took before is not known"
    told = {one.key: one for one in found.results.checks}
    assert told["epochs"].claim.endswith("as long as the others, and mine-as-is measured without any")
    assert "mine-as-is: not fine-tuned" in told["epochs"].evidence
    assert found.verdict.startswith("mine against coco: "), "what is fine-tuned, wherever it stands in the list"
    assert "\nmine-as-is against coco: worse at 50% of the labels (" in found.markdown
    page = found.report.read_text()
    assert "as it is, without fine-tuning" in page
    assert page.count("<p>mine-as-is against coco: worse at 50% of the labels (") == 1
    assert "measures it as it is" not in found.markdown, "it is there"
    assert "2 seeds. Last epoch; mine-as-is before any. Figures on" in found.markdown
    # Without it, what could be known in a moment is said; what the others are compared with is what a user has.
    once = headstart.compare(
        **{**options, "starts": f"coco={weights},mine={own}", "labels": "50%", "out": tmp_path / "b"}
    )
    assert "with mine-as-is among the starts measures it as it is, too" in once.markdown
    asked = len(fake.asked)
    given = {**options, "starts": starts, "labels": "50%", "lr": [0.001, 0.01], "longer": False}
    again = headstart.compare(**{**given, "reference": "mine-as-is"})
    assert len(fake.asked) == asked
    assert again.verdict.startswith("mine against mine-as-is: ")
    for reference in ("mine", "mine-as-is"):
        of = headstart.compare(**{**given, "reference": reference})
        assert of.results is not None
        steps = {one.start: one.steps for one in of.results.costs}
        assert (steps["mine"], steps["mine-as-is"]) == (4, 0), "both are what a user has"
        assert {one.start for one in of.results.labels_worth} == set()


def test_what_no_seed_changes_is_no_fault(fake: FakeTraining, options: dict[str, Any], tmp_path: Path) -> None:
    """A file that is measured as it is, against scratch that finds nothing: the same difference in every seed."""
    own = classified(tmp_path / "own.pt")

    def flat(s: FinetuneSettings) -> None:
        write(s)
        path, value = s.folder / CURVE, "0.3" if s.epochs == 0 else "0.0"
        with path.open(newline="") as file:
            head, *body = csv.reader(file)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *([one[0], one[1], value, value, *one[4:]] for one in body)])

    write, fake.write = fake.write, flat  # type: ignore[method-assign]
    given = {**options, "starts": f"scratch,mine={own},mine-as-is", "labels": "25%,100%"}
    found = headstart.compare(**{**given, "seeds": 3})
    assert found.results is not None
    assert found.failed_checks == ()
    (first, *_) = [one for one in found.results.differences if (one.start, one.reference) == ("mine-as-is", "scratch")]
    assert first.map50_95.differences == (0.3, 0.3, 0.3)
    given = {**options, "starts": f"mine-as-is={own},other-as-is={own}", "labels": "25%", "out": tmp_path / "alone"}
    alone = headstart.compare(**given)
    assert alone.results is not None
    told = {one.key: (one.outcome, one.evidence) for one in alone.results.checks}
    assert told["rates"] == ("not known", "nothing was fine-tuned")
    assert told["seeds"] == ("not known", "nothing was made of a seed")


def test_weights_of_other_classes_are_not_measured_as_they_are(
    fake: FakeTraining, options: dict[str, Any], weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"w\.pt is no detector of the classes of data") as caught:
        headstart.compare(**{**options, "starts": f"coco={weights},mine-as-is={weights}"})
    assert "to fine-tune it: mine=" in str(caught.value)
    # As many classes as the model's own YAML has, in another order: every tensor fits.
    from ultralytics.utils import ROOT

    model = tmp_path / "own-yolo11n.yaml"
    model.write_text((ROOT / "cfg/models/11/yolo11.yaml").read_text().replace("nc: 80", f"nc: {len(CLASSES)}"))
    turned = classified(tmp_path / "turned.pt", CLASSES[::-1], str(model))
    with pytest.raises(UserError, match=r"turned\.pt is no detector of the classes of data"):
        headstart.compare(**{**options, "model": str(model), "starts": f"scratch,mine-as-is={turned}"})
    assert not fake.asked


def classified(path: Path, names: Sequence[str] = CLASSES, model: str = small_yaml()) -> Path:
    """A detector of the classes of `data`."""
    finetuner(model).build_start(StartSettings(model, names, seed=9), path)
    return path


def test_own_weights_are_a_reference_by_their_name(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "ssl", weights, data.parent / "images/unlabelled", steps=40, shown=4)
    mine = shutil.copy(weights, tmp_path / "previous.pt")
    starts = f"coco={weights},mine={mine},mine-longer,{run}"
    found = headstart.compare(**{**options, "starts": starts, "reference": "mine"})
    # 40 steps of 4 images are 10 of 16: at 6 images (25 %) 10 epochs of one batch more, at 24 (100 %) 5 of two.
    epochs = {one.name: one.epochs for one in fake.asked if one.folder.parent.name == "cells"}
    assert [epochs[f"mine-longer-{size}-seed1"] for size in ("25pc", "100pc")] == [4 + 10, 4 + 5]
    assert found.results is not None
    assert found.report is not None
    assert found.failed_checks == ()
    pairs = {(one.start, one.reference) for one in found.results.differences}
    assert pairs == {
        ("mine", "coco"), ("mine-longer", "coco"), ("ssl", "coco"), ("mine-longer", "mine"), ("ssl", "mine"),
        ("ssl", "mine-longer"),
    }  # fmt: skip
    assert found.verdict.startswith("ssl against mine-longer: ")
    assert found.verdict.index("against mine: ") < found.verdict.index("against coco: ")
    assert {one.reference for one in found.results.labels_worth} == {"mine-longer"}
    assert {one.start for one in found.results.labels_worth} == {"ssl"}
    assert {one.start for one in found.results.gains} <= {"mine-longer"}
    assert "a checkpoint, trained for longer" in found.report.read_text()
    # What it is compared with may be chosen anew, without a training.
    asked = len(fake.asked)
    again = headstart.compare(**{**options, "starts": starts})
    assert len(fake.asked) == asked
    assert again.verdict.startswith("ssl against coco: ")


def test_weights_that_are_not_cocos_are_not_called_so_without_a_remark(
    fake: FakeTraining, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics.nn.tasks import DetectionModel

    yolo = YOLO(small_yaml())
    yolo.model = DetectionModel(small_yaml(), nc=2, verbose=False)
    yolo.model.names = {0: "nut", 1: "bolt"}
    yolo.save(tmp_path / "old.pt")
    given = {**options, "starts": f"scratch,coco={tmp_path / 'old.pt'}", "labels": "100%"}
    found = headstart.compare(**given)
    told = "coco is old.pt, and not COCO's published weights: it has 2 classes (nut, bolt), and COCO has 80"
    assert f"{told}; own weights have a name of their own: starts=coco,mine=weights.pt" in capsys.readouterr().err
    assert f"{told}." in found.markdown
    assert found.report is not None
    assert "old.pt, given as COCO weights, which it is not" in found.report.read_text()


def test_a_longer_run_that_cannot_be_is_said(
    fake: FakeTraining, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    said = "longer=true: no start tells the steps of its pretraining, so there is no longer scratch run"
    headstart.compare(**{**options, "labels": "100%", "seeds": 1, "longer": True})
    assert said in capsys.readouterr().err
    headstart.compare(**{**options, "labels": "100%", "seeds": 1})
    assert said not in capsys.readouterr().err
    assert not [one for one in fake.asked if one.folder.parent.name == "longer"]


def test_test_images_in_the_pretraining_are_an_error(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    images = tmp_path / "unlabelled"
    images.mkdir()
    shutil.copy(data.parent / "images/unlabelled/00000.jpg", images / "a.jpg")
    run = run_folder(tmp_path / "ssl", weights, images)
    clean = headstart.compare(**{**options, "starts": f"scratch,ssl={run}", "labels": "25%", "longer": False})
    assert clean.results is not None
    leak = clean.results.starts[1].leak
    assert leak is not None
    assert leak.outcome == "not known"
    assert leak.words == "1 of its 6 pretraining images are still there, and none of these is a test image"
    assert clean.ok, "not known is no failure"
    shutil.copy(data.parent / "images/val/00003.jpg", images / "b.jpg")
    fake.asked.clear()
    with pytest.raises(
        UserError, match=r"the pretraining of ssl: 1 of 2 files have the content of a test image: .*b.jpg"
    ):
        headstart.compare(**{**options, "starts": f"scratch,ssl={run}", "labels": "25%", "longer": False})
    with pytest.raises(UserError, match="unlabelled: 1 of 2 files"):
        headstart.compare(**{**options, "starts": f"scratch,ssl={weights}", "unlabelled": str(images)})
    assert fake.asked == []


@pytest.mark.parametrize(
    ("looked", "named", "outcome", "words"),
    [
        (0, 3, "not known", "its pretraining images are not there any more"),
        (0, 1000, "not known", "its pretraining images are not there any more"),
        (5, 3, "not known", "5 of its 1,000 pretraining images are still there, and none of these is a test image"),
        (5, 1000, "not known", "5 of its 1,000 pretraining images are still there, and none of these is a test image"),
        (1000, 3, "passed", "none of 1,000 pretraining images is a test image"),
    ],
)
def test_a_part_of_the_pretraining_images_leaves_a_leak_unknown(
    looked: int, named: int, outcome: str, words: str
) -> None:
    run = PretrainingFacts(
        folder="runs/a", data=("images",), images=1000, method="dino", model="yolo11n.yaml", steps=10, seconds=1.0,
        device="cpu",
    )  # fmt: skip
    found = leaks.leak_of(Start("ssl", "checkpoint", "a.pt"), run, ["a.jpg"] * looked, named)
    assert (found.outcome, found.words) == (outcome, words), "its run folder names its images, and unlabelled= others"


def test_identical_seeds_fail(fake: FakeTraining, options: dict[str, Any]) -> None:
    fake.random = lambda settings: [7]
    found = headstart.compare(**{**options, "labels": "100%"})
    assert "seeds 0 and 1 of coco at 100% gave the same figures" in found.failed_checks[0].evidence
    assert not found.ok
    assert found.failed == ()
    assert found.verdict.startswith("These figures cannot be trusted")


@pytest.mark.parametrize(
    ("arrival", "message"),
    [
        ({"model": 498}, "1 of 499 tensors of the start did not arrive"),
        ({"ema": 490}, "9 of 499 tensors of the start did not arrive"),
        ({"initial": "f" * 64}, "began with other weights than those of its start"),
    ],
)
def test_weights_that_did_not_arrive_fail(
    fake: FakeTraining, options: dict[str, Any], arrival: dict[str, Any], message: str
) -> None:
    fake.arrival = arrival
    found = headstart.compare(**{**options, "labels": "100%"})
    assert [check.key for check in found.failed_checks] == ["arrived"]
    assert message in found.failed_checks[0].evidence


def test_a_test_part_without_labels_is_refused(
    fake: FakeTraining, options: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    for label in (tmp_path / "copy/labels/val").iterdir():
        label.write_text("")
    given = {**options, "data": tmp_path / "copy" / data.name}
    with pytest.raises(UserError, match="val has no labelled objects: nothing can be measured on it"):
        headstart.compare(**given)
    assert fake.asked == []
    next((tmp_path / "copy/labels/val").iterdir()).write_text("0 0.5 0.5 0.2 0.2\n")
    found = headstart.compare(**{**given, "labels": "100%", "report": False}).results
    assert found is not None
    assert found.data.labelled_test_images == 1


def test_keypoints_count_as_labelled_objects(options: dict[str, Any], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    for label in (tmp_path / "copy/labels").glob("*/*.txt"):
        label.write_text("0 0.5 0.5 0.2 0.2 0.5 0.5 2\n")
    path = tmp_path / "copy" / data.name
    path.write_text(path.read_text() + "kpt_shape: [1, 3]\n")
    settings = resolve(
        {
            **options,
            "data": str(path),
            "model": "yolo11n-pose",
            "starts": "scratch",
            "seeds": 1,
            "out": str(tmp_path / "out"),
        }
    )
    with prepare.open_folder(settings) as folder:
        found = facts(prepare.prepare(settings, folder.path), "")
    assert found.data.labelled_test_images == 6


def test_a_detector_of_boxes_uses_the_boxes_of_a_pose_data_set(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    first, *others = sorted((tmp_path / "copy/labels").glob("*/*.txt"))
    for label in others:
        label.write_text("0 0.5 0.5 0.2 0.2 0.5 0.5 2\n")
    first.write_text("0 0.5 0.5 0.2 0.2\n")  # no pose: of this image a pose model learns nothing
    path = tmp_path / "copy" / data.name
    path.write_text(path.read_text() + "kpt_shape: [1, 3]\n")
    every = list(find_images(str(path)))
    for model, missing in (("yolo11n", set()), ("yolo11n-pose", {first.stem}), ("yolo26s-pose.yaml", {first.stem})):
        found = read_dataset(path, "val", finetuner(model), model)
        assert {Path(image).stem for image in every} - {Path(image).stem for image in found.pool} == missing


def test_a_training_that_read_less_than_its_lists_fails_the_check(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake.read

    def without_one(s: FinetuneSettings) -> Used:
        used = whole(s)
        less = dataclasses.replace(used.test, images=used.test.images - 1)
        return dataclasses.replace(used, test=less) if s.name == "coco-100pc-seed1" else used

    monkeypatch.setattr(fake, "read", without_one)
    found = headstart.compare(**{**options, "labels": "100%", "report": False})
    (check,) = found.failed_checks
    assert check.key == "used"
    told = r"coco at 100%, seed 1, test: 5 images, (\d of them with \d+ objects) were used, of 6 images, \1; see "
    assert re.match(told, check.evidence)
    assert not found.ok
    monkeypatch.setattr(fake, "read", whole)
    sound = headstart.compare(**{**options, "labels": "25%", "report": False, "out": options["out"].parent / "sound"})
    assert sound.results is not None
    (check,) = [one for one in sound.results.checks if one.key == "used"]
    assert (check.outcome, sound.results.cells[0].meant) == ("passed", sound.results.cells[0].measured.used)


def test_a_copy_that_was_saved_anew_fails_a_check(
    fake: FakeTraining, options: dict[str, Any], data: Path, tmp_path: Path, weights: Path
) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    test, labelled = tmp_path / "copy/images/val/00002.jpg", tmp_path / "copy/images/train/renamed.png"
    cv2.imwrite(str(labelled), cv2.resize(cv2.imread(str(test)), None, fx=1.5, fy=1.5))
    given = {**options, "data": tmp_path / "copy" / data.name, "labels": "25%", "report": False}
    found = headstart.compare(**given)
    told = f"1 of 6 test images look the same as labelled images: {test} and {labelled}. They may be saved anew"
    assert [check.key for check in found.failed_checks] == ["test leak"]
    assert told in found.failed_checks[0].evidence
    assert not found.ok
    settings = resolve({name: str(value) for name, value in given.items()})
    with prepare.open_folder(settings) as folder:
        assert any(told in note for note in prepare.prepare(settings, folder.path).dataset.notes), (
            "before anything is trained"
        )
    labelled.unlink()
    images = tmp_path / "unlabelled"
    images.mkdir()
    cv2.imwrite(str(images / "a.jpg"), cv2.imread(str(test)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    run = run_folder(tmp_path / "ssl", weights, images)
    given |= {"out": tmp_path / "other", "starts": f"scratch,ssl={run}", "longer": False}
    assert [check.key for check in headstart.compare(**given).failed_checks] == ["pretraining leak"]


def test_labelled_images_of_a_pretraining_are_looked_at(
    fake: FakeTraining, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    """What ``labels=`` named is no part of ``data=``, and was learnt from all the same."""
    run = run_folder(tmp_path / "ssl", weights, data.parent / "images/unlabelled")
    (tmp_path / "few.yaml").write_text(f"path: {data.parent}\ntrain: images/val\nnames: [a]\n")
    content = yaml.safe_load((run / "settings.yaml").read_text())
    content["options"]["labels"] = str(tmp_path / "few.yaml")
    (run / "settings.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="the pretraining of ssl: 6 of 12 files have the content of a test image"):
        headstart.compare(**{**options, "starts": f"scratch,ssl={run}", "labels": "25%"})


def test_images_that_are_not_those_of_the_pretraining_tell_nothing(data: Path) -> None:
    folder = str(data.parent / "images/unlabelled")
    known = PretrainingFacts(
        folder="runs/a", data=(folder,), images=6, method="selftrain", model="yolo11n.yaml", steps=10, seconds=1.0,
        device="cpu", fingerprint=find_images(folder).fingerprint(),
    )  # fmt: skip
    images, start = origins.pretraining_images(known), Start("ssl", "checkpoint", "a.pt")
    assert leaks.leak_of(start, known, images, 0).outcome == "passed"
    other = leaks.leak_of(start, known.model_copy(update={"fingerprint": "0" * 32}), images, 0)
    assert other.outcome == "not known"
    assert other.words.startswith("the images that are there now are not those of its pretraining")


def test_a_list_changed_behind_its_back_fails_the_cell(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(settings: FinetuneSettings) -> bool:
        path = options["out"] / "labels/25pc-seed1.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        return False

    fake.fail = meddle
    found = headstart.compare(**{**options, "jobs": 1})
    assert len(found.failed) == 2
    assert all("the list of labelled images was changed" in one for one in found.failed)


def test_the_plan_trains_nothing_but_the_probe(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = FakeTraining()
    monkeypatch.setattr(cost, "finetune", probes)
    found = headstart.compare(**{**options, "lr": [0.001, 0.01], "plan": True, "labels": "50%,100%"})
    assert fake.asked == []
    assert len(probes.asked) == 3
    assert found.results is None
    assert found.ok
    text = capsys.readouterr().out
    assert "24 labelled images, 6 test images" in text
    cells = [[word.strip() for word in line.split("│")] for line in text.splitlines() if "│" in line]
    # 12 images less 2 to choose on, 24 less 5; 2 starts x 2 rates and 2 starts x 2 seeds at two budgets.
    assert [row[:5] for row in cells if row[1]] == [
        ["learning rates", "50%", "10", "4", "4"],
        ["", "100%", "19", "4", "4"],
        ["comparison", "50%", "12", "4", "4"],
        ["", "100%", "24", "4", "4"],
    ]
    assert next(row[4] for row in cells if row[0] == "all") == "16"
    assert not (options["out"] / "probe").exists()


def test_the_time_of_a_cell_follows_from_the_probes() -> None:
    class Result:
        seconds = 11.0

        def __init__(self, epoch: float) -> None:
            self.curve = [None, None, None]

    # An epoch: 0.05 s an image trained on, 0.02 s an image tested; counts (64, 32), (64, 128), (128, 32).
    epochs = [64 * 0.05 + 32 * 0.02, 64 * 0.05 + 128 * 0.02, 128 * 0.05 + 32 * 0.02]
    speed = cost._solve(epochs, [(64, 32), (64, 128), (128, 32)], Result(1.0))  # type: ignore[arg-type]
    assert (speed.train, speed.test) == pytest.approx((0.05, 0.02))
    assert speed.start == pytest.approx(0.0, abs=1e-9) or speed.start == pytest.approx(11.0 - 3 * epochs[0])
    cell = Cell("main", "a", "100%", 0, 0.1, 10, 200)
    assert speed.of(cell, 50) == pytest.approx(speed.start + 10 * (200 * 0.05 + 50 * 0.02))


def test_what_is_left_is_told_by_what_those_that_are_done_took(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[list[float], list[float], int]] = []

    def noted(done: list[float], left: list[float], places: int, elapsed: float) -> float:
        assert elapsed >= 0
        asked.append((list(done), list(left), places))
        return 61.0

    monkeypatch.setattr(runner, "time_left", noted)
    headstart.compare(**{**options, "seeds": 1, "jobs": 1})
    # 5 s at the start and 2 s an epoch of 6 images and 6 tests, of 0.4 images each: 8.4. With 24 images: 26.4.
    longer = 5 + 4 * 2 * 26.4 / 8.4
    assert asked[0] == ([13.0], [13.0, pytest.approx(longer), pytest.approx(longer)], 1)
    assert len(asked) == 3
    assert "; 3 left, about 1 min 01 s" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("epochs", "seconds"), [(100, 1 + 100 + 20 * 50), (50, 1 + 50 + 17 * 50), (3, 1 + 3 + 3 * 50)])
def test_epochs_that_are_not_measured_cost_no_test(epochs: int, seconds: float) -> None:
    # 100 epochs: every 5th is measured. 50: 3, 6 ... 48, and the last. 3: all. 100 images to train on, 5,000 to test.
    cell = Cell("main", "a", "100%", 0, 0.1, epochs, 100)
    assert pace.Speed(1.0, 0.01, 0.01).of(cell, 5000) == pytest.approx(seconds)


def test_everything_is_ready_before_the_first_training(options: dict[str, Any]) -> None:
    settings = resolve({**options, "data": str(options["data"]), "out": str(options["out"])})
    with prepare.open_folder(settings) as folder:
        ready = prepare.prepare(settings, folder.path)
    assert set(ready.files) == {(start, seed) for start in ("scratch", "coco") for seed in (0, 1)}
    assert all(file.path.is_file() for file in ready.files.values())
    assert {key: one.images for key, one in ready.lists.items()} == {
        ("25%", 0): 6, ("25%", 1): 6, ("100%", 0): 24, ("100%", 1): 24,
    }  # fmt: skip
    assert len(ready.lists["100%", 0].file.read_text().split()) == 24


def test_a_comparison_at_work_keeps_others_out(options: dict[str, Any]) -> None:
    given = {**options, "data": str(options["data"]), "out": str(options["out"])}
    with prepare.open_folder(resolve(given)), pytest.raises(UserError, match="another run is at work in this folder"):
        headstart.compare(**given)
    with prepare.open_folder(resolve(given)):
        pass


def spiked(data: Path, folder: Path) -> Path:
    """A copy of a data set with all that Ultralytics would write anew, read in a label's place, or remove."""
    shutil.copytree(data.parent, folder)
    first, second, *others = sorted((folder / "images/train").iterdir())
    first.write_bytes(first.read_bytes().removesuffix(b"\xff\xd9"))
    second.with_suffix(".npy").write_bytes(b"the user's own, and no array")
    for image in others:
        np.save(image.with_suffix(".npy"), np.zeros((3, 3), np.uint16))  # of other pixels than the image
    for part in ("train", "val"):
        (folder / f"labels/{part}.cache").write_bytes(b"another trainer's")
    return folder / data.name


def test_a_real_comparison(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of one epoch, by Ultralytics, through everything: starts, arrival, scores of classes, pictures."""
    weights = tmp_path / "weights" / "w.pt"
    weights.parent.mkdir()
    YOLO("yolo11n.yaml").save(weights)
    mine = spiked(data, tmp_path / "mine")
    settings = own_settings(tmp_path / "config", tmp_path / "datasets")
    before = SETTINGS_FILE.read_bytes()  # of this process; those that train read the other one
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    with untouched(mine.parent), untouched(settings.parent):
        found = headstart.compare(
            data=mine, starts=["scratch", f"coco={weights}"], labels=["8"], seeds=1, epochs=1, imgsz=64, batch=4,
            lr=0.001, device="cpu", out=tmp_path / "it's #1", pictures=2, workers=0, extra={"cache": "disk"},
        )  # fmt: skip
    assert SETTINGS_FILE.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "config", "weights", "it's #1"}, (
        "no folder of Ultralytics"
    )
    assert not list(found.folder.rglob("*.npy")), "decoded images go with their training"
    assert found.failed == ()
    content = found.results
    assert content is not None
    assert [cell.state for cell in content.cells] == ["done", "done"]
    for cell in content.cells:
        figures = cell.measured
        assert figures.arrived == Arrived(tensors=499, model=499, ema=499)
        assert figures.initial_sha256 == cell.start_sha256
        assert len(figures.curve) == 1
        assert sum(one.objects for one in figures.class_scores) > 0
        mean = np.mean([one.map50_95 for one in figures.class_scores])
        assert mean == pytest.approx(figures.map50_95, abs=1e-4), "mAP is the mean over the classes"
        assert (found.folder / cell.folder / "args.yaml").is_file()
    assert content.failed_checks == ()
    assert read_results(found.folder) == content
    assert "one seed" in found.verdict
    shown = read_detections(found.folder)
    assert shown is not None
    assert len(shown.images) == 2
    assert set(shown.images[0].found) == {"scratch", "coco"}
    assert shown.images[0].truth
