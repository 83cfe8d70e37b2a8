"""The templates of pages and cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

_NO_TEXT = re.compile("[\ud800-\udfff]")


def environment() -> jinja2.Environment:
    """What all of them are rendered with: everything is escaped that is not marked as markup."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_encodable)


def _encodable(value: Any) -> Any:
    """Bytes of a path that are no UTF-8, which stand in no page, are written out: ``\\udcff``."""
    if not isinstance(value, str) or _NO_TEXT.search(value) is None:
        return value
    return type(value)(value.encode("utf-8", "backslashreplace").decode())  # what is markup stays markup
