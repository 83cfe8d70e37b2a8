"""Several views through one network at a time, on a CPU: each thread takes whole views, none waits for another.

Threads that share the work of one small convolution wait for one another thousands of times a step. Views need nothing
of each other until the loss, batch normalization included, which sees each by itself: so each thread passes views of
its own through the network, forward and back. Losses, gradients and running statistics are those of one pass after the
other, but for the order in which gradients are summed, which the number of threads decides and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from headstart import ranks
from headstart.launch.threads import together
from headstart.methods.base import pooled
from headstart.views.spec import View

Maps = list[Tensor]
Shares = list[list[int]]

IDLE = 1.15  # what the busiest thread may have to do, over the mean: threads that share operations lose as much
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def maps_of_each(network: nn.Module, views: Sequence[Tensor]) -> list[Maps]:
    """What `network` returns for each view, called with one after the other, or on threads of their own.

    Args:
        network: Takes float ``(B, 3, S, S)`` and returns a list of maps.
        views: Each ``(B, 3, S, S)``, sizes S in any order.

    Returns:
        View by view, as ``[network(view) for view in views]``, with gradients where that has them.
    """
    shares = shared_out([view.numel() for view in views], torch.get_num_threads())
    if len(shares) > 1 and _may(network, views) and (twins := _twins(network, len(shares), views)):
        return twins.maps(network, views, shares)
    return [network(view) for view in views]


def pooled_of_each(network: nn.Module, views: Sequence[View]) -> list[Tensor]:
    """The last map of each view, averaged over its cells: ``(B, C)``."""
    return [pooled(maps) for maps in maps_of_each(network, [view.images for view in views])]


def shared_out(work: Sequence[int], threads: int) -> Shares:
    """Which views each share takes: the largest first, each by the share that has least so far.

    Args:
        work: Of each view.
        threads: That there are; those of a share work together.

    Returns:
        The places of the views by share; one share of all where others would leave threads idle for too long.
    """
    best, least = [list(range(len(work)))], IDLE
    for number in range(2, min(threads, len(work)) + 1):
        loads: list[int] = [0] * number
        shares: Shares = [[] for _ in range(number)]
        for place in sorted(range(len(work)), key=lambda place: -work[place]):
            free = loads.index(min(loads))
            loads[free] += work[place]
            shares[free].append(place)
        idle = max(loads) / (threads // number) / (sum(work) / threads)
        if idle <= least:
            best, least = shares, idle
    return best


def _may(network: nn.Module, views: Sequence[Tensor]) -> bool:
    """Whether these passes can run on other threads: on a CPU, in one process, where nobody listens to a module."""
    # Without OpenMP all threads of a process share one number of them.
    each_its_own = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]
    ordinary = all(view.device.type == "cpu" and not view.requires_grad for view in views)
    heard = any(one._forward_hooks or one._forward_pre_hooks or one._backward_hooks for one in network.modules())
    return each_its_own and ordinary and not heard and network._compiled_call_impl is None and ranks.world() == 1


# -- networks that share their weights

_made: WeakKeyDictionary[nn.Module, _Twins | None] = WeakKeyDictionary()


def _twins(network: nn.Module, number: int, views: Sequence[Tensor]) -> _Twins | None:
    """Those of a network, made when it is first seen; None where its passes cannot be taken by several threads."""
    known = _made.get(network)
    if network not in _made or (known is not None and not known.are_of(network, number)):
        known = _Twins(network, number)
        if not known.are_harmless(network, min(views, key=Tensor.numel)):
            known = None
        _made[network] = known
    return known


class _Twins:
    """Copies of a network, one a share, with its weights; what batch norms count in a pass is each copy's own.

    Args:
        network: Its tensors are kept, it is not: it would never be let go.
        number: Of copies.
    """

    def __init__(self, network: nn.Module, number: int) -> None:
        self._tensors = [*network.parameters(), *network.buffers()]
        same = {id(tensor): tensor for tensor in self._tensors}
        self._copies = [copy.deepcopy(network, dict(same)) for _ in range(number)]
        self._norms = [_counting(one) for one in self._copies]
        for norm in (norm for norms in self._norms for norm in norms):
            # With a momentum of 1 they hold the statistics of the last pass, whatever they held before.
            norm.running_mean, norm.running_var = norm.running_mean.clone(), norm.running_var.clone()
            norm.num_batches_tracked, norm.momentum = norm.num_batches_tracked.clone(), 1.0

    def are_of(self, network: nn.Module, number: int) -> bool:
        """Whether they have the tensors of the network as it is now."""
        now = [*network.parameters(), *network.buffers()]
        known = len(now) == len(self._tensors) and all(a is b for a, b in zip(now, self._tensors, strict=True))
        return known and number == len(self._copies)

    def are_harmless(self, network: nn.Module, view: Tensor) -> bool:
        """Whether a pass draws nothing at random and changes none of the network's tensors: two images are tried."""
        before, random = [tensor.detach().clone() for tensor in self._tensors], torch.get_rng_state()
        with torch.no_grad():
            self._as_they_are(network, _counting(network))
            self._copies[0](view[:2])
            changed = [(a, b) for a, b in zip(self._tensors, before, strict=True) if not torch.equal(a, b)]
            for tensor, was in changed:
                tensor.copy_(was)
        drew = not torch.equal(random, torch.get_rng_state())
        torch.set_rng_state(random)
        return not changed and not drew

    def maps(self, network: nn.Module, views: Sequence[Tensor], shares: Shares) -> list[Maps]:
        """See `maps_of_each`."""
        norms = _counting(network)
        self._as_they_are(network, norms)
        trained = [one for one in network.parameters() if one.requires_grad] if torch.is_grad_enabled() else []
        arithmetic: Any = {"enabled": torch.is_autocast_enabled("cpu"), "dtype": torch.get_autocast_dtype("cpu")}

        def passes(share: int) -> list[tuple[int, Maps, Tensor]]:
            mine, counting = self._copies[share], self._norms[share]
            # Without autocast's cache, in which each thread would find weights that another one has converted.
            with torch.set_grad_enabled(bool(trained)), torch.autocast("cpu", cache_enabled=False, **arithmetic):
                return [(at, list(mine(views[at])), _statistics(counting)) for at in shares[share]]

        work = [partial(passes, share) for share in range(len(shares))]
        made = sorted((one for some in together(work) for one in some), key=itemgetter(0))
        self._count(norms, [counted for _, _, counted in made])
        maps = [one for _, one, _ in made]
        return _Joined.of(maps, trained, shares) if trained else maps

    def _as_they_are(self, network: nn.Module, counting: Sequence[Any]) -> None:
        """Training or evaluation, module by module; a norm that is evaluated has the network's statistics."""
        for one, norms in zip(self._copies, self._norms, strict=True):
            for mine, original in zip(one.modules(), network.modules(), strict=True):
                mine.training = original.training
            for mine, original in zip(norms, counting, strict=True):
                if not mine.training:
                    mine.running_mean.copy_(original.running_mean)
                    mine.running_var.copy_(original.running_var)

    @torch.no_grad()
    def _count(self, norms: Sequence[Any], counted: Sequence[Tensor]) -> None:
        """Take what each pass counted into the network's statistics, view by view, as `torch.nn.BatchNorm2d` does."""
        norms = [norm for norm in norms if norm.training]
        if not norms:
            return
        kept, widths = _statistics(norms), [len(norm.running_mean) for norm in norms for _ in range(2)]
        momenta = torch.tensor([norm.momentum for norm in norms for _ in range(2)])
        momentum = momenta.to(kept).repeat_interleave(torch.tensor(widths))
        for one in counted:
            kept = (1 - momentum) * kept + momentum * one
        torch._foreach_copy_(_running(norms), torch.split(kept, widths))
        for norm in norms:
            norm.num_batches_tracked += len(counted)


