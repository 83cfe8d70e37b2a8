from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from headstart.errors import UserError
from headstart.jobs.scenes import CLASSES, SCENES, SIGNS, THINGS, Kind, draw_dataset, draw_scenes

COUNTS = {"unlabelled": 6, "train": 24, "val": 8}


def digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sha.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("scenes"), **COUNTS, imgsz=96, seed=5).parent


def test_same_bytes_in_another_process(drawn: Path, tmp_path: Path) -> None:
    code = "import sys; from headstart.jobs.scenes import draw_dataset as d; d(sys.argv[1], {}, imgsz=96, seed=5)"
    code = code.format(", ".join(f"{name}={count}" for name, count in COUNTS.items()))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert digest(tmp_path / "again") == digest(drawn)


def test_seed_and_count_do_what_they_say(drawn: Path, tmp_path: Path) -> None:
    other = draw_dataset(tmp_path / "other", **COUNTS, imgsz=96, seed=6).parent
    assert digest(other) != digest(drawn)
    more = draw_dataset(tmp_path / "more", unlabelled=0, train=30, val=1, imgsz=96, seed=5).parent
    for name in ("images/train/00023.jpg", "labels/train/00023.txt"):
        assert (more / name).read_bytes() == (drawn / name).read_bytes()


def test_layout_is_what_ultralytics_reads(drawn: Path) -> None:
    data = yaml.safe_load((drawn / "scenes.yaml").read_text())
    assert data["names"] == dict(enumerate(CLASSES))
    assert "path" not in data, "an absolute path would not survive a move"
    for split, count in COUNTS.items():
        images = sorted((drawn / "images" / split).iterdir())
        assert len(images) == count
        assert all(cv2.imread(str(path)).shape == (96, 96, 3) for path in images)
        labels = {path.stem for path in (drawn / "labels" / split).glob("*.txt")}
        assert labels == (set() if split == "unlabelled" else {path.stem for path in images})


def test_labels_are_tight_around_what_is_visible(drawn: Path) -> None:
    for number, scene in enumerate(draw_scenes("train", 24, imgsz=96, seed=5)):
        text = (drawn / "labels/train" / f"{number:05d}.txt").read_text()
        rows = np.array([[float(word) for word in line.split()] for line in text.splitlines()])
        assert rows.shape == (len(scene.classes), 5)
        assert (rows[:, 0] == scene.classes).all()
        for label, (_, x, y, width, height) in enumerate(rows * [1, 96, 96, 96, 96]):
            columns = np.flatnonzero((scene.owner == label).any(axis=0))
            lines = np.flatnonzero((scene.owner == label).any(axis=1))
            found = [columns[0], lines[0], columns[-1] + 1, lines[-1] + 1]
            assert [x - width / 2, y - height / 2, x + width / 2, y + height / 2] == pytest.approx(found, abs=1e-3)


def test_what_a_box_holds_differs_from_a_picture_without_it() -> None:
    # The owner map is the drawing's own word; here the pixels themselves are asked: an object stands out.
    scenes = list(draw_scenes("val", 20, imgsz=128, seed=1))
    steps = []
    for scene in scenes:
        for label in range(len(scene.classes)):
            inside = scene.owner == label
            around = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & (scene.owner < 0)
            if around.any():
                steps.append(np.abs(scene.image[inside].mean(axis=0) - scene.image[around].mean(axis=0)).sum())
    assert np.median(steps) > 40
    assert np.mean(np.array(steps) > 12) > 0.9


def test_objects_stay_visible() -> None:
    for scene in draw_scenes("train", 30, imgsz=128, seed=3):
        areas = [(scene.owner == label).sum() for label in range(len(scene.classes))]
        # The smallest outline drawn (a thin crescent, radius 0.08 of the side) has some 60 pixels at this size.
        assert min(areas, default=99) > 60 * SCENES.visible * 0.5
        boxes = scene.boxes
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 128).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()


def test_classes_are_balanced_and_have_no_color() -> None:
    scenes = list(draw_scenes("train", 120, imgsz=64, seed=2))
    labels = np.concatenate([scene.classes for scene in scenes])
    counts = np.bincount(labels, minlength=len(CLASSES))
    assert counts.max() - counts.min() <= 2
    colors = np.array([s.image[s.owner == k].mean(axis=0) for s in scenes for k in range(len(s.classes))])
    spread = colors.std(axis=0)
    for label in range(len(CLASSES)):
        # A class mean strays by about spread / sqrt(n); four times that would be a color of its own.
        stray = np.abs(colors[labels == label].mean(axis=0) - colors.mean(axis=0))
        assert (stray < 4 * spread / np.sqrt(counts[label])).all()


def test_no_image_is_in_two_splits(drawn: Path) -> None:
    contents = [path.read_bytes() for path in (drawn / "images").rglob("*.jpg")]
    assert len(set(contents)) == sum(COUNTS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"train": -1}, "train: a negative number"), ({"imgsz": 20}, "imgsz: 20 px is too small")],
)
def test_senseless_numbers_are_refused(tmp_path: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_dataset(tmp_path / "new", **{"unlabelled": 0, "train": 1, "val": 1, **change})


def test_nothing_is_drawn_over(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        draw_dataset(tmp_path, unlabelled=0, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


@pytest.mark.parametrize(("kind", "classes"), [(SIGNS, 8), (THINGS, 1)])
def test_other_kinds_have_their_classes_and_as_many_objects_as_they_say(
    tmp_path: Path, kind: Kind, classes: int
) -> None:
    data = draw_dataset(tmp_path / "drawn", unlabelled=0, train=40, val=1, imgsz=64, kind=kind)
    assert len(yaml.safe_load(data.read_text())["names"]) == classes
    files = sorted((data.parent / "labels" / "train").iterdir())
    rows = [[line.split() for line in path.read_text().splitlines()] for path in files]
    assert {int(row[0]) for one in rows for row in one} == set(range(classes))
    assert {len(one) for one in rows} <= {0, 1, 2}
    assert {1, 2} <= {len(one) for one in rows}


def test_signs_are_the_same_in_a_mirror_and_not_upside_down() -> None:
    """A training mirrors images from left to right: a sign must stay what it is."""
    generator = np.random.default_rng(0)
    drawn = {name: [SIGNS.stencil(name, 60, generator) for _ in range(300)] for name in SIGNS.shapes}
    mean = {name: np.mean([mask.astype(float) for mask in masks], axis=0) for name, masks in drawn.items()}
    for name, one in mean.items():
        assert np.abs(one - one[:, ::-1]).mean() < 10, name
    assert np.abs(mean["up"] - mean["down"][::-1]).mean() < 5
    assert np.abs(mean["up"] - mean["down"]).mean() > 25
    rows = np.arange(len(mean["up"]))[:, None]
    middle = {name: float((one * rows).sum() / one.sum()) for name, one in mean.items()}
    assert middle["up"] < middle["down"], "more of an arrow is where it points"
