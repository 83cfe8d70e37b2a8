"""What the demo says of itself to whoever called it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.jobs import demo as module


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
    def ended(facts: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**{"interrupted": False, "folder": tmp_path, "report": None, **facts})

    monkeypatch.setattr(module, "draw_dataset", lambda folder, **_: folder / "data.yaml")
    monkeypatch.setattr(module, "pretrain", lambda **_: ended(run))
    monkeypatch.setattr(module, "compare", lambda **_: ended(done) if done else pytest.fail("compared"))
    assert module.demo(tmp_path / "demo") == status
