"""Boxes follow what they are boxes of: it is painted in a color of its own and looked for in the mosaic."""

from __future__ import annotations

import pytest
import torch

from headstart.views.mosaic import clipped, detection_view, mosaics, whole
from headstart.views.render import make_views
from headstart.views.resize import GRAY

SIZE = 96


def painted(number: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Black images, each with a rectangle in its own strength of red."""
    random = torch.Generator().manual_seed(3)
    images, boxes = torch.zeros(number, 3, SIZE, SIZE), []
    for place in range(number):
        x, y = torch.randint(5, 50, (2,), generator=random).tolist()
        w, h = torch.randint(20, 40, (2,), generator=random).tolist()
        images[place, 0, y : y + h, x : x + w] = 0.3 + 0.08 * place
        boxes.append([x, y, x + w, y + h])
    return images, torch.arange(number), torch.tensor(boxes).float()


def test_boxes_follow_their_objects() -> None:
    images, owner, boxes = painted()
    checked = 0
    for seed in range(40):
        made, whose, found, labels = mosaics(images, owner, boxes, owner, torch.Generator().manual_seed(seed))
        assert made.shape == (2, 3, SIZE, SIZE)
        for image, box, label in zip(whose.tolist(), found, labels.tolist(), strict=True):
            if ((labels == label) & (whose == image)).sum() > 1:  # drawn twice into one mosaic
                continue
            red = (made[image, 0] - (0.3 + 0.08 * label)).abs() < 0.02
            red &= made[image, 1] < 0.02  # not the gray outside
            # Without its rim: that of a stronger red has, somewhere, this one too.
            core = torch.nn.functional.max_pool2d((~red)[None].float(), 3, 1, padding=1)[0] == 0
            ys, xs = core.nonzero().unbind(1)
            seen = torch.tensor([xs.min() - 1, ys.min() - 1, xs.max() + 2, ys.max() + 2]).float()
            torch.testing.assert_close(seen, box, atol=2.1, rtol=0)
            checked += 1
    assert checked > 60


def test_each_of_eight_images_is_in_one_of_two_mosaics() -> None:
    images, owner, boxes = painted(8)
    seen = set()
    for seed in range(30):
        _, whose, _, labels = mosaics(images, owner, boxes, owner, torch.Generator().manual_seed(seed), (0.5, 0.5))
        assert len(set(labels.tolist())) == len(labels) <= 8
        seen |= {(image, label) for image, label in zip(whose.tolist(), labels.tolist(), strict=True)}
    assert len(seen) == 16  # every image in either, sooner or later


def test_outside_of_images_is_gray() -> None:
    images, owner, boxes = painted()
    made, *_ = mosaics(images, owner, boxes, owner, torch.Generator().manual_seed(0), zoom=(0.25, 0.25))
    corners = torch.stack([made[:, :, 0, 0], made[:, :, -1, -1]])
    assert ((corners - GRAY).abs() < 1e-5).all(-1).any(0).all()  # a window four times as wide as an image


def test_the_same_seed_the_same_mosaics() -> None:
    images, owner, boxes = painted()
    one, other, third = (mosaics(images, owner, boxes, owner, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], third[0])


def test_without_objects() -> None:
    images, owner, boxes = painted()
    made, *found = mosaics(images, owner[:0], boxes[:0], owner[:0], torch.Generator().manual_seed(0))
    assert made.shape == (2, 3, SIZE, SIZE)
    assert [tuple(one.shape) for one in found] == [(0,), (0, 4), (0,)]


def test_cut_boxes() -> None:
    boxes = torch.tensor([[-10.0, 0, 10, 10], [-95, 0, 5, 10], [20, 20, 21, 40], [90, 90, 120, 120], [200, 0, 210, 9]])
    cut, kept = clipped(boxes, 100, torch.zeros(5, dtype=torch.int64))
    assert kept.tolist() == [True, False, False, True, False]  # half; a twentieth; too narrow; a ninth; outside
    assert cut[0].tolist() == [0, 0, 10, 10]
    cut, kept = clipped(boxes, 100, -torch.ones(5, dtype=torch.int64))
    assert kept.tolist() == [True, True, True, True, False], "of what is left open all that is in view stays"


def test_of_an_image_of_which_nothing_is_known_all_that_a_mosaic_shows_is_left_open() -> None:
    """Each pixel of a mosaic is of the gray around it, or lies in the open box of its image, however narrow a strip."""
    images = torch.ones(16, 3, SIZE, SIZE)
    owner, boxes = torch.arange(16), torch.tensor([[0.0, 0, SIZE, SIZE]]).repeat(16, 1)
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        made, place, open_boxes, labels = mosaics(images, owner, boxes, -torch.ones(16, dtype=torch.int64), random)
        assert set(labels.tolist()) == {-1}
        for at, image in enumerate(made):
            ys, xs = (image[0] > 0.99).nonzero().unbind(1)
            x0, y0, x1, y1 = (open_boxes[place == at] + torch.tensor([-0.51, -0.51, 0.51, 0.51])).unbind(1)
            x, y = (xs + 0.5)[:, None], (ys + 0.5)[:, None]
            assert ((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).any(1).all()


@pytest.mark.parametrize(("height", "width"), [(96, 96), (96, 97), (40, 320), (320, 40), (6, 6), (1, 50)])
def test_a_whole_view_shows_all_of_an_image_of_any_shape(height: int, width: int) -> None:
    """The square around the image, as large as its longer side: what a detector is shown (by hand)."""
    side = max(height, width)
    pixels, sizes = torch.zeros(8, 3, side, side, dtype=torch.uint8), torch.tensor([[height, width]]).repeat(8, 1)
    spec = whole(detection_view(SIZE, (0.8, 1.0), letterbox=0.5, jitter=0.0))
    view = make_views(pixels, sizes, [spec], torch.Generator().manual_seed(0))[0]
    x, y = (side - width) / 2, (side - height) / 2
    expected = torch.tensor([-x, -y, width + x, height + y]).repeat(8, 1)
    torch.testing.assert_close(view.boxes, expected, atol=1.0, rtol=0)
