"""The files that a run began with, each by a mark of its contents: one that was replaced since would change the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.errors import UserError
from headstart.files import content_hash
from headstart.methods.base import Needs

STARTS = ("model", "init")
"""What a run is loaded from until its first checkpoint, which has all of it."""
SEARCHES = ("proposals",)
TEACHERS = ("teacher", "teacher_weights")


def marks(used: Mapping[str, Any]) -> dict[str, str]:
    """Option -> mark of the file that it names, of all options of a run."""
    named = {name: used.get(name) for name in (*STARTS, *SEARCHES, *TEACHERS)}
    found = {name: content_hash(one) for name, one in named.items() if isinstance(one, str) and Path(one).is_file()}
    return {name: mark for name, mark in found.items() if mark}


def replaced(
    began: Mapping[str, str], used: Mapping[str, Any], needs: Needs, *, saved: bool, found: bool
) -> list[UserError]:
    """Files that are not those that a run began with, of those that going on with it still needs.

    Args:
        began: `marks` as the run began; of an older version none.
        used: Its options now.
        needs: Of its method.
        saved: Whether it has a checkpoint.
        found: Whether it has its pseudo-labels.
    """
    names: tuple[str, ...] = () if saved else STARTS
    names += SEARCHES if needs.pseudolabels and not found else ()
    names += TEACHERS if needs.teacher or (needs.pseudolabels and not found) else ()
    now = marks({name: used.get(name) for name in names if name in began})
    hint = "bring back a copy of the file, or start a new run"
    return [
        UserError(
            f"{used[name]} is not the file that this run began with: its contents have changed", where=name, hint=hint
        )
        for name, mark in now.items()
        if began[name] != mark
    ]
