"""What a trained network makes of boxes that a detector found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2.functional import crop, resize

from headstart.images.loader import PixelBatch
from headstart.pseudolabels.box_classifier import BoxClassifier, fitted
from headstart.pseudolabels.labelling import Detections
from headstart.pseudolabels.looks import SIDE, features, squares
from headstart.teachers.base import FrozenTeacher
from headstart.views.resize import GRAY

RED, BLUE, GREEN = (220, 30, 30), (30, 30, 220), (30, 200, 30)


def colors() -> FrozenTeacher:
    """A network whose features are the colors of 16 x 16 pixels."""
    return FrozenTeacher(nn.AvgPool2d(16), "colors")


def scene(height: int, width: int, *boxes: tuple[tuple[float, float, float, float], tuple[int, int, int]]) -> Tensor:
    """A gray image with colored rectangles, corners as shares of its sides."""
    made = torch.full((3, height, width), 114, dtype=torch.uint8)
    for (x0, y0, x1, y1), color in boxes:
        part = made[:, round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
        part[:] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    return made


def batch(*images: Tensor, first: int = 5) -> PixelBatch:
    """Images of different sizes, padded with white, at rows from `first` on."""
    sizes = torch.tensor([one.shape[1:] for one in images])
    pixels = torch.full((len(images), 3, *sizes.amax(0).tolist()), 255, dtype=torch.uint8)
    for place, one in enumerate(images):
        pixels[place, :, : one.shape[1], : one.shape[2]] = one
    return PixelBatch(pixels, sizes, torch.arange(first, first + len(images)), [])


def detections(rows: list[int], boxes: list[tuple[float, float, float, float]], scores: list[float]) -> Detections:
    labels = torch.zeros(len(rows), dtype=torch.int64)  # whatever it is, the detector takes it for the first class
    looked = torch.tensor(sorted(set(rows)), dtype=torch.int64)
    return Detections(torch.tensor(rows), torch.tensor(boxes).view(-1, 4), torch.tensor(scores), labels, looked)


LEFT, RIGHT, MIDDLE = (0.1, 0.3, 0.3, 0.7), (0.6, 0.3, 0.8, 0.7), (0.4, 0.4, 0.55, 0.6)


def learnt() -> BoxClassifier:
    """Red is the first class, blue the second; green things are what the detector takes for objects and are none."""
    made = BoxClassifier(colors(), 2)
    images = batch(scene(100, 100, (LEFT, RED), (RIGHT, BLUE), (MIDDLE, GREEN)), scene(80, 120, (LEFT, BLUE)))
    found = detections([5, 5, 6], [LEFT, MIDDLE, LEFT], [0.9, 0.3, 0.9])
    owner, boxes, labels = torch.tensor([0, 0, 1]), torch.tensor([LEFT, RIGHT, LEFT]), torch.tensor([0, 1, 1])
    made.learn([made.looks(images, found, owner, boxes, labels)])
    return made


def test_boxes_get_the_class_that_they_look_like_and_what_is_no_object_a_low_score() -> None:
    images = batch(scene(90, 150, (LEFT, BLUE), (RIGHT, GREEN)), scene(200, 60, (RIGHT, RED)), first=7)
    named = learnt().named(images, detections([7, 7, 8], [RIGHT, LEFT, RIGHT], [0.9, 0.25, 0.49]))
    assert named.rows.tolist() == [7, 7, 8]
    torch.testing.assert_close(named.boxes, torch.tensor([LEFT, RIGHT, RIGHT]))  # the best first within an image
    assert named.labels[[0, 2]].tolist() == [1, 0]
    torch.testing.assert_close(named.scores[[0, 2]], torch.tensor([0.25, 0.49]).sqrt(), atol=0.02, rtol=0)
    assert float(named.scores[1]) < 0.3, "green is no object, however sure the detector is"
    assert named.looked.tolist() == [7, 8]


def test_with_the_detector_the_class_is_that_of_the_product_and_nothing_stays_nothing() -> None:
    images = batch(scene(90, 150, (LEFT, BLUE), (RIGHT, GREEN)), first=7)
    found = detections([7, 7], [LEFT, RIGHT], [0.81, 0.81])
    made = learnt()
    alone = made.named(images, found)
    own = torch.tensor([[0.81, 0.27], [0.81, 0.27]])  # the detector sees red three times as likely as blue
    both = made.named(images, found, own)
    for name in ("labels", "scores"):  # a detector that knows nothing changes nothing
        torch.testing.assert_close(
            getattr(made.named(images, found, torch.full((2, 2), 0.5)), name), getattr(alone, name)
        )
    blue = float(alone.scores[0] ** 2 / 0.81)  # nearly sure of blue, so the detector does not change its mind
    red = 1 - blue
    expected = 0.27 * blue / (0.27 * blue + 0.81 * red)
    assert both.labels[0] == alone.labels[0] == 1
    assert float(both.scores[0]) == pytest.approx((0.81 * expected) ** 0.5, abs=0.02)
    assert float(both.scores[1]) < 0.35, "green is no object, whatever the detector takes it for"
    sure = torch.tensor([[0.81, 0.0], [0.81, 0.0]])
    assert made.named(images, found, sure).labels[0] == 0, "what one of the two rules out it is not"


def test_nothing_found() -> None:
    none = detections([], [], [])
    assert len(learnt().named(batch(scene(50, 50)), none).rows) == 0


def test_labelled_images_without_objects_and_without_anything_found() -> None:
    made = BoxClassifier(colors(), 2)
    nothing = torch.zeros(0, dtype=torch.int64)
    images = batch(scene(50, 50))
    empty = made.looks(images, detections([], [], []), nothing, torch.zeros(0, 4), nothing)
    assert empty.features.shape == (0, 3)
    ground = made.looks(images, detections([5], [LEFT], [0.1]), nothing, torch.zeros(0, 4), nothing)
    assert set(ground.labels.tolist()) == {2}


def test_more_boxes_than_go_at_once_keep_their_order() -> None:
    """Box by box, cut and scaled by torchvision: 150 boxes of two images, plain and mirrored."""
    generator = torch.Generator().manual_seed(0)
    images = batch(*(torch.randint(0, 256, (3, 320, 320), generator=generator, dtype=torch.uint8) for _ in range(2)))
    corners = torch.randint(40, 180, (150, 2), generator=generator)
    boxes = torch.cat([corners, corners + 80], 1) / 320  # squares of 80 pixels, whole with a margin of 1
    owner = torch.arange(2).repeat_interleave(75)
    got = BoxClassifier(colors(), 2)._features(images, owner, boxes, [(1.0, False), (1.0, True)])
    for place in (0, 74, 75, 149):
        x, y = corners[place].tolist()
        cut = crop(images.pixels[owner[place]], y, x, 80, 80).float() / 255
        expected = functional.normalize(cut.mean((1, 2)), dim=0)
        torch.testing.assert_close(got[place], expected, atol=3e-3, rtol=0)
        torch.testing.assert_close(got[150 + place], expected, atol=3e-3, rtol=0)


def test_of_thousands_of_boxes_some_are_learnt_from() -> None:
    many = torch.tensor([[0.1, 0.3, 0.3, 0.7]]).repeat(500, 1)
    none = torch.zeros(500, dtype=torch.int64)
    looks = BoxClassifier(colors(), 2).looks(
        batch(scene(40, 40, (LEFT, RED))),
        detections([5], [LEFT], [0.9]),
        none,
        many,
        none,
        torch.arange(500) % 200 == 0,
    )
    assert len(looks.labels) == len(looks.features) == 3 * 8


def test_where_a_mirror_makes_another_class_nothing_is_mirrored() -> None:
    """Red on the left of a box and green on the right, and the other way round: a mean of colors of the left half."""

    class LeftHalf(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[..., : images.shape[-1] // 2].mean((2, 3), keepdim=True)

    image = scene(40, 40, ((0.1, 0.1, 0.5, 0.9), RED), ((0.5, 0.1, 0.9, 0.9), GREEN))
    owner, boxes = torch.zeros(1, dtype=torch.int64), torch.tensor([[0.1, 0.1, 0.9, 0.9]])
    seen = {}
    for mirrored in (True, False):
        made = BoxClassifier(FrozenTeacher(LeftHalf(), "left"), 2, mirrored=mirrored)
        looks = made.looks(batch(image), detections([], [], []), owner, boxes, torch.tensor([0]))
        red, green = looks.features[:, 0], looks.features[:, 1]
        seen[mirrored] = {bool(one > other) for one, other in zip(red.tolist(), green.tolist(), strict=True)}
        assert len(looks.labels) == (8 if mirrored else 4)
    assert seen == {True: {True, False}, False: {True}}


def test_what_is_no_object_is_learnt_beyond_as_many_boxes_as_there_are_objects() -> None:
    """Two objects, found first, and 20 boxes beside them: of the best 2 + 7 boxes seven show nothing."""
    places = [(0.4, place / 25, 0.5, place / 25 + 0.03) for place in range(20)]
    found = detections([5] * 22, [LEFT, RIGHT, *places], [0.9] * 22)
    owner, boxes = torch.zeros(2, dtype=torch.int64), torch.tensor([LEFT, RIGHT])
    looks = BoxClassifier(colors(), 2).looks(batch(scene(80, 80)), found, owner, boxes, torch.tensor([0, 1]))
    assert torch.bincount(looks.labels).tolist() == [8, 8, 7 * 2]


def test_a_square_around_a_box_against_torchvision() -> None:
    """A box of 40 x 20 pixels at (100, 60), seen in a square of 1.5 times its longer side: 60 pixels from (90, 40)."""
    image = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(1))
    smooth = functional.avg_pool2d(image, 9, 1, 4)
    got = squares(smooth - GRAY, torch.tensor([0]), torch.tensor([[100.0, 60, 140, 80]]), 1.5)[0]
    expected = resize(crop(smooth[0], 40, 90, 60, 60), [SIDE, SIDE], antialias=False)
    torch.testing.assert_close(got[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4], atol=0.01, rtol=0)


def test_what_lies_outside_of_an_image_is_gray() -> None:
    white = torch.ones(1, 3, 100, 100)
    got = squares(white - GRAY, torch.tensor([0]), torch.tensor([[80.0, 40, 120, 60]]), 1.0)[0]
    torch.testing.assert_close(got[:, :, -40:], torch.full((3, SIDE, 40), GRAY), atol=1e-3, rtol=0)
    torch.testing.assert_close(got[:, :, :40], torch.ones(3, SIDE, 40), atol=1e-3, rtol=0)


def test_features_have_length_1_and_any_number_comes_back() -> None:
    assert features(colors(), torch.rand(3, 3, SIDE, SIDE)).float().norm(dim=1).tolist() == pytest.approx([1] * 3, 0.01)


def test_the_regression_is_where_its_gradient_ends() -> None:
    """The loss is convex: no gradient, the solution. It is softmax minus truth over N, plus 2e-4 of the weights."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    x[:, 0] += 3 * (y == 0)
    weight, bias = fitted(x, y, 3)
    difference = ((x @ weight + bias).softmax(1) - functional.one_hot(y, 3)) / 60
    torch.testing.assert_close(x.T @ difference + 2e-4 * weight, torch.zeros(5, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(difference.sum(0), torch.zeros(3), atol=1e-4, rtol=0)
