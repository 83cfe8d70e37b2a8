"""A few images of an index, to look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import torch
from torch import Tensor

from headstart.images.decode import DecodeError, read_image
from headstart.images.index import ImageIndex

TRIES = 4
"""Files looked at for each image wanted: with more broken ones than that, fewer images are found."""


def spread(length: int, number: int) -> list[int]:
    """Places of `number` of so many, evenly spread from the first one on; all of fewer."""
    return sorted({place * length // number for place in range(number)}) if length else []


def sample_images(
    images: ImageIndex, number: int, max_area: int, skipped: list[tuple[str, str]] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Up to `number` readable images, evenly spread over the index; their neighbors where some cannot be read.

    Args:
        images: What to choose from.
        number: How many.
        max_area: Pixels that an image is scaled down to.
        skipped: Gets the path of each image that cannot be read, and why.

    Yields:
        Path, and uint8 (C, H, W), RGB where C is 3, scaled down to `max_area` pixels where it is larger.
    """
    bounds = [*spread(len(images), number), len(images)]
    longest = -(-len(images) // number)
    # The first image of each stretch, then the second one of each ...
    positions = (
        first + offset for offset in range(longest) for first, last in pairwise(bounds) if first + offset < last
    )
    found = 0
    for at in islice(positions, TRIES * number):
        if found == number:
            return
        try:
            pixels = read_image(images.path(at), max_area=max_area, channels=images.channels)
        except DecodeError as error:
            if skipped is not None:
                skipped.append((images.path(at), error.reason))
            continue
        found += 1
        yield images.path(at), torch.from_numpy(pixels).permute(2, 0, 1)
