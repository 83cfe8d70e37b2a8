"""How many steps fit into a time budget: measured on this machine, with these images, before the run begins."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from lightning_fabric import Fabric

from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader
from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.settings.resolve import Resolved, budget_seconds
from headstart.settings.schema import MethodSettings, PretrainSettings
from headstart.training.optimizer import make_optimizer
from headstart.views.render import make_views

WARMUP = 2
"""Steps that are not timed: memory is laid out, kernels are chosen, loader processes start."""
LEAST, MOST = 4, 30
"""Steps that are timed."""
SHARE = 0.05
"""Of the budget that measuring may take."""
MARGIN = 0.95
"""Of the budget for steps; the rest is for checkpoints, the hand-back and the report."""


def planned_steps(
    resolved: Resolved,
    method: Method,
    images: ImageIndex,
    *,
    fabric: Fabric,
    workers: int,
    max_area: int,
    spent: float = 0.0,
) -> int:
    """Steps that the option ``budget`` of a run allows after `spent` seconds, measured now; see `measured`."""
    s, began = resolved.run, time.perf_counter() - spent
    budget = budget_seconds(str(s.budget))
    assert budget, s.budget
    common: dict[str, Any] = {"workers": workers, "max_area": max_area, "pin": fabric.device.type == "cuda"}
    with ImageLoader(images, batch=s.batch, seed=s.seed, steps=WARMUP + MOST, **common) as loader:
        rate = measured(method, loader, fabric=fabric, settings=s, optimization=resolved.method, budget=budget)
    return steps_within(budget, rate, time.perf_counter() - began)


def steps_within(budget: float, seconds_a_step: float, spent: float = 0.0) -> int:
    """Steps that fit into `budget` seconds after `spent` of them; at least 1."""
    return max(1, int((MARGIN * budget - spent) / seconds_a_step))


def measured(
    method: Method,
    loader: ImageLoader,
    *,
    fabric: Fabric,
    settings: PretrainSettings,
    optimization: MethodSettings,
    budget: float,
) -> float:
    """Seconds that a step takes, images and views included.

    The method and the random numbers are left as they were: the run that follows is the one that would have been.

    Args:
        method: As it is before its first step.
        loader: From step 0, for `WARMUP` + `MOST` steps.
        fabric: Device and precision.
        settings: Seed.
        optimization: Optimizer.
        budget: Seconds; measuring ends after `SHARE` of them once `LEAST` steps are timed.
    """
    state, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    method.to(fabric.device).train()
    optimizer = make_optimizer(method, optimization)
    specs, began, ends = method.view_specs(), time.perf_counter(), [0.0]
    for step, batch in enumerate(loader):
        pixels = batch.to(fabric.device)
        views = make_views(
            pixels.pixels, pixels.sizes, specs, torch.Generator().manual_seed(settings.seed), pixels.indices
        )
        progress = Progress(step, 1_000_000, 0.0)
        method.before_step(progress)
        with fabric.autocast():
            loss = method(views, progress)
        loss.backward()
        method.after_backward(progress)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        ends.append(time.perf_counter() - began)
        if len(ends) > WARMUP + LEAST and ends[-1] > SHARE * budget:
            break
    loader.close()
    method.load_state_dict(state)
    torch.set_rng_state(random)
    if on_gpu:
        torch.cuda.set_rng_state_all(on_gpu)
    return (ends[-1] - ends[WARMUP]) / (len(ends) - 1 - WARMUP)
