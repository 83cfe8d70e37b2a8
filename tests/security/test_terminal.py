"""Names from files, on a terminal, in a log and in a command to copy: they are shown, and do nothing."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from headstart.cli.command import main
from headstart.comparison import child
from headstart.errors import UserError, printable
from headstart.run import display
from headstart.run.folder import RunFolder

# Sets the window's title, clears the screen, colors; C1's CSI; a reversal of direction; back to the line's start.
SEQUENCES = (
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x1b[31m",
    "\x9b31m",
    "\u202e",
    "\u061c",
    "\u2028",
    "\rall is well",
    "\x00",
    "\x7f",
    "\x08",
)


def console(monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Console, io.StringIO]:
    made, stream = display.make_console(), io.StringIO()
    made.file = stream
    made.width = 200
    for name, value in more.items():
        setattr(made, name, value)
    return made, stream


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_sequences_are_written_out(sequence: str) -> None:
    shown = printable(f"a{sequence}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")


def test_text_of_any_language_stays() -> None:
    text = "Ünïcode 名前 [bold] $x$ 🙂\n\tindented"
    assert printable(text) == text


def test_known_sequences() -> None:
    assert printable("\x1b[31mred\x9b\u202e") == "\\x1b[31mred\\x9b\\u202e"


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_console(sequence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, stream = console(monkeypatch)
    name = f"[red]a[/red]{sequence}:boom:"
    table = Table()
    table.add_column(Text(name))
    table.add_row(Text(name))
    for one in (name, Text(name), table):
        made.print(one)
    found = stream.getvalue()
    assert all(part.isprintable() for part in found.split("\n"))
    assert found.count("[red]a[/red]") == 4, "brackets are brackets"
    assert ":boom:" in found


def test_a_terminal_has_its_own_sequences_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made, stream = console(monkeypatch, _force_terminal=True, _color_system=None)
    with Progress(TextColumn("{task.fields[note]}", markup=False), console=made) as bar:
        bar.add_task("", note="x\x1b]0;owned\x07y")
    made.print(Text("name\x1b[2J", style="bold"))
    assert "\x1b[" in stream.getvalue(), "the bar moves"
    assert "\x1b]0" not in stream.getvalue()
    assert "name\\x1b[2J" in stream.getvalue()


def test_a_name_that_is_no_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = console(monkeypatch)
    shown = io.BytesIO()
    made.file = io.TextIOWrapper(shown, encoding="utf-8")
    made.print(Text("bad\udcff.jpg"))
    made.file.flush()
    assert b"bad" in shown.getvalue()
    assert b".jpg" in shown.getvalue()


def test_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data\x1b[2J[bold]").mkdir()
    assert main(["pretrain", f"data={tmp_path}/data\x1b[2J[bold]", "method=pyramid"]) == 2
    told = capsys.readouterr().err
    assert "\\x1b[2J[bold]" in told
    assert "\x1b" not in told
    error = UserError("a\x1bb", where="\x9bc", hint="d\x07")
    assert str(error) == "\\x9bc: a\\x1bb\n  -> d\\x07"
    assert (error.what, error.where, error.hint) == ("a\x1bb", "\x9bc", "d\x07"), "as they are, for Python"
    assert str(UserError.several([error, error])).count("\\x1b") == 2


def test_a_log_has_one_message_a_date(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.log("class 'a\n2026-01-01 00:00:00 checkpoint verified: all is well\x1b[2J'")
    folder.close()
    lines = (tmp_path / "run/log.txt").read_text().splitlines()
    assert len([line for line in lines if line.startswith("20")]) == 1
    assert lines[-1] == "    2026-01-01 00:00:00 checkpoint verified: all is well\\x1b[2J'"


def test_the_end_of_a_log_has_no_colors(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("\x1b[34m\x1b[1mtrain: \x1b[0mdone\rfailed\n")
    assert child.tail(tmp_path / "log.txt") == "    train: done\n    failed"


def test_the_command_to_copy_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["headstart", "pretrain", "data=my images; rm -rf $HOME", "out=it's `date`\nnext"]
    monkeypatch.setattr("sys.argv", words)
    folder = RunFolder.create(tmp_path / "run")
    folder.write_settings({}, {})
    assert shlex.split(folder.read_settings()["command"]) == words
    folder.close()
