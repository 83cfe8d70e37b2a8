"""What the demo says of itself to whoever called it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.jobs import demo as module
from headstart.settings.schema import CompareSettings, LabelOptions, PretrainSettings


@pytest.mark.parametrize(
    ("run", "done", "status"),
    [
        ({"ok": True}, {"ok": True}, 0),
        ({"ok": True}, {"ok": False}, 1),  # a check failed, though every training ended
        ({"ok": False}, None, 1),  # nothing was handed back: there is nothing to compare
        ({"ok": False, "interrupted": True}, None, 130),
        ({"ok": True}, {"ok": False, "interrupted": True}, 130),
    ],
)
def test_the_status_is_0_only_where_all_went_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], done: dict[str, Any] | None, status: int
) -> None:
    ended = partial(_ended, tmp_path)
    monkeypatch.setattr(module, "draw_dataset", lambda folder, **_: folder / "data.yaml")
    monkeypatch.setattr(module, "pretrain", lambda **_: ended(run))
    monkeypatch.setattr(module, "compare", lambda **_: ended(done) if done else pytest.fail("compared"))
    assert module.demo(tmp_path / "demo") == status


def _ended(folder: Path, facts: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{"interrupted": False, "folder": folder, "report": None, "verdict": "", **facts})


def test_it_ends_with_the_verdict_the_reports_and_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "headstart against scratch: inconclusive with 1 seed at 100% of the labels [−1.4 points]."
    report = tmp_path / "compare" / "report.html"
    monkeypatch.setattr(module, "draw_dataset", lambda folder, **_: folder / "data.yaml")
    monkeypatch.setattr(module, "pretrain", lambda **_: _ended(tmp_path / "pretrain", {"ok": True}))
    done = _ended(tmp_path / "compare", {"ok": True, "verdict": said, "report": report})
    monkeypatch.setattr(module, "compare", lambda **_: done)
    module.demo(tmp_path / "demo")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    at = lines.index(said)  # as it is: brackets are no markup
    assert lines[at + 1] == f"report: {report}"
    assert lines[at + 2].startswith(str(tmp_path / "pretrain" / "report.html"))
    commands = lines[at + 4 :]
    assert [line.split()[:2] for line in commands] == [
        ["headstart", "pretrain"],
        ["headstart", "pretrain"],
        ["yolo", "detect"],
        ["headstart", "compare"],
    ]
    assert ["labels=" in line for line in commands] == [False, True, False, False]


def test_its_commands_have_options_that_there_are() -> None:
    known = {
        "pretrain": {*PretrainSettings.model_fields, *LabelOptions.model_fields},
        "compare": set(CompareSettings.model_fields),
    }
    for line in (*module.NEXT, f"{module.NEXT[0]} {module.LABELS}"):
        program, command, *words = line.split()
        if program == "headstart":
            assert {word.partition("=")[0] for word in words} <= known[command], line
