"""The network that tells the classes of what a method finds, where the user leaves it open: ``teacher=auto``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from headstart import ranks
from headstart.errors import UserError
from headstart.methods.base import Method
from headstart.teachers.base import TeacherSource
from headstart.teachers.load import load_teacher

AUTO = "auto"


def left_open(options: Mapping[str, Any], method: type[Method]) -> bool:
    """Whether options of `method`, complete ones, leave its network to us."""
    return bool(method.namer) and isinstance(named := options.get("teacher"), str) and named == AUTO


def at_hand(method: type[Method], options: Mapping[str, Any], channels: int = 3) -> tuple[str | None, str]:
    """The network that is taken where it is left open, None for none, and why, in a sentence.

    Args:
        method: Whose options they are.
        options: May give the network's weights (``teacher_weights``): they must fit then.
        channels: Of the images; networks that are published read three.

    Raises:
        UserError: Weights were given, and cannot be loaded.
    """
    if channels != 3:
        return None, f"{method.namer} reads RGB: {method.without_teacher}"
    source = TeacherSource.of({**options, "teacher": method.namer})
    try:
        # Loading draws random numbers; the method's heads are to be those of any other run.
        with torch.random.fork_rng(devices=[]):
            ranks.all_do(lambda: load_teacher(source))
    except UserError as problem:
        if source.weights is not None:
            raise
        reason = problem.what.partition(". ")[0].rstrip(".")
        hint = "connect this machine once, or give teacher_weights= its file"
        return None, f"{reason}: {method.without_teacher}; {hint}"
    return method.namer, f"teacher={method.namer}: {method.with_teacher}"
