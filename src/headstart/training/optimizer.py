"""The optimizer of a pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from headstart.settings.method_options import MethodSettings


def make_optimizer(method: nn.Module, settings: MethodSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer of everything in `method` that requires gradients; biases and norms without weight decay."""
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=(settings.momentum, 0.999), fused=fused)


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Go on from the `state` of an optimizer, be it of a run on another device.

    Args:
        optimizer: Of the same parameters, by `make_optimizer`: fused only where it was made so.
        state: Its ``state_dict``. One that was not fused stays so, and with it what the run computes bit for bit.
    """
    optimizer.load_state_dict(dict(state))
    for group in optimizer.param_groups:
        group["fused"] = bool(group.get("fused")) and optimizer.defaults["fused"]
    # A fused one reads weights and sums as they lie in memory: of a run with channels-last in another order.
    for parameter, sums in optimizer.state.items():
        for name, one in sums.items():
            if isinstance(one, torch.Tensor) and one.shape == parameter.shape and one.stride() != parameter.stride():
                sums[name] = torch.empty_like(parameter, dtype=one.dtype).copy_(one)
