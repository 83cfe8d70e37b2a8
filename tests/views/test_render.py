"""Views: each operation against torchvision or PIL, the whole against lightly's DINOTransform, geometry, padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from lightly.transforms import DINOTransform
from PIL import Image, ImageFilter
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomResizedCrop

from headstart.views import color
from headstart.views.boxes import to_view
from headstart.views.render import Parameters, draw, make_views, render_singly, render_together
from headstart.views.resize import resize_batch, resize_one
from headstart.views.spec import View, ViewSpec, dino_specs, needed_area, pair_specs

LEVEL = 1 / 255
PLAIN = {"flip": 0.0, "jitter": 0.0, "gray": 0.0, "blur": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int, width: int, seed: int = 0, number: int = 1) -> Tensor:
    """uint8 (number, 3, height, width): colorful blobs with some texture, touching 0 and 255."""
    blobs = torch.rand(number, 3, 5, 7, generator=seeded(seed))
    blobs = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic") * 1.3 - 0.15
    texture = torch.rand(number, 3, height, width, generator=seeded(seed + 1)) * 0.1
    return (blobs + texture).clamp(0, 1).mul(255).round().byte()


def sizes_of(*sizes: tuple[int, int]) -> Tensor:
    return torch.tensor(sizes)


def assert_close(got: Tensor, expected: Tensor, levels: float) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=levels * LEVEL)


# Color, against torchvision


@pytest.fixture
def images() -> Tensor:
    return picture(40, 52, number=5).float() / 255


@pytest.mark.parametrize(
    ("operation", "reference", "values"),
    [
        (color.brightness, TF.adjust_brightness, [0.0, 0.6, 1.0, 1.4, 3.0]),
        (color.contrast, TF.adjust_contrast, [0.0, 0.6, 1.0, 1.4, 3.0]),
        (color.saturation, TF.adjust_saturation, [0.0, 0.8, 1.0, 1.2, 3.0]),
        (color.hue, TF.adjust_hue, [-0.1, -0.03, 0.0, 0.05, 0.1]),
        (color.hue, TF.adjust_hue, [-0.5, -0.31, 1 / 6, 0.24, 0.5]),
    ],
)
def test_color_as_torchvision(images, operation, reference, values):
    expected = torch.stack([reference(image, value) for image, value in zip(images, values, strict=True)])
    operation(images, torch.tensor(values))
    # The gray weight of red is 0.299 here and in PIL, 0.2989 in torchvision's tensor functions.
    assert_close(images, expected, levels=0.1)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.04, 1 / 6, 0.3])
def test_hue_of_pixels_with_equal_channels(turn):
    """Greys, primaries, their mixtures and black: where the largest or smallest channel is not a single one."""
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 6)] * 3).T.reshape(1, 3, 6, 36).contiguous()
    expected = TF.adjust_hue(grid[0], turn)
    color.hue(grid, torch.tensor([turn]))
    torch.testing.assert_close(grid[0], expected, rtol=0, atol=1e-5)


def test_greyscale_as_torchvision(images):
    expected = TF.rgb_to_grayscale(images, 3)
    color.grayscale(images)
    assert_close(images, expected, levels=0.1)


def test_solarize_as_torchvision(images):
    images[0, :, 0, :3] = torch.tensor([127.0, 128.0, 129.0]) / 255
    expected = TF.solarize(images, 128 / 255)
    color.solarize(images)
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(images[0, 0, 0, :3] * 255, torch.tensor([127.0, 127.0, 126.0]))


# Blur, against PIL and against a true Gaussian

SIGMAS = [0.1, 0.3, 0.5, 0.9, 1.3, 1.45, 1.7, 2.0]


@pytest.mark.parametrize("blur", [color.blur, color.blur_by_convolution])
def test_blur_as_pil(blur):
    pixels = picture(48, 60, number=len(SIGMAS))
    pixels[:, :, 20:28, 20:28] = 255  # sharp edges
    pixels[:, :, :4, :4] = 0  # also in a corner of the image
    expected = []
    for image, sigma in zip(pixels, SIGMAS, strict=True):
        blurred = Image.fromarray(image.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(sigma))
        expected.append(torch.from_numpy(np.array(blurred)).permute(2, 0, 1) / 255)
    images = pixels.float() / 255
    blur(images, color.blur_kernels(torch.tensor(SIGMAS)))
    error = (images - torch.stack(expected)).abs() / LEVEL
    # PIL rounds after each of its passes, and continues the blurred edge in each of them where we continue the image's.
    assert error[..., 6:-6, 6:-6].max() < 3
    assert error.max() < 8
    assert error.mean() < 0.6


def test_blur_kernels_are_gaussians():
    sigmas = torch.linspace(0.1, 4, 40)
    kernels = color.blur_kernels(sigmas).double()
    away = torch.arange(kernels.shape[1]) - kernels.shape[1] // 2
    torch.testing.assert_close(kernels.sum(1), torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close((kernels * away**2).sum(1), sigmas.double() ** 2, rtol=1e-4, atol=1e-4)
    for sigma, kernel in zip(sigmas.tolist(), kernels, strict=True):
        if sigma >= 1:
            gauss = torch.from_numpy(stats.norm.pdf(away.numpy(), scale=sigma))
            assert (kernel - gauss).abs().max() < 0.025, sigma


def test_the_two_blurs_agree(images):
    kernels = color.blur_kernels(torch.tensor([0.1, 0.7, 1.4, 1.9, 2.0]))
    other = images.clone()
    color.blur(images, kernels)
    color.blur_by_convolution(other, kernels)
    assert_close(images, other, levels=0.02)


def test_a_blur_wider_than_the_image_keeps_a_flat_image_flat():
    images = torch.full((2, 3, 2, 2), 0.25)
    for blur in (color.blur, color.blur_by_convolution):
        blur(images, color.blur_kernels(torch.tensor([2.0, 5.0])))
        torch.testing.assert_close(images, torch.full_like(images, 0.25), rtol=0, atol=1e-4)


# Crops, against torchvision

BOXES = [(0, 0, 97, 71), (13, 7, 60, 66), (90, 60, 97, 71), (5, 40, 95, 44), (50, 3, 51, 4)]


@pytest.mark.parametrize("size", [24, 33, 224])
@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_as_torchvision(size, mirrored):
    pixels = picture(71, 97, number=len(BOXES))
    expected = []
    for image, (x0, y0, x1, y1) in zip(pixels, BOXES, strict=True):
        view = TF.resized_crop(image, y0, x0, y1 - y0, x1 - x0, [size, size], InterpolationMode.BICUBIC, antialias=True)
        expected.append((TF.horizontal_flip(view) if mirrored else view) / 255)
    singly = torch.empty(len(BOXES), 3, size, size)
    for image, box, out in zip(pixels.split(1), BOXES, singly.split(1), strict=True):
        resize_one(image, box, mirrored, out)
    assert_close(singly, torch.stack(expected), levels=1.01)  # torch's rounding, by the strides that it is given
    for dtype, levels in ((torch.float32, 1.2), (torch.float16, 1.4)):
        together = torch.empty_like(singly)
        resize_batch(pixels, torch.tensor(BOXES), torch.full((len(BOXES),), mirrored), together, dtype)
        assert_close(together, torch.stack(expected), levels)


@pytest.mark.parametrize("size", [24, 33, 224])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("channels", [3, 1, 5])
def test_sharp_crops_as_opencv_scales_them(size: int, mirrored: bool, channels: int) -> None:
    """As Ultralytics has its detectors see images, with none of the smoothing of the other crops."""
    pixels = picture(71, 97, number=len(BOXES)).repeat(1, 2, 1, 1)[:, :channels]
    expected = torch.empty(len(BOXES), channels, size, size)
    for image, (x0, y0, x1, y1), out in zip(pixels, BOXES, expected, strict=True):
        for channel, plane in enumerate(image.numpy()):
            view = cv2.resize(np.ascontiguousarray(plane[y0:y1, x0:x1]), (size, size), interpolation=cv2.INTER_LINEAR)
            out[channel] = torch.from_numpy(view[:, ::-1].copy() if mirrored else view) / 255
    singly = torch.empty_like(expected)
    for image, box, out in zip(pixels.split(1), BOXES, singly.split(1), strict=True):
        resize_one(image, box, mirrored, out, sampling="sharp")
    assert_close(singly, expected, levels=0.01)
    for dtype, levels in ((torch.float32, 1.01), (torch.float16, 1.3)):
        together, mirror = torch.empty_like(expected), torch.full((len(BOXES),), mirrored)
        resize_batch(pixels, torch.tensor(BOXES), mirror, together, dtype, sampling="sharp")
        assert_close(together, expected, levels)


@pytest.mark.parametrize("render", [render_singly, render_together])
def test_a_view_says_how_it_is_sampled(render: Callable[..., list[Tensor]]) -> None:
    """Lines of one pixel, at half the size: smoothed they are gray all over, sharp every second one is left."""
    pixels = torch.zeros(1, 3, 60, 60, dtype=torch.uint8)
    pixels[..., ::4] = 255
    specs = [ViewSpec("view", 20, (1.0, 1.0), (1.0, 1.0), **PLAIN, sampling=how) for how in ("sharp", "smooth")]
    sharp, smooth = render(pixels, specs, [draw(spec, torch.tensor([(60, 60)]), seeded()) for spec in specs])
    # By hand: pixel i of the view lies on pixel 3 i + 1 of the image; of these 0, 4, 8, ... are white.
    white = torch.tensor([(3 * i + 1) % 4 == 0 for i in range(20)]).float()
    assert_close(sharp[0, 0], white.expand(20, 20), levels=0.5)
    assert smooth.max() < 0.6


def test_what_an_image_keeps_for_its_views() -> None:
    """No crop is enlarged; and what is sampled sharply is sampled from twice its side."""
    smooth, sharp = (ViewSpec("view", 100, (0.5, 1.0), sampling=how) for how in ("smooth", "sharp"))
    assert (needed_area([smooth]), needed_area([smooth, sharp])) == (20_000, 80_000)


@pytest.mark.parametrize("size", [(60, 80), (30, 200), (300, 8), (5, 4)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    number = 1500
    spec = ViewSpec("crop", 8, scale, fallback="center")
    ours = draw(spec, torch.tensor([size] * number), seeded(3)).boxes.double()
    torch.manual_seed(5)
    crop = RandomResizedCrop(8, scale=scale)
    theirs = [crop.make_params([torch.empty(3, *size)]) for _ in range(number)]
    theirs = torch.tensor([[p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]] for p in theirs])
    for name, value in {
        "left": lambda box: box[:, 0],
        "top": lambda box: box[:, 1],
        "width": lambda box: box[:, 2] - box[:, 0],
        "height": lambda box: box[:, 3] - box[:, 1],
        "area": lambda box: (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]),
        "center": lambda box: box[:, 0] + box[:, 2],
    }.items():
        assert stats.ks_2samp(value(ours).numpy(), value(theirs.double()).numpy()).pvalue > 1e-4, name


@pytest.mark.parametrize(
    ("size", "expected"),
    # By hand: 4/3 of the height 8 is 10.67, so 11 columns in the middle of 300; likewise upright; a pixel is itself.
    [((8, 300), (144, 0, 155, 8)), ((300, 8), (0, 144, 8, 155)), ((1, 1), (0, 0, 1, 1))],
)
def test_the_middle_where_no_crop_fits_as_published(size, expected):
    boxes = draw(ViewSpec("crop", 8, (0.9, 1.0), fallback="center"), torch.tensor([size] * 20), seeded()).boxes
    assert boxes.tolist() == [list(expected)] * 20


WIDE = [(1080, 1920), (144, 780), (780, 144), (480, 640)]
NEAR_SQUARE = {"scale": (0.8, 1.0), "ratio": (0.9, 1.1)}


@pytest.mark.parametrize("size", WIDE)
def test_crops_that_fit_nowhere_are_drawn_all_over_the_image(size):
    """Every pixel of the longer side is seen, equally often but for the borders; as much as the ratio allows."""
    number, (height, width) = 1000, size
    boxes = draw(ViewSpec("crop", 8, **NEAR_SQUARE), torch.tensor([size] * number), seeded(1)).boxes
    x0, y0, x1, y1 = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (x1 <= width).all()
    assert (y1 <= height).all()
    long, short = (0, 1) if width > height else (1, 0)
    start, end, room = boxes[:, long], boxes[:, long + 2], max(size) - min(size)
    # A crop's rounded sides are within half a pixel of the limits of the ratio, and the shorter side nearly all seen.
    ratio = (x1 - x0) / (y1 - y0)
    assert ratio.min() > 0.9 - 1 / min(size)
    assert ratio.max() < 1.1 + 1 / min(size)
    assert (boxes[:, short + 2] - boxes[:, short] >= 0.98 * min(size)).all()
    extent = (end - start).double()
    assert extent.std() > 0.02 * min(size)  # of the ratios that were drawn
    at = torch.arange(max(size)).unsqueeze(1)
    seen = ((start <= at) & (at < end)).sum(1)
    edge = max(6, room // 100)  # a border is only in the crops that are flush with it
    assert (seen[edge:-edge] > 0).all()
    # Where a crop begins is uniform in its room.
    assert stats.kstest((start / (max(size) - extent)).numpy(), "uniform").pvalue > 1e-3
    longest = int(1.1 * min(size)) + 1
    if room > 3 * longest:
        inner = seen[longest:-longest].double()
        expected = number * min(size) / (max(size) - min(size))  # by hand: a window of one side, uniform in the room
        assert inner.mean() == pytest.approx(expected, rel=0.05)
        assert inner.std() < 0.12 * expected


@pytest.mark.parametrize("size", [(300, 300), (100, 109), (109, 100)])
@pytest.mark.parametrize("scale", [(0.8, 1.0), (0.99999, 1.0)])
def test_square_images_are_cropped_as_ever(size, scale):
    """Where the image's own ratio is within the limits, what fits nowhere is the whole image, as in torchvision."""
    sizes = torch.tensor([size] * 400)
    spec = ViewSpec("crop", 8, scale, (0.9, 1.1), letterbox=0.5)
    new, old = draw(spec, sizes, seeded(2)), draw(dataclasses.replace(spec, fallback="center"), sizes, seeded(2))
    for field in dataclasses.fields(Parameters):
        assert torch.equal(getattr(new, field.name), getattr(old, field.name))
    whole = (new.boxes == torch.tensor([0, 0, size[1], size[0]])).all(1)
    assert whole.any() or scale[0] < 0.9  # of the narrow scale few crops fit
    assert not new.outside.any()


