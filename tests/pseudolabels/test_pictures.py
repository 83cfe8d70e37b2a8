from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from headstart.images.index import find_images
from headstart.probes import sheets
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections, Labelling
from headstart.pseudolabels.pictures import _by_class, _drawable, write_clusters, write_examples, write_labelled


def test_a_row_for_each_cluster(image_folder: Path, tmp_path: Path) -> None:
    """24 images, one object each: 16 of cluster 3 and 8 of cluster 0."""
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.7]]).repeat(24, 1)
    labels = torch.tensor([3, 3, 0]).repeat(8)
    found = PseudoLabels.gather(24, torch.arange(24), boxes, torch.ones(24), labels)
    write_clusters(tmp_path / "new" / "clusters.png", found, find_images(str(image_folder)))
    picture = Image.open(tmp_path / "new" / "clusters.png")
    assert picture.width > 3.5 * picture.height  # two rows of eight


def test_images_that_went_are_left_out(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((image_folder / "00.jpg").read_bytes())
    (tmp_path / "b.jpg").write_bytes((image_folder / "01.jpg").read_bytes())
    images = find_images(str(tmp_path))
    (tmp_path / "a.jpg").unlink()
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.5, 0.5, 0.9, 0.9]])
    found = PseudoLabels.gather(2, torch.arange(2), boxes, torch.ones(2), torch.tensor([0, 0]))
    write_clusters(tmp_path / "clusters.png", found, images)
    picture = Image.open(tmp_path / "clusters.png")
    assert picture.width == picture.height  # one is left


def test_examples_are_two_rows_with_outlines(tmp_path: Path) -> None:
    """Eight black squares of 64 pixels; one object alone, on the first, in the first color."""
    boxes, one = torch.tensor([[16.0, 16, 48, 48]]), torch.tensor([0])
    write_examples(tmp_path / "examples.png", torch.zeros(8, 3, 64, 64), one, boxes, one)
    picture = Image.open(tmp_path / "examples.png").convert("RGB")
    assert 1.8 < picture.width / picture.height < 2.2
    bright = torch.tensor(list(picture.getdata())).amax(1).reshape(picture.height, picture.width) > 200
    rows, columns = bright.nonzero().unbind(1)
    side = picture.height / 2  # of a tile, about
    assert [int(x / side * 4 + 0.5) for x in (columns.min(), rows.min(), columns.max(), rows.max())] == [1, 1, 3, 3]


def detections(rows: list[int], scores: list[float], labels: list[int]) -> Detections:
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0]]).repeat(len(rows), 1)
    return Detections(torch.tensor(rows), boxes, torch.tensor(scores), torch.tensor(labels), torch.arange(24))


def test_the_sheets_of_labels(image_folder: Path, tmp_path: Path) -> None:
    """Three images with labels, one of them twice; on two of them, and on a fourth image, boxes are left open."""
    found = detections([0, 0, 1, 2, 3, 3, 2], [0.9, 0.8, 0.95, 0.6, 0.3, 0.2, 0.1], [0, 0, 0, 1, 1, 0, 0])
    write_labelled(tmp_path / "new", Labelling.split(found, 0.5), find_images(str(image_folder)), ("bolt", "nut"))
    sizes = {path.stem: Image.open(path).size for path in (tmp_path / "new").iterdir()}
    assert sizes.keys() == {"sure", "least-sure", "open"}
    assert [round(width / height) for width, height in (sizes["sure"], sizes["least-sure"], sizes["open"])] == [3, 3, 2]
    # Nothing is left open any more: the sheet of the run before must not stay.
    write_labelled(tmp_path / "new", Labelling.split(found, 0.0), find_images(str(image_folder)), ("bolt", "nut"))
    assert {path.stem for path in (tmp_path / "new").iterdir()} == {"sure", "least-sure"}


def test_a_sheet_that_fails_costs_no_other(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = sheets.save

    def saving(path: Path, *given: Any, **options: Any) -> None:
        if path.stem == "sure":
            raise ValueError("no font")
        save(path, *given, **options)

    monkeypatch.setattr(sheets, "save", saving)
    found = detections([0, 1, 2], [0.9, 0.8, 0.3], [0, 1, 0])
    images = find_images(str(image_folder))
    failed = write_labelled(tmp_path / "new", Labelling.split(found, 0.5), images, ("bolt", "nut"))
    assert failed == {"sure": "ValueError: no font"}
    assert {path.stem for path in (tmp_path / "new").iterdir()} == {"least-sure", "open"}


def test_classes_take_turns() -> None:
    """By score alone the third image of class 0 would come before the first one of class 1."""
    found = detections([5, 6, 7, 8, 5], [0.9, 0.8, 0.7, 0.6, 0.65], [0, 0, 0, 1, 1])
    assert _by_class(found, descending=True) == [5, 6, 8, 7]
    assert _by_class(found, descending=False) == [8, 7, 5, 6]


def test_a_name_without_letters_in_the_font_is_its_number() -> None:
    assert [_drawable(name, 3) for name in ("Schlüssel", "ボルト", "two\nlines", "x" * 40)] == [
        "Schlüssel",
        "3",
        "3",
        "x" * 21 + "...",
    ]
