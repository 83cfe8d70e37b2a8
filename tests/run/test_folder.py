from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import files
from headstart.errors import RunError, UserError
from headstart.files import OwnedFolder, in_use
from headstart.run import folder as run
from headstart.run import provenance
from headstart.run.folder import RunFolder


def make(path) -> RunFolder:
    folder = RunFolder.create(path)
    folder.write_settings({"batch": 3}, {"steps": 9})
    return folder


def test_settings_hold_versions_and_options(tmp_path) -> None:
    content = make(tmp_path / "a").read_settings()
    assert content["options"] == {"batch": 3}
    assert content["resolved"] == {"steps": 9}
    assert content["versions"]["ultralytics"][0].isdigit()


def test_a_second_run_is_refused(tmp_path) -> None:
    make(tmp_path).close()
    with pytest.raises(UserError, match="there is a run in this folder already") as caught:
        RunFolder.create(tmp_path)
    assert "resume=true goes on with it, overwrite=true replaces it" in str(caught.value)


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path) -> None:
    folder = make(tmp_path)
    folder.metrics({"step": 1})
    (tmp_path / "my notes.txt").write_text("mine")
    folder.close()
    again = RunFolder.create(tmp_path, overwrite=True)
    again.under_way()
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "checkpoints", "my notes.txt"]


def contents(path: Path) -> dict[str, bytes]:
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def finished(path: Path) -> dict[str, bytes]:
    """A run with a checkpoint; what it holds."""
    folder = make(path)
    folder.metrics({"step": 1})
    (path / "checkpoints" / "step-00000001.pt").write_bytes(b"weights")
    folder.close()
    return contents(path)


