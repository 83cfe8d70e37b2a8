from __future__ import annotations

import errno
import fcntl
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart import files
from headstart.aside import Contents
from headstart.errors import UserError, did_you_mean
from headstart.files import (
    OwnedFolder,
    in_use,
    json_line,
    seal,
    sweep_unfinished,
    write_atomically,
    write_json_lines,
    write_text,
)
from headstart.reading import read_json_lines
from headstart.training import checkpoint


def test_user_error_survives_pickling() -> None:
    error = UserError("wrong", where="here", hint="do this")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "here: wrong\n  -> do this"


def test_several_problems_are_numbered() -> None:
    one, two = UserError("a"), UserError("b", where="c")
    assert str(UserError.several([one, two])) == "2 problems:\n1. a\n2. c: b"
    assert UserError.several([one]) is one


def test_did_you_mean() -> None:
    assert did_you_mean("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs"]) is None


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary) -> None:
        temporary.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"the disk is full\n  -> free some space"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/1",
        "[enforce fail at inline_container.cc:671] . unexpected pos 31155968 vs 31155864",  # seen on a full tmpfs
    ],
)
def test_torchs_ways_of_reporting_a_failed_write(tmp_path, message: str) -> None:
    def write(temporary) -> None:
        raise RuntimeError(message)

    with pytest.raises(UserError, match=r"cannot be written: .*inline_container"):
        write_atomically(tmp_path / "file", write)


def test_other_errors_stay_what_they_are(tmp_path) -> None:
    def fail(temporary) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        write_atomically(tmp_path / "file", fail)


def test_write_text(tmp_path) -> None:
    write_text(tmp_path / "new" / "file", "ä")
    assert (tmp_path / "new" / "file").read_bytes() == "ä".encode()


def test_file_and_folder_are_on_the_disk_before_it_is_said(tmp_path, monkeypatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(Path(f"/proc/self/fd/{number}").readlink().name)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "content")
    assert synced == [f".file.{os.getpid()}.tmp", tmp_path.name]


# -- folders that are ours --------------------------------------------------------------------------------------------

CONTENTS = Contents("a test", "mark.yaml", ("mark.yaml", "result.txt"), ("parts",))

# A process that is killed in the middle of a write, and one that holds a folder until it is told to go.
KILLED = """
import os, signal, sys
from pathlib import Path
from headstart.files import write_atomically
def write(path):
    path.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), write)
"""
HOLDS = """
import sys
import threading
from pathlib import Path
from headstart.aside import Contents
from headstart.files import OwnedFolder
folder = OwnedFolder(Path(sys.argv[1]), Contents("a test", "mark.yaml", (), ()))
folder.take()
print("taken", flush=True)
sys.stdin.read()
"""


def owned(path: Path) -> OwnedFolder:
    return OwnedFolder(path, CONTENTS)


def test_a_folder_is_taken_by_one_alone(tmp_path) -> None:
    path = tmp_path / "a"
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        assert "another run is at work in this folder" in str(owned(path).refusal())
        with pytest.raises(UserError, match="another run is at work"):
            owned(path).take()
        other.kill()
    folder = owned(path)
    folder.take()  # the lock of a killed process holds nobody back
    folder.take()
    folder.release()
    assert folder.refusal() is None


