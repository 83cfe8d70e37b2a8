"""Geometry of views against counted pixels and against the pixels of the views themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from headstart.views.boxes import draw_boxes, draw_together, meeting, shared, to_view
from headstart.views.render import draw, make_views
from headstart.views.spec import ViewSpec

PLAIN = {"jitter": 0.0, "gray": 0.0, "blur": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counted(box: list[int], other: list[int]) -> float:
    """The common share of two boxes, by painting both."""
    painted = []
    for x0, y0, x1, y1 in (box, other):
        mask = np.zeros((120, 160), bool)
        mask[y0:y1, x0:x1] = True
        painted.append(mask)
    return (painted[0] & painted[1]).sum() / min(mask.sum() for mask in painted)


def test_shared_part_against_painted_boxes() -> None:
    corners = torch.randint(0, 60, (200, 2, 2), generator=seeded())
    boxes = torch.cat([corners, corners + torch.randint(1, 60, (200, 2, 2), generator=seeded(1))], 2)
    found = shared(boxes[:, 0], boxes[:, 1])
    expected = [counted(*pair) for pair in boxes.tolist()]
    assert found.tolist() == pytest.approx(expected)
    assert 0 < sum(share == 0 for share in expected) < 200


@pytest.mark.parametrize("least", [0.3, 0.6, 0.74])
@pytest.mark.parametrize("scale", [(0.05, 0.1), (0.2, 1.0)])
def test_views_that_must_overlap_do(least: float, scale: tuple[float, float]) -> None:
    sizes = torch.tensor([(100, 150), (120, 90), (110, 110), (40, 160)] * 50)
    specs = [ViewSpec("a", 8, scale), ViewSpec("b", 8, scale, overlap=least)]
    views = make_views(torch.zeros(200, 3, 120, 160, dtype=torch.uint8), sizes, specs, seeded())
    first, second = (view.boxes for view in views)
    shares = [counted(*pair) for pair in zip(first.int().tolist(), second.int().tolist(), strict=True)]
    assert min(shares) >= least - 0.03  # sides are whole pixels: at 0.74 of at most 0.75 the last one counts
    assert (second[:, :2] >= 0).all()
    assert (second[:, 2:] <= sizes.flip(1)).all()
    alone = draw(dataclasses.replace(specs[1], overlap=0.0), sizes, seeded(9)).boxes
    apart = [counted(*pair) for pair in zip(first.int().tolist(), alone.tolist(), strict=True)]
    assert min(apart) < least  # without the condition some do not


def test_crops_keep_their_sizes_and_spread_where_the_condition_is_weak() -> None:
    number = 1500
    sizes = torch.tensor([(100, 150)] * number)
    first, free = (draw(ViewSpec("a", 8, (0.6, 0.9)), sizes, seeded(s)).boxes for s in (0, 1))
    moved = draw_together(free, first, sizes, 0.01, seeded(2))
    assert torch.equal(moved, free)  # they overlap anyway: nothing is moved
    strict = draw_together(free, first, sizes, 0.7, seeded(2))
    assert torch.equal(strict[:, 2:] - strict[:, :2], free[:, 2:] - free[:, :2])
    assert stats.ks_2samp(strict[:, 0].numpy(), free[:, 0].numpy()).pvalue > 1e-4


def test_views_of_other_methods_draw_nothing_more() -> None:
    """A spec without overlap leaves the generator where it was: published recipes keep their views."""
    sizes, one, two = torch.tensor([(60, 80)] * 3), seeded(), seeded()
    specs = [ViewSpec("a", 8, (0.4, 1.0)), ViewSpec("b", 8, (0.4, 1.0))]
    make_views(torch.zeros(3, 3, 60, 80, dtype=torch.uint8), sizes, specs, one)
    for spec in specs:
        draw(spec, sizes, two)
    assert torch.equal(one.get_state(), two.get_state())


def test_a_view_alone_shows_the_pixels_of_its_boxes() -> None:
    """Pixels say where they came from (red is x, green is y): the mean over a box in the view is that of the source."""
    height, width, size = 180, 250, 128
    red = torch.arange(width, dtype=torch.uint8).expand(height, width)
    green = torch.arange(height, dtype=torch.uint8).unsqueeze(1).expand(height, width)
    pixels = torch.stack([red, green, torch.zeros_like(red)]).expand(16, -1, -1, -1)
    specs = [ViewSpec("a", size, (0.3, 1.0), **PLAIN), ViewSpec("b", size, (0.3, 1.0), overlap=0.3, **PLAIN)]
    views = make_views(pixels, torch.tensor([(height, width)] * 16), specs, seeded(3))
    region = meeting(views[0].boxes, views[1].boxes)
    boxes = draw_boxes(region, 5, (0.3, 0.6), (0.5, 2.0), torch.full((16, 2), 20.0), seeded(4))
    assert 0 < sum(view.flipped.sum() for view in views) < 32
    for view in views:
        inside = to_view(boxes, view.boxes, view.flipped, size)
        for image, mapped, source in zip(view.images, inside, boxes, strict=True):
            for (x0, y0, x1, y1), (left, top, right, bottom) in zip(mapped.tolist(), source.tolist(), strict=True):
                assert 0 <= x0 < x1 <= size + 0.01
                middle = image[:2, round((y0 + y1) / 2 - 0.5), round((x0 + x1) / 2 - 0.5)] * 255 + 0.5
                # Within the pixel that was rounded to, which is up to two source pixels wide, and the crop's smoothing.
                assert middle.tolist() == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=2.5)


def test_boxes_stay_inside_and_keep_their_limits() -> None:
    region = torch.tensor([[10.0, 20.0, 110.0, 70.0], [0.0, 0.0, 12.0, 9.0]]).repeat(300, 1)
    boxes = draw_boxes(region, 4, (0.1, 0.5), (0.5, 2.0), torch.full((600, 2), 10.0), seeded())
    assert (boxes[..., :2] >= region[:, None, :2] - 1e-4).all()
    assert (boxes[..., 2:] <= region[:, None, 2:] + 1e-4).all()
    extent = boxes[..., 2:] - boxes[..., :2]
    side = extent[::2].prod(-1).sqrt() / (100 * 50) ** 0.5
    assert side.max() <= 0.5 + 1e-4
    assert extent[::2].min() >= 10 - 1e-4
    # By hand: a region of 12 x 9 has no room for 10 in height, so boxes are as high as it.
    torch.testing.assert_close(extent[1::2, :, 1], torch.full((300, 4), 9.0))


def test_box_in_a_mirrored_view_by_hand() -> None:
    """A crop from (10, 20) of 40 x 20, shown at 80 x 80: twice as wide, four times as high; then mirrored."""
    box, crop = torch.tensor([[[20.0, 25.0, 30.0, 35.0]]]), torch.tensor([[10.0, 20.0, 50.0, 40.0]])
    turned = [torch.tensor([False]), torch.tensor([True])]
    plain, mirrored = (to_view(box, crop, flipped, 80)[0, 0].tolist() for flipped in turned)
    assert plain == [20.0, 20.0, 40.0, 60.0]
    assert mirrored == [40.0, 20.0, 60.0, 60.0]
