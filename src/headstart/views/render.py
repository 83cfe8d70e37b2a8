"""Augmented views of a batch of images and where they came from, made on the training device.

The views are those of DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021) in the
distribution of lightly's ``DINOTransform`` with mean 0 and std 1. An image is decoded once, and all of its views are
made from the same uint8 pixels. What happens to an image is drawn first (`draw`), on the CPU and from one generator,
so that a run sees the same views on every device; then it is done (`make_views`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from headstart import machine
from headstart.launch.threads import computing_on
from headstart.views import color
from headstart.views.boxes import draw_together
from headstart.views.resize import resize_batch, resize_one
from headstart.views.spec import View, ViewSpec

_TRIES = 10  # crops drawn before the last resort, as in torchvision's RandomResizedCrop
_JITTER = (color.brightness, color.contrast, color.saturation, color.hue)
_OF_COLOR = (color.saturation, color.hue)
_SKIP = -1
Change = Callable[..., None]  # images, in place, and for most a value for each of them


@dataclass
class Parameters:
    """What is done to each of N images to make a view: the outcome of chance, on the CPU.

    Attributes:
        boxes: int64 ``(N, 4)``: x0, y0, x1, y1 of the crop in source pixels, x1 and y1 not included.
        outside: int64 ``(N, 4)``: how much of the crop lies left of, above, right of and below the image, in source
            pixels; it is gray. 0 for crops inside the image.
        flipped: bool ``(N,)``.
        order: int64 ``(N, 4)``: which of brightness (0), contrast (1), saturation (2), hue (3) comes first, second,
            third, last; -1 for none.
        factors: float32 ``(N, 4)``: factors of the first three, turn of the hue.
        gray: bool ``(N,)``.
        sigma: float32 ``(N,)``: standard deviation of the blur in pixels of the view, 0 for none.
        solarize: bool ``(N,)``.
    """

    boxes: Tensor
    outside: Tensor
    flipped: Tensor
    order: Tensor
    factors: Tensor
    gray: Tensor
    sigma: Tensor
    solarize: Tensor

    @staticmethod
    def join(parts: Sequence[Parameters]) -> Parameters:
        """The parameters of several views, one after the other."""
        return Parameters(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Parameters)))

    def part(self, first: int, last: int) -> Parameters:
        """The parameters of the images from `first` to before `last`."""
        return Parameters(*(getattr(self, field.name)[first:last] for field in fields(Parameters)))

    def steps(self, channels: int) -> list[tuple[Change, list[int], Tensor | None]]:
        """What changes the pixels after the crop: each change with the images that it is for, and values for all N.

        Of images without color, of other than three channels, what changes colors does nothing.
        """
        order = self.order.tolist()
        colored = channels == 3
        steps: list[tuple[Change, list[int], Tensor | None]] = [
            (change, [row for row, sequence in enumerate(order) if sequence[place] == which], self.factors[:, which])
            for place in range(len(_JITTER))
            for which, change in enumerate(_JITTER)
            if colored or change not in _OF_COLOR
        ]
        kernels = color.blur_kernels(self.sigma)
        steps += [
            (color.grayscale, self.gray.nonzero()[:, 0].tolist() if colored else [], None),
            (color.blur, self.sigma.nonzero()[:, 0].tolist(), kernels),
            (color.solarize, self.solarize.nonzero()[:, 0].tolist(), None),
        ]
        return [step for step in steps if step[1]]


def make_views(
    pixels: Tensor,
    sizes: Tensor,
    specs: Sequence[ViewSpec],
    generator: torch.Generator,
    rows: Tensor | None = None,
    among: tuple[Tensor, int] | None = None,
) -> list[View]:
    """Make one view for each of `specs` of every image of a batch.

    Args:
        pixels: uint8 ``(B, C, H, W)``, RGB where C is 3, on any device; smaller images fill the top left. On a CPU the
            strides of ``torch.channels_last`` are fastest.
        sizes: ``(B, 2)`` true heights and widths; on the CPU, or a GPU would have to be waited for.
        specs: The views.
        generator: A generator of the CPU; decides every parameter, and is moved on by the same amount on any device.
        rows: int64 ``(B,)`` on the CPU: places of the images in the index, where they are known.
        among: Where the images are a part of a batch: sizes ``(N, 2)`` of all its images, and the place of the first of
            these. What happens to an image is then what happens to it where all are given at once.

    Returns:
        The views in the order of `specs`, on the device of `pixels`.
    """
    assert pixels.dtype == torch.uint8, pixels.dtype
    assert pixels.ndim == 4, pixels.shape
    sizes = sizes.cpu()
    everyone, first = among or (sizes, 0)
    drawn = [draw(spec, everyone, generator) for spec in specs]
    for spec, what in zip(specs, drawn, strict=True):
        if spec.overlap:
            what.boxes = draw_together(what.boxes, drawn[0].boxes, everyone, spec.overlap, generator)
    if among:
        drawn = [what.part(first, first + len(sizes)) for what in drawn]
    render = render_singly if pixels.device.type == "cpu" else render_together
    # A precision chosen for the training step would turn the pixels to bfloat16.
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        images = render(pixels, specs, drawn)
    boxes = [machine.sent(what.boxes.float(), pixels.device) for what in drawn]
    flipped = [machine.sent(what.flipped, pixels.device) for what in drawn]
    return [View(*parts, sizes, rows) for parts in zip(images, boxes, flipped, specs, strict=True)]


def draw(spec: ViewSpec, sizes: Tensor, generator: torch.Generator) -> Parameters:
    """Draw the parameters of one view of images with true heights and widths `sizes`, ``(N, 2)`` on the CPU."""
    number = len(sizes)
    chance = torch.rand(number, 5, generator=generator)
    order = torch.rand(number, len(_JITTER), generator=generator).argsort(1)
    spans = torch.tensor([spec.brightness, spec.contrast, spec.saturation, spec.hue])
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    low, high = (neutral - spans), (neutral + spans)
    low[:3].clamp_(min=0)
    factors = low + (high - low) * torch.rand(number, len(_JITTER), generator=generator)
    unused = (chance[:, :1] >= spec.jitter) | (spans == 0)[order]
    least, most = spec.sigma
    sigma = least + (most - least) * torch.rand(number, generator=generator)
    boxes = _draw_boxes(spec, sizes, generator)
    return Parameters(
        boxes=boxes,
        outside=torch.cat([-boxes[:, :2], boxes[:, 2:] - sizes.flip(1)], 1).clamp_(min=0),
        flipped=chance[:, 1] < spec.flip,
        order=order.masked_fill(unused, _SKIP),
        factors=factors,
        gray=chance[:, 2] < spec.gray,
        sigma=sigma * (chance[:, 3] < spec.blur),
        solarize=chance[:, 4] < spec.solarize,
    )


def _draw_boxes(spec: ViewSpec, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Crops int64 ``(N, 4)`` as torchvision's RandomResizedCrop draws them, all of its tries at once."""
    height, width = sizes.double().unbind(1)
    uniform = torch.rand(len(sizes), _TRIES + 1, 2, generator=generator, dtype=torch.float64)
    (small, large), (narrow, wide) = spec.scale, spec.ratio
    area = (height * width).unsqueeze(1) * (small + (large - small) * uniform[:, 1:, 0])
    ratio = torch.exp(math.log(narrow) + math.log(wide / narrow) * uniform[:, 1:, 1])
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (widths <= width.unsqueeze(1)) & (heights >= 1) & (heights <= height.unsqueeze(1))
    found, first = fits.any(1, keepdim=True), fits.int().argmax(1, keepdim=True)
    extent = torch.cat([widths.gather(1, first), heights.gather(1, first)], 1)
    corner = _corner(torch.stack([width, height], 1) - extent, uniform[:, 0])
    drawn = torch.cat([corner, corner + extent], 1)
    return torch.where(found, drawn, _last_resort(spec, width, height, ratio[:, 0], uniform[:, 0])).long()


