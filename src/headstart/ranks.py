"""The processes of a run that trains on several devices: which one this is, and what they share.

Without a process group there is one process: every function then gives back what it was given, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, cat

T = TypeVar("T")

_all_gather: Callable[[Tensor], tuple[Tensor, ...]] = differentiable.all_gather
_all_reduce: Callable[[Tensor], Tensor] = differentiable.all_reduce


def world() -> int:
    """Processes of the run, one a device."""
    return dist.get_world_size() if _several() else 1


def rank() -> int:
    """Number of this process, from 0 to before `world`."""
    return dist.get_rank() if _several() else 0


def first() -> bool:
    """Whether this is the process that owns what a run has once: folder, log, metrics, report."""
    return rank() == 0


def gather(tensor: Tensor) -> Tensor:
    """Rows of all processes, in the order of their ranks.

    Args:
        tensor: (B, ...), of the same shape in every process.

    Returns:
        (world * B, ...). Gradients flow back to the process whose row it is, summed over the losses of all processes;
        averaged over the processes, as data-parallel training does, they are those of the mean of these losses.
    """
    return cat(list(_all_gather(tensor.contiguous()))) if _several() else tensor


def total(tensor: Tensor) -> Tensor:
    """Sum over all processes, element by element, of a tensor of any one shape; gradients as in `gather`."""
    return _all_reduce(tensor) if _several() else tensor


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes, element by element; gradients as in `gather`."""
    return total(tensor) / world() if _several() else tensor


def from_first(value: T) -> T:
    """What the first process has, in all of them; what pickle can carry."""
    if not _several():
        return value
    carried = [value]
    dist.broadcast_object_list(carried, src=0)
    return carried[0]


def of_all(value: T) -> list[T]:
    """What each process has, in the order of their ranks, in all of them; what pickle can carry."""
    if not _several():
        return [value]
    values: list[T | None] = [None] * world()
    dist.all_gather_object(values, value)
    return cast("list[T]", values)


def wait() -> None:
    """Until all processes are here."""
    if _several():
        dist.barrier()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
