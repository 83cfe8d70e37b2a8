"""Which test images a comparison shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_comparison
import pytest

from headstart.comparison.detections import choose_images
from headstart.comparison.shown import read_detections, there, write_detections


@pytest.mark.parametrize(
    ("labelled", "count", "chosen"),
    [(2, 6, [0, 1]), (1, 6, [0]), (6, 2, [1, 4]), (4, 4, [0, 1, 2, 3]), (3, 0, []), (0, 6, [])],
)
def test_each_is_shown_once(labelled: int, count: int, chosen: list[int], tmp_path: Path) -> None:
    """Evenly spread, and no image twice where there are fewer than were asked for."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    images = [tmp_path / "images" / f"{number}.jpg" for number in range(labelled)]
    for image in images:
        (tmp_path / "labels" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    background = tmp_path / "images" / "z.jpg"
    (tmp_path / "labels" / "z.txt").write_text("")
    found = choose_images([str(path) for path in (*images, background)], count)
    assert found == [str(images[at]) for at in chosen]


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"images": ["a/frame_0.jpg", "a/gone.jpg", "a/frame_1.jpg"]}, True),  # one that could not be read
        ({"budget": "5%"}, False),
        ({"seed": 1}, False),
        ({"starts": ["scratch"]}, False),
        ({"images": ["a/frame_0.jpg"]}, False),
        ({"images": []}, False),
    ],
)
def test_pictures_of_other_detectors_or_images_are_not_kept(
    changed: dict[str, Any], kept: bool, tmp_path: Path
) -> None:
    """The same command may be given again with fewer label budgets, another first seed, or other pictures."""
    starts = ["scratch", "coco"]
    made = fake_comparison.detections(starts).model_copy(update={"budget": "20%", "seed": 0})
    write_detections(tmp_path, made)
    asked = {"budget": "20%", "seed": 0, "starts": starts, "images": ["a/frame_0.jpg", "a/frame_1.jpg"], **changed}
    assert there(tmp_path, **asked, changed=False) == kept
    assert (read_detections(tmp_path) is not None) == kept


def test_older_files_do_not_say_whose_detections_they_hold(tmp_path: Path) -> None:
    write_detections(tmp_path, fake_comparison.detections(["coco"]))
    assert not there(tmp_path, "20%", 0, ["coco"], ["frame_0.jpg", "frame_1.jpg"], changed=False)
    assert not (tmp_path / "detections.json").exists()
