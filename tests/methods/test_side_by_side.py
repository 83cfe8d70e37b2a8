"""Views on threads of their own: what one pass after the other gives, in every detector's network."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from headstart.detectors.find import load_detector
from headstart.launch.threads import computing_on
from headstart.methods import side_by_side
from headstart.methods.side_by_side import maps_of_each, shared_out

SIZES = (64, 64, 32, 32, 32)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As on a machine of two cores."""
    with computing_on(2):
        yield


def views(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(4, 3, size, size, generator=random).to(dtype) for size in sizes or SIZES]


def trunk(model: str = "yolo11n.yaml", neck: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return load_detector(model).trunk(neck=neck).train()


def used(network: nn.Module) -> bool:
    """Whether the last call was on several threads."""
    return side_by_side._made.get(network) is not None


def loss(each: list[list[Tensor]]) -> Tensor:
    weight = torch.Generator().manual_seed(1)
    parts = [(one * torch.randn(one.shape, generator=weight)).mean() for maps in each for one in maps]
    return torch.stack(parts).sum()


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("yolo11n.yaml", 2),
        pytest.param("yolov8n.yaml", 2, marks=pytest.mark.slow),
        pytest.param("yolo12n.yaml", 2, marks=pytest.mark.slow),
        pytest.param("rtdetr-resnet50.yaml", 1, marks=pytest.mark.slow),
    ],
)
def test_as_one_after_the_other(model: str, steps: int) -> None:
    """In double precision: the statistics of four numbers each, at the coarsest maps, blow rounding up in any other."""
    network = trunk(model, neck=True).double()
    twin = copy.deepcopy(network)
    for step in range(steps):  # the second one begins with the statistics of the first
        seen = views(seed=step, dtype=torch.float64)
        expected, found = loss([twin(one) for one in seen]), loss(maps_of_each(network, seen))
        expected.backward()
        found.backward()
        assert used(network)
        torch.testing.assert_close(found, expected)
        for (name, mine), theirs in zip(network.named_parameters(), twin.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None), name
            if mine.grad is not None and theirs.grad is not None:
                torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
        for (name, mine), theirs in zip(network.named_buffers(), twin.named_buffers(), strict=True):
            torch.testing.assert_close(mine, theirs[1], msg=name)
        network.zero_grad()
        twin.zero_grad()


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_two_calls_give_the_same_bits(precision: str) -> None:
    network = trunk()
    first = copy.deepcopy(network)
    found = []
    for one in (network, first):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            each = maps_of_each(one, views())
        assert each[0][0].dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
        loss(each).backward()
        found.append([*each[0], *(p.grad for p in one.parameters() if p.grad is not None), *one.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_half_precision_is_as_near_as_one_after_the_other() -> None:
    network = trunk()
    exact, plain = copy.deepcopy(network), copy.deepcopy(network)
    loss([exact(one) for one in views()]).backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss([plain(one) for one in views()]).backward()
        loss(maps_of_each(network, views())).backward()

    def far(one: nn.Module) -> float:
        pairs = zip(one.parameters(), exact.parameters(), strict=True)
        both = [(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None]
        return float(sum((a - b).square().sum() for a, b in both) / sum(b.square().sum() for _, b in both))

    assert far(network) < 1.5 * far(plain) + 1e-6


def test_a_frozen_network_counts_and_has_no_graph() -> None:
    """A moving-average teacher: training mode, no gradients."""
    network = trunk().double().requires_grad_(False)
    twin, seen = copy.deepcopy(network), views(64, 64, dtype=torch.float64)
    found, expected = maps_of_each(network, seen), [twin(one) for one in seen]
    assert used(network)
    for mine, theirs in zip(found, expected, strict=True):
        assert not mine[0].requires_grad
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_network_that_is_evaluated_uses_the_statistics_of_now() -> None:
    network = trunk().double()
    maps_of_each(network, views(64, 64, dtype=torch.float64))
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    network.eval()
    before = [one.clone() for one in network.buffers()]
    seen = views(64, 64, dtype=torch.float64)
    found = maps_of_each(network, seen)
    assert used(network)
    torch.testing.assert_close(found, [network(one) for one in seen])
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


class Small(nn.Module):
    """A map of four channels."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *more)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]


class Remembers(nn.Module):
    """Changes a tensor of its own in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), Remembers(), nn.BatchNorm2d(4, momentum=None)])
def test_passes_that_depend_on_their_order_stay_in_it(layer: nn.Module) -> None:
    """What is drawn at random, or counted otherwise, is as without threads, bit for bit."""
    network = Small(layer).train()
    twin, seen = copy.deepcopy(network), views(16, 16)
    torch.manual_seed(5)
    expected = [twin(one) for one in seen]
    after = torch.get_rng_state()
    torch.manual_seed(5)
    found = maps_of_each(network, seen)
    assert not used(network)
    assert torch.equal(after, torch.get_rng_state())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), twin.buffers(), strict=True))


def test_what_listens_to_a_layer_hears_every_pass() -> None:
    network, heard = Small(), []
    network.layers[0].register_forward_hook(lambda *given: heard.append(given[2].shape))
    maps_of_each(network, views(16, 16, 8))
    assert [shape[-1] for shape in heard] == [14, 14, 6]


def test_weights_that_are_put_in_place_of_others_are_used() -> None:
    network = Small().train()
    maps_of_each(network, views(16, 16))
    network.layers[0] = nn.Conv2d(3, 4, 1)
    found = maps_of_each(network, views(16, 16))
    assert used(network)
    assert found[0][0].shape == (4, 4, 16, 16)


def test_layers_that_nothing_reaches_have_no_gradient() -> None:
    network = Small(nn.Identity())
    network.spare = nn.Linear(2, 2)
    network.layers[1].weight.requires_grad_(False)
    loss(maps_of_each(network, views(16, 16))).backward()
    assert network.spare.weight.grad is None
    assert network.layers[1].weight.grad is None
    assert network.layers[0].weight.grad is not None


def test_one_view_alone_matters_to_the_loss() -> None:
    network = Small().train()
    twin = copy.deepcopy(network)
    maps_of_each(network, views(16, 16))[1][0].square().mean().backward()
    [twin(one) for one in views(16, 16)][1][0].square().mean().backward()
    torch.testing.assert_close(network.layers[0].weight.grad, twin.layers[0].weight.grad)


def test_a_network_is_let_go() -> None:
    network = Small()
    loss(maps_of_each(network, views(16, 16))).backward()
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("work", "threads", "expected"),
    [
        ([4, 4, 1, 1, 1, 1], 2, [[0, 2, 4], [1, 3, 5]]),
        ([4, 4], 1, [[0, 1]]),
        ([4, 4], 2, [[0], [1]]),
        ([4, 4], 16, [[0], [1]]),  # each with eight of the threads
        ([4, 4, 4], 2, [[0, 1, 2]]),  # one thread would wait for a third of the time
        ([4, 4, 4], 3, [[0], [1], [2]]),
        ([9, 1], 2, [[0, 1]]),
        ([5], 4, [[0]]),
        ([4, 4, 1, 1, 1, 1, 1, 1], 4, [[0, 2, 4, 6], [1, 3, 5, 7]]),  # of four shares the last two would be done early
    ],
)
def test_views_are_shared_out_evenly(work: list[int], threads: int, expected: list[list[int]]) -> None:
    assert shared_out(work, threads) == expected