def test_what_killed_writes_left_is_swept_when_the_folder_is_taken(tmp_path) -> None:
    for name in ("result.txt", "parts/deep/step.pt", "others/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    (tmp_path / ".mine.tmp").write_text("not of a write of ours")
    left = [path.name for path in tmp_path.rglob(".*.tmp")]
    assert len(left) == 4
    (tmp_path / "mark.yaml").write_text("")
    folder = owned(tmp_path)
    folder.take()
    assert sorted(path.name.split(".")[1] for path in tmp_path.rglob(".*.tmp")) == ["file", "mine"]
    folder.release()


def test_a_folder_that_a_killed_write_alone_has_touched_is_still_free(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "mark.yaml")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert owned(tmp_path).refusal() is None


def test_folders_and_files_of_others_are_refused_and_never_cleared(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "the folder holds files that are not a test of headstart" in str(owned(tmp_path).refusal())
    assert "is a file" in str(owned(tmp_path / "thesis.tex").refusal())
    for name in ("mark.yaml", "result.txt", "parts/a/b"):
        write_text(tmp_path / name, "")
    assert owned(tmp_path).refusal() is None
    owned(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_mark_is_removed_last(tmp_path, monkeypatch) -> None:
    """What is killed while it clears a folder leaves one that is still ours."""
    for name in ("mark.yaml", "result.txt", "parts/a/b"):
        write_text(tmp_path / name, "")
    removed = []
    monkeypatch.setattr(Path, "unlink", lambda self, **_: removed.append(self.name))
    owned(tmp_path).clear()
    assert removed == ["result.txt", "mark.yaml"]
    assert not (tmp_path / "parts").exists()


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch) -> None:
    def iterdir(self) -> None:  # the superuser who runs the tests may read everything
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert "cannot be read: Permission denied\n  -> choose an empty or new folder" in str(owned(tmp_path).refusal())


def test_discarding_removes_the_folder_unless_something_else_is_in_it(tmp_path) -> None:
    for name, other in (("a", False), ("b", True)):
        folder = owned(tmp_path / name)
        folder.take()
        write_text(tmp_path / name / "result.txt", "")
        if other:
            (tmp_path / name / "mine").write_text("")
        folder.discard()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["b", "b/mine"]


def test_sweeping_looks_below_when_asked_to(tmp_path) -> None:
    for name in (".a.1.tmp", "b/.c.2.tmp"):
        write_text(tmp_path / name, "")
    sweep_unfinished(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == [".c.2.tmp"]
    sweep_unfinished(tmp_path, deep=True)
    assert not list(tmp_path.rglob("*.tmp"))


# -- JSON lines -------------------------------------------------------------------------------------------------------


def test_json_lines_are_read_past_what_is_damaged(tmp_path) -> None:
    path = tmp_path / "lines.jsonl"
    write_json_lines(path, [{"step": 1, "text": "a\u2028b"}, {"step": 2}])
    with path.open("ab") as stream:
        stream.write(b'[1]\n\xff\xfe\n{"step": 3, "loss": NaN}\n{"step": 4')
    assert read_json_lines(path) == [{"step": 1, "text": "a\u2028b"}, {"step": 2}, {"step": 3, "loss": None}]
    assert read_json_lines(tmp_path / "none") == []
    with pytest.raises(ValueError, match="JSON compliant"):
        json_line({"loss": float("nan")})


def test_checkpoint_loads_without_unpickling_code_and_keeps_two(tmp_path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step, "weights": {"a": torch.full((2,), float(step))}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]
    assert torch.load(tmp_path / "step-00000003.pt", weights_only=True)["step"] == 3
    assert checkpoint.newest(tmp_path)[0]["weights"]["a"].tolist() == [3, 3]


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step})
    (tmp_path / "step-00000002.pt").write_bytes((tmp_path / "step-00000002.pt").read_bytes()[:100])
    assert checkpoint.newest(tmp_path)[0]["step"] == 1


def test_one_flipped_bit_anywhere_is_found_and_named(tmp_path) -> None:
    """torch reads it without a word where it lies in the weights."""
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step, "weights": {"a": torch.linspace(0, 1, 4096)}})
    newest = tmp_path / "step-00000002.pt"
    whole = newest.read_bytes()
    random = np.random.default_rng(0)
    for at in [*random.integers(0, len(whole), 60).tolist(), len(whole) - 1]:
        newest.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << int(random.integers(8)))]) + whole[at + 1 :])
        state, damaged = checkpoint.newest(tmp_path)
        assert state["step"] == 1, at
        assert list(damaged) == [newest]
    newest.write_bytes(whole)
    assert checkpoint.newest(tmp_path)[1] == {}
    (tmp_path / "step-00000001.pt").unlink()
    newest.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"no checkpoint of this run is whole: step-00000002\.pt \("):
        checkpoint.newest(tmp_path)


def test_a_checkpoint_that_is_not_finite_is_not_gone_on_from(tmp_path) -> None:
    checkpoint.save(tmp_path, {"step": 1, "weights": {"a": torch.ones(2), "mask": torch.tensor([-torch.inf])}})
    path = tmp_path / "step-00000002.pt"  # as a version wrote it that did not look
    torch.save({"format": checkpoint.FORMAT, "step": 2, "weights": {"a": torch.tensor([1.0, torch.nan])}}, path)
    seal(path)
    state, damaged = checkpoint.newest(tmp_path)
    assert state["step"] == 1
    assert damaged == {path: "it holds NaN or infinity in weights.a"}


def test_a_checkpoint_of_before_the_checksum_is_read(tmp_path) -> None:
    torch.save({"format": 1, "step": 3}, tmp_path / "step-00000003.pt")
    assert checkpoint.newest(tmp_path)[0]["step"] == 3


@pytest.mark.parametrize("content", [None, b"", b"no zip file"])
def test_no_usable_checkpoint(tmp_path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "step-00000002.pt").write_bytes(content)
    with pytest.raises(UserError, match="overwrite=true"):
        checkpoint.newest(tmp_path)[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_keeps_no_run_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As network drives and buckets that are mounted have them; storage that fails is another matter."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    owned = OwnedFolder(tmp_path / "out", Contents("a run", "settings.yaml", ("settings.yaml",), ()))
    if number == errno.EIO:
        with pytest.raises(UserError, match="cannot be written"):
            owned.take()
        return
    # What filelock puts up in place of a lock (Lustre says ENOSYS), of a process that was killed on another machine.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("4711\nanother-machine\n")
    assert owned.refusal() is None
    owned.take()
    owned.release()
    assert owned.refusal() is None


def test_what_goes_on_waits_for_what_a_killed_run_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loader processes hold the lock until they see that it is gone, with versions of filelock before 4.1."""
    (tmp_path / "mark.yaml").touch()
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == "taken\n"
        monkeypatch.setattr(files, "PATIENCE", 0.2)
        with pytest.raises(UserError, match="another run is at work"):
            owned(tmp_path).take()
        monkeypatch.setattr(files, "PATIENCE", 60.0)
        threading.Timer(1.0, left.kill).start()
        folder = owned(tmp_path)
        folder.take()
        folder.release()


def test_others_are_kept_out_until_all_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, one that began between the two lost what it had written."""
    owned = OwnedFolder(tmp_path / "out", Contents("a run", "settings.yaml", ("settings.yaml",), ()))
    owned.take()
    (tmp_path / "out" / "settings.yaml").touch()
    clear, busy = OwnedFolder.clear, []

    def watched(self: OwnedFolder) -> None:
        busy.append(in_use(self.path) is not None)
        clear(self)

    monkeypatch.setattr(OwnedFolder, "clear", watched)
    owned.discard()
    assert busy == [True]
    assert not (tmp_path / "out").exists()
