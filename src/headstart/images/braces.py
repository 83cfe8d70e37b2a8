"""Names with braces, as a shell has them: ``{000..127}``, ``{0..127..2}``, ``{a..f}`` and ``{a,b}``."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from headstart.errors import UserError
from headstart.images.members import is_address

_BRACES = re.compile(r"\{([^{}]*,[^{}]*|\d+\.\.\d+(?:\.\.\d+)?|[A-Za-z]\.\.[A-Za-z](?:\.\.\d+)?)\}")
MOST_NAMED = 100_000
"""Names that braces may stand for."""


def named_by(text: str) -> list[str]:
    """The names that braces stand for; a path that is there itself stands for itself.

    Raises:
        UserError: They are more than any that are meant.
    """
    if not _BRACES.search(text) or (not is_address(text) and os.path.exists(os.path.expanduser(text))):  # noqa: PTH110, PTH111
        return [text]
    names, done = [text], False
    while not done:
        found = [(name, _BRACES.search(name)) for name in names]
        done = not any(braces for _, braces in found)
        names = []
        for name, braces in found:
            for part in _parts(braces[1]) if braces else [""]:
                names.append(name[: braces.start()] + part + name[braces.end() :] if braces else name)
                if len(names) > MOST_NAMED:
                    raise UserError(f"{text} names more than {MOST_NAMED:,} files", where="data", hint="name a folder")
    return names


def is_pattern(text: str) -> bool:
    """Whether a name may stand for others: it has braces, or wildcards."""
    return _BRACES.search(text) is not None or glob.has_magic(text)


def names_something(path: str) -> bool:
    """Whether a path is there, or something that a pattern stands for.

    Raises:
        UserError: As `named_by`.
    """
    try:
        if os.path.exists(path):  # noqa: PTH110
            return True
        return any(next(glob.iglob(one), None) is not None for one in named_by(path)) if is_pattern(path) else False  # noqa: PTH207
    except (OSError, ValueError, re.error):  # a name that no file can have
        return False


def _parts(inside: str) -> Iterator[str]:
    """What stands for braces: the parts between commas, letters, or numbers as wide as the first or last is."""
    if "," in inside:
        yield from inside.split(",")
        return
    first, last, *steps = inside.split("..")
    letters = first.isalpha()
    begin, end = (ord(first), ord(last)) if letters else (int(first), int(last))
    step = max(1, int(steps[0])) if steps else 1
    wide = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    for number in range(begin, end + 1, step) if begin <= end else range(begin, end - 1, -step):
        yield chr(number) if letters else f"{number:0{wide}d}"