def _last_resort(spec: ViewSpec, width: Tensor, height: Tensor, ratio: Tensor, uniform: Tensor) -> Tensor:
    """Crops ``(N, 4)`` of images in which no crop that was drawn fits: as large as the limits of the ratio allow.

    Args:
        spec: The view.
        width, height: ``(N,)`` of the images.
        ratio: ``(N,)``, drawn for the crops.
        uniform: ``(N, 2)``: where they are. On a wide image a crop has its full height and nowhere to go up or down,
            so that the second number is free to decide whether the image is seen whole; on a tall one the first.
    """
    narrow, wide = spec.ratio
    is_wide, is_tall = (height * wide).round() < width, (width / narrow).round() < height
    least, most = (narrow, wide) if spec.fallback == "center" else (ratio, ratio)
    crop_width = torch.where(is_wide, (height * most).round().clamp(min=1), width)
    crop_height = torch.where(is_tall, (width / least).round().clamp(min=1), height)
    extent = torch.stack([crop_width, crop_height], 1)
    room = torch.stack([width, height], 1) - extent
    corner = (room / 2).floor() if spec.fallback == "center" else _corner(room, uniform)
    crop = torch.cat([corner, corner + extent], 1)
    side = torch.maximum(width, height)
    corner = -torch.stack([side - width, side - height], 1).div(2).floor()
    around = torch.cat([corner, corner + side.unsqueeze(1)], 1)
    whole = (is_wide & (uniform[:, 1] < spec.letterbox)) | (is_tall & (uniform[:, 0] < spec.letterbox))
    return torch.where(whole.unsqueeze(1), around, crop)


