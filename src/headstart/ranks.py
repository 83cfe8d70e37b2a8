"""The processes of a run that trains on several devices: which one this is, and what they share.

Without a process group there is one process: every function then gives back what it was given, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, cat
from torch.autograd import Function

from headstart.errors import UserError

T = TypeVar("T")

_apart = False
_patient: dist.ProcessGroup | None = None
"""Group of what may wait for hours, as for a search by the first process; the default one ends a run that hangs."""


def world() -> int:
    """Processes of the run, one a device."""
    return dist.get_world_size() if _several() else 1


def rank() -> int:
    """Number of this process, from 0 to before `world`."""
    return dist.get_rank() if _several() else 0


def first() -> bool:
    """Whether this is the process that owns what a run has once: folder, log, metrics, report."""
    return not joined() or dist.get_rank() == 0


def gather(tensor: Tensor) -> Tensor:
    """Rows of all processes, in the order of their ranks.

    Args:
        tensor: (B, ...), of the same shape in every process.

    Returns:
        (world * B, ...). Gradients flow back to the process whose row it is, summed over the losses of all processes;
        averaged over the processes, as data-parallel training does, they are those of the mean of these losses.
    """
    return cast("Tensor", _Gathered.apply(tensor)) if _several() else tensor


def total(tensor: Tensor) -> Tensor:
    """Sum over all processes, element by element, of a tensor of any one shape; gradients as in `gather`."""
    return cast("Tensor", _Total.apply(tensor)) if _several() else tensor


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes, element by element; gradients as in `gather`."""
    return total(tensor) / world() if _several() else tensor


def own(tensor: Tensor) -> Tensor:
    """Of what was drawn for the joined batch this process's part.

    Args:
        tensor: (world * B, ...), the same in every process, in the order of `gather`.

    Returns:
        (B, ...).
    """
    return tensor.chunk(world())[rank()] if _several() else tensor


def take(tensor: Tensor, places: Tensor) -> Tensor:
    """Rows of the joined batch, each from the process that has it; without gradients.

    Args:
        tensor: (B, ...), of the same shape in every process.
        places: int64 (world * N,) on the CPU, the same in every process: rows in the order of `gather`, first those
            that the first process takes.

    Returns:
        (N, ...): this process's.
    """
    if not _several():
        return tensor[places.to(tensor.device)]
    wanted, held = places.view(world(), -1), len(tensor)
    given = [row[row // held == rank()] - rank() * held for row in wanted]
    source = wanted[rank()] // held
    numbers = torch.bincount(source, minlength=world()).tolist()
    sent = tensor.detach()[cat(given).to(tensor.device)].contiguous()
    got = sent.new_empty(len(source), *tensor.shape[1:])
    dist.all_to_all_single(got, sent, numbers, [len(one) for one in given])
    return got[source.argsort(stable=True).argsort().to(tensor.device)]  # they came process by process


def from_first(value: T) -> T:
    """What the first process has, in all of them; what pickle can carry."""
    if not _several():
        return value
    carried = [value]
    dist.broadcast_object_list(carried, src=0, group=_patient)
    return carried[0]


def first_does(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, which alone does it, in all of them; what it raises is raised in all."""
    if not _several():
        return work()
    found: T | None = None
    raised: BaseException | None = None
    if first():
        try:
            with alone():
                found = work()
        except BaseException as error:  # who waits for it is not to wait for ever
            raised = error
    found, told = from_first((found, raised and portable(raised)))
    if raised or told:
        raise cast("BaseException", raised or told)
    return cast("T", found)


def all_do(work: Callable[[], T]) -> T:
    """What `work` gives in this process, once all have done it; what it raises in any of them is raised in all."""
    if not _several():
        return work()
    found: T | None = None
    raised: Exception | None = None
    try:
        found = work()
    except Exception as error:
        raised = error
    told = next((error for error in of_all(raised and portable(raised)) if error), None)
    if raised or told:
        raise cast("BaseException", raised or told)
    return cast("T", found)


def portable(error: BaseException) -> BaseException:
    """The error as another process can have it."""
    kind = type(error)
    if isinstance(error, UserError) or kind.__module__ == "builtins" or isinstance(error, KeyboardInterrupt):
        return error
    return RuntimeError(f"{kind.__name__}: {error}")


@contextmanager
def alone() -> Iterator[None]:
    """What a process does by itself, while others wait or do something else: there is one process then.

    For losses of lightly's, too, which ask torch whether there are others: they would wait for these without end.
    """
    global _apart
    before, _apart, asked = _apart, True, dist.is_initialized
    dist.is_initialized = lambda: False
    try:
        yield
    finally:
        _apart, dist.is_initialized = before, asked


def any_of_all(*flags: bool) -> list[bool]:
    """Of each flag, whether any process has raised it; the same in all of them."""
    if not _several():
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def of_all(value: T) -> list[T]:
    """What each process has, in the order of their ranks, in all of them; what pickle can carry."""
    if not _several():
        return [value]
    values: list[T | None] = [None] * world()
    dist.all_gather_object(values, value, group=_patient)
    return cast("list[T]", values)


def to_first(value: T, take: Callable[[T], None]) -> None:
    """Have the first process take what each has, in the order of their ranks; what pickle can carry.

    Args:
        value: Of this process.
        take: Called in the first process alone. One value at a time is in its memory; where it raises, the others wait.
    """
    if rank() == 0:
        take(value)
        for source in range(1, world()):
            carried: list[Any] = [None]
            dist.recv_object_list(carried, src=source, group=_patient)
            take(carried[0])
    else:
        dist.send_object_list([value], dst=0, group=_patient)


def wait() -> None:
    """Until all processes are here."""
    if _several():
        dist.barrier(group=_patient)


def be_patient(group: dist.ProcessGroup | None) -> None:
    """Have objects and waiting go through a group of their own, which may take its time; None: through the default."""
    global _patient
    _patient = group


def _several() -> bool:
    return not _apart and joined() and dist.get_world_size() > 1


def joined() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


class _Gathered(Function):
    """Rows of all processes; not torch's own function for it, which comes and goes with its versions."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, tensor.contiguous())
        return cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


class _Total(Function):
    """Sum over all processes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        summed = tensor.contiguous().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed
