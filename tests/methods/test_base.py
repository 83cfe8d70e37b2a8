from __future__ import annotations

import torch
from torch import nn

from headstart.methods.base import by_size


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
