"""Globs with ``**`` as regular expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence


def expression(parts: Sequence[str]) -> str:
    """The regular expression of a glob's components; what lies below a folder that matches is matched with it."""
    text = ""
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if part == "**" and following != "**":
            text += "(?:[^/]+/)*" if following is not None else "(?:[^/]+/)*[^/]+"
        elif part != "**":
            text += _component(part) + ("/" if following is not None else "")
    return text + "(?:/.*)?"


def _component(part: str) -> str:
    """``*``, ``?`` and ``[...]`` of one component of a glob, as a regular expression."""
    text = ""
    for piece in re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL):
        if len(piece) > 1:
            inside = piece[1:-1].replace("\\", "\\\\")
            text += "[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]"
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    return text
