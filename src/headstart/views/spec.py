"""What a view is: how it is drawn, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from headstart.views.boxes import widest_overlap

Fallback = Literal["anywhere", "center"]
Sampling = Literal["smooth", "sharp"]
SHARP = 4
"""Pixels that an image keeps for each of a view that is sampled sharply: of twice its side it is what it is in full."""


@dataclass(frozen=True)
class ViewSpec:
    """How one view of an image is drawn.

    Attributes:
        name: What the view is called in sheets and errors, e.g. ``"global0"``.
        size: Height and width of the view in pixels.
        scale: Least and greatest area of the crop, as a share of the image.
        ratio: Least and greatest width over height of the crop.
        flip: Probability of a mirrored view.
        jitter: Probability of the four color changes, which come in random order.
        brightness, contrast, saturation: Factors are uniform in [max(0, 1 - value), 1 + value].
        hue: Turns are uniform in [-value, value] of the color circle, value <= 0.5.
        gray: Probability of a view without color.
        blur: Probability of a Gaussian blur.
        sigma: Least and greatest standard deviation of the blur in pixels of the view.
        solarize: Probability that values from 128/255 on are inverted.
        overlap: Least part of the crop that it has in common with the batch's first view, as a share of the smaller
            of the two; 0 for crops that are drawn by themselves.
        fallback: Where no crop of this scale and ratio fits into the image, as on wide and tall ones: the largest one
            of a ratio within the limits, ``anywhere`` in the image or from its ``center`` (as torchvision takes it).
        letterbox: Probability that such an image is seen whole instead, in a gray square.
        sampling: How a crop is scaled: ``smooth``, bicubic and anti-aliased, or ``sharp``, bilinear between four
            pixels, as Ultralytics scales what its detectors are shown.
    """

    name: str
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    overlap: float = 0.0
    fallback: Fallback = "anywhere"
    letterbox: float = 0.0
    sampling: Sampling = "smooth"

    def __post_init__(self) -> None:
        assert not (self.overlap and self.letterbox), f"{self.name}: a whole image cannot be moved to overlap another"
        assert self.overlap <= widest_overlap(self.ratio), f"{self.name}: no two crops always overlap so much"


@dataclass
class View:
    """One view of every image of a batch.

    Attributes:
        images: float32 ``(B, 3, S, S)``, RGB in [0, 1].
        boxes: float32 ``(B, 4)``: x0, y0, x1, y1 of the crop in pixels of the source image; of a letterboxed view the
            square around the image, which goes beyond it.
        flipped: bool ``(B,)``: mirrored left to right, after the crop.
        spec: How it was drawn.
        sizes: int64 ``(B, 2)``, on the CPU: true heights and widths of the source images.
        rows: int64 ``(B,)``, on the CPU: places of the images in the index.
    """

    images: Tensor
    boxes: Tensor
    flipped: Tensor
    spec: ViewSpec
    sizes: Tensor | None = None
    rows: Tensor | None = None


def split_views(views: Sequence[View], parts: int) -> list[list[View]]:
    """The views of each of so many parts of a batch; of fewer, where these would have less than two images.

    Images are dealt out in turn: where they come kind by kind, each part has some of each. Parts differ by one image at
    most.
    """
    parts = max(1, min(parts, len(views[0].images) // 2))
    if parts == 1:
        return [list(views)]
    return [[_some(view, slice(part, None, parts)) for view in views] for part in range(parts)]


def _some(view: View, at: slice) -> View:
    sizes = None if view.sizes is None else view.sizes[at]
    rows = None if view.rows is None else view.rows[at]
    last = view.images.is_contiguous(memory_format=torch.channels_last)
    images = view.images[at].contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return View(images, view.boxes[at], view.flipped[at], view.spec, sizes, rows)


def needed_area(specs: Sequence[ViewSpec]) -> int:
    """Pixels that an image must keep so that its smallest crops are not enlarged, and sharp ones lose no edge."""
    return int(max((SHARP if spec.sampling == "sharp" else 1) * spec.size**2 / spec.scale[0] for spec in specs))


def dino_specs(
    imgsz: int = 224,
    local_imgsz: int = 96,
    locals: int = 6,
    *,
    scale: tuple[float, float] = (0.4, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.4),
    fallback: Fallback = "anywhere",
) -> list[ViewSpec]:
    """The views of DINO: two globals of `imgsz` pixels, then `locals` locals of `local_imgsz` pixels."""
    specs = [
        ViewSpec("global0", imgsz, scale, blur=1.0),
        ViewSpec("global1", imgsz, scale, blur=0.1, solarize=0.2),
        *(ViewSpec(f"local{index}", local_imgsz, local_scale, blur=0.5) for index in range(locals)),
    ]
    return [replace(spec, fallback=fallback) for spec in specs]


def pair_specs(
    imgsz: int, scale: tuple[float, float], *, color: float = 1.0, blur: float = 0.5, overlap: float = 0.0
) -> list[ViewSpec]:
    """Two views of one kind.

    Args:
        imgsz: Their side in pixels.
        scale: Share of the image that each covers.
        color: Strength of the color changes; 1 as in `dino_specs`, 0 none, 2 as in SimCLR.
        blur: Probability of a blur.
        overlap: See `ViewSpec`.
    """
    one = ViewSpec(
        "view0",
        imgsz,
        scale,
        brightness=0.4 * color,
        contrast=0.4 * color,
        saturation=0.2 * color,
        hue=min(0.5, 0.1 * color),
        gray=min(1.0, 0.2 * color),
        blur=blur,
    )
    return [one, replace(one, name="view1", solarize=min(1.0, 0.1 * color), overlap=overlap)]
