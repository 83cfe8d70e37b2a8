"""Is every update finite, and do the weights stay in bounds? Looked at on the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from headstart import ranks

EXPLODED = 1e4
"""Norm of what is trained, as a multiple of what it was at the start, from which a run is ended: such weights have
forgotten everything, and batch normalization hides it from the loss."""


class Finite:
    """The first step whose loss or gradients were not finite.

    Args:
        device: Where losses and gradients are.
    """

    def __init__(self, device: torch.device) -> None:
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        # Several processes must see it at the same step, so that none goes on: where it is asked for and waited for.
        self._copy = self._bad.cpu().pin_memory() if device.type == "cuda" and ranks.world() == 1 else None
        self._copied: torch.cuda.Event | None = None

    def note(self, step: int, values: Iterable[Tensor]) -> None:
        """Look at some scalars on the device in step `step`, 0 or more; nothing is waited for."""
        fine = torch.stack([torch.isfinite(value.detach()).all() for value in values]).all()
        self._bad = torch.where(fine | (self._bad >= 0), self._bad, step)

    def seen(self) -> int | None:
        """The step, as far as it is known: on a GPU mostly a step or two late, since the device is not waited for."""
        if self._copy is None:
            return self.first() if self._bad.device.type == "cpu" else None
        if self._copied is None or self._copied.query():  # type: ignore[no-untyped-call]
            if self._copied is not None and int(self._copy) >= 0:
                return int(self._copy)
            self._copy.copy_(self._bad, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return None

    def first(self) -> int | None:
        """The step; waits for the device."""
        step = int(self._bad)
        return step if step >= 0 else None


class Growth:
    """How the norm of what is trained has grown.

    Args:
        module: With the weights that the run began with.
    """

    def __init__(self, module: nn.Module) -> None:
        self._tensors = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._start = max(float(norm(self._tensors)), torch.finfo(torch.float32).tiny)

    def __call__(self) -> float:
        """Norm now, as a multiple of the norm at the start; waits for the device. Too large for a float is infinite."""
        return float(norm(self._tensors)) / self._start


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """L2 norm of all `tensors` together, float32, a scalar on their device; 0 of none."""
    listed = [tensor.detach().float() for tensor in tensors]
    if not listed:
        return torch.zeros(())
    each = torch.stack(torch._foreach_norm(listed))
    total: Tensor = torch.linalg.vector_norm(each)
    return total
