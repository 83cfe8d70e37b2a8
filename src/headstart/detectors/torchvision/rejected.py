"""Images that a training of torchvision's detectors would end at, told before it; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.detectors.rejected import with_reason
from headstart.images.decode import DecodeError, read_image


def rejected(images: Sequence[str]) -> dict[str, str]:
    """Those of `images` that cannot be read, and why."""
    return with_reason(images, _reason)


def _reason(path: str) -> str:
    try:
        read_image(path)
    except DecodeError as error:
        return error.reason
    return ""