def test_crops_of_square_images_are_those_of_version_0_1():
    """Recorded before crops were drawn all over wide images."""
    boxes = draw(ViewSpec("view", 32, **NEAR_SQUARE), torch.tensor([(300, 300)] * 3), seeded(7)).boxes
    assert boxes.tolist() == [[10, 21, 299, 289], [9, 7, 291, 274], [9, 4, 292, 287]]


@pytest.mark.parametrize("size", WIDE)
def test_wide_images_take_no_other_random_numbers(size):
    states = []
    for spec in (
        ViewSpec("crop", 8, **NEAR_SQUARE),
        ViewSpec("crop", 8, **NEAR_SQUARE, fallback="center"),
        ViewSpec("crop", 8, **NEAR_SQUARE, letterbox=0.5),
        ViewSpec("crop", 8, (0.1, 0.2)),
    ):
        generator = seeded(3)
        draw(spec, torch.tensor([size] * 7), generator)
        states.append(generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


# Whole images in gray squares


@pytest.mark.parametrize(
    ("size", "box", "outside"),
    # By hand: 120 - 80 = 40 rows of gray, 20 of them above; likewise upright, 21 of 41 columns on the right.
    [((80, 120), (0, -20, 120, 100), (0, 20, 0, 20)), ((121, 80), (-20, 0, 101, 121), (20, 0, 21, 0))],
)
def test_whole_images_in_a_gray_square(size, box, outside):
    drawn = draw(ViewSpec("crop", 8, **NEAR_SQUARE, letterbox=1.0), torch.tensor([size] * 50), seeded())
    whole = drawn.outside.any(1)
    assert whole.sum() > 40  # a few crops fit
    assert drawn.boxes[whole].unique(dim=0).tolist() == [list(box)]
    assert drawn.outside[whole].unique(dim=0).tolist() == [list(outside)]


def test_the_share_of_whole_images_is_what_was_asked_for():
    drawn = draw(ViewSpec("crop", 8, **NEAR_SQUARE, letterbox=0.3), torch.tensor([(1080, 1920)] * 4000), seeded())
    whole = drawn.outside.any(1)
    assert whole.float().mean() == pytest.approx(0.3, abs=4 * (0.21 / 4000) ** 0.5)
    # The others are drawn all over the image still: where they lie does not depend on the choice.
    start = drawn.boxes[~whole, 0] / (1920 - (drawn.boxes[~whole, 2] - drawn.boxes[~whole, 0]))
    assert stats.kstest(start.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("render", [render_singly, render_together])
@pytest.mark.parametrize(("size", "rows"), [((60, 120), (16, 48)), ((40, 128), (22, 42)), ((1, 120), (31, 32))])
def test_a_whole_image_is_resized_into_its_place(render, size, rows):
    """As torchvision resizes it; a padded neighbour in the batch leaks into nothing, and mirrored is mirrored."""
    (height, width), (top, bottom) = size, rows
    pixels = torch.full((2, 3, 140, 140), 255, dtype=torch.uint8)
    pixels[:, :, :height, :width] = picture(height, width)
    spec = ViewSpec("crop", 64, **NEAR_SQUARE, **PLAIN, letterbox=1.0)
    drawn = draw(spec, torch.tensor([size] * 2), seeded())
    drawn.flipped = torch.tensor([False, True])
    view = render(pixels, [spec], [drawn])[0]
    expected = torch.full((3, 64, 64), 114 / 255)
    inner = TF.resize(pixels[0, :, :height, :width], [bottom - top, 64], InterpolationMode.BICUBIC, antialias=True)
    expected[:, top:bottom] = inner / 255
    assert_close(view[0], expected, levels=1.4)
    assert_close(view[1], expected.flip(-1), levels=1.4)


def test_boxes_in_a_whole_image_are_where_the_pixels_are():
    """A white rectangle on black, found again in the view where `to_view` says that it is."""
    pixels = torch.zeros(2, 3, 90, 240, dtype=torch.uint8)
    pixels[:, :, 30:60, 160:200] = 255
    spec = ViewSpec("crop", 120, **NEAR_SQUARE, **PLAIN, letterbox=1.0)
    drawn = draw(spec, torch.tensor([(90, 240)] * 2), seeded())
    drawn.flipped = torch.tensor([False, True])
    boxes = to_view(torch.tensor([[[160.0, 30, 200, 60]]] * 2), drawn.boxes, drawn.flipped, 120)[:, 0]
    # By hand: half the size; 75 rows of gray above, of 240: 160 / 2, (30 + 75) / 2, 200 / 2, (60 + 75) / 2.
    assert boxes.tolist() == [[80, 52.5, 100, 67.5], [20, 52.5, 40, 67.5]]
    for render in (render_singly, render_together):
        for view, box in zip(render(pixels, [spec], [drawn])[0], boxes.tolist(), strict=True):
            down, across = (view[0] > 0.7).nonzero().unbind(1)
            seen = (int(across.min()), int(down.min()), int(across.max()) + 1, int(down.max()) + 1)
            assert seen == pytest.approx(box, abs=1)


def test_views_of_a_batch_with_whole_images_agree_and_leave_the_others_alone():
    sizes, number = torch.tensor([(90, 240), (90, 90), (200, 60)] * 2), 6
    pixels = picture(200, 240, number=number)
    specs = [ViewSpec(name, 48, **NEAR_SQUARE, letterbox=share) for name, share in (("cropped", 0.0), ("whole", 1.0))]
    drawn = [draw(spec, sizes, seeded(5)) for spec in specs]
    results = []
    for render in (render_singly, render_together):
        views = render(pixels, specs, drawn)
        assert torch.equal(views[0][1::3], views[1][1::3])  # the square ones
        results.append(views)
    for one, two in zip(*results, strict=True):
        assert_close(one, two, levels=5)


# Parameters


def test_parameters_have_the_probabilities_and_ranges_of_their_spec():
    number = 4000
    spec = dataclasses.replace(dino_specs()[1], blur=0.3, hue=0.0)
    drawn = draw(spec, torch.tensor([(60, 80)] * number), seeded())
    margin = 4 * 0.5 / number**0.5
    assert drawn.flipped.float().mean() == pytest.approx(0.5, abs=margin)
    assert drawn.gray.float().mean() == pytest.approx(0.2, abs=margin)
    assert drawn.solarize.float().mean() == pytest.approx(0.2, abs=margin)
    assert (drawn.sigma > 0).float().mean() == pytest.approx(0.3, abs=margin)
    assert drawn.sigma[drawn.sigma > 0].mean() == pytest.approx(1.05, abs=0.08)
    jittered = (drawn.order >= 0).any(1)
    assert jittered.float().mean() == pytest.approx(0.8, abs=margin)
    # Hue is off: the three others each come once, in every order.
    assert drawn.order[jittered].sort(1).values.unique(dim=0).tolist() == [[-1, 0, 1, 2]]
    orders = [tuple(which for which in row if which >= 0) for row in drawn.order[jittered].tolist()]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 1e-4
    assert len(counts) == 6
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (0.0, 0.0)]):
        values = drawn.factors[:, column]
        assert values.min() == pytest.approx(low, abs=0.001)
        assert values.max() == pytest.approx(high, abs=0.001)


