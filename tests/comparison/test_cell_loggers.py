from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from headstart.comparison import cell_loggers
from headstart.comparison.cell_loggers import CellLoggers
from headstart.comparison.records import CellResult


class Counting:
    """A logger that counts the trainings that it was told of."""

    told = 0

    def start(self, settings: Any) -> None:
        Counting.told += 1

    def metrics(self, step: int, values: Any) -> None: ...

    def event(self, step: int, level: str, message: str) -> None: ...

    def finish(self, state: str) -> None: ...


def cell(seed: int) -> CellResult:
    return CellResult(
        kind="main", start="coco", budget="5%", seed=seed, lr=0.001, epochs=2, images=9, folder=f"cells/seed{seed}",
        labels_sha256="a", start_sha256="b", state="failed", error="out of memory",
    )  # fmt: skip


def test_a_full_disk_does_not_end_a_comparison_for_its_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained stays; that it was logged is not noted, which is said once."""
    monkeypatch.setattr(cell_loggers, "open_loggers", lambda asked, *_: [Counting() for _ in asked])
    Counting.told, said = 0, list[str]()
    loggers = CellLoggers(["mine"], tmp_path, {}, said.append)
    with monkeypatch.context() as full:

        def refuse(path: Path, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(cell_loggers, "write_text", refuse)
        loggers.tell(cell(0))
        loggers.tell(cell(1))
    assert len(said) == 1
    assert "No space left on device" in said[0]
    loggers.tell(cell(0))
    loggers.tell(cell(0))
    assert Counting.told == 3, "once each while the disk was full, once more when it took the note, and then no more"
