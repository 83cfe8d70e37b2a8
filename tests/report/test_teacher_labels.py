"""The report of a run that learns from labels, and labels what has none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import fake_run
import pytest
from PIL import Image
from test_pretraining_page import Page, draw

PASS = {
    "step": 60,
    "images": 4124,
    "with_labels": 2717,
    "labels": 3611,
    "left_open": 1377,
    "mean_score": 0.8149,
    "classes": {"bolt": 3000, "nut & <b>": 611},
    "precision": 0.8,
    "recall": 0.6452,
    "f1": 0.714,
    "by_class": {
        "bolt": {"known": 21, "given": 20, "right": 17},
        "nut & <b>": {"known": 10, "given": 5, "right": 3},
    },
}
RECORD = {
    "names": ["bolt", "nut & <b>", "washer"],
    "keep": 0.5,
    "unsure": 0.1,
    "labelled": 297,
    "unlabelled": 4124,
    "held_out": 30,
    "passes": [{**PASS, "step": 30, "labels": 100, "classes": {"bolt": 100}}, PASS],
    "judged": {"step": 4000, "precision": 0.9, "recall": 0.7, "f1": 0.79, "by_class": {}},
    "drifted": "",
}


def record(run: Path, **changed: Any) -> None:
    (run / "teacher.json").write_text(json.dumps({**RECORD, **changed}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of selftrain."""
    run = fake_run.write_run(tmp_path / "run")
    fake_run.write_settings(run, method="selftrain", labels="few labels.yaml", data=["pool.yaml", "more/images"])
    record(run)
    return run


def rows(page: Page) -> str:
    """The page's words from the section on labels on."""
    return page.text[page.text.index("What the teacher labelled") :]


def test_the_verdict_says_what_was_trained_labelled_and_right(run: Path) -> None:
    text = draw(run).text
    assert "5,948 images from pool.yaml, more/images, 297 of them labelled, for 5,000 steps" in text
    assert "without a label" not in text
    assert "Its teacher gave 3,611 labels to 2,717 of 4,124 images (the last of 2 passes)" in text
    assert "of the labels of 30 held-out images it found 65%, and 80% of what it gave there was right." in text
    assert "No collapse" in text
    assert "only a comparison says" in text


def test_another_detector_that_labelled_first_is_named(run: Path) -> None:
    passes = [{**PASS, "step": 0, "by": "yolo11x"}, PASS]
    record(run, passes=passes)
    text = rows(draw(run))
    assert "step 0, by yolo11x 4,124 2,717" in text
    assert "The images without labels were labelled by yolo11x and then by a moving average of the detector. A" in text
    record(run, passes=passes[:1])
    page = draw(run)
    assert "without labels were labelled by yolo11x. A box" in page.text
    assert "yolo11x gave 3,611 labels to 2,717 of 4,124 images; of the labels" in page.text


def test_the_tables_of_passes_and_classes(run: Path) -> None:
    text = rows(draw(run))
    assert "step 60 4,124 2,717 3,611 1,377 0.81 65% 80%" in text
    assert "30 labelled images with 31 labels were held out until the last part of the training, before" in text
    record(run, judged={**RECORD["judged"], "step": 5000})
    assert "30 labelled images with 31 labels were held out. Recall" in rows(draw(run))
    assert "0 bolt 3,000 17 of 21 17 of 20 1 nut & <b> 611 3 of 10 3 of 5" in text
    assert "No image got a label of washer." in text
    assert "given in the last pass" in text
    record(run, handed_back={**PASS, "labels": 5000, "classes": {"bolt": 5000}, "all": True, "recall": None})
    text = rows(draw(run))
    assert "in the end, as handed back 4,124 2,717 5,000" in text
    assert "0 bolt 5,000 17 of 21" in text
    assert "No image got a label of nut & <b>, washer." in text
    record(run, handed_back={**PASS, "images": 400, "labels": 380, "classes": {"bolt": 380}, "all": False})
    text = rows(draw(run))
    assert "as handed back, a part of the images 400" in text
    assert "0 bolt 3,000 17 of 21" in text


def test_thresholds_by_class_are_shown(run: Path) -> None:
    text = rows(draw(run))
    assert "A box with a score of 0.5 and more counts" in text
    assert "Kept from" not in text
    keep = {"bolt": 0.634, "nut & <b>": 0.2, "washer": 0.4}
    record(run, keep="class", passes=[{**PASS, "keep": keep}])
    text = rows(draw(run))
    assert "A box with the score of its class below and more counts" in text
    assert "Kept from 0 bolt 3,000 17 of 21 17 of 20 0.63 1 nut & <b> 611 3 of 10 3 of 5 0.20" in text


