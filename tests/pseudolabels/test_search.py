from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.search import Found, Search, chosen, find_pseudolabels, fitted, together
from headstart.teachers.base import Teacher
from headstart.views.resize import GRAY

SEARCH = Search(imgsz=64, max_objects=2, min_score=0.5, max_area=0.5, clusters=4, components=4, seed=0)
DEVICE = torch.device("cpu")


def test_what_counts_as_an_object() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 20, 20],  # image 0: the best
            [1, 1, 21, 21],  # nearly the same box
            [40, 40, 60, 60],  # half as good: kept
            [40, 0, 60, 20],  # the third: too many
            [0, 0, 64, 64],  # image 1: the whole of it
            [10, 10, 30, 30],
            [50, 50, 90, 60],  # a third as good
            [30, 0, 31, 40],  # image 2: too narrow
        ]
    )
    owner = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    scores = torch.tensor([0.8, 0.7, 0.4, 0.4, 0.9, 0.6, 0.2, 0.9])
    found = chosen(owner, boxes, scores, torch.full((3, 2), 64.0), SEARCH)
    assert found[0].tolist() == [0, 0, 1]
    assert found[1].tolist() == [[0, 0, 20, 20], [40, 40, 60, 60], [10, 10, 30, 30]]
    torch.testing.assert_close(found[2], torch.tensor([0.8, 0.4, 0.6]))


def test_boxes_end_where_the_image_does() -> None:
    boxes = torch.tensor([[-5.0, 2, 70, 20]])
    _, found, _ = chosen(torch.tensor([0]), boxes, torch.tensor([0.5]), torch.tensor([[64.0, 10.0]]), SEARCH)
    assert not len(found)  # 64 x 8 of 64 x 10: larger than half
    _, found, _ = chosen(torch.tensor([0]), boxes, torch.tensor([0.5]), torch.tensor([[64.0, 40.0]]), SEARCH)
    assert found.tolist() == [[0, 2, 64, 20]]


def test_fitted_as_opencv_scales_what_detectors_are_shown() -> None:
    pixels = torch.randint(0, 255, (2, 3, 100, 200), dtype=torch.uint8)
    made, scale = fitted(pixels, torch.tensor([[100, 200], [90, 30]]), 64)
    assert scale.tolist() == pytest.approx([0.32, 64 / 90])
    sides = [(100, 200), (90, 30)], [(32, 64), (64, 21)]
    for one, whole, (height, width), (high, wide) in zip(made, pixels, *sides, strict=True):
        inner = np.ascontiguousarray(whole[:, :height, :width].permute(1, 2, 0).numpy())
        expected = torch.from_numpy(cv2.resize(inner, (wide, high), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)
        torch.testing.assert_close(one[:, :high, :wide], expected / 255, atol=1.01 / 255, rtol=0)
        assert torch.all(one[:, high:] == torch.tensor(GRAY))
        assert torch.all(one[:, :, wide:] == torch.tensor(GRAY))


class Bright:
    """Finds the one bright rectangle of an image; its backbone tells colors."""

    name = "bright"
    backbone = SimpleNamespace(width=3)
    module = nn.Conv2d(3, 3, 1)

    def trunk(self) -> nn.Module:
        class Colors(nn.Module):
            def forward(self, images: Tensor) -> list[Tensor]:
                return [images]

        return Colors()

    def propose(self, images: Tensor) -> Tensor:
        found = torch.zeros(len(images), 1, 5)
        for place, image in enumerate(images):
            ys, xs = (image.amax(0) > 0.8).nonzero().unbind(1)
            if len(ys):
                found[place, 0] = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.3])
        return found


def batch(rows: list[int], bright: bool = True) -> PixelBatch:
    """Images of 80 x 160; the one at row r has a rectangle at x = 10 r of one of two colors."""
    pixels = torch.zeros(len(rows), 3, 80, 160, dtype=torch.uint8)
    for place, row in enumerate(rows):
        if bright:
            pixels[place, row % 2, 20:60, 10 * row + 10 : 10 * row + 40] = 255
    return PixelBatch(pixels, torch.tensor([[80, 160]] * len(rows)), torch.tensor(rows), [])


