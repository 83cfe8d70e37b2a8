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
from torch import Tensor

from headstart.errors import UserError
from headstart.images.loader import ImageLoader
from headstart.machine import Arithmetic
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.run.clock import Clock
from headstart.run.display import Display
from headstart.run.folder import RunFolder
from headstart.run.health import Health
from headstart.settings.schema import MethodSettings
from headstart.training import checkpoint
from headstart.training.memory import Memory
from headstart.training.step import Step


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        steps: Optimizer steps.
        batch: Images a step.
        images: Number of images.
    """

    steps: int
    batch: int
    images: int

    def epochs(self, step: int) -> float:
        """Passes over the images after so many steps."""
        return step * self.batch / self.images


@dataclass(frozen=True)
class Every:
    """Steps between two lines of the metrics, two checkpoints, and two probes of the features (0: none)."""

    log: int
    save: int
    probe: int


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
    options: MethodSettings,
    length: Length,
    every: Every,
    seed: int,
    display: Display,
    rest: dict[str, Tensor],
    probe: Callable[[], dict[str, float]] | None = None,
    resume: dict[str, Any] | None = None,
    arithmetic: Arithmetic | None = None,
) -> Outcome:
    """Train `method` on the batches of `loader` up to the last step.

    Everything random in a step is a function of the seed and the step, so that a resumed run repeats the uninterrupted
    one bit for bit.

    Args:
        method: Its parameters that require gradients are trained.
        loader: Starts at the resumed step.
        fabric: Device and precision.
        run: Where metrics, events, skipped images and checkpoints go.
        options: Optimizer, learning rate, schedule.
        length: Steps, images a step, images.
        every: How often to log, save and probe.
        seed: Of the views.
        display: Shown to the user.
        rest: Tensors of the detector that are not trained, kept in the checkpoints.
        probe: Measures of the features, every so many steps and at the end; changes nothing.
        resume: A checkpoint's content to go on from.
        arithmetic: Memory layout of the network, and whether it is compiled; by default neither is changed.

    Raises:
        UserError: The loss is no longer finite, the disk is full, no image can be read, a loader process was ended.
    """
    step = 0
    if arithmetic and arithmetic.channels_last:
        method.to(memory_format=torch.channels_last)
    if resume:
        method.load_state_dict(resume["method"])
    one_step = Step(method, options, fabric, seed)
    if resume:
        one_step.optimizer.load_state_dict(resume["optimizer"])
        _set_random_state(resume["random"])
        step = int(resume["step"])
    health = Health()
    began = mark = time.perf_counter()
    marked_step = step
    batches = iter(loader)
    clock = Clock(fabric.device)
    memory = Memory(fabric.device, length.batch, max(spec.size for spec in method.view_specs()))
    untried = bool(arithmetic and arithmetic.compile)

    loss: Tensor | None = None

    def save() -> None:
        if loss is not None:  # None: no step is left to take
            _refuse_nan(float(loss.detach()), step, run, options)
        state = {"step": step, "method": method.state_dict(), "optimizer": one_step.optimizer.state_dict()}
        checkpoint.save(run.checkpoints, {**state, "rest": rest, "random": _random_state()})

    with interruptible() as stop:
        while step < length.steps and not stop.is_set():
            progress = Progress(step, length.steps, length.epochs(step))

            # -- images and views
            clock.start("wait")
            try:
                batch = next(batches)
            except UserError as error:  # of loader processes or storage; the weights are those of the last whole step
                raise _saved(error, save if loss is not None else None, step) from None
            run.skip(batch.skipped)
            run.note(batch.notes)
            with memory.explained(step):
                batch = batch.to(fabric.device)
                clock.start("views")
                views = one_step.views(batch, step)

                # -- one step
                clock.start("step")
                if untried:
                    untried = False
                    run.log(one_step.compile(views, progress))
                loss = one_step(views, progress)
            step += 1
            clock.start("other")
            for kind, message in method.news():
                run.event(step, kind, message)
                run.teacher(method.teacher_record())
                display.alarm(message) if kind == "alarm" else display.say(message)

            # -- what it looks like
            probing = probe is not None and (step % every.probe == 0 or step == length.steps)
            if step % every.log == 0 or step == length.steps or step == 1 or probing:
                values = {"loss": float(loss.detach()), **method.measures()}
                shares = clock.shares()
                now = time.perf_counter()
                values |= probe() if probe and probing else {}
                timing = {
                    "images_per_second": (step - marked_step) * length.batch / (now - mark),
                    "data_wait": shares["wait"],
                    **{f"time_{part}": shares[part] for part in ("views", "step", "other")},
                    "seconds": now - began,
                }
                epoch = length.epochs(step)
                run.metrics({"step": step, "epoch": round(epoch, 4), "lr": one_step.rate, **values, **timing})
                for message in health.update(step, values):
                    run.event(step, "alarm", message)
                    display.alarm(message)
                display.update(step, epoch, values, timing["images_per_second"], health.active, run.skipped)
                mark, marked_step = time.perf_counter(), step  # not `now`: a probe is no part of the next rate
                _refuse_nan(values["loss"], step, run, options)
            if step % every.save == 0 and step < length.steps:
                save()
    save()
    return Outcome(step, step < length.steps, time.perf_counter() - began, clock.overall())


def _saved(error: UserError, save: Callable[[], None] | None, step: int) -> UserError:
    """The error, with what was trained saved before it ends the run."""
    if save is None:
        return error
    try:
        save()
    except UserError:  # a full disk, say: `error` came first
        return error
    told = f"step {step} is saved: resume=true goes on from there"
    return type(error)(error.what, where=error.where, hint=f"{error.hint}; {told}" if error.hint else told)


def _refuse_nan(loss: float, step: int, run: RunFolder, options: MethodSettings) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss at step {step} is not a number, so the weights are no longer usable",
            where=str(run.path),
            hint=f"start again with overwrite=true and a lower rate, e.g. lr={options.lr / 10:g}",
        )


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
