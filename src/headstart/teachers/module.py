"""A torch module as teacher; a copy is taken."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from headstart.errors import UserError
from headstart.teachers import detector
from headstart.teachers.base import FrozenTeacher, Teacher, TeacherSource


def accepts(teacher: Any) -> bool:
    """Modules that are no detector."""
    return isinstance(teacher, nn.Module) and not detector.accepts(teacher)


def check(source: TeacherSource) -> list[UserError]:
    """See `headstart.teachers.load`."""
    if isinstance(source.teacher, Teacher):
        return source.useless(("weights", "mean", "std"), "a Teacher brings its weights and its normalization")
    return source.useless(("weights",), "a torch module brings its weights")


def load(source: TeacherSource, neck: bool) -> Teacher:
    """See `headstart.teachers.load`."""
    own = copy.deepcopy(source.teacher)
    if isinstance(own, Teacher):
        return own
    return FrozenTeacher(own, type(own).__name__, source.mean or (0, 0, 0), source.std or (1, 1, 1))
