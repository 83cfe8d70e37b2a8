"""Images that a training of torchvision's detectors would end at, told before it; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from headstart import machine
from headstart.images.decode import DecodeError, read_image


def rejected(images: Sequence[str]) -> dict[str, str]:
    """Those of `images` that cannot be read, and why."""
    with ThreadPoolExecutor(max(1, machine.cores())) as pool:
        return {path: why for path, why in zip(images, pool.map(_reason, images), strict=True) if why}


def _reason(path: str) -> str:
    try:
        read_image(path)
    except DecodeError as error:
        return error.reason
    return ""
