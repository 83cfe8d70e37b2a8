"""What every method must keep to: each that is found, with each of its presets."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import tiny
import torch
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from headstart.images.loader import ImageLoader
from headstart.methods.base import Method, pooled
from headstart.probes import metrics
from headstart.training.optimizer import make_optimizer

ALL = {"keep": "class", "balance": 1.0, "mixup": 1.0, "burn_in": 0.25, "rounds": 2, "settle": 0.0, "unsure": 0.001}
CASES = [*tiny.cases(), ("selftrain", "default", ALL)]
TEACHES = {  # views that a method's documentation says its teacher gets
    "dino": ["global0", "global1"],
    "byol": ["view0", "view1"],
    "densecl": ["view1"],
    "pyramid": ["view0", "view1"],
}
LEARNS = {"densecl": ["view0"]}  # views that the student gets, where not all


Case = tuple[str, str | None] | tuple[str, str | None, dict[str, Any]]
"""Name, preset, and options where they are not those of the preset."""


def build(case: Case) -> Method:
    return tiny.build(*case[:2], **(case[2] if len(case) > 2 else {}))


def named(case: Case) -> str:
    return "-".join([str(case[0]), str(case[1]), *(["all"] if len(case) > 2 else [])])


EMA = [case for case in CASES if hasattr(build(case).settings, "ema_start")]


@pytest.fixture(params=CASES, ids=named)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def method(case: Case) -> Method:
    return build(case)


@pytest.fixture(params=EMA, ids=named)
def with_teacher(request: pytest.FixtureRequest) -> Method:
    return build(request.param)


def pairs(method: Method) -> list[tuple[str, nn.Module, nn.Module]]:
    """(teacher's name, student, teacher) and (teacher_x, student_x, teacher_x) of a method."""
    parts = dict(method.named_children())
    return [(name, parts["student" + name[7:]], part) for name, part in parts.items() if name.startswith("teacher")]


def one_step(method: Method, optimizer: torch.optim.Optimizer, step: int, steps: int = 40) -> float:
    progress = tiny.progress(step, steps)
    method.before_step(progress)
    loss = method(tiny.views(method, step), progress)
    loss.backward()
    method.after_backward(progress)
    if method.settings.clip:
        nn.utils.clip_grad_norm_(method.parameters(), method.settings.clip)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def test_what_is_needed_is_declared(case: Case, method: Method) -> None:
    """A method that is given only what it declares works (it was built so), and hands back what it says it can."""
    assert method.needs == tiny.find.find(case[0]).method.needs
    for which in method.exports:
        assert set(method.student.state_dict()) <= set(method.handed_back(which)), which
    assert ("teacher" in method.exports) == isinstance(getattr(method, "teacher", None), nn.Module)


def test_every_method_is_covered() -> None:
    assert {case[0] for case in CASES} >= {
        "dino",
        "pyramid",
        "distill",
        "simclr",
        "byol",
        "vicreg",
        "densecl",
        "lejepa",
        "objects",
    }


def test_the_loss_is_a_finite_number_in_float32(method: Method) -> None:
    loss = method(tiny.views(method), tiny.progress(0))
    assert loss.ndim == 0
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(isinstance(value, float) for value in method.measures().values())


def test_gradients_reach_the_student_and_the_heads_alone(method: Method) -> None:
    method(tiny.views(method), tiny.progress(0)).backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher"):
            assert not parameter.requires_grad, name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.student.parameters())


def test_the_loss_needs_no_half_precision_of_its_own(method: Method) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(tiny.views(method), tiny.progress(0))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_the_teacher_follows_its_moving_average(with_teacher: Method) -> None:
    method = with_teacher
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    before = {name: tensor.clone() for name, tensor in [*method.named_parameters(), *method.named_buffers()]}
    method.before_step(tiny.progress(7))
    s = method.settings
    momentum = cosine_schedule(7, 40, s.ema_start, s.ema_end)
    assert pairs(method)
    for name, student, teacher in pairs(method):
        own = dict(student.named_parameters())
        for key, parameter in teacher.named_parameters():
            expected = momentum * before[f"{name}.{key}"] + (1 - momentum) * own[key]
            torch.testing.assert_close(parameter, expected)
        for key, buffer in teacher.named_buffers():
            assert torch.equal(buffer, before[f"{name}.{key}"]), key


