"""What is said of labels that are not learnt from as their user may think."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.images.labels import label_path
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
