"""Whether proposals fit: with detectors that know a thing, know nothing, or guess by where the pixels are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.pseudolabels.fit import Fit, look
from headstart.pseudolabels.search import Search

SEARCH = Search(imgsz=96, max_objects=3, min_score=0.4, max_area=0.8, clusters=4, components=4, seed=0)


def source(propose: Callable[[Tensor], list[list[float]]]) -> Any:
    """A detector that gives boxes (x0, y0, x1, y1, score) for an image ``(3, H, W)``."""
    return SimpleNamespace(name="finder", propose=lambda images: torch.tensor([propose(one) for one in images]))


def bright(image: Tensor) -> list[list[float]]:
    """The box around what is bright: knows the thing wherever and however large it is."""
    down, across = (image[0] > 0.7).nonzero().unbind(1)
    return [[float(across.min()), float(down.min()), float(across.max()) + 1, float(down.max()) + 1, 0.6]]


def corner(image: Tensor) -> list[list[float]]:
    """Always the upper left quarter, whatever is there."""
    return [[0.0, 0.0, image.shape[-1] / 2, image.shape[-2] / 2, 0.6]]


def samples(number: int = 8) -> list[tuple[str, Tensor]]:
    """Dark images of 60 x 90 with a bright rectangle of 20 x 30, off the middle."""
    found = []
    for at in range(number):
        pixels = torch.full((3, 60, 90), 30, dtype=torch.uint8)
        pixels[:, 5:25, 50 + at : 80 + at] = 255
        found.append((str(at), pixels))
    return found


def boxes(path: str) -> Tensor:
    left = 50 + int(path)
    return torch.tensor([[left / 90, 5 / 60, (left + 30) / 90, 25 / 60]])


def measured(propose: Callable[[Tensor], list[list[float]]], **more: Any) -> Fit:
    return look(source(propose), samples(), SEARCH, device=torch.device("cpu"), **more)


def test_what_a_detector_knows_it_finds_again_mirrored_and_smaller() -> None:
    fit = measured(bright)
    assert (fit.images, fit.again, fit.labelled) == (8, 1.0, 0)
    assert fit.score == pytest.approx(0.6)
    assert fit.ok
    assert "finder finds fit these images, by a look at 8: 100% of the best ones" in fit.sentence()


def test_what_stays_where_the_pixels_are_is_not_found_again() -> None:
    """The upper left quarter of the mirror image is the upper right one of the image."""
    fit = measured(corner)
    assert fit.again == 0.0
    assert not fit.ok
    assert "do not fit these images" in fit.sentence()


def test_a_detector_that_is_sure_of_nothing_does_not_fit() -> None:
    fit = measured(lambda image: [[*bright(image)[0][:4], 0.01]])
    assert (fit.again, fit.ok) == (1.0, False)
    assert measured(lambda image: [[0.0, 0, 1, 1, 0.9]]).score == 0.0  # too small to be an object


def test_labels_decide_where_they_may_be_looked_at() -> None:
    """Recall by hand: of 24 labels the detector covers 8, or none; 20 labels are needed."""
    beside = torch.tensor([[0.0, 0.5, 0.2, 0.9], [0.0, 0.0, 0.1, 0.1]])
    fit = measured(bright, labels=lambda path: torch.cat([boxes(path), beside]))
    assert (fit.labelled, fit.found, fit.ok) == (24, 8, True)
    assert "they hold 8 of 24 labelled objects" in fit.sentence()
    fit = measured(corner, labels=lambda path: torch.cat([boxes(path), beside]))
    assert (fit.labelled, fit.found, fit.ok) == (24, 0, False)
    fit = measured(bright, labels=lambda path: beside)
    assert (fit.labelled, fit.found, fit.ok) == (16, 0, True)  # too few to decide


def test_more_labels_than_objects_are_kept_do_not_count_against_a_detector() -> None:
    many = torch.tensor([[0.0, 0.5, 0.2, 0.9]] * 9)
    fit = measured(bright, labels=lambda path: torch.cat([boxes(path), many]))
    assert (fit.labelled, fit.found) == (24, 8)
    assert fit.beyond == 80
    assert "8 of 24 labelled objects (56 more are on images that show more objects than max_objects=" in fit.sentence()
