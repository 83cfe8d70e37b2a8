"""Which images a run with labels sees, and which it leaves for judging the outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.images.index import find_images
from headstart.images.judges import without_judges
from headstart.jobs.scenes import draw_dataset


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 images without labels, 4 in train, 3 in val, all below one folder."""
    return draw_dataset(tmp_path_factory.mktemp("mine") / "data", unlabelled=5, train=4, val=3, imgsz=64)


def names(labels: Path, *data: Path) -> tuple[list[str], tuple[str, ...]]:
    given = [str(one) for one in data]
    found = without_judges(find_images(given, labels=str(labels)), given, str(labels))
    return sorted(Path(path).parent.name for path in found), found.notes


def test_images_of_val_are_left_out_of_a_folder(labels: Path) -> None:
    found, notes = names(labels, labels.parent / "images")
    assert found == ["train"] * 4 + ["unlabelled"] * 5
    assert notes == (f"3 images are in val or test of {labels}, and were left out, to judge the outcome",)
    assert names(labels, labels.parent)[0] == found
    assert names(labels, labels.parent)[1] == notes, "the folder is not used whole any more"


def test_who_names_val_has_it(labels: Path) -> None:
    found, notes = names(labels, labels.parent / "images/unlabelled", labels.parent / "images/val")
    assert found == ["train"] * 4 + ["unlabelled"] * 5 + ["val"] * 3
    assert notes == ()
    assert names(labels, labels.parent / "images/unlabelled") == (["train"] * 4 + ["unlabelled"] * 5, ())


def test_what_is_in_train_too_stays(labels: Path, tmp_path: Path) -> None:
    """The layout of small examples: one folder for both."""
    both = tmp_path / "both.yaml"
    images = labels.parent / "images"
    both.write_text(f"train: {images}/train\nval: {images}/train\nnames: [a, b, c, d, e, f, g, h]\n")
    found = without_judges(find_images(str(images / "train")), [str(images)], str(both))
    assert len(found) == 4


def test_a_val_that_is_not_there_takes_nothing_away(labels: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(labels.read_text().replace("images/val", "images/nowhere"))
    images = find_images(str(labels.parent / "images"))
    assert len(without_judges(images, [str(labels.parent / "images")], str(other))) == len(images) == 12