def test_factors_are_not_negative():
    spec = ViewSpec("strong", 8, (0.4, 1.0), brightness=1.5, contrast=2.0, saturation=3.0)
    assert draw(spec, torch.tensor([(60, 80)] * 500), seeded()).factors[:, :3].min() >= 0


def test_order_of_the_color_changes():
    """Two images, the same factors, opposite orders: as torchvision one after the other."""
    pixels = picture(30, 30)
    factors = [1.4, 0.6, 1.2, 0.1]
    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [-1, -1, -1, -1]]
    for order in orders:
        parameters = Parameters(
            boxes=torch.tensor([[0, 0, 30, 30]]),
            outside=torch.zeros(1, 4, dtype=torch.int64),
            flipped=torch.tensor([False]),
            order=torch.tensor([order]),
            factors=torch.tensor([factors]),
            gray=torch.tensor([False]),
            sigma=torch.tensor([0.0]),
            solarize=torch.tensor([False]),
        )
        expected = pixels[0].float() / 255
        for which in order:
            expected = changes[which](expected, factors[which]) if which >= 0 else expected
        for render in (render_singly, render_together):
            assert_close(render(pixels, [ViewSpec("whole", 30, (1, 1))], [parameters])[0][0], expected, levels=0.3)


# Whole views


def test_views_and_their_form():
    pixels = picture(70, 90, number=3)
    specs = dino_specs(64, 33, 2)
    views = make_views(pixels, sizes_of((70, 90), (50, 61), (9, 90)), specs, seeded())
    assert [view.spec.name for view in views] == ["global0", "global1", "local0", "local1"]
    for view in views:
        assert view.images.shape == (3, 3, view.spec.size, view.spec.size)
        assert view.images.dtype == view.boxes.dtype == torch.float32
        assert view.images.is_contiguous()
        assert view.images.min() >= 0
        assert view.images.max() <= 1
        assert view.boxes.shape == (3, 4)
        assert view.flipped.dtype == torch.bool


