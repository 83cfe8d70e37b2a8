"""What is not finite, or has exploded, is seen, and never kept."""

from __future__ import annotations

import copy
import math

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from headstart.errors import RunError
from headstart.run.health import Health
from headstart.training import checkpoint
from headstart.training.guard import Finite, Growth, norm
from headstart.training.step import Step

CPU = torch.device("cpu")


def test_the_first_bad_step_is_remembered() -> None:
    finite = Finite(CPU)
    one, bad = torch.tensor(1.0), torch.tensor(math.nan)
    finite.note(3, [one, one])
    assert finite.seen() is None
    finite.note(4, [one, torch.tensor(math.inf)])
    finite.note(5, [bad, one])
    finite.note(6, [one, one])
    assert finite.seen() == finite.first() == 4


def test_norm_and_growth_by_hand() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 3.0]]))
        layer.bias.copy_(torch.tensor([4.0]))
    assert float(norm(layer.parameters())) == 5.0
    growth = Growth(layer)
    with torch.no_grad():
        layer.weight.mul_(100)
    assert growth() == pytest.approx(math.hypot(300, 4) / 5)
    with torch.no_grad():
        layer.bias.fill_(3e38)
    assert growth() == math.inf
    assert float(norm([])) == 0.0


class Spoiled:
    """Makes one gradient of a method infinite in one step."""

    def __init__(self, method, step: int) -> None:
        self.step, self.first = step, next(method.parameters())
        self.real = method.after_backward
        method.after_backward = self

    def __call__(self, progress) -> None:
        self.real(progress)
        if progress.step == self.step:
            self.first.grad.view(-1)[0] = math.inf


@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_update_that_is_not_finite_is_not_made(clip: float | None) -> None:
    """The loss of that step is finite; clipping by an infinite norm would make NaN of every weight."""
    method = tiny.build("simclr", clip=clip)
    step = Step(method, method.settings, Fabric(accelerator="cpu", devices=1), seed=0)
    Spoiled(method, 1)
    step(tiny.views(method, 0), tiny.progress(0))
    assert step.finite.first() is None
    before = {name: one.clone() for name, one in method.named_parameters()}
    loss = step(tiny.views(method, 1), tiny.progress(1))
    assert math.isfinite(float(loss.detach()))
    assert step.finite.first() == 1
    assert all(torch.equal(before[name], one) for name, one in method.named_parameters())


def test_a_state_that_is_not_finite_is_never_saved(tmp_path) -> None:
    checkpoint.save(tmp_path, {"step": 1, "method": {"a": torch.ones(2), "mask": torch.tensor([-math.inf])}})
    state = {"method": {"a": torch.tensor([1, math.nan])}, "optimizer": [torch.tensor(math.inf)]}
    with pytest.raises(RunError, match=r"at step 2 holds NaN or infinity and is not saved: method\.a, optimizer\.0"):
        checkpoint.save(tmp_path, {"step": 2, **state})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


# -- what a checkpoint holds beside the weights -----------------------------------------------------------------------


def scaled() -> Fabric:
    """fp16 as Fabric has it on a GPU, with a scaler that begins where a run's may stand."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))


def train(step: Step, first: int, last: int) -> list[float]:
    return [float(step(tiny.views(step.method, n), tiny.progress(n)).detach()) for n in range(first, last)]


def test_the_scale_of_the_loss_goes_on(tmp_path) -> None:
    """It doubles every two steps: 1024, 1024, 2048, 2048, ...; a scaler made anew would begin at 1024 again."""
    options = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.01, "clip": 1.0}
    whole, cut = (tiny.build("simclr", **options) for _ in range(2))
    one = Step(whole, whole.settings, scaled(), seed=0)
    train(one, 0, 3)
    checkpoint.save(tmp_path, {"step": 3, **copy.deepcopy(one.state())})
    expected = train(one, 3, 6)
    again = Step(cut, cut.settings, scaled(), seed=0)
    again.restore(checkpoint.newest(tmp_path)[0])
    assert again.scaler_state()["scale"] == 2048
    assert again.scaler_state()["_growth_tracker"] == 1
    assert train(again, 3, 6) == expected
    assert again.scaler_state() == one.scaler_state()


def test_gradients_that_overflow_in_fp16_are_no_fault() -> None:
    method = tiny.build("simclr", optimizer="sgd", clip=1.0)
    step = Step(method, method.settings, scaled(), seed=0)
    Spoiled(method, 0)
    train(step, 0, 1)
    assert step.finite.first() is None
    assert step.scaler_state()["scale"] == 512
    assert all(bool(torch.isfinite(one).all()) for one in method.parameters())


def test_a_checkpoint_without_a_scale_is_read() -> None:
    method = tiny.build("simclr")
    step = Step(method, method.settings, Fabric(accelerator="cpu", devices=1), seed=0)
    state = step.state()
    assert state.pop("scaler") == {}
    step.restore(state)


def test_an_alarm_is_not_repeated_by_a_resumed_run() -> None:
    beyond = {"feature_spread": 0.1, "spread_alarm": 0.5}
    health = Health()
    said = [health.update(step, beyond) for step in (100, 110, 120, 130)]
    assert [len(one) for one in said] == [0, 0, 1, 0]
    again = Health()
    again.restore(health.state())
    assert again.update(140, beyond) == []
    half = Health()
    half.update(100, beyond)
    half.update(110, beyond)
    again = Health()
    again.restore(half.state())
    assert len(again.update(120, beyond)) == 1


def test_weights_that_explode_are_an_alarm_at_once() -> None:
    health = Health()
    assert health.update(1, {"loss": 1.0, "weight_growth": 3.0}) == []
    (said,) = health.update(2, {"loss": 1.0, "weight_growth": 150.0})
    assert said.startswith("The weights have grown to 150 times their norm at the start: the learning rate is far too")
    assert health.active == ["weights"]
    assert health.update(3, {"loss": 1.0, "weight_growth": math.inf}) == []
