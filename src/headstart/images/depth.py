"""Pixels of more than 8 bits, made 8 bits by the range that they really use.

Ultralytics keeps the high byte of 16 bits, which leaves 16 levels of a camera's 12 bits, and cannot train on floats.
Where all 16 bits are used the high byte is what is taken here too; what was done to others is told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def bits_used(image: npt.NDArray[np.uint16]) -> int:
    """The fewest of 8, 10, 12, 14, 16 bits that hold all values."""
    most = int(image.max(initial=0)).bit_length()
    return max(8, most + most % 2)


def eight_bits(image: npt.NDArray[Any]) -> tuple[Pixels, str]:
    """The image as uint8, and what was done to it in words; empty where nothing was, or the high byte was taken.

    Args:
        image: Of any numbers. Of floats that are no number counts as the least.
    """
    if image.dtype == np.uint8:
        return image, ""
    if image.dtype == np.uint16:
        bits = bits_used(image)
        note = f"{bits} bits in 16: scaled by {bits} bits, of which Ultralytics sees the high byte" if bits < 16 else ""
        return (image >> (bits - 8)).astype(np.uint8), note
    values = image.astype(np.float32)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(image.shape, np.uint8), f"{image.dtype} pixels, none of them a number: black"
    least, most = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values, nan=least, posinf=most, neginf=least)
    floats = np.issubdtype(image.dtype, np.floating)
    if floats and least >= 0 and most <= 1:
        values, how = values * 255, "from 0 to 1"
    elif least >= 0 and most <= 255:
        how = "from 0 to 255"
    else:
        # Divided first: the difference of two float32 numbers may be infinite.
        scale = max(abs(least), abs(most))
        span = most / scale - least / scale
        values, how = (values / scale - least / scale) * (255 / span if span else 0.0), "by their least and greatest"
    return np.rint(values).clip(0, 255).astype(np.uint8), f"{image.dtype} pixels, scaled {how}"
