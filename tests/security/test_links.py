"""A stranger's folder may hold links to files of the user's: what is written there changes none of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import fake_run
import numpy as np
import pytest

from headstart.comparison import child
from headstart.files import LOCK, OwnedFolder, in_use, write_text
from headstart.probes import sheets
from headstart.report import write_report
from headstart.run.folder import CONTENTS, RunFolder
from headstart.run.listing import Listing

TEXT = "mine, and precious\n"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious.txt"
    path.write_text(TEXT)
    return path


def test_a_report(tmp_path: Path, precious: Path) -> None:
    run = fake_run.write_run(tmp_path / "run")
    for name in ("report.html", f".report.html.{os.getpid()}.tmp"):  # a folder may hold one for every number
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(precious)
    assert "<html" in write_report(run).read_text()
    assert precious.read_text() == TEXT


def test_a_run_that_is_gone_on_with(tmp_path: Path, precious: Path) -> None:
    run = fake_run.write_run(tmp_path / "run")
    names = ("log.txt", "metrics.jsonl", "events.jsonl", "skipped.csv", "noted.csv", LOCK)
    for name in names:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(precious)
    assert in_use(run) is None
    folder = RunFolder.open(run)
    folder.take()
    folder.log("$(rm -rf ~)")
    folder.metrics({"step": 1, "loss": 0.5})
    folder.event(1, "alarm", "it fell")
    folder.skip([("a.jpg", "damaged")])
    folder.note([("b.jpg", "gray")])
    folder.close()
    assert precious.read_text() == TEXT
    assert not any((run / name).is_symlink() for name in names)
    assert "it fell" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: sheets.save(path, [[sheets.Tile(np.zeros((4, 4, 3), np.uint8))]]),
        lambda path: child.run("headstart.nowhere", [], path, 1, threading.Event()),
        lambda path: Listing(path, "reason").add([("a", "b")]),
    ],
)
def test_files_that_are_written(write: Callable[[Path], object], tmp_path: Path, precious: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "a.png"
    path.symlink_to(precious)
    write(path)
    assert precious.read_text() == TEXT
    assert path.is_file()
    assert not path.is_symlink()


def test_a_folder_elsewhere_stays_one(tmp_path: Path) -> None:
    """The user's own link to a larger disk: folders are followed."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    owned = OwnedFolder(tmp_path / "run", CONTENTS)
    owned.take()
    owned.release()
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / LOCK).is_file()
