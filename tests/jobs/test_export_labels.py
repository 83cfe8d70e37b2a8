"""The labels of a teacher on disk: what Ultralytics reads of them, and headstart itself."""

from __future__ import annotations

import csv
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset

from headstart.errors import UserError
from headstart.files import LOCK
from headstart.images.index import ImageIndex, find_images
from headstart.jobs import export_labels as module
from headstart.jobs.export_labels import UNFINISHED, boxes_only, export_labels, file_names, free, refusals
from headstart.jobs.labelled import given_labels
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections, Labelling

NAMES = ("bolt", "nut: M8")


@pytest.fixture
def images(tmp_path: Path) -> ImageIndex:
    """Two folders with images of the same names, and a third image in one."""
    for folder, numbers in (("a", range(2)), ("b", range(3))):
        (tmp_path / folder).mkdir()
        for number in numbers:
            cv2.imwrite(str(tmp_path / folder / f"{number}.jpg"), np.full((40, 60, 3), 99, np.uint8))
    return find_images([str(tmp_path / "a"), str(tmp_path / "b")])


@pytest.fixture
def given() -> GivenLabels:
    """Row 0 has a box, row 1 shows nothing."""
    boxes, classes = torch.tensor([[0.1, 0.2, 0.5, 0.6]]), torch.tensor([1])
    labels = PseudoLabels.gather(5, torch.tensor([0]), boxes, torch.ones(1), classes)
    return GivenLabels(NAMES, torch.tensor([0, 1]), labels)


@pytest.fixture
def labelled() -> Labelling:
    """Row 2 has two labels and a box that is left open, row 3 nothing, row 4 two boxes that are left open."""
    found = Detections(
        torch.tensor([2, 2, 2, 4, 4]),
        torch.tensor([[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 0.5]]),
        torch.tensor([0.9, 0.6, 0.2, 0.3, 0.4]),
        torch.tensor([0, 1, 1, 0, 0]),
        torch.tensor([2, 3, 4]),
    )
    return Labelling.split(found, 0.5)


