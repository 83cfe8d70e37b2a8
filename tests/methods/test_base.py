from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from headstart.methods.base import by_size
from headstart.methods.schedules import Progress


def test_views_of_one_size_go_together() -> None:
    views = [torch.rand(3, 3, size, size) for size in (8, 4, 8, 4, 4)]
    batches = []

    def compute(images: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(images.shape))
        return images.mean(dim=(2, 3))

    found = by_size(compute, views)
    assert batches == [(6, 3, 8, 8), (9, 3, 4, 4)]
    assert all(torch.equal(a, view.mean(dim=(2, 3))) for a, view in zip(found, views, strict=True))


def test_batch_norm_sees_them_together() -> None:
    norm = nn.BatchNorm2d(3, momentum=1.0)
    views = [torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)]
    first, second = by_size(norm, views)
    assert torch.allclose(norm.running_mean, torch.full((3,), 0.5))  # alone, each view would have become 0
    assert torch.allclose(first, torch.full_like(first, -1.0), atol=1e-4)
    assert torch.allclose(second, torch.full_like(second, 1.0), atol=1e-4)


@pytest.mark.parametrize(("name", "preset"), tiny.cases())
def test_what_is_handed_back_is_where_the_method_is(name: str, preset: str | None) -> None:
    """After training on a GPU it is moved; torch's ``meta`` stands for a device that takes no tensors of others."""
    made = tiny.build(name, preset)
    made.order(4)
    for step in range(4):  # one that labels does so before the last of them
        made.before_step(Progress(step, 4, 0.0))
    made.to("meta")
    for which in made.exports:
        assert all(one.is_meta for one in made.handed_back(which).values())
