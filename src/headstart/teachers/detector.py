"""A detector as teacher: its checkpoint, or the detector itself; its pyramid teaches, or the end of its backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.detectors.find import check_model, families, load_detector
from headstart.errors import UserError
from headstart.teachers.base import FrozenTeacher, TeacherSource

_CHECKPOINTS = (".pt", ".pth")
_MODEL_YAMLS = (".yaml", ".yml")


def accepts(teacher: Any) -> bool:
    """Checkpoints, live detectors of any family, and model YAMLs, which `check` refuses."""
    if isinstance(teacher, (str, Path)):
        return str(teacher).endswith((*_CHECKPOINTS, *_MODEL_YAMLS))
    return any(family.accepts(teacher) for family in families().values())


def check(source: TeacherSource) -> list[UserError]:
    """See `headstart.teachers.load`."""
    if isinstance(source.teacher, (str, Path)) and str(source.teacher).endswith(_MODEL_YAMLS):
        hint = "give a trained detector's .pt"
        return [UserError("a model YAML has random weights: nothing to learn from", where="teacher", hint=hint)]
    useless = source.useless(("weights", "mean", "std"), "a detector brings its weights and takes images in [0, 1]")
    named = str(source.teacher) if isinstance(source.teacher, Path) else source.teacher
    return check_model(named, where="teacher") + useless


def load(source: TeacherSource, neck: bool) -> FrozenTeacher:
    """See `headstart.teachers.load`."""
    named = str(source.teacher) if isinstance(source.teacher, Path) else source.teacher
    detector = load_detector(named, where="teacher")
    return FrozenTeacher(detector.trunk(neck=neck), detector.name, size=max(32, detector.largest_stride)).quicker()
