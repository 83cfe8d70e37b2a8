"""Call Ultralytics without a trace: nothing printed, nothing reported, and every global that it sets put back."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from headstart.detectors.ultralytics.patches import attribute
from headstart.detectors.ultralytics.safe_loading import safe_loading
from headstart.launch.random_state import CPU, kept_random_state


@contextmanager
def undisturbed(module: nn.Module | None = None) -> Iterator[None]:
    """Silence Ultralytics, and put back the random states, threads, environment and determinism that it sets.

    A trainer seeds Python, NumPy and torch for the whole process, sets thread counts and environment variables, and
    tells the loggers that it finds (W&B, MLflow, ...) of a new training. None of that is meant by a check.

    Args:
        module: See `safe_loading`.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_random_state(CPU))
        for restore in (*_cuda_states(), *_torch_globals()):
            stack.callback(restore)
        stack.enter_context(quiet(module))
        stack.enter_context(_alone())
        yield


@contextmanager
def quiet(module: nn.Module | None = None) -> Iterator[None]:
    """Silence Ultralytics' log, keep the environment, and let files install no package and run no code.

    Args:
        module: See `safe_loading`.
    """
    import ultralytics.nn.tasks as tasks
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        # A checkpoint that names an unknown module would have pip install a package of that name. A model that is built
        # tells its size, for which it is copied and run: a quarter of the time, for a line that nobody sees.
        unknown, told = attribute(tasks, "check_requirements", _refuse), attribute(tasks.BaseModel, "info", _nothing)
        with warnings.catch_warnings(), unknown, told, same_environment():
            warnings.simplefilter("ignore")
            with safe_loading(module=module):
                yield
    finally:
        LOGGER.setLevel(level)


@contextmanager
def same_environment() -> Iterator[None]:
    """Afterwards the environment is as it was; a variable that nobody changed is not touched."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in {*before, *os.environ}:
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]


@contextmanager
def _alone() -> Iterator[None]:
    """No look-up of newer versions, no other packages' loggers, no waiting for a distributed run's other processes."""
    import ultralytics.engine.model as model
    import ultralytics.engine.trainer as trainer

    with ExitStack() as stack:
        for owner, name, value in (
            (model.checks, "check_pip_update_available", lambda: False),
            (trainer.callbacks, "add_integration_callbacks", lambda instance: None),
            (trainer, "RANK", -1),
            (trainer, "LOCAL_RANK", -1),
        ):
            stack.enter_context(attribute(owner, name, value))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _refuse(names: Any, *_: Any, **__: Any) -> None:
    raise ModuleNotFoundError(f"it needs the package {names!r}, which is not installed")


def _cuda_states() -> list[Callable[[], object]]:
    """Of every GPU: a trainer seeds all of them."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    states = torch.cuda.get_rng_state_all()
    return [lambda: torch.cuda.set_rng_state_all(states)]


def _torch_globals() -> list[Callable[[], object]]:
    strict, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    fill: Any = torch.utils.deterministic
    flags = (cudnn.deterministic, cudnn.benchmark, fill.fill_uninitialized_memory)

    def restore() -> None:
        torch.use_deterministic_algorithms(strict, warn_only=warn)
        cudnn.deterministic, cudnn.benchmark, fill.fill_uninitialized_memory = flags
        torch.set_num_threads(threads)

    return [restore]
