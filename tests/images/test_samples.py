from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from headstart.images.index import find_images
from headstart.images.samples import sample_images


def write(folder: Path, number: int, broken: set[int]) -> None:
    for at in range(number):
        path = folder / f"{at:03d}.png"
        cv2.imwrite(str(path), np.full((8, 6, 3), at, np.uint8))
        if at in broken:
            path.write_bytes(b"")


def taken(folder: Path, number: int) -> list[int]:
    images = sample_images(find_images(str(folder)), number, max_area=100)
    return [int(pixels[0, 0, 0]) for path, pixels in images if int(Path(path).stem) == int(pixels[0, 0, 0])]


def test_evenly_spread(tmp_path: Path) -> None:
    write(tmp_path, 20, set())
    assert taken(tmp_path, 5) == [0, 4, 8, 12, 16]
    assert taken(tmp_path, 50) == list(range(20))
    assert taken(tmp_path, 11) == [0, 1, 3, 5, 7, 9, 10, 12, 14, 16, 18], "up to the end, where it does not divide"
    assert taken(tmp_path, 19) == [0, *range(1, 19)]


def test_the_neighbour_in_place_of_a_broken_one(tmp_path: Path) -> None:
    write(tmp_path, 20, {0, 4, 8, 12, 16})
    assert taken(tmp_path, 5) == [1, 5, 9, 13, 17]


def test_hopeless_folders_are_not_read_to_the_end(tmp_path: Path) -> None:
    write(tmp_path, 20, set(range(20)) - {19})  # the last that would be looked at
    assert taken(tmp_path, 2) == []
    assert taken(tmp_path, 5) == [19]
