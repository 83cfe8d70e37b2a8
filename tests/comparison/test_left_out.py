"""A comparison looks at the images that a pretraining learnt from, and not at those that it left out to judge it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.comparison.leaks import leak_of
from headstart.comparison.origins import pretraining_images
from headstart.comparison.start_records import PretrainingFacts
from headstart.comparison.starts import Start
from headstart.images.index import find_images
from headstart.images.judges import without_judges
from headstart.jobs.scenes import draw_dataset


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 images without labels, 4 in train, 3 in val, all below one folder."""
    return draw_dataset(tmp_path_factory.mktemp("left") / "data", unlabelled=5, train=4, val=3, imgsz=64)


def known(labels: Path, images: int, fingerprint: str = "") -> PretrainingFacts:
    """What a run with ``data=images labels=data.yaml`` tells."""
    return PretrainingFacts(
        folder="runs/a", data=(str(labels.parent / "images"),), images=images, method="selftrain", model="yolo11n.pt",
        steps=10, seconds=1.0, device="cpu", fingerprint=fingerprint, carriers={"labels": str(labels)},
    )  # fmt: skip


def test_what_a_run_left_out_is_none_of_its_images(labels: Path) -> None:
    found = pretraining_images(known(labels, 9))
    assert sorted({Path(path).parent.name for path in found}) == ["train", "unlabelled"]
    folder = str(labels.parent / "images")
    used = without_judges(find_images(folder, labels=str(labels)), folder, str(labels))
    leak = leak_of(Start("mine", "checkpoint", "a.pt"), known(labels, 9, used.fingerprint()), found, 0)
    assert (leak.outcome, leak.words) == ("passed", "none of 9 pretraining images is a test image")


def test_what_an_earlier_version_learnt_from_is(labels: Path) -> None:
    assert len(pretraining_images(known(labels, 12))) == 12
