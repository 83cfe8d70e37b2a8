from __future__ import annotations

import errno
import io
import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

import headstart
from headstart.errors import RunError
from headstart.run.display import NO_BREAK, Display, Filling, duration, make_console
from headstart.run.notebook import in_notebook


def shown(cached: float | None, *epochs: float) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    display = Display(steps=len(epochs), console=console, cached=cached)
    for step, epoch in enumerate(epochs, start=1):
        display.update(step, epoch, {"loss": 1.5}, 20.0, [], skipped=0)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_how_far_the_cache_is_while_it_fills() -> None:
    lines = shown(0.5, 0.0, 0.5, 1.0)
    assert [line.endswith(" cached") for line in lines] == [True, True, False]
    assert "50% cached" in lines[0]
    assert "75% cached" in lines[1]


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    assert "25% cached" in shown(0.0, 3.0, 3.25)[1]


@pytest.mark.parametrize("cached", [None, 1.0])
def test_nothing_is_said_where_nothing_is_filled(cached: float | None) -> None:
    assert not any("cached" in line for line in shown(cached, 0.1, 0.2))


def test_outside_a_terminal_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    filling = Filling(console, "finding objects")
    for done in range(1000, 5000, 1000):  # 1,000 images in 20 seconds
        now = done / 50
        filling(done, 4000)
    assert console.file.getvalue() == "finding objects: 2,000 of 4,000 images, 40 s left\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.37, "0.4 s"),
        (0.97, "1 s"),
        (45, "45 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (1500, "25 min"),
        (3590, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (float("nan"), "unknown time"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
    assert duration(seconds, NO_BREAK) == words.replace(" ", NO_BREAK)


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("utf-8", "−1.0 ± 0.2 Größe 名"),
        ("latin-1", "-1.0 +- 0.2 Größe \\u540d"),
        ("cp1252", "-1.0 +- 0.2 Größe \\u540d"),
        ("ascii", "-1.0 +- 0.2 Gr\\xf6\\xdfe \\u540d"),
    ],
)
def test_what_the_encoding_of_the_output_lacks_is_printed_all_the_same(encoding: str, printed: str) -> None:
    """A comparison of hours does not end in a UnicodeEncodeError because its table goes to a file on Windows."""
    stream = io.BytesIO()
    console = make_console(soft_wrap=True)
    console.file = io.TextIOWrapper(stream, encoding=encoding)
    console.print("−1.0 ± 0.2 Größe 名")
    console.file.flush()
    assert stream.getvalue().decode(encoding).rstrip("\n") == printed


def test_work_goes_on_when_its_reader_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    console = make_console()
    with open(write, "w") as stream:  # noqa: PTH123 - a number
        console.file = stream
        console.print("a")
        console.print("b")
    assert console.quiet  # rich would have ended the process


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF])
@pytest.mark.parametrize("terminal", [False, True])
def test_work_goes_on_when_its_output_takes_no_more(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, number: int
) -> None:
    """A log on a disk or quota that is full, and the terminal of a session that has ended."""

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setenv("TERM", "xterm")
    console = make_console(soft_wrap=True)
    console.file = Stream()
    console._force_terminal = terminal
    with Display(3, console=console) as display:
        for step in (1, 2, 3):
            display.update(step, 0.1, {"loss": 1.0}, 1.0, ["nan"], 0)
            display.alarm("something")
    assert console.quiet


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_what_a_full_disk_has_not_taken_raises_nothing_at_the_end() -> None:
    console = make_console()
    stream = Path("/dev/full").open("w")  # noqa: SIM115 - closing it is what is looked at
    console.file = stream
    console.print("a")
    console.print("b")
    stream.close()  # as Python does as it ends
    assert console.quiet


def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm")
    console = make_console(soft_wrap=True)
    console.file = io.StringIO()
    console._force_terminal = True
    return console


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_bar_that_ends_early_gives_the_cursor_back(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Ctrl-C while objects are searched: the shell had no cursor afterwards."""
    console = terminal(monkeypatch)

    def search() -> None:
        with Filling(console, "finding objects") as filling:
            filling(1, 4)
            raise error

    with pytest.raises(error):
        search()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("\x1b[?25l") == 1, "hidden"
    assert printed.rindex("\x1b[?25h") > printed.rindex("\x1b[?25l"), "shown"


def test_bars_are_within_with() -> None:
    """So that each is stopped, whatever ends it."""
    loose = [
        f"{path.name}: {line.strip()}"
        for path in Path(headstart.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "Filling(" in line and not re.search(r"with .*Filling\(|enter_context\(Filling\(|^class ", line)
    ]
    assert loose == []


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_read_as_markup(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """File names, labels and notes with brackets and colons are printed as they are."""
    monkeypatch.setenv("TERM", "xterm")
    console = make_console(soft_wrap=True)
    console.file = io.StringIO()
    console._force_terminal = terminal
    odd = "a[bold]b[/x] :smile: [link=c]"
    console.print(odd)
    Display(1, console=console).say(odd)
    filling = Filling(console, odd, every=0.0)
    filling(1, 3)
    filling(3, 3)
    with Display(3, console=console) as display:
        display.update(1, 0.1, {"loss": 1.0}, 1.0, [odd], 0)
    printed = console.file.getvalue()
    assert printed.count(odd) >= 4 if not terminal else odd in printed
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in printed


class Shell:
    """Stands in for IPython's in a notebook: what is displayed, by id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: bool = True) -> None:
        self.shown: dict[str, dict[str, str]] = {}
        self.messages = 0
        if kernel:
            self.kernel = "of the notebook"
        parts = ModuleType("IPython.display")
        parts.display = parts.update_display = self._show  # type: ignore[attr-defined]
        module = ModuleType("IPython")
        module.get_ipython = lambda: self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", module)
        monkeypatch.setitem(sys.modules, "IPython.display", parts)

    def _show(self, content: dict[str, str], raw: bool, display_id: str) -> None:
        assert raw
        self.shown[display_id] = content
        self.messages += 1


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(monkeypatch)
    with Display(4, start=1) as display:
        display.say("red and bad")
        display.update(3, 1.5, {"loss": 1.25}, 20.0, ["<b>"], skipped=2)
    assert len(shell.shown) == 1
    shown = next(iter(shell.shown.values()))
    assert '<progress value="3" max="4"' in shown["text/html"]
    assert "loss 1.250" in shown["text/html"]
    assert "ALARM: &lt;b&gt;" in shown["text/html"]
    assert shown["text/plain"].startswith("pretrain 3/4 epoch 1.5  loss 1.250")
    assert capsys.readouterr() == ("red and bad\n", ""), "standard error has a red ground there"


def test_a_bar_is_not_shown_more_often_than_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(monkeypatch)
    filling = Filling(label="reading images")
    for done in range(1, 2001):
        filling(done, 2000)
    assert shell.messages < 50
    assert "reading images 2,000/2,000" in next(iter(shell.shown.values()))["text/plain"]


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    Shell(monkeypatch, kernel=False)
    assert not in_notebook()


def test_an_error_in_a_notebook_is_its_words() -> None:
    error = RunError("no room on \x1b[31mdisk", where="out", hint="make room")
    assert error._render_traceback_() == ["headstart: out: no room on \\x1b[31mdisk\n  -> make room"]
