"""Other values of a module's attributes, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NONE = object()


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner` with another value of one attribute, for a while; one that it does not have is taken away again."""
    before = getattr(owner, name, _NONE)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _NONE:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