def test_the_generator_decides_everything():
    pixels, sizes = picture(70, 90, number=2), sizes_of((70, 90), (70, 90))
    first, again, other = (make_views(pixels, sizes, dino_specs(32, 16, 2), seeded(s)) for s in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)
        torch.testing.assert_close(one.boxes, two.boxes, rtol=0, atol=0)
        assert not torch.equal(one.boxes, three.boxes)


def test_every_image_and_view_has_its_own_parameters():
    pixels = picture(70, 90).expand(16, -1, -1, -1)
    views = make_views(pixels, torch.tensor([(70, 90)] * 16), dino_specs(32, 16, 3), seeded())
    boxes = torch.cat([view.boxes for view in views])
    assert len(boxes.unique(dim=0)) > 0.97 * len(boxes)
    for view in views:
        assert len(view.images.flatten(1).unique(dim=0)) == 16


def test_both_ways_of_making_views_agree():
    """The way of the GPU, run on the CPU, gives the pixels of the way of the CPU."""
    pixels, sizes, specs = picture(90, 110, number=6), torch.tensor([(90, 110)] * 6), dino_specs(64, 32, 3)
    generator = seeded(4)
    drawn = [draw(spec, sizes, generator) for spec in specs]
    singly = render_singly(pixels, specs, drawn)
    together = render_together(pixels, specs, drawn)
    for one, two in zip(singly, together, strict=True):
        # A level of rounding in the crop, which brightness, contrast and saturation can make 2.4 times as large.
        assert_close(one, two, levels=5)
        assert (one - two).abs().mean() < 0.5 * LEVEL


