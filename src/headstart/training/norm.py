"""Batch normalization over the images of all processes together, as if one had them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headstart import ranks


@contextmanager
def synchronized(module: nn.Module, device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Have every batch norm of `module` normalize by the images of all processes, for a while.

    The layers stay what they are, under their names and with their tensors: only what they compute is another.

    Args:
        module: Students, teachers, heads.
        device: Where they compute: torch has such a layer for GPUs alone.
        wanted: Whether to; with one process nothing is done.
    """
    changed: list[tuple[nn.Module, type[nn.Module]]] = []
    for layer in module.modules() if wanted and ranks.world() > 1 else ():
        if (kind := type(layer)) in _SYNCHRONIZED and layer.momentum is not None and layer.track_running_stats:
            layer.__class__ = nn.SyncBatchNorm if device.type == "cuda" else _SYNCHRONIZED[kind]
            vars(layer)["process_group"] = None  # torch's own looks for it: all processes
            changed.append((layer, kind))
    try:
        yield
    finally:
        for layer, kind in changed:
            layer.__class__ = kind
            del vars(layer)["process_group"]


class _OfAll(nn.modules.batchnorm._BatchNorm):
    """Batch normalization with the statistics of all processes, whose batches are as large."""

    def forward(self, x: Tensor) -> Tensor:
        """See `torch.nn.BatchNorm2d`."""
        if not self.training or ranks.world() == 1:
            return super().forward(x)
        seen, dims = x.float(), [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(seen, dims, correction=0)
        overall = ranks.mean(mean)
        spread = ranks.mean(variance + (mean - overall) ** 2)
        self._follow(overall, spread, seen.numel() // len(mean) * ranks.world())
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scale = (spread + self.eps).rsqrt() * (1.0 if self.weight is None else self.weight)
        shift = -overall * scale + (0.0 if self.bias is None else self.bias)
        return (seen * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, number: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (number / max(1, number - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked += 1


class _OfAll1d(_OfAll, nn.BatchNorm1d):
    """In place of `torch.nn.BatchNorm1d`."""


class _OfAll2d(_OfAll, nn.BatchNorm2d):
    """In place of `torch.nn.BatchNorm2d`."""


class _OfAll3d(_OfAll, nn.BatchNorm3d):
    """In place of `torch.nn.BatchNorm3d`."""


_SYNCHRONIZED: dict[Any, type[nn.Module]] = {
    nn.BatchNorm1d: _OfAll1d,
    nn.BatchNorm2d: _OfAll2d,
    nn.BatchNorm3d: _OfAll3d,
}
