"""The one training loop, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor

from headstart import ranks
from headstart.errors import RunError, UserError
from headstart.images.loader import ImageLoader
from headstart.launch.random_state import random_state, set_random_state
from headstart.machine import Arithmetic
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.run.clock import Clock
from headstart.run.display import Display
from headstart.run.folder import RunFolder
from headstart.run.health import Health
from headstart.run.stopping import interruptible
from headstart.settings.method_options import MethodSettings
from headstart.training import checkpoint
from headstart.training.guard import EXPLODED, Growth
from headstart.training.memory import Memory
from headstart.training.step import Step
from headstart.training.turns import next_turn

SAVE_SECONDS = 300.0
"""A run that is killed loses no more than that, however long its steps take: 500 of them may be half an hour."""
_UNUSABLE = "the loss at step {}, or its gradients, is not a number, so the weights are no longer usable"


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
    """Steps between two lines of the metrics, two checkpoints (or `SAVE_SECONDS`), and two probes (0: none)."""

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
    parts: int = 1,
    probe: Callable[[], dict[str, float]] | None = None,
    resume: dict[str, Any] | None = None,
    arithmetic: Arithmetic | None = None,
) -> Outcome:
    """Train `method` on the batches of `loader` up to the last step.

    Everything random in a step is a function of the seed and the step, so that a resumed run repeats the uninterrupted
    one bit for bit.

    Of several processes each takes its share of a batch. They go through the loop together: what ends it for one, ends
    it for all at the same step.

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
        parts: In which a step takes its batch.
        probe: Measures of the features, every so many steps and at the end; changes nothing.
        resume: A checkpoint's content to go on from.
        arithmetic: Memory layout of the network, and whether it is compiled; by default neither is changed.

    Raises:
        UserError: A loss, a gradient or a weight is no longer finite, weights explode, the disk is full, no image can
            be read, a loader process was ended.
    """
    step = int(resume["step"]) if resume else 0
    if arithmetic and arithmetic.channels_last:
        method.to(memory_format=torch.channels_last)
    one_step = Step(method, options, fabric, seed, parts)
    growth, health = Growth(method), Health()
    if resume:
        one_step.restore(resume)
        set_random_state(resume["random"], fabric.device)
        health.restore(resume.get("health", health.state()))
    began = mark = last_save = time.perf_counter()
    first = marked_step = saved = step
    batches = iter(loader)
    clock = Clock(fabric.device)
    memory = Memory(fabric.device, length.batch, max(spec.size for spec in method.view_specs()))
    untried = bool(arithmetic and arithmetic.compile)

    def refuse(what: str) -> NoReturn:
        hint = f"start again with overwrite=true and a lower rate, e.g. lr={options.lr / 10:g}"
        raise RunError(what, where=str(run.path), hint=hint)

    def refuse_exploded(found: float) -> None:
        if not found < EXPLODED:
            refuse(f"the weights at step {step} have grown to {found:.3g} times their norm at the start, beyond use")

    def save() -> None:
        nonlocal saved, last_save
        if step == saved:  # nothing was learnt since: what there is stays
            return
        if (bad := one_step.finite.first()) is not None:
            refuse(_UNUSABLE.format(bad + 1))
        refuse_exploded(growth())
        state = {"step": step, **one_step.state(), "health": health.state()}
        content = {**state, "rest": rest, "random": random_state(fabric.device)}
        ranks.first_does(lambda: checkpoint.save(run.checkpoints, content))
        saved, last_save = step, time.perf_counter()

    def tell() -> None:
        for kind, message in method.news():
            run.event(step, kind, message)
            run.teacher(method.teacher_record())
            display.alarm(message) if kind == "alarm" else display.say(message)

    with interruptible() as stop:
        while step < length.steps:
            progress = Progress(step, length.steps, length.epochs(step))
            if ahead := method.long_ahead(progress):  # killed or out of memory on the way, no step is done twice
                save()

            # -- images and views
            clock.start("wait")
            turn = next_turn(batches, stop.is_set())
            if turn.fault:  # of loader processes or storage; the weights are those of the last whole step
                raise _saved(turn.fault, save if step != first else None, step) from None
            if turn.batch is None:
                break
            run.skip(turn.skipped)
            run.note(turn.notes)
            batch = turn.batch
            with memory.explained(step):
                batch = batch.to(fabric.device)
                clock.start("views")
                views = one_step.views(batch, progress)

                # -- one step
                clock.start("step")
                if untried:
                    untried = False
                    run.log(one_step.compile(views, progress))
                # All is saved: what is ahead need not be waited for. Of several processes all have to stop together.
                loss = stop.done(partial(one_step, views, progress), at_once=ahead and ranks.world() == 1)
            if loss is None:
                break
            step += 1
            clock.start("other")
            if step == first + 1:
                run.under_way()
            if method.reordered():
                loader.begin_at(step)
                batches = iter(loader)
            bad = one_step.finite.seen()
            tell()

            # -- what it looks like
            probing = probe is not None and bad is None and (step % every.probe == 0 or step == length.steps)
            if step % every.log == 0 or step == length.steps or step == 1 or probing or bad is not None:
                measures = {name: float(value) for name, value in method.measures().items()}  # tensors among a user's
                values = {"loss": float(loss.detach()), "weight_growth": growth(), **measures}
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
                bad = one_step.finite.first()
                refuse_exploded(values["weight_growth"])
            if bad is not None:
                refuse(_UNUSABLE.format(bad + 1))
            due = step % every.save == 0
            # Several processes have clocks of their own: the first one's counts, and is not asked at every step.
            if not due and (ranks.world() == 1 or step % every.log == 0):
                due = ranks.from_first(time.perf_counter() - last_save > SAVE_SECONDS)
            if due and step < length.steps:
                save()
    if first < step == length.steps:
        method.finish(step)
        tell()
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