def test_threads_and_strides_change_nothing():
    pixels, sizes = picture(70, 90, number=5), torch.tensor([(70, 90)] * 5)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(make_views(pixels, sizes, dino_specs(32, 16, 2), seeded()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)
    interleaved = make_views(
        pixels.contiguous(memory_format=torch.channels_last), sizes, dino_specs(32, 16, 2), seeded()
    )
    for one, two in zip(results[0], interleaved, strict=True):
        assert_close(one.images, two.images, levels=2)


def test_precision_of_the_training_step_does_not_reach_the_pixels():
    pixels, sizes, specs = picture(70, 90, number=2), torch.tensor([(70, 90)] * 2), dino_specs(32, 16, 1)
    plain = make_views(pixels, sizes, specs, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = make_views(pixels, sizes, specs, seeded())
    for one, two in zip(plain, under_autocast, strict=True):
        torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (300, 8), (2, 3), (37, 41)])
def test_tiny_and_odd_images(size):
    pixels = picture(*size, number=2)
    for view in make_views(pixels, torch.tensor([size] * 2), dino_specs(48, 21, 2), seeded()):
        assert view.images.isfinite().all()
        assert view.images.shape[-1] == view.spec.size
        x0, y0, x1, y1 = view.boxes.unbind(1)
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 > x0).all()
        assert (y1 > y0).all()
        assert (x1 <= size[1]).all()
        assert (y1 <= size[0]).all()


