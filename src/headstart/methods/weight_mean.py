"""Averages of weights: over the steps of a training, and of some of its moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

States = dict[str, dict[str, Tensor]]
"""State dicts of several networks, by their names."""


class WeightMean:
    """Weights of the ends of several cycles of the learning rate lie around a better detector than each of them is.

    After Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, arXiv 1803.05407,
    where the moments are of one cycle's length and weigh alike. Here each weighs twice as much as the one before it: on
    FOD-A, one seed, 0.4 and 0.5 points better than equal weights after rounds half and twice as long as burn-in, 0.2
    worse after rounds as long (EXPERIMENTS.md, "longer rounds").
    Statistics of batch normalization are averaged as weights are; counters are those of the last moment.

    Attributes:
        states: The mean so far; empty before the first moment.
        number: Of moments so far.
    """

    def __init__(self, states: States | None = None, number: int = 0) -> None:
        self.states, self.number = states or {}, number

    @torch.no_grad()
    def with_another(self, now: Mapping[str, Mapping[str, Tensor]]) -> WeightMean:
        """The mean of the moments so far and of this one, where that is; shares no memory with `now`.

        A network is moved at the end of a run, and read from a checkpoint at its beginning: what is kept here is not.
        """
        states, share = {}, 2**self.number / (2 ** (self.number + 1) - 1)
        for name, tensors in now.items():
            before = self.states.get(name, {})
            states[name] = {
                key: torch.lerp(before[key].to(one.device), one, share)
                if key in before and one.is_floating_point()
                else one.clone()
                for key, one in tensors.items()
            }
        return WeightMean(states, self.number + 1)

    def told(self) -> str:
        """Which of the moments is handed back, in a sentence."""
        if self.number == 1:
            return "handed back: the teacher as it is at the end, no mean of several moments"
        return f"handed back: the mean of the teachers at the ends of {self.number} parts, each twice the one before it"

    def record(self) -> dict[str, Any]:
        """What `WeightMean` is made from again."""
        return {"states": self.states, "number": self.number}


@torch.no_grad()
def follow(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """``target = momentum * target + (1 - momentum) * source``, weights and statistics alike; not counters."""
    ours, theirs = list(source.state_dict().values()), list(target.state_dict().values())
    floats = [place for place, tensor in enumerate(theirs) if tensor.is_floating_point()]
    torch._foreach_lerp_([theirs[i] for i in floats], [ours[i] for i in floats], 1 - momentum)
