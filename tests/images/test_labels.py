"""One reader of label files, against Ultralytics' own."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from headstart.images.labels import Keypoints, expected, label_path, read_labels, survey


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ultralytics(image: Path, labels: Path, classes: int, keypoints: tuple[int, ...] | None) -> np.ndarray | None:
    """Class and box (x, y, w, h) of every object that Ultralytics trains on; None where it leaves out the image."""
    from ultralytics.data.utils import verify_image_label

    count, each, learnt = (*keypoints, True)[:3] if keypoints else (0, 0, False)
    found = verify_image_label((str(image), str(labels), "", bool(learnt), classes, count, each, False))
    return None if found[0] is None else found[1]


BOX = "1 0.5 0.5 0.2 0.4\n"
POLYGON = "0 0.1 0.2 0.3 0.2 0.2 0.6\n"
POSE = "1 0.5 0.5 0.2 0.4 0.5 0.5 2 0.6 0.6 1\n"
FILES: dict[str, tuple[str | bytes, tuple[int, ...] | None]] = {
    "box": (BOX, None),
    "polygon": (POLYGON, None),
    "both": (BOX + POLYGON, None),
    "empty": ("", None),
    "blank": (" \n\n", None),
    "blank lines": ("\n" + BOX + "\n\n" + BOX.replace("1", "0", 1), None),
    "twice": (BOX * 2, None),
    "twice, written otherwise": (BOX + "1.0 .5 0.50 2e-1 0.4\n", None),
    "clipped to the same box": ("0 0.5 0.5 1 1\n0 0.5 0.5 1.005 1.005\n", None),
    "polygons of one box": ("0 0.1 0.1 0.5 0.1 0.5 0.5\n0 0.1 0.1 0.1 0.5 0.5 0.5\n", None),
    "polygon twice": (POLYGON * 2, None),
    "poses of one box": (POSE + POSE.replace("0.6 0.6", "0.7 0.6"), (2, 3)),
    "pose twice": (POSE * 2, (2, 3)),
    "windows lines": (BOX.replace("\n", "\r\n") * 2 + "0 0.5 0.5 0.1 0.1\r\n", None),
    "old mac lines": (BOX.replace("\n", "\r") + "0 0.5 0.5 0.1 0.1\r", None),
    "tabs": (BOX.replace(" ", "\t"), None),
    "class -0": ("-0 0.5 0.5 0.1 0.1\n", None),
    "class too high among others": (BOX * 3 + "7 0.5 0.5 0.1 0.1\n", None),
    "utf-8 mark": (b"\xef\xbb\xbf" + BOX.encode(), None),
    "utf-16": (BOX.encode("utf-16"), None),
    "utf-16 without a mark": (BOX.encode("utf-16-le"), None),
    "latin-1": (BOX.encode() + "# größe\n".encode("latin-1"), None),
    "word": (BOX + "cat 0.5 0.5 0.1 0.1\n", None),
    "class too high": ("2 0.5 0.5 0.1 0.1\n", None),
    "negative class": ("-1 0.5 0.5 0.1 0.1\n", None),
    "class 0.7": ("0.7 0.5 0.5 0.1 0.1\n", None),
    "class 1.0": ("1.0 0.5 0.5 0.1 0.1\n", None),
    "class inf": ("inf 0.5 0.5 0.1 0.1\n", None),
    "class nan": ("nan 0.5 0.5 0.1 0.1\n", None),
    "nan": ("0 0.5 nan 0.1 0.1\n", None),
    "pixels": ("0 320 240 100 50\n", None),
    "just outside": ("0 1.005 0.5 0.1 0.1\n", None),
    "just below": ("0 -0.005 0.5 0.1 0.1\n", None),
    "below": ("0 -0.05 0.5 0.1 0.1\n", None),
    "negative width": ("0 0.5 0.5 -0.005 0.1\n", None),
    "beyond the image": ("0 0.9 0.9 0.4 0.4\n", None),
    "four numbers": ("0 0.5 0.5 0.1\n", None),
    "six numbers": ("0 0.5 0.5 0.1 0.1 0.9\n", None),
    "odd polygon": ("0 0.1 0.2 0.3 0.2 0.2 0.6 0.5\n", None),
    "pose": (POSE, (2, 3)),
    "pose of another shape": (POSE, (3, 3)),
    "box for a pose": (BOX, (2, 3)),
    "keypoint outside": (POSE.replace("0.6 0.6", "1.6 0.6"), (2, 3)),
    "flat pose": ("0 0.5 0.5 0.2 0.4 0.5 0.5 0.1 0.2\n", (2, 2)),
    "keypoint below": ("0 0.5 0.5 0.2 0.4 -1 -1 0.1 0.2\n", (2, 2)),
    "pose for boxes": (POSE, (2, 3, False)),
    "keypoint outside for boxes": (POSE.replace("0.6 0.6", "1.6 0.6"), (2, 3, False)),
    "pose and box for boxes": (POSE + BOX, (2, 3, False)),
    "poses of one box for boxes": (POSE + POSE.replace("0.6 0.6", "0.7 0.6"), (2, 3, False)),
    "polygon of another length for boxes": ("0 0.1 0.2 0.3 0.2 0.2 0.6\n", (2, 3, False)),
    "flat pose of nine numbers for boxes": ("0 0.5 0.5 0.2 0.4 0.5 0.5 0.1 0.2\n", (2, 2, False)),
    "pose and polygon for boxes": (POSE + "0 0.1 0.2 0.3 0.2 0.2 0.6\n", (2, 3, False)),
}


@pytest.mark.parametrize("name", FILES)
def test_it_uses_and_leaves_out_what_ultralytics_does(tmp_path: Path, name: str) -> None:
    content, keypoints = FILES[name]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    path = write(tmp_path / "a.txt", content)
    expected = ultralytics(tmp_path / "a.png", path, 2, keypoints)
    found = read_labels(path, 2, Keypoints(*keypoints) if keypoints else None)
    assert found.dropped == (expected is None), found.problems
    if expected is not None:
        center, size = expected[:, 1:3], expected[:, 3:5]
        corners = np.concatenate([center - size / 2, center + size / 2], 1).clip(0, 1)
        wanted = np.concatenate([expected[:, :1], corners], 1)
        kept = found.array()
        assert len(kept) == len(wanted)
        order, theirs = np.lexsort(kept.T[::-1]), np.lexsort(wanted.T[::-1])
        np.testing.assert_allclose(kept[order], wanted[theirs], atol=1e-6)


def test_boxes_and_polygons_by_hand(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path / "a.txt", "3 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.3 0.2 0.2 0.6\n4 0.9 0.9 0.4 0.4\n"))
    expected = [[3, 0.4, 0.3, 0.6, 0.7], [1, 0.1, 0.2, 0.3, 0.6], [4, 0.7, 0.7, 1.0, 1.0]]
    np.testing.assert_allclose(found.array(), expected, rtol=1e-6)
    assert found.array().dtype == np.float32
    assert found.rows[1].points == (0.1, 0.2, 0.3, 0.2, 0.2, 0.6)
    assert [row.line for row in found.rows] == [1, 2, 3]
    assert [str(problem) for problem in found.problems] == ["mixes boxes and polygons"]


def test_keypoints_are_kept_and_no_polygon(tmp_path: Path) -> None:
    row = read_labels(write(tmp_path / "a.txt", POSE), 2, Keypoints(2, 3)).rows[0]
    assert row.box == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert row.points == (0.5, 0.5, 2, 0.6, 0.6, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOX + "2 0.5 0.5 0.1 0.1", "line 2 has the class 2; there are 2 classes, from 0"),
        ("inf 0.5 0.5 0.1 0.1", "line 1 has the class inf: classes are whole numbers from 0"),
        ("\n0.7 0.5 0.5 0.1 0.1", "line 2 has the class 0.7: classes are whole numbers from 0"),
        ("0 0.5 0.5 0.1 x", "line 1 has a word that is not a number: 'x'"),
        ("0 320 240 100 50", "line 1 has a coordinate of 320, beyond 1: they are shares of the sides"),
        ("0 0.5 -0.2 0.1 0.1", "line 1 has a negative coordinate: -0.2"),
        ("0 0.5 0.5 0.1", "line 1 has 4 numbers; a box has 5, a polygon 7, 9, 11 or more"),
        (BOX.encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (b"\xe4", "is not UTF-8: save it as UTF-8"),
        (b"0\x00", "is not a text file"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    found = read_labels(write(tmp_path / "a.txt", content), 2)
    assert str(found.problems[0]) == said
    assert found.dropped


def test_other_encodings_are_read_all_the_same(tmp_path: Path) -> None:
    for content in (BOX.encode("utf-16"), BOX.encode() + b"# \xe4"):
        assert read_labels(write(tmp_path / "a.txt", content)).classes == {1}


def test_a_box_without_area_drops_no_image(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path / "a.txt", BOX + "1 0.5 0.5 0 0\n"))
    assert (len(found.rows), found.dropped) == (1, False)
    assert [str(problem) for problem in found.problems] == ["line 2 has a box without area"]


def test_no_file_is_background_and_a_folder_is_said(tmp_path: Path) -> None:
    found = read_labels(tmp_path / "a.txt")
    assert (found.rows, found.problems, found.array().shape) == ((), (), (0, 5))
    (tmp_path / "a.txt").mkdir()
    found = read_labels(tmp_path / "a.txt")
    assert (found.rows, found.dropped) == ((), False)
    assert str(found.problems[0]) == "is a folder: its image counts as background"


@pytest.mark.parametrize("image", ["/a/images/b/images/train/c.d.jpg", "/a/images/x.tar.png", "/a/pictures/c.jpg"])
def test_labels_are_looked_for_where_ultralytics_does(image: str) -> None:
    from ultralytics.data.utils import img2label_paths

    image = image.replace("/", os.sep)
    assert str(label_path(image)) == img2label_paths([image])[0]


def test_a_survey_counts_and_gives_examples(tmp_path: Path) -> None:
    images = [str(tmp_path / f"{number}.jpg") for number in range(7)]
    for number in range(5):
        write(tmp_path / f"{number}.txt", "9 0.5 0.5 0.1 0.1\n" if number else BOX * 3)
    found = survey(images, 2)
    assert found.classes == {images[0]: {1}, images[5]: frozenset(), images[6]: frozenset()}
    assert found.objects == {images[0]: 1, images[5]: 0, images[6]: 0}
    assert found.dropped == tuple(images[1:5])
    assert found.notes[0].startswith("4 of 7 images are left out for their label files: ")
    assert f"{tmp_path}/1.txt: line 1 has the class 9; there are 2 classes, from 0; " in found.notes[0]
    assert found.notes[0].endswith("; and 1 more")
    assert found.notes[1] == f"1 lines or files of labels have no effect: {tmp_path}/0.txt: has 2 lines twice"


def test_labels_with_another_suffix_are_named(tmp_path: Path) -> None:
    image = str(tmp_path / "a.png")
    assert expected(image) == f"expected {tmp_path}/a.txt for {image}"
    (tmp_path / "a.xml").write_text("<a/>")
    assert "a.xml is not read, for there is no common form of such labels: write a .txt" in expected(image)
    (tmp_path / "a.TXT").write_text(BOX)
    assert f"{tmp_path}/a.TXT is not read: rename such files, for Ultralytics reads .txt alone" in expected(image)