def _corner(room: Tensor, uniform: Tensor) -> Tensor:
    """Upper left corners ``(N, 2)`` of crops that have so much `room`, every place equally likely."""
    return (uniform * (room + 1)).floor()


def render_singly(pixels: Tensor, specs: Sequence[ViewSpec], drawn: Sequence[Parameters]) -> list[Tensor]:
    """Make the views image by image on one core, in whose cache image and view stay.

    Args:
        pixels: uint8 ``(B, 3, H, W)`` on the CPU.
        specs: Of each view; its size and sampling are looked at.
        drawn: For each view the parameters of B images.

    Returns:
        For each view float32 ``(B, C, size, size)`` in [0, 1].
    """
    images = [torch.empty(len(pixels), pixels.shape[1], spec.size, spec.size) for spec in specs]
    plans = [_by_image(parameters, pixels.shape[1]) for parameters in drawn]
    crops = [(p.boxes.tolist(), p.outside.tolist(), p.flipped.tolist()) for p in drawn]

    with computing_on(1):  # operations on one small image gain nothing from several, and lose where cores are shared
        for row in range(len(pixels)):
            for view, plan, (boxes, outside, flipped), spec in zip(images, plans, crops, specs, strict=True):
                target = view[row : row + 1]
                resize_one(pixels[row : row + 1], boxes[row], flipped[row], target, outside[row], spec.sampling)
                for change, values in plan[row]:
                    change(target, *values)
    return images


def render_together(pixels: Tensor, specs: Sequence[ViewSpec], drawn: Sequence[Parameters]) -> list[Tensor]:
    """The same as `render_singly` on any device: all views of one size in as few operations as possible."""
    images: dict[int, Tensor] = {}
    for size in dict.fromkeys(spec.size for spec in specs):
        places = [place for place, spec in enumerate(specs) if spec.size == size]
        block = torch.empty(len(places) * len(pixels), pixels.shape[1], size, size, device=pixels.device)
        views = torch.split(block, len(pixels))
        for place, view in zip(places, views, strict=True):
            boxes, flipped, outside = drawn[place].boxes, drawn[place].flipped, drawn[place].outside
            resize_batch(pixels, boxes, flipped, view, outside=outside, sampling=specs[place].sampling)
        for change, rows, values in Parameters.join([drawn[place] for place in places]).steps(pixels.shape[1]):
            _change(block, change, rows, values)
        images.update(zip(places, views, strict=True))
    return [images[place] for place in range(len(specs))]


def _by_image(parameters: Parameters, channels: int) -> list[list[tuple[Change, list[Tensor]]]]:
    """The steps of each image by itself, each change with the value for that image, if it takes one."""
    plans: list[list[tuple[Change, list[Tensor]]]] = [[] for _ in range(len(parameters.boxes))]
    for change, rows, values in parameters.steps(channels):
        each = [] if values is None else torch.split(values[rows], 1)
        for place, row in enumerate(rows):
            plans[row].append((change, [each[place]] if each else []))
    return plans


def _change(images: Tensor, change: Change, rows: list[int], values: Tensor | None) -> None:
    """Apply `change` in place to the images in `rows` alone, each with its row of `values`."""
    index = torch.tensor(rows)
    here = machine.sent(index, images.device)
    part = images.index_select(0, here)
    change(part, *([] if values is None else [values[index]]))
    images.index_copy_(0, here, part)
