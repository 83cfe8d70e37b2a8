"""Whether files may run code of their own: a pickled class, a script in a YAML, a Python file that a file names.

They may not, unless the user says ``trust=true``. It is asked here by whoever reads such a file, and holds for one job
and the processes that it starts: who forgets to pass it on refuses, and never runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headstart.errors import UserError

VARIABLE = "HEADSTART_TRUST"
"""Of the environment of a process that a job starts; the user's own is not looked at."""
SAID = "trust=true: code that the given files hold may run, with all your rights"
_trusted = False


def trusted() -> bool:
    """Whether the job at work was told to trust its files."""
    return _trusted


@contextmanager
def granted(trust: bool) -> Iterator[None]:
    """A job that was told so, or was not."""
    global _trusted
    before, _trusted = _trusted, trust
    try:
        yield
    finally:
        _trusted = before


def for_child() -> Mapping[str, str | None]:
    """Environment variables by which a process that the job starts knows; None removes one."""
    return {VARIABLE: "1" if _trusted else None}


def from_parent() -> None:
    """Take over what `for_child` says: called by processes that jobs start, and by nothing else."""
    global _trusted
    _trusted = os.environ.get(VARIABLE) == "1"


def refusal(what: str, where: str | None = None) -> UserError:
    """The error for a file that would run code: `what` names the file and the code."""
    hint = "if you know who made it, trust=true lets it run, with all your rights: files, keys, network"
    return UserError(what, where=where, hint=hint)
