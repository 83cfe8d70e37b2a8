"""headstart's DINO against the tutorial's loop, written here from lightly's own modules and a YOLO cut by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn
from ultralytics import YOLO

from headstart.detectors.find import load_detector
from headstart.launch.threads import computing_on
from headstart.methods import dino
from headstart.methods.base import Context
from headstart.methods.schedules import Progress
from headstart.training.optimizer import make_optimizer
from headstart.views.spec import View

STEPS, BATCH, IMAGES = 8, 4, 16  # 4 steps an epoch: the last layer is frozen in the first and trained afterwards


class Tutorial(nn.Module):
    """The tutorial's model: pooled backbone, head, and a teacher of both."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.student_backbone, self.student_head = backbone, head
        self.teacher_backbone = copy.deepcopy(backbone)
        self.teacher_head = DINOProjectionHead(256, 512, 64, 2048)
        self.teacher_head.load_state_dict(head.state_dict())
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.student_backbone(x), 1).flatten(start_dim=1)
        return self.student_head(pooled).float()  # as it is, but where the network computes in double precision

    def forward_teacher(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.teacher_backbone(x), 1).flatten(start_dim=1)
        return self.teacher_head(pooled).float()


def make_views(step: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    return [torch.rand(BATCH, 3, size, size, generator=random).to(dtype) for size in (96, 96, 64, 64, 64)]


def plain_loop(
    backbone: nn.Module, head_state: dict[str, torch.Tensor], dtype: torch.dtype
) -> tuple[list[float], Tutorial]:
    head = DINOProjectionHead(256, 512, 64, 2048, freeze_last_layer=1)
    head.load_state_dict(head_state)
    model = Tutorial(backbone, head).train().to(dtype)
    criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    losses = []
    for step in range(STEPS):
        epoch = step * BATCH // IMAGES
        momentum = cosine_schedule(step, STEPS, 0.996, 1)
        update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
        update_momentum(model.student_head, model.teacher_head, m=momentum)
        views = make_views(step, dtype)
        teacher_out = [model.forward_teacher(view) for view in views[:2]]
        student_out = [model.forward(view) for view in views]
        loss = criterion(teacher_out, student_out, epoch=epoch)
        losses.append(loss.item())
        loss.backward()
        model.student_head.cancel_last_layer_gradients(current_epoch=epoch)
        optimizer.step()
        optimizer.zero_grad()
    model.center = criterion.center
    return losses, model


ONE = pytest.param((1, torch.float32), id="one thread")
TWO = pytest.param((2, torch.float64), id="two threads", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[ONE, TWO])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[list[float], Tutorial, list[float], nn.Module]]:
    """On two threads each takes views of its own, and sums gradients in another order.

    In double precision, for Adam makes whole steps of what rounding leaves of gradients that are nothing.
    """
    threads, dtype = request.param
    with computing_on(threads):
        yield trained(dtype)


def trained(dtype: torch.dtype) -> tuple[list[float], Tutorial, list[float], nn.Module]:
    torch.manual_seed(0)
    settings = dino.Settings(locals=3)
    yolo = YOLO("yolo11n.yaml", verbose=False)
    detector = load_detector(yolo)
    backbone = copy.deepcopy(nn.Sequential(*yolo.model.model[:11])).requires_grad_(True).train()
    method = dino.DINO(settings, Context(detector.trunk(), (detector.backbone.width,), batch=BATCH))
    method.train().to(dtype)
    method.criterion.float()
    head_state = copy.deepcopy(method.student_head.state_dict())
    optimizer = make_optimizer(method, settings)
    losses = []
    for step in range(STEPS):
        progress = Progress(step, STEPS, step * BATCH / IMAGES)
        views = [View(images=images, boxes=None, flipped=None, spec=None) for images in make_views(step, dtype)]
        method.before_step(progress)
        loss = method(views, progress)
        losses.append(loss.item())
        loss.backward()
        method.after_backward(progress)
        optimizer.step()
        optimizer.zero_grad()
    return *plain_loop(backbone, head_state, dtype), losses, method


def test_losses_follow_the_tutorial(both) -> None:
    expected, _, losses, _ = both
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3)  # it does train


@pytest.mark.parametrize(("ours", "theirs"), [("student", "student_backbone"), ("teacher", "teacher_backbone")])
def test_all_weights_and_batch_norm_statistics_follow_the_tutorial(both, ours: str, theirs: str) -> None:
    _, model, _, method = both
    expected = getattr(model, theirs).state_dict()
    found = {name.removeprefix("model."): tensor for name, tensor in getattr(method, ours).state_dict().items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", ["student_head", "teacher_head"])
def test_the_heads_follow_the_tutorial(both, name: str) -> None:
    _, model, _, method = both
    for key, tensor in getattr(model, name).state_dict().items():
        torch.testing.assert_close(getattr(method, name).state_dict()[key], tensor, rtol=1e-4, atol=1e-5)


def test_the_centre_follows_the_tutorial(both) -> None:
    _, model, _, method = both
    assert model.center.abs().max() > 0
    torch.testing.assert_close(method.criterion.center, model.center, rtol=1e-4, atol=1e-6)
