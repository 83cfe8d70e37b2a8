"""Batch norm over processes against torch's own on the joined batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.training.norm import synchronized
from processes import in_processes

ROWS = [(0, 4), (4, 8)]
"""Of the joined batch, in each process."""
CPU = torch.device("cpu")


def trained(module: nn.Module, parts: list[Tensor], weights: list[Tensor], rows: slice) -> dict[str, Tensor]:
    """Two batches, a loss for each that weighs every number otherwise: outputs, gradients, statistics."""
    found: dict[str, Tensor] = {}
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        given = part[rows].clone().requires_grad_()
        made = module(given)
        module.zero_grad()
        (made * weight[rows]).sum().backward()
        found[f"out{number}"], found[f"slope{number}"] = made.detach(), given.grad
        found |= {f"{name}{number}": one.grad.clone() for name, one in module.named_parameters()}
    return found | {f"state.{name}": one.clone() for name, one in module.state_dict().items()}


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 5, 6)])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.3, "eps": 1e-3}, {"affine": False}])
def test_two_processes_are_one_on_the_joined_batch(
    shape: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    """Values far from 0 with a small spread, where careless sums lose their digits."""
    random = torch.Generator().manual_seed(0)
    parts = [30 + torch.randn(shape, generator=random) for _ in range(2)]
    weights = [torch.randn(shape, generator=random) for _ in range(2)]
    plain = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4, **options)
    for one in plain.parameters():
        nn.init.normal_(one, generator=random)

    def work(rank: int) -> dict[str, Tensor]:
        module = copy.deepcopy(plain)
        with synchronized(module, CPU):
            found = trained(module, parts, weights, slice(*ROWS[rank]))
            twin = copy.deepcopy(plain).eval()
            twin.load_state_dict(module.state_dict())
            assert torch.equal(module.eval()(parts[0][:1]), twin(parts[0][:1]))
        assert type(module) is type(plain)
        return found

    split = in_processes(2, work, tmp_path)
    joined = trained(plain, parts, weights, slice(None))
    for name, expected in joined.items():
        mine = [one[name] for one in split]
        if name.startswith(("out", "slope")):
            found = torch.cat(mine)
        elif name.startswith("state"):
            assert torch.equal(*mine), name
            found = mine[0]
        else:  # the losses are summed over rows, the gradients of weights over processes
            found = mine[0] + mine[1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_bfloat16_is_normalized_in_float32(tmp_path: Path) -> None:
    given = 30 + torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def work(rank: int) -> Tensor:
        layer = nn.BatchNorm1d(4)
        with synchronized(layer, CPU):
            made: Tensor = layer(given.bfloat16()[slice(*ROWS[rank])])
        return made

    split = torch.cat(in_processes(2, work, tmp_path))
    assert split.dtype == torch.bfloat16
    torch.testing.assert_close(split.float(), nn.BatchNorm1d(4)(given.bfloat16().float()), rtol=0, atol=0.02)
