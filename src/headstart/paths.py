"""Paths as users write them, and the home of the user."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from headstart.errors import UserError

_HOME = re.compile(r"(?:^|(?<=[=,\[\"'])|(?<=, ))~[\w.-]*(?=/|$)")
"""At the beginning, or after a name or in a list."""


def expanded(name: str | os.PathLike[str]) -> Path:
    """`name`, its ``~`` the home of a user; where nobody knows that, it is a name like any other.

    ``Path.expanduser`` raises a RuntimeError there: of ``~x`` where x is no user, and of a user who is only a number,
    as in many a container.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111


def homes(value: Any) -> Any:
    """`value` with a ``~`` that begins a path as the home of a user, also in a list and after a name.

    A shell leaves it alone in ``init=~/a.pt`` (zsh) and in ``starts=mine=~/a``; files and programs know no shell.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(map(homes, value)) if type(value) in (list, tuple) else value
    if isinstance(value, Path):
        return expanded(value)
    if not isinstance(value, str) or "~" not in value:
        return value
    return type(value)(_HOME.sub(lambda found: os.path.expanduser(found[0]), value))  # noqa: PTH111


def located(name: str | os.PathLike[str]) -> Path:
    """The absolute path of a file, without links among its folders, but with its own name where it is a link itself.

    What a dataset YAML names lies beside the link, as for Ultralytics; and the file that a link leads to may have
    another suffix, or none, as in the caches of model hubs.
    """
    path = expanded(name)
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def home() -> Path:
    """The user's home.

    Raises:
        UserError: There is none.
    """
    found = expanded("~")
    if not found.is_absolute():
        hint = "set HOME; HEADSTART_CACHE is where decoded images are kept"
        raise UserError("this user has no home folder to write to", where="HOME", hint=hint)
    return found


def temporary_folder() -> Path:
    """The folder for temporary files.

    Raises:
        UserError: None can be written to; torch cannot even be imported then.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        what = "there is no folder for temporary files that can be written to"
        hint = "free some space, or set TMPDIR to a folder that can be written to"
        raise UserError(what, where="TMPDIR", hint=hint) from error
