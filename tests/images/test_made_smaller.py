from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.images.resize import within_area, within_side


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_as_pillow_does_it(channels: int) -> None:
    """Pillow's bilinear filter is anti-aliased, in fixed point arithmetic of its own: a gray level apart at most."""
    image = np.random.default_rng(0).integers(0, 256, (61, 90, channels), dtype=np.uint8)
    small = within_area(image, 1000)
    assert small.shape == (26, 38, channels)  # 90 * 61 = 5490 pixels, a side by sqrt(1000 / 5490) = 0.427
    assert small.flags.c_contiguous
    for channel in range(channels):
        wanted = np.array(Image.fromarray(image[..., channel]).resize((38, 26), Image.Resampling.BILINEAR))
        assert np.abs(small[..., channel].astype(int) - wanted).max() <= 1


def test_any_number_of_channels() -> None:
    levels = np.arange(0, 210, 30, dtype=np.uint8)
    small = within_area(np.broadcast_to(levels, (60, 90, 7)), 1000)
    assert small.shape == (25, 38, 7)  # 5400 pixels, 0.430
    assert (small == levels).all()


def test_lines_of_pixels() -> None:
    assert within_area(np.full((2, 10_000, 3), 9, np.uint8), 100).shape == (1, 100, 3)
    assert within_side(np.full((1, 5000, 3), 9, np.uint8), 128).shape == (1, 128, 3)
    same = np.zeros((4, 5, 3), np.uint8)
    assert within_area(same, 20) is same


def test_what_a_store_has_mapped_for_reading_is_made_smaller_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch warns of such arrays, once a process, so that a test may not see it: it is to be given none."""
    image = np.frombuffer(bytes(range(192)) * 4, np.uint8).reshape(16, 16, 3)
    assert not image.flags.writeable
    given: list[bool] = []
    made = torch.from_numpy

    def from_numpy(array: Any) -> torch.Tensor:
        given.append(array.flags.writeable)
        return made(array)

    monkeypatch.setattr(torch, "from_numpy", from_numpy)
    assert within_area(image, 64).shape == within_side(image, 8).shape == (8, 8, 3)
    assert given == [True, True]
