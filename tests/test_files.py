from __future__ import annotations

import errno
import pickle

import pytest
import torch

from headstart.errors import UserError, did_you_mean
from headstart.files import write_atomically, write_text
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


def test_checkpoint_loads_without_unpickling_code_and_keeps_two(tmp_path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step, "weights": {"a": torch.full((2,), float(step))}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]
    assert torch.load(tmp_path / "step-00000003.pt", weights_only=True)["step"] == 3
    assert checkpoint.load(tmp_path)["weights"]["a"].tolist() == [3, 3]


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step})
    (tmp_path / "step-00000002.pt").write_bytes((tmp_path / "step-00000002.pt").read_bytes()[:100])
    assert checkpoint.load(tmp_path)["step"] == 1


@pytest.mark.parametrize("content", [None, b"", b"no zip file"])
def test_no_usable_checkpoint(tmp_path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "step-00000002.pt").write_bytes(content)
    with pytest.raises(UserError, match="overwrite=true"):
        checkpoint.load(tmp_path)
