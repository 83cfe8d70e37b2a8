from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from headstart.probes import sheets

YELLOW, GRAY = (255, 196, 61), (205, 205, 205)


def drawn(names: list[str], boxes: list[tuple[float, float, float, float, int]]) -> np.ndarray:
    tile = sheets.Tile(np.zeros((100, 200, 3), np.uint8), boxes=boxes, names=names)
    return np.asarray(sheets.draw([[tile]], 200))[:, :, :3]


def rows_of(picture: np.ndarray, color: tuple[int, int, int], least: int) -> list[int]:
    """Rows of pixels in which so many have this color."""
    return np.flatnonzero((picture == color).all(2).sum(1) >= least).tolist()


def test_names_stand_above_their_boxes() -> None:
    """The picture is 200 by 100 in a square of 200: its first row is 50, the box begins 60 below, at 110."""
    plain, named = (drawn(names, [(50, 60, 150, 90, 0)]) for names in ([], ["bolt 0.90"]))
    assert min(rows_of(plain, YELLOW, 90)) == 110
    patch = [row for row in rows_of(named, YELLOW, 20) if row < 110]
    assert 9 <= len(patch) <= 20
    assert max(patch) >= 108
    assert not rows_of(plain, YELLOW, 1)[0] < 110


def test_a_box_of_a_few_pixels_of_a_large_image_is_a_dot() -> None:
    """One of 2 in 2,000 pixels, shown in 200: a fifth of a pixel, at the middle of the square, by a pen of 2."""
    tile = sheets.Tile(np.zeros((2000, 2000, 3), np.uint8), boxes=[(1000, 1000, 1002, 1002, 0)])
    picture = np.asarray(sheets.draw([[tile]], 200))[:, :, :3]
    dot = np.argwhere((picture == YELLOW).all(2))
    assert 1 <= len(dot) <= 16
    assert abs(dot - 100).max() <= 2


def test_a_name_that_would_cover_another_is_left_out() -> None:
    """Two boxes with the same corner: the first name is written; with the second lower by 40 both are."""
    first = (50, 20, 150, 90, 0)
    over, apart = (drawn(["bolt 0.90", "nut? 0.20"], [first, (50, y, 150, 90, -1)]) for y in (22, 60))
    patches = [len(rows_of(picture, GRAY, 20)) for picture in (over, apart)]
    assert patches[0] <= 4, "outlines alone"
    assert patches[1] >= 9


def test_names_stay_within_the_picture() -> None:
    """A box in the upper right corner: its name is pushed to the left and down, as a whole."""
    tile = sheets.Tile(np.zeros((200, 200, 3), np.uint8), boxes=[(190, 0, 200, 10, 0)], names=["adjustable wrench"])
    picture = np.asarray(sheets.draw([[tile]], 200))[:, :, :3]
    patch = (picture == YELLOW).all(2)
    assert patch[0].sum() > 70
    inner = np.flatnonzero(patch[:12].any(0))
    assert inner.min() < 130
    assert inner.max() <= 199


@pytest.mark.parametrize("number", [6, 18, 60])
def test_the_largest_tiles_that_fit_are_found_without_trying_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    random = np.random.default_rng(number)
    tiles = [sheets.Tile(random.integers(0, 255, (60, 70, 3), np.uint8)) for _ in range(number)]
    rows = [tiles[at : at + 6] for at in range(0, number, 6)]
    sizes, limit, lengths = (56, 48, 40, 32, 24, 16), 25_000, {}
    for size in sizes:
        data = io.BytesIO()
        sheets.draw(rows, size).save(data, "PNG", optimize=size <= 112)
        lengths[size] = data.tell()
    fits = next((size for size in sizes if lengths[size] <= limit), sizes[-1])
    drawn: list[int] = []
    draw = sheets.draw
    monkeypatch.setattr(sheets, "draw", lambda rows, size, gap: (drawn.append(size), draw(rows, size, gap))[1])
    sheets.save(tmp_path / "sheet.png", rows, limit=limit, sizes=sizes)
    assert (tmp_path / "sheet.png").stat().st_size == lengths[fits]
    assert drawn[-1] == fits
    assert len(drawn) <= 4