def test_views_of_640_pixels():
    views = make_views(picture(480, 640), sizes_of((480, 640)), dino_specs(640, 320, 1), seeded())
    assert [view.images.shape[-1] for view in views] == [640, 640, 320]


@pytest.mark.parametrize("render", [render_singly, render_together])
def test_padding_never_leaks(render):
    """Images of one color in a sea of white: a view that shows anything else has looked outside."""
    true = [(70, 90), (33, 47), (1, 1), (8, 90), (70, 5)] * 4
    pixels = torch.full((len(true), 3, 70, 90), 255, dtype=torch.uint8)
    for image, (height, width) in zip(pixels, true, strict=True):
        image[:, :height, :width] = 40
    spec = ViewSpec("plain", 32, (0.05, 1.0), **{**PLAIN, "flip": 0.5})
    images = render(pixels, [spec], [draw(spec, torch.tensor(true), seeded())])[0]
    assert_close(images, torch.full_like(images, 40 / 255), levels=0.3)


def ramps(height: int, width: int) -> Tensor:
    """uint8 (1, 3, height, width): red is x, green is y."""
    red = torch.arange(width, dtype=torch.uint8).expand(height, width)
    green = torch.arange(height, dtype=torch.uint8).unsqueeze(1).expand(height, width)
    return torch.stack([red, green, torch.zeros_like(red)]).unsqueeze(0)


