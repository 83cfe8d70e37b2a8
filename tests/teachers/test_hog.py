"""Histograms of gradients, against what follows by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from headstart.errors import UserError
from headstart.pseudolabels.looks import features
from headstart.teachers.base import TeacherSource
from headstart.teachers.hog import CELL, DIRECTIONS, Gradients
from headstart.teachers.load import load_teacher

SIDE = 64


def ramp(degrees: float) -> Tensor:
    """Gray that grows in one direction."""
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    turn = math.radians(degrees)
    return (0.5 + 0.7 * ((x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn))).expand(1, 3, -1, -1)


@pytest.mark.parametrize(
    ("degrees", "shares"),
    [
        (0, {0: 1.0}),
        (20, {1: 1.0}),
        (90, {4: 0.5, 5: 0.5}),
        (170, {8: 0.5, 0: 0.5}),
        (180, {0: 1.0}),
        (25, {1: 0.75, 2: 0.25}),
    ],
)
def test_a_ramp_has_the_gradients_of_its_direction(degrees: float, shares: dict[int, float]) -> None:
    """Bins are 20 degrees wide, and a gradient is shared by the two it lies between."""
    cells = Gradients()(ramp(degrees))[0][0].view(DIRECTIONS, 4, CELL, CELL)  # of the four cells of a block, in order
    inner = cells[:, :, 2, 2]
    by_hand = torch.zeros(DIRECTIONS)
    for direction, share in shares.items():
        by_hand[direction] = share
    # Four equal cells, each with these shares: of length 1 together, cut at 0.2, and of length 1 again.
    cut = (by_hand / (2 * by_hand.norm())).clamp(max=0.2)
    torch.testing.assert_close(inner, (cut / (2 * cut.norm()))[:, None].expand(-1, 4), rtol=0.02, atol=0.02)


def test_dark_on_light_is_light_on_dark_and_brightness_does_not_matter() -> None:
    picture = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    same = Gradients().describe(picture)
    torch.testing.assert_close(Gradients().describe(1 - picture), same, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Gradients().describe(0.5 * picture + 0.2), same, rtol=0.02, atol=0.005)


def test_a_mirrored_image_has_the_mirrored_map() -> None:
    picture = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = Gradients().describe(picture).view(DIRECTIONS, 2, 2, 7, 7)
    turned = Gradients().describe(picture.flip(3)).view(DIRECTIONS, 2, 2, 7, 7)
    backwards = [(-direction) % DIRECTIONS for direction in range(DIRECTIONS)]
    torch.testing.assert_close(turned.flip(2, 4)[backwards], found, rtol=1e-3, atol=1e-4)


def test_the_color_where_the_gradient_is_strongest_counts() -> None:
    red = torch.full((1, 3, SIDE, SIDE), 0.5)
    red[:, 0] = ramp(90)[:, 0]
    red[:, 1] += 0.01 * (ramp(0)[:, 0] - 0.5)
    torch.testing.assert_close(Gradients().describe(red), Gradients().describe(ramp(90)), rtol=1e-3, atol=1e-4)


def test_what_names_boxes_sees_where_the_gradients_are() -> None:
    """The mean of the map is the same for both of these; what whole images show is not."""
    left, right = torch.full((1, 3, SIDE, SIDE), 0.5), torch.full((1, 3, SIDE, SIDE), 0.5)
    left[..., 16:48, 16:20] = 1
    right[..., 16:48, 40:44] = 1
    teacher = load_teacher(TeacherSource("hog"))
    one, other = features(teacher, left).float(), features(teacher, right).float()
    assert one.shape == (1, teacher.described)
    assert float((one * other).sum()) < 0.5
    assert torch.allclose(one.norm(dim=1), torch.ones(1), atol=1e-2)


def test_it_has_nothing_to_load_and_says_so() -> None:
    with pytest.raises(UserError, match="hog has no weights") as caught:
        load_teacher(TeacherSource("hog", weights="a.pt", mean=(0.5,) * 3))
    assert "teacher_mean" in str(caught.value)