def test_a_run_is_replaced_when_the_new_one_has_done_a_step_and_not_before(tmp_path) -> None:
    before = finished(tmp_path)
    new = RunFolder.create(tmp_path, overwrite=True)
    new.write_settings({"batch": 5}, {})
    new.log("it fails before its first step")
    assert new.put_back()
    new.end()
    assert contents(tmp_path) == before
    new = RunFolder.create(tmp_path, overwrite=True)
    new.write_settings({"batch": 5}, {})
    new.under_way()
    assert not new.put_back()
    new.end()
    assert sorted(contents(tmp_path)) == [".lock", "settings.yaml"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


def calls(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Count renames and removals; the one at `at` is not done, and the process with it ends."""
    seen: list[str] = []
    for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (Path, "mkdir"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name), name, seen, at))
    return seen


def counted(real, name: str, seen: list[str], at: int):
    def call(*given, **more):
        seen.append(name)
        if len(seen) > at:
            raise Killed
        return real(*given, **more)

    return call


@pytest.mark.parametrize("asked", ["resume", "overwrite"])
def test_a_run_that_is_replaced_survives_a_kill_at_any_point(tmp_path, monkeypatch, asked: str) -> None:
    for at in range(100):
        path = tmp_path / str(at)
        before = finished(path)
        folder = RunFolder(path)
        with monkeypatch.context() as patch:
            seen = calls(patch, at)
            try:
                folder._owned.take()
                folder._owned.set_aside()
                folder._owned.put_back()
                done = True
            except Killed:
                done = False
        folder._owned.release()  # as the system does for a process that is killed
        assert "another run" not in str(run.refusal(path, overwrite=False))
        if asked == "resume":
            RunFolder.open(path).end()
        else:
            again = RunFolder.create(path, overwrite=True)
            assert again.put_back()
            again.end()
        assert contents(path) == before, (at, seen)
        if done:
            break
    assert at > 8, "every move is a point to be killed at"


def test_a_killed_run_that_was_to_replace_another_is_gone_on_with(tmp_path) -> None:
    finished(tmp_path)
    killed = RunFolder.create(tmp_path, overwrite=True)
    killed.write_settings({"batch": 5}, {"steps": None})
    killed._owned.release()
    again = RunFolder.open(tmp_path)
    again.take()
    assert again.read_settings()["options"] == {"batch": 5}
    again.under_way()
    again.end()
    assert sorted(contents(tmp_path)) == [".lock", "settings.yaml"]


def test_a_folder_with_other_things_is_never_taken(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="files that are not a run"):
        RunFolder.create(tmp_path, overwrite=True)


def test_a_run_that_was_killed_during_its_search_can_be_replaced(tmp_path) -> None:
    killed = RunFolder.create(tmp_path)
    killed.log("searching")
    (tmp_path / "pseudolabels.pt").write_bytes(b"")
    killed._owned.release()  # no more is done for a process that is killed
    assert "a run in this folder that ended before its first step\n  -> overwrite=true" in str(
        run.refusal(tmp_path, overwrite=False)
    )
    (tmp_path / "checkpoints" / "mine.pt").write_bytes(b"")  # none has checkpoints so early
    assert "files that are not a run" in str(run.refusal(tmp_path, overwrite=True))
    (tmp_path / "checkpoints" / "mine.pt").unlink()
    with pytest.raises(UserError, match="ended before its first step"):  # what was found may have taken hours
        RunFolder.create(tmp_path, unbegun=True)
    RunFolder.create(tmp_path, overwrite=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "checkpoints"]


def test_a_run_that_was_killed_before_it_had_settings_can_be_begun(tmp_path) -> None:
    killed = RunFolder.create(tmp_path)
    killed.log("loading")
    assert "another run is at work" in str(run.refusal(tmp_path, overwrite=False))
    killed._owned.release()
    assert "ended before its first step\n  -> resume=true begins it" in str(run.refusal(tmp_path, overwrite=False))
    RunFolder.create(tmp_path, unbegun=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "checkpoints"], "its log is not the other's"
    (tmp_path / "taken").mkdir()
    assert not run.nothing_yet(tmp_path / "taken"), "nobody was here"
    (tmp_path / "taken" / ".lock").touch()
    assert run.nothing_yet(tmp_path / "taken")
    (tmp_path / "taken" / "thesis.tex").touch()
    assert not run.nothing_yet(tmp_path / "taken")
    begun = make(tmp_path / "begun")
    begun.close()
    with pytest.raises(UserError, match="there is a run in this folder already"):
        RunFolder.create(tmp_path / "begun", unbegun=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_use_is_not_taken(tmp_path, overwrite: bool) -> None:
    """Neither by another process nor before the first run has written its settings."""
    folder = RunFolder.create(tmp_path / "a")
    program = (
        "import sys; from pathlib import Path; from headstart.run.folder import refusal\n"
        "print(refusal(Path(sys.argv[1]), overwrite=sys.argv[2] == 'True'))"
    )

    def asked() -> str:
        command = [sys.executable, "-c", program, str(tmp_path / "a"), str(overwrite)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "another run is at work in this folder" in asked()
    folder.write_settings({}, {})
    assert "another run is at work in this folder" in asked()
    with pytest.raises(UserError, match="another run is at work"):
        RunFolder.create(tmp_path / "a", overwrite=overwrite)
    folder.close()
    assert ("there is a run in this folder already" in asked()) is not overwrite


def test_a_run_to_go_on_with_is_not_shared(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    first = make(tmp_path)
    second = RunFolder.open(tmp_path)
    with pytest.raises(UserError, match="another run is at work"):
        second.take()
    first.close()
    second.take()


def test_a_file_in_the_way(tmp_path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "x")


def test_nothing_to_resume(tmp_path) -> None:
    with pytest.raises(UserError, match="there is no run to resume"):
        RunFolder.open(tmp_path)


def test_metrics_are_lines_of_json_and_nan_is_null(tmp_path) -> None:
    folder = make(tmp_path)
    folder.metrics({"step": 1, "loss": math.nan})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None}


def test_truncating_drops_later_and_torn_lines(tmp_path) -> None:
    folder = make(tmp_path)
    for step in (1, 5, 9):
        folder.metrics({"step": step})
    folder.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 1')
    RunFolder.open(tmp_path).truncate_metrics(6)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 5}\n'


def test_skipped_images_are_listed_once_also_after_reopening(tmp_path) -> None:
    folder = make(tmp_path)
    folder.skip([("a,b.jpg", "truncated"), ("a,b.jpg", "truncated")])
    folder.close()
    again = RunFolder.open(tmp_path)
    again.skip([("a,b.jpg", "truncated"), ("c.jpg", "empty")])
    again.close()
    assert again.skipped == 2
    with (tmp_path / "skipped.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["path", "reason"], ["a,b.jpg", "truncated"], ["c.jpg", "empty"]]


def test_undecodable_file_names_can_be_listed(tmp_path) -> None:
    folder = make(tmp_path)
    folder.skip([("\udce4.jpg", "empty")])
    folder.close()
    assert b"\xe4.jpg,empty" in (tmp_path / "skipped.csv").read_bytes()
    again = RunFolder.open(tmp_path)
    again.skip([("\udce4.jpg", "empty")])
    again.close()
    assert again.skipped == 1


@pytest.mark.parametrize(
    ("left", "whole"),
    [
        (b'path,reason\r\na.jpg,empty\r\n"b', {"a.jpg": "empty"}),  # cut in a name
        (b'path,reason\r\na.jpg,empty\r\n"b\nc', {"a.jpg": "empty"}),  # that has an end of line
        (b"path,reason\r\na.jpg,empty\r\nb.jpg,trunca", {"a.jpg": "empty"}),
        (b"path,reason\r\na.jpg,empty\r\n\0\0\0\0", {"a.jpg": "empty"}),  # as a crash of the machine leaves it
        (b"path,rea", {}),
        (b"", {}),
        (b"a\xff.jpg,empty\r\n\xfe\r\nb.jpg,x,y\r\n", {"a\udcff.jpg": "empty"}),  # without its first line
        (b"path,reason\r\na.jpg,empty\r\nb.jpg," + b"x" * 200_000 + b"\r\n", {"a.jpg": "empty"}),
    ],
)
@pytest.mark.parametrize("name", ["skipped.csv", "noted.csv"])
def test_a_list_of_images_that_is_damaged_is_gone_on_with(tmp_path, left: bytes, whole: dict[str, str], name) -> None:
    folder = make(tmp_path)
    folder.close()
    (tmp_path / name).write_bytes(left.replace(b"reason", b"note") if name == "noted.csv" else left)
    again = RunFolder.open(tmp_path)
    assert (tmp_path / name).read_bytes().endswith(left[-4:]), "another run may be writing to it"
    again.take()
    (again.skip if name == "skipped.csv" else again.note)([("a.jpg", "empty"), ("new.jpg", "empty")])
    again.end()
    with (tmp_path / name).open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["path", "reason" if name == "skipped.csv" else "note"]
    assert dict(rows[1:]) == {**whole, "a.jpg": "empty", "new.jpg": "empty"}
    assert len(rows) == 1 + len(dict(rows[1:]))
    if name == "skipped.csv":
        assert again.skipped == len(rows) - 1
    else:
        assert again.noted() == [f"{len(rows) - 1} images: empty (noted.csv lists them)"]


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'{"step": 2, "loss": 1e999}\n', b"[[[[", b'{"step": 3}\n{"st'])
def test_metrics_that_are_damaged_are_gone_on_with(tmp_path, damage: bytes) -> None:
    folder = make(tmp_path)
    folder.metrics({"step": 1, "loss": 0.5})
    folder.close()
    with (tmp_path / "metrics.jsonl").open("ab") as stream:
        stream.write(damage)
    again = RunFolder.open(tmp_path)
    again.take()
    again.truncate_metrics(3)
    again.metrics({"step": 3, "loss": 0.25})
    again.end()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found[0] == {"step": 1, "loss": 0.5}
    assert found[-1] == {"step": 3, "loss": 0.25}
    assert all(line == {"step": 2, "loss": None} for line in found[1:-1])


def test_new_folder_counts_up(tmp_path) -> None:
    assert run.new_folder(tmp_path, "x") == tmp_path / "x"
    (tmp_path / "x").mkdir()
    (tmp_path / "x-2").mkdir()
    assert run.new_folder(tmp_path, "x") == tmp_path / "x-3"


def test_git_state_of_names_that_are_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (
        ["init", "-q"],
        ["config", "core.quotepath", "false"],
        [*author, "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *words], check=True)
    assert (provenance.git_state() or {})["changed"] is False
    Path(os.fsdecode(b"caf\xe9.txt")).touch()
    assert (provenance.git_state() or {})["changed"] is True


def test_git_state_outside_git(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_said_in_words_and_closing_adds_nothing(tmp_path) -> None:
    folder = make(tmp_path)
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(RunError, match="the disk is full"):  # exit status 1: nothing was asked wrongly
        folder.log("a line")
    folder.close()


def test_what_was_noted_before_is_noted_once(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run")
    first.write_settings({}, {})
    first.note([("a.png", "12 bits in 16"), ("b.png", "12 bits in 16")])
    first.keep()
    first.close()
    again = RunFolder.open(tmp_path / "run")
    again.note([("a.png", "12 bits in 16"), ("a.png", "no end marker"), ("c.png", "12 bits in 16")])
    again.close()
    lines = (tmp_path / "run/noted.csv").read_text().splitlines()
    assert lines[1:3] == ["a.png,12 bits in 16", "b.png,12 bits in 16"]
    assert lines[3:] == ["a.png,no end marker", "c.png,12 bits in 16"]
    assert again.noted()[0].startswith("3 images: 12 bits in 16")


def test_a_run_that_leaves_nothing_keeps_others_out_to_its_end(tmp_path, monkeypatch) -> None:
    folder, seen = RunFolder.create(tmp_path / "a"), []
    folder.log("nothing yet")
    clear = OwnedFolder.clear
    monkeypatch.setattr(OwnedFolder, "clear", lambda self: (seen.append(in_use(self.path)), clear(self)))
    folder.end()
    assert "another run is at work" in str(seen[0])
    assert not (tmp_path / "a").exists()
