"""The one step, and that nothing is left behind by what is tried with it."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from torch import nn

from headstart.images.loader import PixelBatch
from headstart.methods.base import Context, Method
from headstart.methods.schedules import Progress
from headstart.settings.method_options import MethodSettings
from headstart.training.optimizer import make_optimizer, restore
from headstart.training.step import Step, compile_or_not, may_fuse, unchanged
from headstart.views.spec import View, ViewSpec, pair_specs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())


@pytest.mark.parametrize("fails", [True, False])
def test_a_trial_of_compilation_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()

    def compile_(self: nn.Module, **options: object) -> None:
        def run(images: torch.Tensor) -> torch.Tensor:
            if fails:
                self.forward(images)  # moves statistics and random numbers, then breaks
                raise RuntimeError("cannot determine truth value of Relational\nand more")
            return self.forward(images)

        self._compiled_call_impl = run

    monkeypatch.setattr(nn.Module, "compile", compile_)

    def attempt() -> torch.Tensor:
        loss = net.body(torch.rand(2, 3, 8, 8)).square().sum()
        loss.backward()
        return loss

    told = compile_or_not({"student": net.body}, net, attempt)
    if fails:
        assert told == "torch.compile fails here, going on without it: cannot determine truth value of Relational"
        assert net.body._compiled_call_impl is None
    else:
        assert told == "compiled: student"
        assert net.body._compiled_call_impl is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_everything_is_put_back() -> None:
    """Weights, statistics, what a method keeps beside them (a factor, a queue), and random numbers."""
    for name, options in (("dino", {"guard": True}), ("densecl", {"queue": 32})):
        method = tiny.build(name, **options)
        before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
        step = Step(method, method.settings, Fabric(accelerator="cpu", devices=1), seed=0)
        with unchanged(method):
            for number in range(3):
                step(tiny.views(method, number), tiny.progress(0))
            if name == "dino":
                method.guard.factor = 3.0
        assert torch.equal(torch.get_rng_state(), random)
        assert same(method.state_dict(), before)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(same, one, other))
    return one == other


def test_a_step_by_hand() -> None:
    """SGD without momentum: each weight moves by its clipped gradient times the rate of the schedule."""
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": 0.5, "lr": 0.1, "warmup": 0.5}
    method, other = (tiny.build("simclr", **options) for _ in range(2))
    step = Step(method, method.settings, Fabric(accelerator="cpu", devices=1), seed=0)
    views, progress = tiny.views(method), Progress(1, 8, 0.0)
    loss = step(views, progress)
    assert step.rate == pytest.approx(0.1 * 2 / 4)  # the second of four steps of warm-up
    expected = other(views, progress)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    norm = torch.stack([p.grad.norm() for p in other.parameters()]).norm()
    scale = min(1.0, 0.5 / float(norm))
    for one, theirs in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, theirs - 0.05 * scale * theirs.grad, rtol=1e-4, atol=1e-6)
        assert one.grad is None


def test_a_fused_optimizer_does_not_clip_scaled_gradients() -> None:
    """Lightning refuses to clip where a fused optimizer would take the scale of fp16 away."""
    assert may_fuse("cuda", "16-mixed", None)
    assert not may_fuse("cuda", "16-mixed", 5.0)
    assert may_fuse("cuda", "bf16-mixed", 5.0)
    assert may_fuse("cpu", "32-true", 5.0)
    assert not may_fuse("mps", "32-true", 5.0)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("before", [False, True])
def test_a_run_goes_on_where_weights_lie_otherwise_in_memory(kind: str, before: bool) -> None:
    """Begun with channels-last, continued without: what a plain optimizer does that never stopped."""
    settings = MethodSettings(optimizer=kind, lr=0.05, weight_decay=0.1)  # type: ignore[call-arg, arg-type]
    gradients = [[torch.randn(4, 3, 3, 3), torch.randn(4)] for _ in range(4)]

    def stepped(net: nn.Module, optimizer: torch.optim.Optimizer, some: list[list[torch.Tensor]]) -> None:
        for ones in some:
            for parameter, one in zip(net.parameters(), ones, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(one)
            optimizer.step()

    plain = nn.Conv2d(3, 4, 3)
    first = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    stepped(plain, make_optimizer(plain, settings), gradients)
    began = make_optimizer(first, settings, fused=before)
    stepped(first, began, gradients[:2])
    second = nn.Conv2d(3, 4, 3)
    second.load_state_dict(first.state_dict())
    goes_on = make_optimizer(second, settings, fused=True)
    restore(goes_on, began.state_dict())
    stepped(second, goes_on, gradients[2:])
    assert second.weight.is_contiguous()
    assert {group["fused"] for group in goes_on.param_groups} == {before}, "an older run computes as it did"
    for one, other in zip(second.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_what_was_fused_is_not_where_it_may_not_be() -> None:
    net, settings = nn.Linear(2, 2), MethodSettings()
    optimizer = make_optimizer(net, settings)
    restore(optimizer, make_optimizer(net, settings, fused=True).state_dict())
    assert {group["fused"] for group in optimizer.param_groups} == {False}


class Mean(Method):
    """The mean over images of a loss that looks at each by itself."""

    def __init__(self, settings: MethodSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.head = nn.Linear(3, 2)

    def view_specs(self) -> list[ViewSpec]:
        return pair_specs(8, (0.5, 1.0))

    def forward(self, views: list[View], progress: Progress) -> torch.Tensor:
        one, other = (self.head(view.images.mean((2, 3))) for view in views)
        return (one - other + 1).square().mean()


def test_parts_are_told_apart() -> None:
    """What a method draws for a part is of that part: mosaics of all parts would be alike else."""
    seen = []

    class Noting(Mean):
        def forward(self, views: list[View], progress: Progress) -> torch.Tensor:
            seen.append(progress)
            return super().forward(views, progress)

    options = MethodSettings(optimizer="sgd", lr=0.1, momentum=0.0)
    step = Step(
        Noting(options, Context(nn.Identity(), (3,))), options, Fabric(accelerator="cpu", devices=1), 0, parts=3
    )
    batch = PixelBatch(torch.zeros(6, 3, 20, 20, dtype=torch.uint8), torch.full((6, 2), 20), torch.arange(6), [])
    step(step.views(batch, Progress(2, 4, 0.5)), Progress(2, 4, 0.5))
    assert seen == [Progress(2, 4, 0.5, part) for part in range(3)]


@pytest.mark.parametrize(("images", "shares"), [(6, 3), (7, 3), (7, 5), (3, 8)])
def test_a_batch_in_parts_is_the_batch(images: int, shares: int) -> None:
    """Loss, clipped gradients and weights of a loss that is a mean over images, in one part and in several.

    Steps without mosaics have fewer images than were shared out: parts may be fewer, and of unlike sizes.
    """
    found = []
    for parts in (1, shares):
        torch.manual_seed(0)
        options = MethodSettings(optimizer="sgd", lr=0.1, momentum=0.0, clip=0.5)
        method = Mean(options, Context(nn.Identity(), (3,)))
        step = Step(method, options, Fabric(accelerator="cpu", devices=1), seed=0, parts=parts)
        random = torch.Generator().manual_seed(3)
        pixels = torch.randint(0, 255, (images, 3, 20, 20), generator=random, dtype=torch.uint8)
        batch = PixelBatch(pixels, torch.full((images, 2), 20), torch.arange(images), [])
        losses = [step(step.views(batch, Progress(n, 4, 0.0)), Progress(n, 4, 0.0)) for n in range(3)]
        found.append((torch.stack(losses), method.state_dict()))
    torch.testing.assert_close(found[0], found[1])
    assert len(set(found[0][0].tolist())) == 3
