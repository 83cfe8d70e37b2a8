"""A progress bar in a notebook: Jupyter, Colab, VS Code. It needs IPython alone, no widgets, and stays when saved."""

from __future__ import annotations

import html
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from headstart.errors import printable

_EVERY = 0.25
"""Seconds between two looks of a bar: each is a message to the browser."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython in a terminal is none."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return hasattr(ask(), "kernel") if ask else False


class Bar:
    """A bar with a few words on either side.

    Args:
        label: What is being done.
        total: How much of it there is.
        done: How much of it was done before.
        note: What is said behind it at first.
    """

    def __init__(self, label: str, total: int, done: int = 0, note: str = "") -> None:
        self.label, self.total, self.done, self.note = label, total, done, note
        self._id, self._shown = f"headstart-{uuid.uuid4().hex}", -1.0

    def start(self) -> None:
        """Show it."""
        self._show(update=False)

    def stop(self) -> None:
        """Show the last state."""
        self._show(update=True)

    def update(self, done: int, note: str | None = None) -> None:
        """Show how far it is, unless it was shown a moment ago."""
        self.done = done
        self.note = self.note if note is None else note
        if done >= self.total or time.monotonic() - self._shown >= _EVERY:
            self._show(update=True)

    def _show(self, update: bool) -> None:
        from IPython.display import display, update_display

        self._shown = time.monotonic()
        show: Callable[..., object] = update_display if update else display
        show(self._looks(), raw=True, display_id=self._id)

    def _looks(self) -> dict[str, Any]:
        """As HTML, in the colors that the notebook has, and as text."""
        label, note = html.escape(printable(self.label)), html.escape(printable(self.note))
        count = f"{self.done:,}/{self.total:,}"
        bar = f'<progress value="{self.done}" max="{max(1, self.total)}" style="width: min(22em, 40%)"></progress>'
        looks = "font: 13px/1.6 system-ui, sans-serif; font-variant-numeric: tabular-nums; padding: 2px 0"
        page = f'<div style="{looks}"><b>{label}</b> {bar} {count} <span style="opacity: .75">{note}</span></div>'
        return {"text/html": page, "text/plain": printable(f"{self.label} {count} {self.note}".strip())}
