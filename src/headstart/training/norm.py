"""Batch normalization over the images of all processes together, as if one had them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

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
        weight = torch.ones(x.shape[1]) if self.weight is None else self.weight
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        made, mean, variance = cast("tuple[Tensor, Tensor, Tensor]", _Normalized.apply(x, weight, bias, self.eps))
        self._follow(mean, variance, x.numel() // x.shape[1] * ranks.world())
        return made

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


class _Normalized(Function):
    """By mean and variance over the images of all processes; one exchange there and one back.

    Put together of torch's own passes over the images, those of a network that is evaluated: written out in operations
    with gradients, it took three times as long as everything else of a step.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.stack(torch.batch_norm_update_stats(x, torch.zeros_like(weight), torch.zeros_like(weight), 0.0))
        means, variances = ranks.gather(own[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean) ** 2).mean(0)
        context.eps = eps
        context.save_for_backward(x, weight, mean, variance)
        context.mark_non_differentiable(mean, variance)
        return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False), mean, variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance = context.saved_tensors
        as_if_fixed = torch.ops.aten.native_batch_norm_backward
        to_x, to_weight, to_bias = as_if_fixed(
            gradients[0], x, weight, mean, variance, None, None, False, context.eps, [True] * 3
        )
        # Mean and variance depend on x, too: what the sums over all images take away (Ioffe and Szegedy, 2015, sec. 3).
        number = x.numel() // x.shape[1] * ranks.world()
        shared = ranks.total(torch.stack([to_weight, to_bias])) * (weight * (variance + context.eps).rsqrt() / number)
        to_x -= torch.batch_norm(x, shared[0], shared[1], mean, variance, False, 0.0, context.eps, False)
        return to_x, to_weight, to_bias, None
