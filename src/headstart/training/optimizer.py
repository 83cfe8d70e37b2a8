"""The optimizer of a pretraining."""

from __future__ import annotations

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