def _counting(network: nn.Module) -> list[Any]:
    """The batch norms that keep running statistics, of torch's own kinds."""
    kinds = [one for one in network.modules() if type(one) in _NORMS]
    return [norm for norm in kinds if norm.running_mean is not None and norm.momentum is not None]


def _running(norms: Sequence[Any]) -> list[Tensor]:
    return [one for norm in norms if norm.training for one in (norm.running_mean, norm.running_var)]


def _statistics(norms: Sequence[Any]) -> Tensor:
    """Running means and variances of the norms that are trained, in a row."""
    return torch.cat(kept) if (kept := _running(norms)) else torch.empty(0)


class _Joined(Function):
    """Joins the graphs of several threads to that of the loss."""

    @staticmethod
    def of(maps: Sequence[Maps], trained: Sequence[nn.Parameter], shares: Shares) -> list[Maps]:
        """The same maps, each view's, through which gradients reach `trained`."""
        flat = iter(cast("tuple[Tensor, ...]", _Joined.apply(maps, shares, *trained)))
        return [[next(flat) for _ in each] for each in maps]

    @staticmethod
    def forward(context: Any, maps: Sequence[Maps], shares: Shares, *trained: nn.Parameter) -> tuple[Tensor, ...]:
        context.maps, context.shares, context.trained = maps, shares, trained
        context.set_materialize_grads(False)
        return tuple(one.detach() for each in maps for one in each)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        flat = iter(gradients)
        pairs = [[(one, next(flat)) for one in each] for each in context.maps]

        def back(places: Sequence[int]) -> Sequence[Tensor | None]:
            asked = [(one, to) for at in places for one, to in pairs[at] if to is not None and one.requires_grad]
            if not asked:
                return [None] * len(context.trained)
            ends, begins = zip(*asked, strict=True)
            reached: Sequence[Tensor | None] = torch.autograd.grad(ends, context.trained, begins, allow_unused=True)
            return reached

        parts = together([partial(back, places) for places in context.shares])
        return (None, None, *map(_sum, zip(*parts, strict=True)))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    found = [one for one in gradients if one is not None]
    return sum(found[1:], start=found[0]) if found else None