def read(data: Path, part: str = "train") -> dict[str, tuple[list[float], list[list[float]]]]:
    """What Ultralytics reads of a dataset: image -> classes and boxes."""
    checked = check_det_dataset(str(data))
    hyp = get_cfg()
    dataset = YOLODataset(img_path=checked[part], data=checked, task="detect", hyp=hyp, augment=False, cache=False)
    return {
        Path(one["im_file"]).name: (one["cls"][:, 0].tolist(), one["bboxes"].round(4).tolist())
        for one in dataset.labels
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_ultralytics_reads_what_was_written(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*.jpg")}
    out = tmp_path / "out"
    assert export_labels(out, images, given, labelled) == (3, 2, 2, 0)
    assert list(check_det_dataset(str(out / "data.yaml"))["names"].values()) == list(NAMES)
    wanted = {
        "0.jpg": ([1.0], [[pytest.approx(0.3), pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4)]]),
        "1.jpg": ([], []),
        "0-2.jpg": ([0.0, 1.0], [[0.125, 0.25, 0.25, 0.5], [0.75, 0.75, 0.5, 0.5]]),
    }
    assert read(out / "data.yaml") == wanted
    rows = table(out / "confidences.csv")
    assert [(row["image"], row["class"], row["name"], row["confidence"], row["from"]) for row in rows] == [
        ("images/0.jpg", "1", "nut: M8", "1.0000", "given"),
        ("images/0-2.jpg", "0", "bolt", "0.9000", "teacher"),
        ("images/0-2.jpg", "1", "nut: M8", "0.6000", "teacher"),
    ]
    left_out = [(Path(row["image"]).name, row["unsure"], row["best"]) for row in table(out / "left_out.csv")]
    assert left_out == [("2.jpg", "2", "0.4000"), ("1.jpg", "0", "")]
    assert (out / "classes.txt").read_text() == "bolt\nnut: M8\n"
    for path, mark in before.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == mark
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0.jpg", "1.jpg"]
    # Elsewhere it is the same data set.
    shutil.rmtree(out / "labels.cache", ignore_errors=True)
    out.rename(tmp_path / "moved")
    assert read(tmp_path / "moved" / "data.yaml") == wanted


def test_headstart_reads_what_was_written(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    """As images to learn from, and as labels: three images, one of them background; boxes as they were."""
    out = tmp_path / "out"
    export_labels(out, images, given, labelled)
    data = str(out / "data.yaml")
    found = find_images(data)
    assert [Path(path).name for path in found] == ["0-2.jpg", "0.jpg", "1.jpg"]
    again, told = given_labels(data, found)
    assert "3 labelled images (3 boxes, 2 classes; 1 show no object)" in told[0]
    owner, boxes, classes = again.labels.of(again.rows)
    assert (owner.tolist(), classes.tolist()) == ([0, 0, 1], [0, 1, 1])
    torch.testing.assert_close(
        boxes, torch.tensor([[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1], [0.1, 0.2, 0.5, 0.6]]), atol=1e-6, rtol=0
    )


def test_what_is_validated_on_stays_what_it_is(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    export_labels(tmp_path / "out", images, given, labelled, {"val": [str(tmp_path / "b" / "2.jpg")]})
    assert check_det_dataset(str(tmp_path / "out" / "data.yaml"))["val"] == [str(tmp_path / "b" / "2.jpg")]


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_a_labelled_image_that_cannot_be_read_is_left_out(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path, content: bytes
) -> None:
    """No training sees it, whatever labels it has: of two labelled images one is left, of three in all two."""
    Path(images.path(0)).write_bytes(content)
    out = tmp_path / "out"
    assert export_labels(out, images, given, labelled) == (2, 1, 2, 1)
    assert sorted(path.name for path in (out / "labels").iterdir()) == ["0.txt", "1.txt"]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["0.jpg", "1.jpg"]
    assert [row["from"] for row in table(out / "confidences.csv")] == ["teacher", "teacher"]
    reasons = {row["image"]: row["reason"] for row in table(out / "left_out.csv")}
    assert reasons == {
        images.path(0): "the image cannot be read",
        images.path(3): "the teacher sees nothing",
        images.path(4): "the teacher is not sure",
    }


@pytest.mark.parametrize(
    ("task", "beyond", "said"),
    [
        ("detect", "", ""),
        ("detect", "polygons", "boxes only: for `yolo detect train`; polygons of your own labels are left out"),
        ("segment", "", "boxes only: for `yolo detect train`"),
        ("pose", "keypoints", "boxes only: for `yolo detect train`; keypoints of your own labels are left out"),
    ],
)
def test_it_says_where_it_holds_boxes_alone(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path, task: str, beyond: str, said: str
) -> None:
    given = replace(given, beyond=beyond)
    assert boxes_only(task, given) == said
    export_labels(tmp_path / "out", images, given, labelled, {"val": ["val"]}, task=task)
    first = (tmp_path / "out" / "data.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == (f"# {said.replace('boxes', 'Boxes')}." if said else "train: images")


def test_poses_to_validate_on_are_read_as_boxes(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    """Two keypoints of two numbers: nine words, which without ``kpt_shape`` would be a polygon of other corners."""
    for folder in ("images", "labels"):
        (tmp_path / "user" / folder).mkdir(parents=True)
    shutil.copy(images.path(0), tmp_path / "user" / "images" / "v.jpg")
    (tmp_path / "user" / "labels" / "v.txt").write_text("1 0.5 0.5 0.2 0.4 0.1 0.1 0.9 0.9\n")
    held_out = {"val": [str(tmp_path / "user" / "images")]}
    export_labels(tmp_path / "out", images, given, labelled, held_out, task="pose", keypoints=(2, 2))
    data = tmp_path / "out" / "data.yaml"
    assert read(data, "val") == {"v.jpg": ([1.0], [[0.5, 0.5, pytest.approx(0.2), pytest.approx(0.4)]])}
    assert len(read(data)) == 3


@pytest.mark.parametrize(
    ("task", "extra", "line", "beyond"),
    [
        ("detect", "", "0 0.5 0.5 0.2 0.4", ""),
        ("detect", "", "0 0.1 0.1 0.9 0.1 0.9 0.9", "polygons"),
        ("segment", "", "0 0.1 0.1 0.9 0.1 0.9 0.9", "polygons"),
        ("pose", "kpt_shape: [1, 2]\n", "0 0.5 0.5 0.2 0.4 0.5 0.5", "keypoints"),
        ("detect", "kpt_shape: [1, 2]\n", "0 0.5 0.5 0.2 0.4 0.5 0.5", "keypoints"),
        ("detect", "kpt_shape: [1, 2]\n", "0 0.5 0.5 0.2 0.4", ""),
    ],
)
def test_what_the_user_gave_beyond_boxes_is_known(
    images: ImageIndex, tmp_path: Path, task: str, extra: str, line: str, beyond: str
) -> None:
    (tmp_path / "a" / "0.txt").write_text(f"{line}\n")
    (tmp_path / "a.yaml").write_text(f"train: a\nnames: [bolt]\n{extra}")
    assert given_labels(str(tmp_path / "a.yaml"), images, task)[0].beyond == beyond


def test_names_that_would_share_a_label_file_are_told_apart() -> None:
    """Whatever the order, no name is used twice, nor is one that differs in capitals alone."""
    paths = ["/a/0-2.jpg", "/a/0.jpg", "/b/0.jpg", "/b/0.png", "/c/A.JPG", "/c/a.jpg", "/c/\udcff.jpg", "/c/x.y.jpg"]
    names = file_names(paths)
    assert names == ["0-2.jpg", "0.jpg", "0-3.jpg", "0-4.png", "A.JPG", "a-2.jpg", "image.jpg", "x.y.jpg"]
    stems = [Path(name).with_suffix(".txt").name.casefold() for name in file_names(paths[::-1])]
    assert len(set(stems)) == len(paths)


def test_without_symbolic_links_images_are_linked_hard_or_copied(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    export_labels(tmp_path / "hard", images, given, labelled)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    export_labels(tmp_path / "copied", images, given, labelled)
    source = (tmp_path / "a" / "0.jpg").stat()
    hard, copied = ((tmp_path / folder / "images" / "0.jpg") for folder in ("hard", "copied"))
    assert hard.stat().st_ino == source.st_ino
    assert copied.stat().st_ino != source.st_ino
    assert copied.read_bytes() == (tmp_path / "a" / "0.jpg").read_bytes()


def test_labels_that_were_written_are_not_written_over(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    """Somebody may have corrected them; but what a killed run has left is written anew."""
    out = tmp_path / "out"
    export_labels(out, images, given, labelled)
    (out / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError, match="is not an empty folder"):
        export_labels(out, images, given, labelled)
    assert (out / "labels" / "0.txt").read_text() == "0 0.5 0.5 0.5 0.5\n"
    (out / UNFINISHED).touch()
    assert free(out)
    export_labels(out, images, given, labelled)
    assert (out / "labels" / "0.txt").read_text().startswith("1 0.3")
    assert not free(out)


def test_where_labels_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    data = tmp_path / "images"
    (data / "deep").mkdir(parents=True)
    run, mine = tmp_path / "run", tmp_path / "mine"
    mine.mkdir()
    assert refusals(tmp_path / "new", str(run), str(data)) == []
    assert refusals(mine, str(run), str(data)) == []
    labelled = tmp_path / "set" / "images"
    labelled.mkdir(parents=True)
    labels = tmp_path / "set" / "few.yaml"
    labels.write_text("train: images\nval: images\nnames: [bolt]\n")
    (problem,) = refusals(labelled / "new", str(run), str(data), str(labels))
    assert "lies among the images of labels" in problem.what
    assert "would take the teacher's labels for yours" in problem.what
    assert refusals(tmp_path / "set" / "new", str(run), str(data), str(labels)) == []
    (tmp_path / "set" / UNFINISHED).touch()
    (problem,) = refusals(tmp_path / "set", str(run), str(data), str(labels))
    assert "holds images of labels" in problem.what
    (mine / "note.txt").write_text("mine")
    for folder, words in (
        (mine, "is not an empty folder"),
        (mine / "note.txt", "is not an empty folder"),
        (mine / "note.txt" / "new", "no permission to write to"),
        (run, "holds the run folder"),
        (data / "new", "lies among the images of data"),
        (data / "deep", "lies among the images of data"),
    ):
        assert [words in str(problem) for problem in refusals(folder, str(run), str(data))] == [True], folder


def test_images_of_other_channels_are_said_to_be_so(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path
) -> None:
    """Ultralytics reads three where a data set does not say, and rebuilds the first layer for them."""
    images.channels = 1
    export_labels(tmp_path / "out", images, given, labelled)
    assert check_det_dataset(str(tmp_path / "out" / "data.yaml"), autodownload=False)["channels"] == 1


def test_two_runs_do_not_write_to_one_folder(
    images: ImageIndex, given: GivenLabels, labelled: Labelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one took the first one's for what a killed run has left, and emptied it."""
    out, put, told = tmp_path / "out", module._put, []

    def slowly(source: str, target: Path) -> bool:
        if not told:
            told.append("")
            with pytest.raises(UserError, match="another run is at work in this folder") as caught:
                export_labels(out, images, given, labelled)
            told.append(str(caught.value.where))
        return put(source, target)

    monkeypatch.setattr(module, "_put", slowly)
    export_labels(out, images, given, labelled)
    assert told[1] == f"export_labels={out}"
    assert len(list((out / "images").iterdir())) == len(list((out / "labels").iterdir())) == 3
    assert not (out / LOCK).exists()
