"""Which images a training leaves out or ends at: what the families have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from headstart import machine


def with_reason(images: Sequence[str], reason: Callable[[str], str]) -> dict[str, str]:
    """Those of `images` for which there is a reason, which is not "", by their paths; several are looked at at once."""
    with ThreadPoolExecutor(max(1, machine.cores())) as pool:
        return {path: why for path, why in zip(images, pool.map(reason, images), strict=True) if why}
