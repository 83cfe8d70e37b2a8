"""Where a teacher comes from: a file of this folder for each kind of source, or what an installed package offers.

A source has three functions: ``accepts(teacher) -> bool``, ``check(source) -> list[UserError]``, which loads nothing,
and ``load(source, neck) -> Teacher``. At most one of them accepts a teacher.
"""

from __future__ import annotations

from types import ModuleType

from headstart import plugins
from headstart.detectors.base import refuse_not_finite
from headstart.errors import UserError
from headstart.teachers.base import Teacher, TeacherSource

ASKED = (
    "give the .pt of a YOLO, the name of a timm model such as vit_small_patch14_dinov2.lvd142m, a .py with "
    "load(), or a torch module"
)


def sources() -> dict[str, ModuleType]:
    """The files of this folder that teachers come from, by name."""
    return plugins.modules_of("headstart.teachers", leave=("base", "folding", "load"))


def check_teacher(source: TeacherSource) -> list[UserError]:
    """What is wrong with a teacher and its options, found without loading anything; empty where nothing is."""
    try:
        problems: list[UserError] = _kind_of(source).check(source)
    except UserError as problem:
        return [problem]
    return problems


def load_teacher(source: TeacherSource, *, neck: bool = True) -> Teacher:
    """Load a teacher; it is frozen and in evaluation mode.

    Args:
        source: What the user says of it. Of a torch module a copy is taken.
        neck: Whether a detector gives its pyramid, or else the last map of its backbone.

    Raises:
        UserError: It is not found, cannot be downloaded, gives no feature map, or holds NaN.
    """
    if problems := check_teacher(source):
        raise UserError.several(problems)
    found: Teacher = _kind_of(source).load(source, neck)
    if missing := [name for name in ("name", "widths", "strides") if not hasattr(found, name)]:
        hint = "headstart.teachers.base.FrozenTeacher measures them"
        raise UserError(f"the {type(found).__name__} does not set {', '.join(missing)}", where="teacher", hint=hint)
    # Weights alone: a mask among the buffers may well hold -infinity.
    refuse_not_finite(dict(found.named_parameters()), str(found.name), where="teacher")
    return found.frozen()


def _kind_of(source: TeacherSource) -> ModuleType:
    for kind in sources().values():
        if kind.accepts(source.teacher):
            return kind
    named = repr(source.teacher) if isinstance(source.teacher, str) else f"a {type(source.teacher).__name__}"
    raise UserError(f"{named} is not a network that can teach", where="teacher", hint=ASKED)
