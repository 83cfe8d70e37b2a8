"""The one training loop, read top to bottom."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.images.loader import ImageLoader
from headstart.machine import Arithmetic, compile_or_not
from headstart.methods import schedules
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.run.clock import Clock
from headstart.run.display import Display
from headstart.run.folder import RunFolder
from headstart.run.health import Health
from headstart.settings.schema import MethodSettings, PretrainSettings
from headstart.training import checkpoint
from headstart.training.optimizer import make_optimizer
from headstart.views.render import make_views
from headstart.views.spec import View


@dataclass
class Outcome:
    """How a training ended.

    Attributes:
        step: Steps done.
        interrupted: Whether Ctrl-C ended it before its last step.
        seconds: Time in the loop.
        shares: Of that time, by part (`headstart.run.clock.PARTS`).
    """

    step: int
    interrupted: bool
    seconds: float
    shares: dict[str, float]


def train(
    method: Method,
    loader: ImageLoader,
    *,
    fabric: Fabric,
    run: RunFolder,
    settings: PretrainSettings,
    optimization: MethodSettings,
    images: int,
    steps: int,
    display: Display,
    rest: dict[str, Tensor],
    probe: Callable[[], dict[str, float]] | None = None,
    resume: dict[str, Any] | None = None,
    arithmetic: Arithmetic | None = None,
) -> Outcome:
    """Train `method` on the batches of `loader` up to step `steps`.

    Everything random in a step is a function of the seed and the step, so that a resumed run repeats the uninterrupted
    one bit for bit.

    Args:
        method: Its parameters that require gradients are trained.
        loader: Starts at the resumed step.
        fabric: Device and precision.
        run: Where metrics, events, skipped images and checkpoints go.
        settings: Seed, and how often to log and save.
        optimization: Optimizer, rate, schedule.
        images: Number of images, for epochs.
        steps: Steps in all.
        display: Shown to the user.
        rest: Tensors of the detector that are not trained, kept in the checkpoints.
        probe: Measures of the features, every ``probe_every`` steps and at the end; changes nothing.
        resume: A checkpoint's content to go on from.
        arithmetic: Memory layout of the network, and whether it is compiled; by default neither is changed.

    Raises:
        UserError: The loss is no longer finite, the disk is full, no image can be read.
    """
    step = 0
    if arithmetic and arithmetic.channels_last:
        method.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(method, optimization, fused=fabric.device.type == "cuda")
    if resume:
        method.load_state_dict(resume["method"])
    module, wrapped = fabric.setup(_Step(method), optimizer)
    if resume:
        optimizer.load_state_dict(resume["optimizer"])
        _set_random_state(resume["random"])
        step = int(resume["step"])
    module.train()
    specs = method.view_specs()
    views_random = torch.Generator()
    health = Health()
    began = mark = time.perf_counter()
    marked_step = step
    batches = iter(loader)
    clock = Clock(fabric.device)
    untried = bool(arithmetic and arithmetic.compile)

    def save() -> None:
        state = {"step": step, "method": method.state_dict(), "optimizer": optimizer.state_dict(), "rest": rest}
        checkpoint.save(run.checkpoints, {**state, "random": _random_state()})

    with interruptible() as stop:
        while step < steps and not stop.is_set():
            progress = Progress(step, steps, step * settings.batch / images)

            # -- images and views
            clock.start("wait")
            batch = next(batches).to(fabric.device)
            clock.start("views")
            run.skip(batch.skipped)
            views_random.manual_seed(settings.seed * 1_000_003 + step)
            views = make_views(batch.pixels, batch.sizes, specs, views_random, batch.indices)

            # -- one step
            clock.start("step")
            if untried:
                untried = False
                run.log(_compile(method, module, fabric, views, progress))
            rate = schedules.learning_rate(progress, optimization.lr, optimization.warmup, optimization.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            method.before_step(progress)
            loss = module(_Input(views, progress))
            fabric.backward(loss)
            method.after_backward(progress)
            if optimization.clip is not None:
                fabric.clip_gradients(module, wrapped, max_norm=optimization.clip, error_if_nonfinite=False)
            wrapped.step()
            wrapped.zero_grad()
            step += 1
            clock.start("other")

            # -- what it looks like
            probing = probe is not None and (step % settings.probe_every == 0 or step == steps)
            if step % settings.log_every == 0 or step == steps or step == 1 or probing:
                values = {"loss": float(loss.detach()), **method.measures()}
                shares = clock.shares()
                now = time.perf_counter()
                values |= probe() if probe and probing else {}
                timing = {
                    "images_per_second": (step - marked_step) * settings.batch / (now - mark),
                    "data_wait": shares["wait"],
                    **{f"time_{part}": shares[part] for part in ("views", "step", "other")},
                    "seconds": now - began,
                }
                epoch = step * settings.batch / images
                run.metrics({"step": step, "epoch": round(epoch, 4), "lr": rate, **values, **timing})
                for message in health.update(step, values):
                    run.event(step, "alarm", message)
                    display.alarm(message)
                display.update(step, epoch, values, timing["images_per_second"], health.active, run.skipped)
                mark, marked_step = time.perf_counter(), step  # not `now`: a probe is no part of the next rate
                if not math.isfinite(values["loss"]):
                    raise UserError(
                        f"the loss at step {step} is not a number, so the weights are no longer usable",
                        where=str(run.path),
                        hint=f"start again with overwrite=true and a lower rate, e.g. lr={optimization.lr / 10:g}",
                    )
            if step % settings.save_every == 0 and step < steps:
                save()
    save()
    return Outcome(step, step < steps, time.perf_counter() - began, clock.overall())


class _Input:
    """Views and progress, in a wrapping that Fabric does not look into: it would rebuild them to convert tensors."""

    def __init__(self, views: list[View], progress: Progress) -> None:
        self.views, self.progress = views, progress


class _Step(nn.Module):
    """What Fabric wraps, and runs in the precision that was chosen."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, given: _Input) -> Tensor:
        """The loss."""
        loss: Tensor = self.method(given.views, given.progress)
        return loss


def _compile(method: Method, module: Any, fabric: Fabric, views: list[View], progress: Progress) -> str:
    """Try ``torch.compile`` on student and teacher with the first batch; what came of it, in a sentence."""
    teacher = getattr(method, "teacher", None)
    parts = {"student": method.student} | ({"teacher": teacher} if isinstance(teacher, nn.Module) else {})

    def attempt() -> Tensor:
        loss: Tensor = module(_Input(views, progress))
        fabric.backward(loss)
        return loss

    return compile_or_not(parts, method, attempt)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is finished and saved; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _random_state() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
