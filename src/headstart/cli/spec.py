"""What a command is: its name, what it does, and the job that it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Spec(NamedTuple):
    """A command.

    Attributes:
        name: Its name; ``{Name}Settings`` in `headstart.settings.schema` declares its options.
        summary: What it does, for the help.
        usage: How it is called, without ``headstart``.
        run: Runs it with the options as they were typed, and returns the exit status.
        positional: The option that is given without a key, if there is one.
        many: Whether several may be given so.
    """

    name: str
    summary: str
    usage: str
    run: Callable[[dict[str, Any]], int]
    positional: str | None = None
    many: bool = False
