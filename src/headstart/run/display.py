"""What the user sees while a run works: a live line in a terminal, a bar in a notebook, a few plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment
from rich.text import Text

from headstart.errors import forget, printable
from headstart.run import notebook

QUIET_SECONDS = 30.0
NO_BREAK = "\N{NO-BREAK SPACE}"
_NOTEBOOK_WIDTH = 110
"""Characters in a line of a notebook's output."""
_hushed = False


class _SafeConsole(Console):
    """A console on which no text, the name of a file or of a class, can do what control characters do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for one in super().render(renderable, options):
            yield one if one.control else Segment(_encodable(printable(one.text), self.encoding), one.style)

    def _check_buffer(self) -> None:
        """Print; go on without a word where the output takes no more: the work that is told of is wanted all the same.

        Its reader has gone, the disk of a log is full, the terminal of a session was closed.
        """
        try:
            super()._check_buffer()
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Print nothing from here on, where rich would end the process."""
        self.quiet = True
        self._buffer.clear()
        forget(self.file)


_PLAIN = str.maketrans({"−": "-", "–": "-", "±": "+-", "…": "...", "’": "'"})
"""What we print ourselves, as any encoding has it."""


def _encodable(text: str, encoding: str) -> str:
    """`text` as the output can hold it: names of files that are no UTF-8, and what Latin-1 or a Windows pipe lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text if encoding.startswith("utf") else text.translate(_PLAIN)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:  # an encoding that Python does not know
        return text
    return text


@contextmanager
def hushed(quiet: bool = True) -> Iterator[None]:
    """Consoles that are made here print nothing, where `quiet`: another process of the run says the same."""
    global _hushed
    before, _hushed = _hushed, quiet
    try:
        yield
    finally:
        _hushed = before


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """The console that everything is printed on: brackets are brackets, as in ``run[3]``, never rich's markup."""
    if _hushed:
        return _SafeConsole(quiet=True, force_terminal=False, force_jupyter=False)
    if notebook.in_notebook():  # plain output: what goes to standard error has a red ground there
        plain: dict[str, Any] = {"force_jupyter": False, "force_terminal": False, "width": _NOTEBOOK_WIDTH}
        return _SafeConsole(soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False, **plain)
    return _SafeConsole(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


class _TerminalBar:
    """A live line in a terminal; see `notebook.Bar`."""

    def __init__(self, console: Console, label: str, total: int, done: int = 0, note: str = "") -> None:
        columns = (
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._bar = Progress(*columns, console=console, transient=False)
        self._task = self._bar.add_task(label, total=total, completed=done, note=note)
        self.start, self.stop = self._bar.start, self._bar.stop

    def update(self, done: int, note: str = "") -> None:
        """Show how far it is."""
        self._bar.update(self._task, completed=done, note=note)


def make_bar(
    console: Console, label: str, total: int, done: int = 0, note: str = ""
) -> _TerminalBar | notebook.Bar | None:
    """A bar that is not started yet; None where there is neither a terminal nor a notebook.

    Args:
        console: Where the user's messages go.
        label: What is being done.
        total: How much of it there is.
        done: How much of it was done before.
        note: What is said behind it at first.
    """
    if console.quiet:
        return None
    if console.is_terminal:
        return _TerminalBar(console, label, total, done, note)
    return notebook.Bar(label, total, done, note) if notebook.in_notebook() else None


class Display:
    """Progress of a run with `steps` steps.

    In a terminal or a notebook: a bar with rate, time left, loss and health. Elsewhere (a log file, a pipe): one line
    at every tenth of the way, and alarms.

    Args:
        steps: Steps in all.
        start: Steps done before (a resumed run).
        console: Where to write; standard error of this process by default.
        cached: Share of the images that a cache held before; None where none is being filled.
    """

    def __init__(self, steps: int, start: int = 0, console: Console | None = None, cached: float | None = None) -> None:
        self.cached = cached
        self._first_epoch: float | None = None
        self.console = console or make_console(stderr=True, soft_wrap=True)
        self.steps, self.start = steps, start
        self._told = start
        self._began = time.perf_counter()
        self._bar = make_bar(self.console, "pretrain", steps, start, "reading the first images")

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(Text(message))

    def alarm(self, message: str) -> None:
        """Print an alarm."""
        self.console.print(Text(f"! {message}", style="bold red"))

    def update(
        self, step: int, epoch: float, values: dict[str, Any], rate: float, alarms: list[str], skipped: int
    ) -> None:
        """Show where the run stands.

        Args:
            step: Steps done.
            epoch: Passes over the images done.
            values: ``loss`` and the method's measures.
            rate: Images per second since the last call.
            alarms: Kinds of alarm that sound now.
            skipped: Images that could not be used so far.
        """
        done = step - self.start
        left = (time.perf_counter() - self._began) / done * (self.steps - step) if done else 0.0
        health = f"ALARM: {', '.join(alarms)}" if alarms else "healthy"
        note = f"epoch {epoch:.1f}  loss {values['loss']:.3f}  {rate:.1f} images/s  {duration(left)} left  {health}"
        note += f"  {skipped} skipped" if skipped else ""
        note += self._filling(epoch)
        if self._bar:
            self._bar.update(step, note)
        elif step == 1 or step == self.steps or (step - self._told) * 10 >= self.steps:
            self._told = step
            self.say(f"step {step}/{self.steps}  {note}")

    def _filling(self, epoch: float) -> str:
        """How far the cache is: each image is read, and kept, once in the first epoch of this run."""
        if self.cached is None:
            return ""
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        share = self.cached + (1 - self.cached) * min(1.0, epoch - self._first_epoch)
        return f"  {share:.0%} cached" if share < 1 else ""


class Filling:
    """Progress of what is done before the first step: a bar in a terminal or notebook, else a line every half minute.

    Within ``with`` it is left as it is at the end, whatever that is: a bar that nobody stops hides the cursor.

    Args:
        console: Where to write; standard error of this process by default.
        label: What is being done.
        every: Seconds between two lines outside a terminal.
        what: What is counted.
    """

    def __init__(
        self,
        console: Console | None = None,
        label: str = "reading images",
        every: float = QUIET_SECONDS,
        what: str = "images",
    ) -> None:
        self.console = console or make_console(stderr=True, soft_wrap=True)
        self.label, self.every, self.what = label, every, what
        self._began = self._told = time.perf_counter()
        self._bar: _TerminalBar | notebook.Bar | None = None
        self._live = False

    def __enter__(self) -> Filling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(Text(message))

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` images have been read."""
        if self._bar is None and (bar := make_bar(self.console, self.label, total)):
            self._bar, self._live = bar, True
            bar.start()
        if self._bar is not None:
            self._bar.update(done)
            if done == total:
                self.end()
        elif (now := time.perf_counter()) - self._told >= self.every and 0 < done < total:
            self._told = now
            left = duration((now - self._began) / done * (total - done))
            self.console.print(Text(f"{self.label}: {done:,} of {total:,} {self.what}, {left} left"))

    def end(self) -> None:
        """Leave the bar as it is, where there is one: what is counted was estimated, or ended early."""
        if self._bar is not None and self._live:
            self._live = False
            self._bar.stop()


def duration(seconds: float, gap: str = " ") -> str:
    """``'0.4 s'``, ``'45 s'``, ``'3 min 20 s'``, ``'25 min'`` or ``'2 h 05 min'``; ``'unknown time'`` for nan.

    Args:
        seconds: 0 or more.
        gap: Between numbers and units; `NO_BREAK` keeps them on one line of a page.
    """
    if not math.isfinite(seconds):
        return f"unknown{gap}time"
    whole = round(seconds)
    if whole < 60:
        words = f"{seconds:.1f} s" if 0 < seconds < 0.95 else f"{whole} s"
    elif whole < 600:
        words = f"{whole // 60} min {whole % 60:02d} s"
    else:
        minutes = round(seconds / 60)
        words = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    return words.replace(" ", gap)
