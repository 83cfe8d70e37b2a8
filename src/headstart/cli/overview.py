"""The help of ``headstart`` itself, which needs no settings: it is there in a tenth of a second."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from headstart.cli.spec import Spec

EXAMPLES = """\
  headstart pretrain data=my/images model=yolo11n.pt out=runs/a     unlabelled images -> runs/a/headstart.pt
  headstart compare data=my.yaml starts=scratch,coco,ssl=runs/a     is it better, by how much, how surely?"""


_UNBROKEN = "\u2011"
"""A hyphen at which no line ends."""


def page(specs: Mapping[str, Spec]) -> str:
    """What the command does, and its commands."""
    text = writer()
    text.write("Pretrain a YOLO detector on your own unlabelled images, and prove whether it helped.\n")
    section(text, "Commands", [(name, spec.summary) for name, spec in specs.items()])
    text.write(f"\nExamples:\n{EXAMPLES}\n\n")
    text.write("headstart COMMAND --help shows a command's options; headstart --version the version.")
    return text.getvalue()


class _Page(click.HelpFormatter):
    """Breaks no word at its hyphens: names are copied from it."""

    def write(self, string: str) -> None:
        """Add to the page."""
        super().write(string.replace(_UNBROKEN, "-"))


def writer() -> click.HelpFormatter:
    """An empty page, as wide as the terminal, at most 110 columns."""
    return _Page(width=min(110, max(60, shutil.get_terminal_size((100, 24)).columns)))


def section(text: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]], about: str = "") -> None:
    """A titled list of two columns."""
    text.write(f"\n{title}:\n")
    text.indent()
    if about:
        text.write_text(about)
    if rows := [(name, words.replace("-", _UNBROKEN)) for name, words in rows]:
        text.write_dl(rows, col_max=27, col_spacing=2)
    text.dedent()