def test_what_is_not_known_is_not_said(run: Path) -> None:
    plain = {key: value for key, value in PASS.items() if key not in ("precision", "recall", "f1", "by_class")}
    record(run, held_out=0, passes=[plain])
    page = draw(run)
    assert "no labels were held out, so nothing here says how many of them are right" in page.text
    assert "%" not in page.text[page.text.index("Its teacher gave") : page.text.index("There was no sign")]
    assert "0 bolt 3,000 – –" in rows(page)
    record(run, passes=[{**plain, "labels": 0, "with_labels": 0, "mean_score": None, "classes": {}}])
    page = draw(run)
    assert "Of 4,124 images its teacher labelled none: they taught it nothing." in page.text
    assert "0 0 1,377 – – –" in rows(page)
    (run / "teacher.json").unlink()
    page = draw(run)
    assert "some of them labelled" in page.text
    for known, said in ((297, "297 of them labelled"), (5948, "all of them labelled")):
        fake_run.write_settings(run, method="selftrain", labels={"images": known, "boxes": 1}, images=5948)
        page = draw(run)
        assert said in page.text
        assert "some of them" not in page.text
    assert "What the teacher labelled" not in page.text


@pytest.mark.parametrize(
    "content", ["", "[]", '{"passes": 3, "names": "x"}', '{"passes": [{"classes": 1, "step": "x"}]}']
)
def test_a_damaged_record_spoils_no_page(run: Path, content: str) -> None:
    (run / "teacher.json").write_text(content)
    assert "No collapse" in draw(run).text


def test_a_teacher_that_drifted_or_is_mostly_wrong_is_no_good_run(run: Path) -> None:
    record(run, drifted="the teacher has drifted: of 'bolt' ...")
    with (run / "events.jsonl").open("w") as stream:
        stream.write(json.dumps({"step": 60, "kind": "alarm", "message": "the teacher has drifted: of 'bolt' ..."}))
    page = draw(run)
    assert ("p", {"class": "pill warn"}) in page.elements
    assert "Teacher drifted" in page.text
    assert "A collapse alarm sounded" not in page.text
    assert "the teacher has drifted: of 'bolt' ..." in page.text
    (run / "events.jsonl").unlink()
    wrong = {"bolt": {"known": 21, "given": 11, "right": 5}}
    record(run, passes=[{**PASS, "by_class": wrong}])
    assert "Teacher mostly wrong" in draw(run).text
    record(run, passes=[{**PASS, "by_class": {"bolt": {"known": 21, "given": 10, "right": 5}}}])
    assert "Teacher mostly wrong" not in draw(run).text


def test_next_is_to_predict_and_to_train_on_these_labels(run: Path) -> None:
    weights = str((run / "headstart.pt").resolve())
    commands = [shlex.split(code) for code in draw(run).codes]
    assert ["yolo", "detect", "predict", f"model={weights}", "source=more/images"] in commands
    assert ["yolo", "detect", "train", "data=few labels.yaml", f"model={weights}"] in commands
    compare = next(words for words in commands if words[:2] == ["headstart", "compare"])
    assert f"starts=coco,coco-longer,mine={(run / 'settings.yaml').resolve()},mine-as-is" in compare
    assert "data=few labels.yaml" in compare


def test_a_recipe_with_an_object_in_memory_is_not_suggested(run: Path) -> None:
    """A comparison refuses it; what to write in its place is said."""
    objects = {"model": {"in_memory": "YOLO", "origin": "a.pt"}, "teacher": {"in_memory": "Net", "origin": None}}
    fake_run.write_settings(run, method="selftrain", labels="few labels.yaml", data=["pool.yaml"], **objects)
    (run / "start.pt").write_bytes(b"")
    page = draw(run)
    assert not [words for words in page.codes if words.startswith("headstart compare")]
    assert "Of this run model and teacher were objects in memory, which a recipe cannot be: copy" in page.text
    assert f"(model: {(run / 'start.pt').resolve()}, teacher: the path of one)" in page.text
    assert "led by teacher=Net" in page.text


def test_the_sheets_stand_with_the_labels(run: Path) -> None:
    (run / "assets").mkdir()
    for name in ("sure", "least-sure", "open"):
        Image.effect_noise((300, 200), 60).save(run / "assets" / f"{name}.png")
    page = draw(run)
    assert {"picture-sure", "picture-least-sure", "picture-open"} <= set(page.ids)
    assert all(found.get("alt") for tag, found in page.elements if tag == "img")
    assert page.count("table") == page.count("caption")
