"""A comparison that is called again after something beside it has changed, or that was stopped before it had looked."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image, ImageOps
from test_runner import FakeTraining

import headstart
from headstart import report
from headstart.comparison import prepare, request, runner, wording
from headstart.comparison.child import Stopped
from headstart.comparison.label_lists import held_out_part
from headstart.comparison.results import read_results
from headstart.comparison.shown import Detections, ShownImage, there, write_detections
from headstart.comparison.starts import build_starts
from headstart.detectors.finetuner import UNDER_WAY, FinetuneSettings
from headstart.errors import UserError
from headstart.images.labels import label_path
from headstart.jobs.scenes import draw_dataset
from small import small_yaml


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
    given |= {"model": small_yaml(), "out": tmp_path / "out", "pictures": 0}
    return {**given, "imgsz": 64, "lr": 0.001, "device": "cpu", "jobs": 2}


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


def test_an_image_that_was_replaced_makes_another_training_of_one_under_way(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    """Stopped by Ctrl-C: the mark by which a training knows what was kept of it is another, and the same otherwise."""
    stopped = {**options, "seeds": 1, "starts": "scratch"}

    def stop(settings: FinetuneSettings) -> bool:
        raise Stopped

    fake.fail = stop
    marks = []
    image = next((options["data"].parent / "images/train").iterdir())
    for side in (None, 80):
        if side:
            ImageOps.invert(Image.open(image).convert("RGB")).resize((side, side)).save(image)
        for _ in range(2):
            assert headstart.compare(**stopped).interrupted
        marks.append({one.key for one in fake.asked})
        fake.asked.clear()
    assert [len(some) for some in marks] == [1, 1]
    assert marks[0] != marks[1]
    assert "" not in marks[0] | marks[1]


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


def test_a_comparison_of_an_earlier_version_is_gone_on_with(fake: FakeTraining, options: dict[str, Any]) -> None:
    """Its compare.yaml lacks the options that came since: what it did then is what their defaults do."""
    headstart.compare(**options)
    record = options["out"] / "compare.yaml"
    content = yaml.safe_load(record.read_text())
    record.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in ("start_lr", "reference", "split")}))
    assert asked_again(fake, options) == 0
    record.write_text(yaml.safe_dump({k: v for k, v in content.items() if k != "lr_val"}))
    with pytest.raises(UserError, match=r"lr_val: was 0\.2 when the comparison began, is 0\.3 now"):
        headstart.compare(**{**options, "lr_val": 0.3})


def test_a_start_is_added_with_a_rate_of_its_own(fake: FakeTraining, options: dict[str, Any], weights: Path) -> None:
    headstart.compare(**options)
    more = {**options, "starts": f"{options['starts']},mine={weights}", "start_lr": {"mine": 0.0001}}
    assert asked_again(fake, more) == 2
    assert {(one.name.split("-")[0], one.lr0) for one in fake.asked} == {("mine", 0.0001)}
    assert asked_again(fake, more) == 0
    # Left out, or changed, it would be trained anew without a word; where the start is left out, its rate is, too.
    with pytest.raises(UserError, match=r"mine was trained at 0\.0001, and has none of its own now"):
        headstart.compare(**{**more, "start_lr": {}})
    with pytest.raises(UserError, match=r"start_lr: mine was trained at 0\.0001, and has 0\.0002 now"):
        headstart.compare(**{**more, "start_lr": {"mine": 0.0002}})
    assert asked_again(fake, options) == 0
    # A call without the start, whose rate is then not in compare.yaml, does not make that forgotten.
    with pytest.raises(UserError, match=r"start_lr: mine was trained at 0\.0001, and has 0\.0002 now"):
        headstart.compare(**{**more, "start_lr": {"mine": 0.0002}})


def test_a_rate_that_nothing_was_trained_at_may_change(
    fake: FakeTraining, options: dict[str, Any], weights: Path
) -> None:
    """A plan was asked for, and a call was refused: neither has trained the start."""
    headstart.compare(**options)
    more = {**options, "starts": f"{options['starts']},mine={weights}"}
    headstart.compare(**{**more, "start_lr": {"mine": 0.1}, "plan": True})
    with pytest.raises(UserError, match="1000 labelled images were asked for"):
        headstart.compare(**{**more, "start_lr": {"mine": 0.2}, "labels": "1000"})
    assert asked_again(fake, {**more, "start_lr": {"mine": 0.0001}}) == 2


def test_what_is_trained_anew_is_said_with_the_reason(
    fake: FakeTraining, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    headstart.compare(**options)
    assert "trained anew" not in capsys.readouterr().err
    image = next((options["data"].parent / "images/train").iterdir())
    ImageOps.invert(Image.open(image).convert("RGB")).resize((80, 80)).save(image)
    headstart.compare(**options)
    said = capsys.readouterr().err
    assert "trained anew, for labels, images or options are others: scratch, 100%, seed 0; " in said
    assert "and 1 more" in said
    headstart.compare(**options)
    assert "trained anew" not in capsys.readouterr().err


def test_other_versions_are_said_before_more_is_trained() -> None:
    """A build's name is none: torch says 2.9.0+cpu of itself, its package 2.9.0."""
    kept: Any = {
        "cell": SimpleNamespace(arrival=SimpleNamespace(versions={"ultralytics": "8.3.0", "torch": "2.9.0+cpu"}))
    }
    more: Any = SimpleNamespace(changed=lambda: "")
    now = {"ultralytics": "8.4.1", "torch": "2.9.0"}
    (said,) = request.told_before(kept, [more], now)
    assert said.startswith(
        "what is kept was trained with ultralytics 8.3.0, and here is ultralytics 8.4.1, torch 2.9.0: "
    )
    assert request.told_before(kept, [], now) == []
    assert request.told_before(kept, [more], {"ultralytics": "8.3.0", "torch": "2.9.0+cu128"}) == []


