"""Completion, driven as the shells drive it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart import cli
from headstart.cli.command import COMMANDS
from headstart.cli.completion import suggestions

BASH = shutil.which("bash")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("images", "my data", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("own.py", "my.yaml", "my data/a.jpg", "net.pt"):
        (tmp_path / name).write_text('"""Own: mine."""\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line: str, incomplete: str) -> list[str]:
    return [word for word, _ in suggestions(COMMANDS, line.split(), incomplete)]


@pytest.mark.parametrize(
    ("line", "incomplete", "offered"),
    [
        ("", "p", ["pretrain", "probe", "pack"]),
        ("", "--v", ["--version"]),
        ("pretrain", "ba", ["batch="]),
        ("pretrain", "--ba", ["--batch="]),
        ("pretrain", "--over", ["--overwrite"]),  # a truth value needs none
        ("pretrain", "over", ["overwrite="]),
        ("pretrain batch=3", "ba", []),  # given already
        ("pretrain --batch 3", "ba", []),
        ("pretrain data=x", "data", ["data="]),  # may be given again
        ("pretrain", "student_t", []),  # nobody chose dino
        ("pretrain method=dino", "student_t", ["student_temp="]),
        ("pretrain --method dino", "--student_t", ["--student_temp="]),
        ("pretrain", "cache=d", ["cache=disk", "cache=device"]),
        ("pretrain", "--cache=d", ["--cache=disk", "--cache=device"]),
        ("pretrain --cache", "d", ["disk", "device"]),
        ("pretrain", "report=", ["report=true", "report=false"]),
        ("pretrain", "compile=", ["compile=auto", "compile=true", "compile=false"]),
        ("pretrain", "method=d", ["method=densecl", "method=dino", "method=distill"]),
        ("pretrain", "method=o", ["method=objects", "method=own.py"]),
        ("pretrain method=dino", "preset=l", ["preset=lightlytrain"]),
        ("pretrain", "init=n", ["init=net.pt"]),
        ("pretrain", "data=", ["data=images/", "data=my data/", "data=my.yaml", "data=net.pt", "data=own.py"]),
        ("pretrain", "data=my data/", ["data=my data/a.jpg"]),
        ("pretrain", "data=.h", ["data=.hidden/"]),
        ("pretrain", "data=no/where/", []),
        ("pretrain", "batch=", ["batch=auto"]),
        ("pretrain method=nothing", "ba", ["balance=", "batch="]),
        ("pretrain", "lab", ["labels="]),  # it chooses a method by itself
        ("pretrain", "labels=my", ["labels=my data/", "labels=my.yaml"]),
        ("pretrain labels=my.yaml", "burn", ["burn_in="]),
        ("doctor", "images=im", ["images=images/"]),
        ("embed", "labels=my.", ["labels=my.yaml"]),
        ("compare", "labels=", []),  # shares of the labelled images
        ("compare", "starts=scratch,co", ["starts=scratch,coco", "starts=scratch,coco-backbone"]),
        ("compare", "starts=scratch,ssl=im", ["starts=scratch,ssl=images/"]),
        ("compare", "split=", ["split=val", "split=test"]),
        ("report", "im", ["images/"]),
        ("probe", "net", ["net.pt"]),
        ("completion", "", ["bash", "zsh", "fish", "shell=", "install="]),
        ("nothing", "x", []),
    ],
)
def test_suggestions(line: str, incomplete: str, offered: list[str], here: Path) -> None:
    assert words(line, incomplete) == offered


def test_options_of_a_method_of_ones_own(here: Path) -> None:
    (here / "own.py").write_text(
        "from headstart.settings import MethodSettings\nclass Settings(MethodSettings):\n    turns: int = 3\n"
        "PRESETS = {'small': {}}\n"
    )
    assert words("pretrain method=own.py", "tur") == ["turns="]
    assert words("pretrain method=own.py", "preset=") == ["preset=small"]


def answer(shell: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "headstart"], capture_output=True, text=True, check=True,
        env={**os.environ, "_HEADSTART_COMPLETE": f"{shell}_complete", **environment},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_protocol_of_bash(here: Path) -> None:
    # Readline replaces what stands after the last = or : alone, and wants blanks escaped.
    assert answer("bash", COMP_LINE="headstart pretrain method=di", COMP_WORDBREAKS=" =:") == ["dino", "distill"]
    assert answer("bash", COMP_LINE="headstart pretrain method=di", COMP_WORDBREAKS=" ") == [
        "method=dino",
        "method=distill",
    ]
    assert answer("bash", COMP_LINE="headstart pretrain data=my\\ d", COMP_WORDBREAKS=" =:") == ["my\\ data/"]
    assert answer("bash", COMP_LINE="headstart pretrain ", COMP_WORDBREAKS=" =:")[:2] == ["data=", "model="]


def test_the_protocol_of_zsh(here: Path) -> None:
    lines = answer("zsh", COMP_WORDS="headstart pretrain method=di", COMP_CWORD="2")
    assert lines[::2] == ["method=dino", "method=distill"]
    assert lines[1].startswith("DINO: a student")


def test_the_protocol_of_fish(here: Path) -> None:
    lines = answer("fish", COMP_WORDS="headstart pretrain method=di", COMP_CWORD="method=di")
    assert [line.split("\t")[0] for line in lines] == ["method=dino", "method=distill"]
    assert lines[0].split("\t")[1].startswith("DINO: a student")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``headstart`` on the path, as the installation would put it there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "headstart"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headstart "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return script


def press_tab(typed: str, script: Path, expected: str, seconds: float = 60) -> str:
    """What an interactive bash shows after `typed` and the tab key."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(str(BASH), ["bash", "--norc", "--noprofile", "-i"])
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        ends = time.monotonic() + seconds
        while text not in shown and time.monotonic() < ends:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")

    try:
        os.write(terminal, f"PS1='> '; source '{script}'; echo rea''dy\n".encode())
        read_until("ready\r\n")
        shown = ""
        os.write(terminal, f"{typed}\t".encode())
        read_until(expected)
    finally:
        os.write(terminal, b"\x03exit\n")
        os.close(terminal)
        os.waitpid(child, 0)
    return shown


