"""What a user gets wrong, and the whole message that a user then sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from headstart import cli

# "$ headstart <arguments>", and below it what is printed; {here} is the folder that it runs in.
TEXT = (Path(__file__).parent / "bad_input.txt").read_text(encoding="utf-8")
TABLE = [tuple(case.strip("\n").split("\n", 1)) for case in re.split(r"^\$ headstart ", TEXT, flags=re.MULTILINE)[1:]]


@pytest.fixture
def here(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").symlink_to(image_folder)
    for name in ("empty", "docs", "run"):
        (tmp_path / name).mkdir()
    for name in ("notes.md", "docs/a.pdf", "best.onnx", "run/settings.yaml"):
        (tmp_path / name).write_text("text")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "no_shard.tar").write_text("text" * 1000)
    (tmp_path / "no_train.yaml").write_text("trian: images\nval: images\n")
    (tmp_path / "lost.yaml").write_text("train: gone\nval: images\n")
    torch.save({"a": torch.zeros(2)}, tmp_path / "state.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "message"), TABLE, ids=[words for words, _ in TABLE])
def test_what_the_user_sees(words: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.rglob("*"))
    assert cli.main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.err == message.format(here=here, commands=", ".join(cli.COMMANDS)) + "\n"
    assert printed.out == ""
    assert sorted(here.rglob("*")) == before  # nothing was begun
