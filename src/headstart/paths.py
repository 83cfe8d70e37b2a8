"""Paths as users write them, and the home of the user."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import UserError


def expanded(name: str | os.PathLike[str]) -> Path:
    """`name`, its ``~`` the home of a user; where nobody knows that, it is a name like any other.

    ``Path.expanduser`` raises a RuntimeError there: of ``~x`` where x is no user, and of a user who is only a number,
    as in many a container.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111


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