def expected_statistics(stage: nn.Module, fed: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Running mean and variance of the first batch norm after batches `fed`, from their definition."""
    mean, var = torch.zeros(8), torch.ones(8)
    for images in fed:
        out = nn.functional.conv2d(images, stage[0].weight, stride=2, padding=1).detach()
        mean = 0.9 * mean + 0.1 * out.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * out.var((0, 2, 3), correction=1)
    return mean, var


def test_batch_norm_statistics_are_those_of_the_documented_views(method: Method) -> None:
    views = tiny.views(method)
    name = type(method).__module__.split(".")[-1]
    method(views, tiny.progress(0))
    learnt = [view.images for view in views if view.spec.name in LEARNS.get(name, [view.spec.name])]
    if (examples := method.examples(views, tiny.progress(0))) is not None:  # the student does not see the views
        learnt = [examples[0]]
    taught = [view.images for view in views if view.spec.name in TEACHES.get(name, [])]
    trunks = [(method.student, learnt)] + ([(method.teacher, taught)] if name in TEACHES else [])
    for trunk, fed in trunks:
        assert trunk.training
        norm = trunk.stages[0][1]
        assert int(norm.num_batches_tracked) == len(fed)
        mean, var = expected_statistics(trunk.stages[0], fed)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)


def test_the_teacher_of_distillation_never_changes() -> None:
    method = tiny.build("distill")
    teacher = method._teacher[0]
    before = copy.deepcopy(teacher.state_dict())
    optimizer = make_optimizer(method, method.settings)
    for step in range(2):
        one_step(method, optimizer, step)
    assert not teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not any("teacher" in name for name in method.state_dict())


def test_the_state_holds_everything(case: Case, method: Method) -> None:
    """A method rebuilt from its state goes on exactly as the one that was never stopped."""
    steps = 4
    optimizer = make_optimizer(method, method.settings)
    for step in range(2):
        one_step(method, optimizer, step, steps)
    state, settings = copy.deepcopy(method.state_dict()), copy.deepcopy(optimizer.state_dict())
    random = torch.get_rng_state()
    last = [one_step(method, optimizer, step, steps) for step in range(2, steps)]
    other = build(case)
    other.load_state_dict(state)
    again = make_optimizer(other, other.settings)
    again.load_state_dict(settings)
    torch.set_rng_state(random)
    assert [one_step(other, again, step, steps) for step in range(2, steps)] == last
    for key, tensor in method.state_dict().items():
        if isinstance(tensor, Tensor):
            assert torch.equal(other.state_dict()[key], tensor), key


def spread(method: Method) -> float:
    """Spread of the student's pooled features over all the images."""
    with torch.no_grad():
        return float(metrics.feature_spread(pooled(method.student(tiny.scenes().float() / 255))))


def train(method: Method, steps: int) -> None:
    optimizer = make_optimizer(method, method.settings)
    for step in range(steps):
        one_step(method, optimizer, step, steps)


def test_features_do_not_collapse_in_a_few_steps(method: Method) -> None:
    train(method, 20)
    assert spread(method) > metrics.spread_alarm(tiny.WIDTHS[-1])


def test_a_loss_that_collapses_is_caught() -> None:
    """A loss that pulls all images of a batch together ends below the alarm line: the test above can fail."""
    method = tiny.build("simclr", lr=0.01, warmup=0.0)
    method.head = nn.Identity()
    method.criterion.forward = lambda one, other: nn.functional.normalize(one).var(0).sum()
    train(method, 20)
    assert spread(method) < metrics.spread_alarm(tiny.WIDTHS[-1])


@pytest.mark.slow
def test_features_do_not_collapse_in_200_steps(method: Method) -> None:
    """On drawn images; HEADSTART_TEST_IMAGES=<folder> takes real ones."""
    folder = os.environ.get("HEADSTART_TEST_IMAGES")
    if folder:
        from headstart.images.index import find_images

        with ImageLoader(find_images(folder), batch=tiny.IMAGES, max_area=None, workers=0, seed=0, steps=1) as loader:
            pixels = next(iter(loader)).pixels.float()
        tiny.scenes().copy_(nn.functional.interpolate(pixels, (128, 128)).round().byte())
    train(method, 200)
    assert spread(method) > metrics.spread_alarm(tiny.WIDTHS[-1])
