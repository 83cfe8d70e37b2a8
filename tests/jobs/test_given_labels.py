"""What is said of labels that are not learnt from as their user may think."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.jobs import labelled
from headstart.jobs import prepare as module
from headstart.jobs.labelled import given_labels
from headstart.jobs.prepare import prepare
from headstart.jobs.scenes import draw_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_dataset(tmp_path / "data", unlabelled=2, train=6, val=2, imgsz=64)


def said(data: Path) -> str:
    return "\n".join(given_labels(str(data), find_images(str(data.parent / "images"), labels=str(data)))[1])


def files(data: Path) -> list[Path]:
    return [label_path(str(image)) for image in sorted((data.parent / "images/train").iterdir())]


def test_whole_labels_need_no_word(data: Path) -> None:
    assert "6 labelled images" in said(data)
    assert "label file" not in said(data)


def test_an_image_with_a_wrong_label_is_one_without_labels(data: Path) -> None:
    file = files(data)[0]
    file.write_text(file.read_text() + "99 0.5 0.5 0.1 0.1\n")
    words = said(data)
    assert "5 labelled images" in words
    assert "5 without labels" in words, "it, and the 2 + 2 that have none"
    assert f"1 of 6 images are left out for their label files: {file}" in words
    assert "1 images whose label files have errors are used without labels: the teacher labels them" in words


@pytest.mark.parametrize(("gone", "told"), [(3, False), (4, True)])
def test_a_folder_whose_images_are_mostly_not_labelled_yet(data: Path, gone: int, told: bool) -> None:
    """Of six images; half of them may well be background."""
    for file in files(data)[:gone]:
        file.unlink()
    words = f"{gone} of 6 images of train have no label file, and are taught as images that show nothing"
    assert (words in said(data)) is told


def test_empty_label_files_say_that_there_is_nothing(data: Path) -> None:
    for file in files(data)[:5]:
        file.write_text("")
    assert "no label file" not in said(data)


@pytest.mark.parametrize("method", [{}, {"method": "auto"}, {"method": "selftrain"}])
def test_labels_that_are_not_there_are_told_of_labels(method: dict[str, str], data: Path) -> None:
    with pytest.raises(UserError, match=r"^labels: nope\.yaml is no dataset YAML that is there"):
        prepare({"data": str(data.parent / "images"), "labels": "nope.yaml", **method})


@pytest.mark.parametrize(
    ("gpu", "given", "imgsz"),
    [(False, {}, 320), (True, {}, 640), (False, {"imgsz": 640}, 640), (True, {"imgsz": 96}, 96)],
)
def test_the_size_of_the_images_is_that_of_a_detector_or_what_a_cpu_can_do(
    gpu: bool, given: dict[str, Any], imgsz: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimpleNamespace(kind="cuda" if gpu else "cpu", memory=lambda: 0)
    monkeypatch.setattr(module, "parse_device", lambda asked: device)
    images = str(data.parent / "images")
    job = prepare({"data": images, "labels": str(data), "model": "yolo11n.yaml", "teacher": "none", **given})
    assert job.run.imgsz == imgsz == job.detector.imgsz
    assert bool([line for line in job.why if line.startswith("imgsz=320, for there is no GPU")]) is (imgsz == 320)


def images(data: Path) -> list[Path]:
    return sorted((data.parent / "images/train").iterdir())


def listed(data: Path) -> None:
    """Train as a list: what it names need not be there."""
    (data.parent / "train.txt").write_text("".join(f"{path}\n" for path in images(data)))
    data.write_text(data.read_text().replace("images/train", "train.txt"))


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"


@pytest.mark.parametrize("reason", ["gone", "pointers", "heic"])
def test_labels_of_images_of_which_none_can_be_read_end_the_run(reason: str, data: Path) -> None:
    """Before, the run went on with the other images, was called healthy, and handed back a detector of the classes."""
    listed(data)
    for path in images(data):
        if reason == "gone":
            path.unlink()
        else:
            path.write_text(POINTER) if reason == "pointers" else path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(UserError, match="none of the 6 images with labelled objects can be read: ") as raised:
        said(data)
    assert "git lfs pull" in str(raised.value.hint)
    assert str(raised.value.where) == str(data)


def test_images_that_show_nothing_teach_no_class(data: Path) -> None:
    """That these can be read helps nobody."""
    listed(data)
    files(data)[0].write_text("")
    for path in images(data)[1:]:
        path.unlink()
    with pytest.raises(UserError, match="none of the 5 images with labelled objects can be read"):
        said(data)


def test_those_that_cannot_be_read_are_counted(data: Path) -> None:
    listed(data)
    paths = images(data)
    paths[1].unlink()
    assert f"1 of 6 images with labelled objects are not there, such as {paths[1]}" in said(data)
    paths[3].write_text(POINTER)
    words = said(data)
    assert f"1 of 5 images with labelled objects cannot be read, such as {paths[3]} (" in words
    assert "6 labelled images" in words


def test_of_many_some_are_looked_at(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of them can be read, the others are as well, before it is said that none can."""
    monkeypatch.setattr(labelled, "LOOKED_AT", 2)
    paths = images(data)
    assert "cannot be read" not in said(data)
    paths[3].write_text(POINTER)
    words = f"1 of 2 images with labelled objects that were looked at cannot be read, such as {paths[3]} ("
    assert words in said(data)
    for path in paths[:5]:
        path.write_text(POINTER)
    assert "2 of 2 images with labelled objects that were looked at cannot be read" in said(data)
    paths[5].write_text(POINTER)
    with pytest.raises(UserError, match="none of the 6 images"):
        said(data)
