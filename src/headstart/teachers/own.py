"""A user's own teacher: a Python file with ``load()``, or the name under which an installed package offers one.

``load()`` takes nothing and returns a torch module or a `headstart.teachers.base.Teacher`. A package offers its own as
an entry point of the group ``headstart.teachers``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from headstart import plugins
from headstart.errors import UserError
from headstart.paths import expanded
from headstart.teachers import module
from headstart.teachers.base import Teacher, TeacherSource

GROUP = "headstart.teachers"


def accepts(teacher: Any) -> bool:
    """Paths of Python files, and names that installed packages offer."""
    return plugins.is_python_file(teacher) or (isinstance(teacher, str) and teacher in plugins.installed(GROUP))


def check(source: TeacherSource) -> list[UserError]:
    """See `headstart.teachers.load`; the user's code runs when it is loaded, not before."""
    if plugins.is_python_file(source.teacher) and not expanded(source.teacher).is_file():
        return [UserError(f"there is no file {source.teacher}", where="teacher")]
    return source.useless(("weights",), f"{source.teacher} loads its own weights")


def load(source: TeacherSource, neck: bool) -> Teacher:
    """See `headstart.teachers.load`."""
    name = str(source.teacher)
    try:
        found = _loader(source.teacher)()
    except UserError:
        raise
    except Exception as error:  # whatever a user's code raises
        raise UserError(f"load() of {name} failed: {type(error).__name__}: {error}", where="teacher") from error
    if not isinstance(found, nn.Module):
        what = f"load() of {name} gives a {type(found).__name__}, not a torch module"
        raise UserError(what, where="teacher")
    loaded = TeacherSource(found, None, source.mean, source.std)
    if problems := module.check(loaded):
        raise UserError.several(problems)
    return module.load(loaded, neck)


def _loader(teacher: str | Path) -> Callable[[], Any]:
    if plugins.is_python_file(teacher):
        found = getattr(plugins.import_file(teacher, where="teacher"), "load", None)
    else:
        found = plugins.load_installed(GROUP, str(teacher), where="teacher")
    if not callable(found):
        raise UserError(f"{teacher} has no function load()", where="teacher")
    return found  # type: ignore[no-any-return]
