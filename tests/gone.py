"""A run that ends in mid course, as by a fault of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from headstart.run.display import Display


@contextmanager
def gone_at(step: int) -> Iterator[None]:
    """The run within ends where it shows `step`, with what was saved until then; that it did is checked.

    Args:
        step: Of which a line is shown (`log_every`).
    """

    def die(self: Display, now: int, *_: Any) -> None:
        if now == step:
            raise SystemError("it is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Display, "update", die)
        with pytest.raises(SystemError, match="it is gone"):
            yield
