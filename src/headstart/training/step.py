"""One optimizer step: views, loss, gradients, update. The training loop takes it, and the time budget measures it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from headstart import ranks
from headstart.images.loader import PixelBatch
from headstart.launch.random_state import kept_random_state
from headstart.methods import schedules
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.settings.method_options import MethodSettings
from headstart.training.guard import Finite
from headstart.training.guard import norm as norm_of
from headstart.training.optimizer import make_optimizer, restore
from headstart.views.draws import Purpose, draws
from headstart.views.render import make_views
from headstart.views.spec import View, split_views


class Step:
    """One step of a training; made once, called for every batch.

    Everything random in it is a function of the seed and the step.

    Args:
        method: Its parameters that require gradients are trained.
        options: Optimizer, learning rate, schedule, largest gradient norm.
        fabric: Device and precision.
        seed: Of the views.
        parts: In which a batch is taken, one after the other, their gradients averaged.

    Attributes:
        method: The method, on the device.
        optimizer: Of what is trained.
        rate: Learning rate of the last step.
        finite: Whether every loss and every gradient was finite so far.
    """

    def __init__(self, method: Method, options: MethodSettings, fabric: Fabric, seed: int, parts: int = 1) -> None:
        self.parts = parts
        self.method, self.options, self.fabric, self.seed = method, options, fabric, seed
        fused = may_fuse(fabric.device.type, str(fabric._precision.precision), options.clip)
        self.optimizer = make_optimizer(method, options, fused=fused)
        method.to(fabric.device)  # parts of it have been there before, in a trial: Fabric warns of two devices
        self._module, self._wrapped = fabric.setup(_Loss(method), self.optimizer)
        self._module.train()
        self.rate = 0.0
        self.finite = Finite(fabric.device)

    def views(self, batch: PixelBatch, progress: Progress) -> list[View]:
        """The views of a batch on the device: those that its images have in the batch of all processes."""
        random = draws(self.seed, Purpose.VIEWS, progress.step)
        specs = self.method.specs_at(progress)
        among = (ranks.gather(batch.sizes), ranks.rank() * len(batch.sizes)) if ranks.world() > 1 else None
        return make_views(batch.pixels, batch.sizes, specs, random, batch.indices, among)

    def __call__(self, views: list[View], progress: Progress) -> Tensor:
        """Update the weights once; the loss, a scalar on the device: its mean over all processes.

        On a CPU, where looking costs nothing, an update that is not finite is not made.
        """
        o = self.options
        peak = o.lr * self.method.rate_share(progress)
        self.rate = schedules.learning_rate(self.method.cycle(progress), peak, o.warmup, o.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        with self.fabric.autocast():  # a teacher that labels images there computes as it does in a step
            self.method.before_step(progress)
        loss = ranks.mean(self._gradients(views, progress).detach())
        self.method.after_backward(progress)
        norm = self._clipped()
        self.finite.note(progress.step, [loss] if self._scaled else [loss, norm])
        if self.fabric.device.type != "cpu" or self.finite.first() is None:
            self._wrapped.step()
        self._wrapped.zero_grad()
        return loss

    @property
    def _scaled(self) -> bool:
        """Whether the loss is scaled, as in fp16: gradients that overflow are no fault then, the scaler skips them."""
        return bool(self.scaler_state())

    def _clipped(self) -> Tensor:
        """Norm of the gradients, which are clipped where that is wanted."""
        if self.options.clip is None:
            trained = (parameter.grad for group in self.optimizer.param_groups for parameter in group["params"])
            return norm_of(gradient for gradient in trained if gradient is not None).to(self.fabric.device)
        norm: Tensor | None = self.fabric.clip_gradients(
            self._module, self._wrapped, max_norm=self.options.clip, error_if_nonfinite=False
        )
        assert norm is not None
        return norm

    def scaler_state(self) -> dict[str, Any]:
        """Of what scales the loss, as fp16 needs it; empty in other precisions."""
        return dict(self.fabric._precision.state_dict())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, beside images and views: method, optimizer, scale of the loss."""
        state = {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**state, "scaler": self.scaler_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, of this version or an earlier one, which kept no scale."""
        self.method.load_state_dict(state["method"])
        restore(self.optimizer, state["optimizer"])
        if state.get("scaler"):
            self.fabric._precision.load_state_dict(state["scaler"])

    def _gradients(self, views: list[View], progress: Progress) -> Tensor:
        *some, last = split_views(views, self.parts)
        images = len(views[0].images)
        with self.fabric.no_backward_sync(self._module) if some else nullcontext():
            losses = [self._backward(part, progress._replace(part=at), images) for at, part in enumerate(some)]
        return torch.stack([*losses, self._backward(last, progress._replace(part=len(some)), images)]).sum()

    def _backward(self, views: list[View], progress: Progress, images: int) -> Tensor:
        """The loss of a part, by its share of the images of the step."""
        part: Tensor = self._module(_Input(views, progress))
        loss = part if len(views[0].images) == images else part * (len(views[0].images) / images)
        self.fabric.backward(loss)
        return loss.detach()

    def compile(self, views: list[View], progress: Progress) -> str:
        """Try ``torch.compile`` on student and teacher with the first batch; what came of it, in a sentence."""
        parts = {"student": self.method.student}
        if "teacher" in self.method.exports:
            parts["teacher"] = self.method.get_submodule("teacher")
        return compile_or_not(parts, self.method, lambda: self._gradients(views, progress))


def may_fuse(device: str, precision: str, clip: float | None) -> bool:
    """Whether the optimizer can be fused: but for fp16, where it scales what was to be clipped before.

    Of yolo11n a step of AdamW takes 5 ms for 18 on one thread of a CPU.
    """
    return device in ("cpu", "cuda") and not (precision == "16-mixed" and clip is not None)


def compile_or_not(parts: Mapping[str, nn.Module], module: nn.Module, attempt: Callable[[], object]) -> str:
    """Compile `parts` in place if a trial with them works, and leave them as they were if not.

    A trial runs forward and backward once, and leaves nothing behind but compiled code.

    Args:
        parts: The modules to compile, by name. Shapes must stay what they are in the trial.
        module: All that the trial may change.
        attempt: Computes the loss and its gradients.

    Returns:
        What happened, in a sentence.
    """
    with unchanged(module):
        try:
            for part in parts.values():
                part.compile(dynamic=False)
            attempt()
            return f"compiled: {', '.join(parts)}"
        except Exception as error:  # whatever a compiler may raise
            for part in parts.values():
                part._compiled_call_impl = None
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            return f"torch.compile fails here, going on without it: {reason}"
        finally:
            module.zero_grad(set_to_none=True)


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Whatever is tried with `module`: its whole state and the random states are afterwards what they were."""
    state = copy.deepcopy(module.state_dict())
    with kept_random_state(next(module.parameters()).device):
        try:
            yield
        finally:
            module.load_state_dict(state)


class _Input:
    """Views and progress, in a wrapping that Fabric does not look into: it would rebuild them to convert tensors."""

    def __init__(self, views: list[View], progress: Progress) -> None:
        self.views, self.progress = views, progress


class _Loss(nn.Module):
    """What Fabric wraps, and runs in the precision that was chosen."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, given: Any) -> Tensor:
        """The loss."""
        loss: Tensor = self.method(given.views, given.progress)
        return loss