def test_the_state_of_a_training_is_kept_until_it_is_written_down(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that is full just then: the same command goes on from there, and not from the beginning."""
    write, left = request.write_text, list[bool]()

    def full(path: Path, text: str) -> None:
        (path.parent / UNDER_WAY).touch()
        if len(left) < 2:
            left.append(True)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(request, "write_text", full)
    assert not headstart.compare(**{**options, "starts": "scratch"}).ok
    folders = list((options["out"] / "cells").iterdir())
    assert [(one / UNDER_WAY).is_file() for one in folders] == [True, True]
    headstart.compare(**{**options, "starts": "scratch"})
    assert [(one / UNDER_WAY).is_file() for one in folders] == [False, False]


def test_labelled_images_without_an_object_are_refused_before_anything_is_trained(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    for image in sorted((options["data"].parent / "images/train").iterdir())[1:]:
        label_path(str(image)).write_text("")
    with pytest.raises(UserError, match=r"labels: the 1 labelled images that seed \d draws for 1 show no object"):
        headstart.compare(**{**options, "labels": "1", "seeds": 6})
    with pytest.raises(UserError, match=r"lr: of 100% the \d+ images that rates are judged on, or the others, show no"):
        headstart.compare(**{**options, "lr": [0.001, 0.01]})
    assert not fake.asked


def test_images_without_a_label_file_are_said_to_be_background(
    fake: FakeTraining, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for image in sorted((options["data"].parent / "images/train").iterdir())[4:]:
        label_path(str(image)).unlink()
    headstart.compare(**options)
    said = " ".join(capsys.readouterr().err.split())
    assert "20 of 24 images of train have no label file, and are taken for background" in said


def test_starts_whose_runs_would_have_one_folder_are_refused(
    fake: FakeTraining, options: dict[str, Any], weights: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"method: selftrain\nsteps: 2\nmodel: {small_yaml()}\n")
    starts = f"mine={recipe},mine-12={weights}"
    with pytest.raises(UserError, match="starts: mine and mine-12 would have one folder with these labels"):
        headstart.compare(**{**options, "starts": starts, "labels": "12"})
    assert not fake.asked


def test_that_nothing_will_be_compared_is_said_before(
    fake: FakeTraining, options: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start alone is what others are added to: with `scratch` beside it nothing of it is trained again."""
    told = "coco is the only start: it is trained and measured, and compared with nothing"
    assert asked_again(fake, {**options, "starts": f"coco={weights}"}) == 2
    said = capsys.readouterr().err
    assert said.index(told) < said.index("cells: 2")
    assert asked_again(fake, options) == 2
    assert told not in capsys.readouterr().err


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


def stop_after(fake: FakeTraining, count: int) -> None:
    """Ctrl-C when so many trainings have ended; their figures are others than before."""
    fake.asked.clear()

    def stop(settings: FinetuneSettings) -> bool:
        if len(fake.asked) > count:
            raise Stopped
        return False

    fake.fail = stop
    fake.random = lambda settings: [99, settings.seed, *map(ord, settings.name)]


def test_figures_of_labels_that_were_corrected_do_not_outlive_ctrl_c(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    given = {**options, "labels": "50%,100%", "jobs": 1, "pictures": 1}
    assert headstart.compare(**given).ok
    first = read_results(options["out"])
    (options["out"] / "detections.json").write_text("{}")
    names = ("50pc-seed0", "50pc-seed1", "100pc-seed0")
    lists = [(options["out"] / f"labels/{name}.txt").read_text() for name in names]
    label = label_path(next(image for image in lists[2].split() if image not in lists[0] + lists[1]))
    label.write_text(label.read_text().rstrip() + "  \n")
    # At half of the images nothing has changed; at all of them the first of four is trained anew, and the rest are not.
    stop_after(fake, 1)
    assert headstart.compare(**given).interrupted
    now = read_results(options["out"])
    assert [cell.shown for cell in now.finished() if cell.budget == "100%"] == ["scratch at 100%, seed 0"]
    (anew,) = now.of("scratch", "100%")
    assert anew.figures not in [cell.figures for cell in first.finished()]
    for start in ("scratch", "coco"):
        assert now.of(start, "50%") == first.of(start, "50%")
    assert [check.key for check in now.failed_checks] == ["complete"]
    table = (options["out"] / "results.md").read_text()
    assert f"{anew.measured.map50_95:.3f}" in table
    assert wording.markdown(now) == table
    assert not (options["out"] / "report.html").exists(), "it showed the figures of the labels as they were"
    assert not (options["out"] / "detections.json").exists(), "likewise the detectors"


def test_ctrl_c_with_one_training_more_keeps_what_nobody_had_looked_at(
    fake: FakeTraining, options: dict[str, Any]
) -> None:
    given = {**options, "lr": [0.001, 0.01], "jobs": 1}
    assert headstart.compare(**given).ok
    first = read_results(options["out"])
    stop_after(fake, 1)
    # No rate is searched for again: the trainings of the seed that comes first are those that are stopped.
    assert headstart.compare(**{**options, **given, "seeds": [0, 2, 1]}).interrupted
    now = read_results(options["out"])
    assert sorted(cell.shown for cell in now.finished()) == sorted(
        [*(cell.shown for cell in first.finished()), "scratch at 100%, seed 2"]
    )
    assert {(one.start, one.lr) for one in now.rates} == {(one.start, one.lr) for one in first.rates}
    assert wording.markdown(now) == (options["out"] / "results.md").read_text()
    assert not (options["out"] / "report.html").exists()


@pytest.mark.parametrize("drawn", [True, False])
def test_no_page_of_other_figures_is_left(
    fake: FakeTraining, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, drawn: bool
) -> None:
    """Where none is asked for, and where it cannot be drawn."""

    def fail(*given: Any) -> Path:
        raise OSError("no room")

    page = options["out"] / "report.html"
    assert headstart.compare(**options).report == page
    fake.random = lambda settings: [99, settings.seed, *map(ord, settings.name)]
    image = next((options["data"].parent / "images/train").iterdir())
    ImageOps.invert(Image.open(image).convert("RGB")).resize((80, 80)).save(image)
    if drawn:
        monkeypatch.setattr(report, "write_report", fail)
    assert headstart.compare(**{**options, "report": drawn}).report is None
    assert not page.exists()
    assert wording.markdown(read_results(options["out"])) == (options["out"] / "results.md").read_text()


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
