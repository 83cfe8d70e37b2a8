"""Contact sheets: small pictures in rows, labelled, on a transparent ground that suits light and dark pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headstart.files import no_link

LIMIT = 480_000
"""Bytes of one sheet: the three of a run stay under 1.5 MB."""
_TILES = (192, 176, 160, 144, 128, 112, 96, 80, 64)
LARGE_TILES = (384, 352, 320, 288, 256, *_TILES)
"""For pictures in which names are read."""
_CHIP = (12, 14, 18, 190)
_GRAY = (205, 205, 205)
_COLORS = ((255, 196, 61), (94, 200, 255), (255, 122, 162), (140, 230, 140))

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        pixels: uint8 (H, W, 3) RGB. Shown whole, scaled to fit its square.
        label: Written into its corner; nothing when empty.
        boxes: (x0, y0, x1, y1, color number), outlines in pixels of the picture; a number below 0 is gray.
        names: Written beside the boxes, one each, the first of those that would overlap; empty for none.
        smooth: False keeps the edges of pixels that are scaled up.
    """

    pixels: NDArray[np.uint8]
    label: str = ""
    boxes: Sequence[tuple[float, float, float, float, int]] = ()
    names: Sequence[str] = ()
    smooth: bool = True


def failures(writers: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Draw pictures, each by its name; those that could not be drawn, each with its error: one costs no other."""
    failed = {}
    for name, write in writers.items():
        try:
            write()
        except Exception as error:  # whatever drawing may raise
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def save(
    path: Path,
    rows: Sequence[Sequence[Tile]],
    *,
    gap_after: Sequence[int] = (),
    limit: int = LIMIT,
    sizes: Sequence[int] = _TILES,
) -> None:
    """Write the sheet as PNG, with the largest tiles that keep it under `limit` bytes.

    Args:
        path: Where to.
        rows: The tiles of each row.
        gap_after: Columns followed by a wider gap, e.g. 0 to set the first column apart.
        limit: Bytes; passed only if even the smallest tiles need more.
        sizes: Sides of tiles to try, pixels, falling.
    """
    most = float(sizes[0])
    for size in sizes:
        if size > most and size != sizes[-1]:
            continue
        data = io.BytesIO()
        draw(rows, size, gap_after).save(data, "PNG", optimize=size <= 112)
        if data.tell() <= limit:
            break
        # Bytes a pixel change little with the size, mostly to more: tiles that are much too large are not tried.
        most = 1.2 * size * math.sqrt(limit / data.tell())
    no_link(path)
    path.write_bytes(data.getvalue())


def draw(rows: Sequence[Sequence[Tile]], size: int, gap_after: Sequence[int] = ()) -> Image.Image:
    """The sheet as an RGBA picture, its tiles `size` pixels square."""
    gap = max(2, size // 24)
    lefts = [column * (size + gap) + 2 * gap * sum(one < column for one in gap_after) for column in range(_width(rows))]
    sheet = Image.new("RGBA", (max(lefts, default=0) + size, len(rows) * (size + gap) - gap))
    for number, row in enumerate(rows):
        for left, tile in zip(lefts, row, strict=False):
            sheet.alpha_composite(_draw_tile(tile, size), (left, number * (size + gap)))
    return sheet


def _width(rows: Sequence[Sequence[Tile]]) -> int:
    return max((len(row) for row in rows), default=0)


def _draw_tile(tile: Tile, size: int) -> Image.Image:
    height, width = tile.pixels.shape[:2]
    scale = size / max(height, width)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.LANCZOS if tile.smooth else Image.Resampling.NEAREST
    # The two lowest bits are mostly noise: invisible at this size, and a third of the file.
    pixels = np.asarray(Image.fromarray(tile.pixels).resize(shown, method)) & 0xFC
    square = Image.new("RGBA", (size, size))
    left, top = (size - shown[0]) // 2, (size - shown[1]) // 2
    square.paste(Image.fromarray(pixels | pixels >> 6), (left, top))
    pen = ImageDraw.Draw(square)
    places = []
    for x0, y0, x1, y1, color in tile.boxes:
        first = left + x0 * scale, top + y0 * scale
        # What is smaller than a pixel of the tile is a pixel: Pillow refuses corners that pass each other.
        corners = (*first, max(first[0], left + x1 * scale - 1), max(first[1], top + y1 * scale - 1))
        places.append((corners, (*(_COLORS[color % len(_COLORS)] if color >= 0 else _GRAY), 255)))
    for corners, paint in reversed(places):
        pen.rectangle(corners, outline=paint, width=max(1, size // (160 if tile.names else 80)))
    _write_names(pen, tile.names, places, size)
    return Image.alpha_composite(square, _chip(tile.label, size)) if tile.label else square


def _write_names(
    pen: ImageDraw.ImageDraw,
    names: Sequence[str],
    places: Sequence[tuple[Corners, tuple[int, int, int, int]]],
    size: int,
) -> None:
    """Each name on a patch of its outline's color, above the box or in its upper edge; none over one before it."""
    font = ImageFont.load_default(max(9.0, size / 24))
    taken: list[Corners] = []
    for (corners, paint), name in zip(places, names, strict=False):
        _, _, right, bottom = pen.textbbox((0, 0), name, font=font)
        width, height = right + 4, bottom + 3
        x = min(max(0.0, corners[0]), max(0.0, size - width))
        y = corners[1] - height if corners[1] >= height else max(0.0, min(corners[1], size - height))
        patch = (x, y, x + width, y + height)
        if any(patch[0] < b[2] and b[0] < patch[2] and patch[1] < b[3] and b[1] < patch[3] for b in taken):
            continue
        taken.append(patch)
        pen.rectangle(patch, fill=paint)
        pen.text((x + 2, y), name, font=font, fill=(12, 14, 18, 255))


def _chip(label: str, size: int) -> Image.Image:
    """`label` in white on a dark rounded patch in the upper left corner of a transparent square."""
    layer = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(layer)
    font = ImageFont.load_default(max(9.0, size / 10))
    pad, edge = max(3, size // 32), max(2, size // 32)
    _, _, right, bottom = pen.textbbox((edge + pad, edge + pad), label, font=font)
    pen.rounded_rectangle((edge, edge, right + pad, bottom + pad), radius=pad, fill=_CHIP)
    pen.text((edge + pad, edge + pad), label, font=font, fill=(255, 255, 255, 255))
    return layer
