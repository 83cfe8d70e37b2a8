"""Every method learns from images of one channel and of four, but for those whose teacher reads RGB."""

from __future__ import annotations

import pytest
import tiny
import torch

METHODS = sorted({name for name, _ in tiny.cases() if not tiny.find.find(name).method.needs.teacher})


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_reaches_every_channel_of_the_first_layer(name: str, channels: int) -> None:
    method = tiny.build(name, channels=channels)
    first = next(method.student.parameters())
    assert first.shape[1] == channels
    progress = tiny.progress(1)
    method.before_step(progress)
    loss = method(tiny.views(method, 1, channels), progress)
    loss.backward()
    assert torch.isfinite(loss)
    assert first.grad is not None
    assert all(float(first.grad[:, channel].abs().max()) > 0 for channel in range(channels))