@pytest.mark.skipif(BASH is None, reason="no bash here")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("headstart pretr", "headstart pretrain "),
        ("headstart pretrain bat", "headstart pretrain batch="),
        ("headstart pretrain cache=di", "headstart pretrain cache=disk "),
        ("headstart pretrain data=my\\ d", "headstart pretrain data=my\\ data/"),
        ("headstart compare starts=scratch,ssl=ima", "headstart compare starts=scratch,ssl=images/"),
    ],
)
def test_a_real_bash(typed: str, completed: str, here: Path, command: Path, capsys) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = here / "script"
    script.write_text(capsys.readouterr().out)
    assert completed in press_tab(typed, script, completed)


def test_installing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BASH_COMPLETION_USER_DIR", raising=False)
    places = {
        "bash": tmp_path / "data/bash-completion/completions/headstart",
        "zsh": tmp_path / "data/headstart/completion.zsh",
        "fish": tmp_path / "config/fish/completions/headstart.fish",
    }
    for shell, place in places.items():
        assert cli.main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "_headstart_completion" in script
        assert cli.main(["completion", shell, "--install"]) == 0
        assert str(place) in capsys.readouterr().out
        assert place.read_text() == script


def test_installing_where_nothing_can_be_written(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert cli.main(["completion", "fish", "--install"]) == 2
    assert "headstart completion fish prints the script" in capsys.readouterr().err


def test_a_shell_that_is_not_known(capsys) -> None:
    assert cli.main(["completion", "tcsh"]) == 2
    assert "shell: must be 'bash', 'zsh' or 'fish', not 'tcsh'" in capsys.readouterr().err