@pytest.mark.parametrize("render", [render_singly, render_together])
@pytest.mark.parametrize("size", [64, 200])
def test_boxes_and_flips_say_where_pixels_came_from(render, size):
    number, height, width = 12, 180, 250
    pixels = ramps(height, width).expand(number, -1, -1, -1)
    spec = ViewSpec("plain", size, (0.2, 1.0), **{**PLAIN, "flip": 0.5})
    drawn = draw(spec, torch.tensor([(height, width)] * number), seeded(2))
    assert 0 < drawn.flipped.sum() < number
    view = View(render(pixels, [spec], [drawn])[0], drawn.boxes.float(), drawn.flipped, spec)
    steps = (torch.arange(size) + 0.5) / size
    for image, (x0, y0, x1, y1), flipped in zip(view.images, view.boxes, view.flipped, strict=True):
        across = x0 + (1 - steps if flipped else steps) * (x1 - x0) - 0.5  # pixel i covers i .. i + 1
        down = y0 + steps * (y1 - y0) - 0.5
        inner = slice(size // 8, -size // 8)  # at the edges of a crop the cubic has no neighbours to be straight with
        assert (image[0] * 255 - across)[inner, inner].abs().max() < 1
        assert (image[1] * 255 - down.unsqueeze(1))[inner, inner].abs().max() < 1


def features(views: Tensor) -> dict[str, Tensor]:
    """One number an image, each near one of the operations."""
    high, low = views.amax(1), views.amin(1)
    return {
        "red": views[:, 0].mean((1, 2)),
        "blue": views[:, 2].mean((1, 2)),
        "red - green": (views[:, 0] - views[:, 1]).mean((1, 2)),
        "contrast": views.std((1, 2, 3)),
        "chroma": (high - low).mean((1, 2)),
        "sharpness": (views[..., 1:] - views[..., :-1]).abs().mean((1, 2, 3)),
        "left to right": (views[..., : views.shape[-1] // 2].mean((1, 2, 3)) - views.mean((1, 2, 3))),
        "white": (views > 0.98).float().mean((1, 2, 3)),
    }


@pytest.mark.parametrize("which", [0, 1, 2])
def test_distribution_as_lightlys_dino_transform(which):
    """Means, variances and whole distributions of statistics of pixels, over views of one image."""
    number = 400
    pixels = picture(72, 96, seed=11)
    ours = make_views(
        pixels.expand(number, -1, -1, -1), torch.tensor([(72, 96)] * number), dino_specs(32, 24), seeded()
    )
    torch.manual_seed(7)
    np.random.seed(7)
    transform = DINOTransform(global_crop_size=32, local_crop_size=24, normalize=None).transforms[which]
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    theirs = features(torch.stack([transform(image) for _ in range(number)]))
    for name, value in features(ours[which].images).items():
        other = theirs[name]
        error = ((value.var() + other.var()) / number).sqrt()
        assert abs(value.mean() - other.mean()) < 4 * error + 1e-4, name
        spread = [(x - x.mean()).square() for x in (value, other)]
        error = ((spread[0].var() + spread[1].var()) / number).sqrt()
        assert abs(spread[0].mean() - spread[1].mean()) < 4 * error + 1e-6, name
        # Rounded to steps of a level: PIL's views have no values in between.
        assert stats.ks_2samp((value * 255).round().numpy(), (other * 255).round().numpy()).pvalue > 1e-4, name


@pytest.mark.cuda
def test_cuda_gives_the_views_of_the_cpu():
    pixels, sizes, specs = picture(90, 110, number=6), torch.tensor([(90, 110)] * 6), dino_specs(64, 32, 3)
    here, there = make_views(pixels, sizes, specs, seeded()), make_views(pixels.cuda(), sizes, specs, seeded())
    for one, two in zip(here, there, strict=True):
        assert two.images.device == two.boxes.device == two.flipped.device == pixels.cuda().device
        torch.testing.assert_close(one.boxes, two.boxes.cpu(), rtol=0, atol=0)
        assert_close(one.images, two.images.cpu(), levels=5)


def test_views_of_a_share_are_those_of_the_whole_batch():
    """What happens to an image does not depend on which process makes its views; overlapping pairs among them."""
    random = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 255, (6, 3, 40, 50), generator=random, dtype=torch.uint8)
    sizes = torch.tensor([[40, 50], [30, 50], [40, 20], [33, 44], [25, 25], [40, 41]])
    specs = [*pair_specs(16, (0.2, 1.0), overlap=0.2), *dino_specs(24, 16, 1)]
    whole = make_views(pixels, sizes, specs, torch.Generator().manual_seed(7))
    for first in (0, 2, 4):
        at = slice(first, first + 2)
        share = make_views(pixels[at], sizes[at], specs, torch.Generator().manual_seed(7), None, (sizes, first))
        for part, view in zip(share, whole, strict=True):
            assert torch.equal(part.images, view.images[at])
            assert torch.equal(part.boxes, view.boxes[at])
            assert torch.equal(part.flipped, view.flipped[at])
