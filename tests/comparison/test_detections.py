"""Which test images a comparison shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.comparison.detections import choose_images


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