def test_objects_are_found_once_an_image_in_shares_of_it() -> None:
    detector: Any = Bright()
    batches = [batch([4, 1, 2]), batch([0, 3, 4])]
    search = Search(imgsz=160, max_objects=2, min_score=0.5, max_area=0.5, clusters=2, components=1, seed=0)
    done: list[tuple[int, int]] = []
    told = {"total": 5, "progress": lambda *a: done.append(a)}
    result = find_pseudolabels(detector, detector.trunk(), batches, 6, search, device=DEVICE, **told)
    found = result.labels
    assert result.searched.tolist() == [True] * 5 + [False]
    assert found.first.tolist() == [0, 1, 2, 3, 4, 5, 5]
    for row in range(5):
        expected = torch.tensor([(10 * row + 10) / 160, 0.25, (10 * row + 40) / 160, 0.75])
        torch.testing.assert_close(found.boxes[row], expected, atol=0.02, rtol=0)
    labels = found.labels.tolist()
    assert labels[0] == labels[2] == labels[4] != labels[1] == labels[3]
    assert done == [(3, 5), (5, 5)]


class Places(Teacher):
    """Tells apart by how much of what it sees is on a black ground: the width of a rectangle, not its color."""

    name, widths, strides = "places", (2,), (1.0,)

    def forward(self, images: Tensor) -> list[Tensor]:
        dark = (images.amax(1, keepdim=True) < 0.5).float()
        return [torch.cat([dark, 1 - dark], 1)]


def test_a_teachers_features_are_clustered() -> None:
    detector: Any = Bright()
    one = batch([0, 1, 2, 3])
    one.pixels[2:, :, :, :] = 0
    for row in (2, 3):  # as wide as high, where the first two are narrow
        one.pixels[row, row % 2, 20:60, 40:80] = 255
    search = Search(imgsz=160, max_objects=2, min_score=0.5, max_area=0.5, clusters=2, components=1, seed=0)
    by_color = find_pseudolabels(detector, detector.trunk(), [one], 4, search, device=DEVICE).labels.labels
    by_shape = find_pseudolabels(detector, Places(), [one], 4, search, device=DEVICE).labels.labels
    assert by_color[0] == by_color[2] != by_color[1] == by_color[3]
    assert by_shape[0] == by_shape[1] != by_shape[2] == by_shape[3]


def test_no_objects_at_all() -> None:
    detector: Any = Bright()
    with pytest.raises(UserError, match=r"bright finds no object on 3 images\n.* give proposals="):
        find_pseudolabels(detector, detector.trunk(), [batch([0, 1, 2], bright=False)], 3, SEARCH, device=DEVICE)


def test_a_search_ends_when_its_time_is_up() -> None:
    """After the first batch in any case; what was not searched is told apart from what has no objects."""
    detector: Any = Bright()
    batches = [batch([4, 1, 2]), batch([0, 3, 4])]
    search = Search(imgsz=160, max_objects=2, min_score=0.5, max_area=0.5, clusters=2, components=1, seed=0)
    found = find_pseudolabels(detector, detector.trunk(), batches, 6, search, device=DEVICE, total=6, seconds=0.0)
    assert found.searched.tolist() == [False, True, True, False, True, False]
    assert found.labels.first.tolist() == [0, 0, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("best", "warned"), [(0.3, False), (0.004, True)])
def test_what_is_said_of_a_search(best: float, warned: bool) -> None:
    """Five images looked at of six: three objects on two of them, none on three."""
    rows, scores = torch.tensor([1, 1, 4]), torch.tensor([best, 0.5 * best, best])
    labels = PseudoLabels.gather(6, rows, torch.rand(3, 4), scores, torch.tensor([0, 7, 7]))
    lines = Found(labels, torch.tensor([True] * 5 + [False])).summary()
    assert lines[0] == (
        f"3 objects on 5 images (0.6 an image), 3 images without; 2 clusters; median score of the best {best}"
    )
    assert [line.startswith("that detector is hardly sure") for line in lines[1:]] == [True] * warned


def test_large_images_are_looked_at_few_at_a_time() -> None:
    """By hand: at most 32, and at most the 13.1 million pixels of 32 images of 640."""
    assert [together(side) for side in (64, 640, 1280, 2048, 4096)] == [32, 32, 8, 3, 1]
