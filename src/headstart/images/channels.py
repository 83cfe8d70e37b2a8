"""Images of other than three channels, as Ultralytics reads them where a dataset YAML says ``channels:``.

One is gray. Of any other number a file has as many itself: the pages of a TIFF, all of one size, or the channels of one
image, a fourth one of a PNG for instance. They keep the order in which OpenCV gives them (blue, green, red, alpha), in
which Ultralytics trains on them; three alone are turned to RGB.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from headstart.images.depth import Pixels, eight_bits
from headstart.images.headers import DecodeError

_GRAY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def with_channels(image: Pixels, channels: int) -> Pixels:
    """An RGB image with so many channels: 3 or 1.

    Raises:
        DecodeError: It cannot have as many.
    """
    if channels == 3:
        return image
    if channels != 1:
        raise DecodeError(_other(3, channels))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None])


def own_channels(data: bytes, channels: int, is_tiff: bool, depth: int, reduction: int) -> tuple[Pixels, str]:
    """Decode a file to other than three channels.

    Args:
        data: The whole file.
        channels: How many it must have; 1: gray, of any file.
        is_tiff: Whether Ultralytics reads it as TIFF.
        depth: Bits of a value.
        reduction: Part of its size that a JPEG is decoded to: 1, 2, 4 or 8.

    Returns:
        uint8 (H, W, channels), and what was done to it in words.

    Raises:
        DecodeError: It cannot be decoded, or has another number of channels.
    """
    buffer = np.frombuffer(data, np.uint8)
    if channels == 1:
        deep = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(buffer, deep if depth > 8 else _GRAY[reduction])
    else:
        image = _stacked(buffer, channels) if is_tiff else cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DecodeError("damaged or truncated, or of no kind that OpenCV reads")
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] != channels:
        raise DecodeError(_other(image.shape[2], channels))
    pixels, note = eight_bits(image)
    return np.ascontiguousarray(pixels), note


def _stacked(buffer: Pixels, channels: int) -> npt.NDArray[Any] | None:
    """The pages of a TIFF as channels where they are gray and of one size, else its first page."""
    # One more than wanted tells a file of more; all pages of any file could be very many.
    found, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(0, channels + 1))
    if not found or not pages:
        return None
    same = len(pages) > 1 and pages[0].ndim == 2 and all(page.shape == pages[0].shape for page in pages)
    return np.stack(pages, axis=2) if same else np.asarray(pages[0])


def _other(own: int, wanted: int) -> str:
    if own > wanted:
        return f"it has more than the {wanted} channel{'s' * (wanted > 1)} of the data set"
    return f"it has {own} channel{'s' * (own > 1)}, not the {wanted} of the data set"
