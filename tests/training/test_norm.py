from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.training.norm import synchronized
from processes import in_processes


def net(dims: int) -> nn.Sequential:
    torch.manual_seed(0)
    if dims == 4:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 2))


def loss(made: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = made(x)
    return (out * torch.linspace(-1, 2, out[0].numel()).view_as(out[0])).sigmoid().mean()


@pytest.mark.parametrize("dims", [4, 2])
def test_it_is_that_of_the_joined_batch(dims: int, tmp_path: Path) -> None:
    """Outputs, statistics, and gradients averaged over the processes, as data-parallel training does."""
    x = torch.randn(4, 3, *[6] * (dims - 2), generator=torch.Generator().manual_seed(1)) * 2 + 5

    def work(rank: int) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor], list[type]]:
        made = net(dims)
        with synchronized(made, torch.device("cpu")):
            value = loss(made, x[2 * rank : 2 * rank + 2])
            value.backward()
        return value.detach(), [p.grad for p in made.parameters()], made.state_dict(), [type(one) for one in made]

    whole = net(dims)
    expected = loss(whole, x)
    expected.backward()
    (one, grads, state, kinds), (other, others, again, _) = in_processes(2, work, tmp_path)
    torch.testing.assert_close((one + other) / 2, expected.detach())
    for parameter, g, h in zip(whole.parameters(), grads, others, strict=True):
        torch.testing.assert_close((g + h) / 2, parameter.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state, whole.state_dict())
    torch.testing.assert_close(again, whole.state_dict())
    assert kinds == [type(layer) for layer in whole]  # and nothing of it is left behind


def test_one_process_keeps_its_layers() -> None:
    made = net(4)
    with synchronized(made, torch.device("cpu")):
        assert [type(layer) for layer in made] == [type(layer) for layer in net(4)]
