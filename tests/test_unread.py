"""Storage or memory that gives out while a file of ours is read says nothing of the file: all stays as it is."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headstart.comparison import pretrainings
from headstart.comparison.pool import Slot
from headstart.comparison.pretrainings import Node, Pretraining
from headstart.comparison.recipes import file_marks
from headstart.comparison.request import Training
from headstart.detectors.finetuner import FinetuneSettings
from headstart.detectors.under_way import UnderWay
from headstart.errors import RunError, UserError, gave_out
from headstart.files import check_seal, content_hash, seal
from headstart.jobs import going_on, search
from headstart.pseudolabels.parts import Parts
from headstart.run.folder import RunFolder
from headstart.training import checkpoint

Failing = Callable[..., None]
PASSING = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    MemoryError(),
]


@pytest.fixture(params=PASSING, ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")))
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Has files of some names fail as they are opened to be read, until it is called without any."""
    whole = Path.open

    def fail(*names: str) -> None:
        def opened(self: Path, mode: str = "r", *given: Any, **more: Any) -> Any:
            if self.name in names and "r" in mode:
                raise request.param
            return whole(self, mode, *given, **more)

        monkeypatch.setattr(Path, "open", opened)

    return fail


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EINVAL, "Invalid argument"), False),  # a place before the begin, of a table that is damaged
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (RuntimeError("unable to mmap 4096 bytes from file <a.pt>: Cannot allocate memory (12)"), True),
        (RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"), False),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (ValueError("its checksum is missing"), False),
    ],
)
def test_what_says_nothing_of_a_file(error: Exception, unknown: bool) -> None:
    assert gave_out(error) == unknown


def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(tmp_path: Path, failing: Failing) -> None:
    """Before, it was renamed, and removed at the next save."""
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step})
    before = contents(tmp_path)
    failing("step-00000002.pt")
    with pytest.raises(RunError, match=r"step-00000002\.pt: cannot be read now: .*\n  -> nothing was removed"):
        checkpoint.newest(tmp_path)
    failing()
    assert contents(tmp_path) == before
    assert checkpoint.newest(tmp_path) == ({"format": 2, "step": 2}, {})


def test_memory_that_is_short_while_a_checkpoint_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    checkpoint.save(tmp_path, {"step": 1})
    monkeypatch.setattr(torch, "load", short)
    with pytest.raises(RunError, match="can't allocate memory"):
        checkpoint.newest(tmp_path)


def test_storage_that_fails_in_the_middle_of_a_file_without_a_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    torch.save({"format": 1, "step": 3}, tmp_path / "step-00000003.pt")
    monkeypatch.setattr(zipfile.ZipFile, "testzip", fail)
    with pytest.raises(OSError, match="Input/output error"):
        check_seal(tmp_path / "step-00000003.pt")


def test_parts_of_a_search_that_cannot_be_read_now_are_kept(tmp_path: Path, failing: Failing) -> None:
    """Before, one failure removed the part and all after it."""
    made = Parts(tmp_path)
    for _ in range(3):
        made.add(None, torch.tensor([0]), 1)
        made.finish()
    before = contents(tmp_path)
    assert len(before) == 3
    failing("part-000000.pt")
    with pytest.raises(RunError, match="cannot be read now"):
        Parts(tmp_path)
    failing()
    assert contents(tmp_path) == before
    assert Parts(tmp_path).batches == 3


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_metrics_that_cannot_be_read_now_are_kept(tmp_path: Path, failing: Failing, name: str) -> None:
    """Before, they were written anew, as those of an empty file."""
    run = RunFolder.create(tmp_path / "run")
    run.metrics({"step": 1.0, "loss": 0.5})
    run.event(1, "info", "something")
    run.close()
    before = contents(tmp_path)
    failing(name)
    with pytest.raises(RunError, match="cannot be read now"):
        run.truncate_metrics(2)
    failing()
    assert contents(tmp_path) == before


def test_a_list_of_images_that_cannot_be_read_now(tmp_path: Path, failing: Failing) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.skip([("a.jpg", "cut")])
    run.write_settings({}, {})
    run.close()
    failing("skipped.csv")
    with pytest.raises(RunError, match="cannot be read now"):
        RunFolder.open(tmp_path / "run")


def pretraining(folder: Path) -> Pretraining:
    """One that was stopped after its third step."""
    recipe: Any = SimpleNamespace(options={})
    made = Pretraining(Node("mine", "", 0), recipe, {"steps": 5}, None, "images", folder)
    made.run.mkdir(parents=True)
    (made.run / "settings.yaml").write_text("options: {}\nresolved: {}\n")
    checkpoint.save(made.run / "checkpoints", {"step": 3})
    made._note(spent=2.0)
    (folder / "pretrain.log").touch()
    return made


@pytest.mark.parametrize("name", ["pretraining.json", "settings.yaml", "step-00000003.pt"])
def test_a_recipes_pretraining_that_cannot_be_read_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Failing, name: str
) -> None:
    """Before, its whole folder was removed, and it was made anew."""
    asked: list[bool] = []
    monkeypatch.setattr(pretrainings, "command", lambda *_, resume, **__: asked.append(resume))
    made = pretraining(tmp_path / "mine-seed0")
    before = contents(tmp_path)
    failing(name)
    with pytest.raises(RunError, match="cannot be read now"):
        made.make(Slot("cpu", 1))
    failing()
    assert contents(tmp_path) == before
    with pytest.raises(UserError, match="it left no checkpoint"):
        made.make(Slot("cpu", 1))
    assert asked == [True]


def test_what_a_pretraining_began_with_is_to_be_readable(tmp_path: Path, failing: Failing) -> None:
    """Its mark would else be that of another file, and the pretraining one of other weights."""
    (tmp_path / "a.pt").write_bytes(b"weights")
    failing("a.pt")
    with pytest.raises(RunError, match="cannot be read now"):
        file_marks({"model": str(tmp_path / "a.pt")})
    assert content_hash(str(tmp_path / "none.pt")) == ""


@pytest.mark.parametrize("name", ["cell.json", "results.csv", "arrived.json"])
def test_a_finished_training_that_cannot_be_read_now_is_not_trained_again(
    tmp_path: Path, failing: Failing, name: str
) -> None:
    settings = FinetuneSettings("yolo11n.yaml", Path("a.yaml"), Path("a.pt"), epochs=1, out=tmp_path, name="cell")
    lists: Any = SimpleNamespace(sha256="", test_sha256="", annotations_sha256="", content_sha256="")
    start: Any = SimpleNamespace(sha256="")
    one = Training(None, settings, lists, start)  # type: ignore[arg-type]
    settings.folder.mkdir()
    for file in ("results.csv", "arrived.json", "result.json"):
        (settings.folder / file).write_text("{}")
    (settings.folder / "cell.json").write_text(json.dumps({"key": one.key, "device": "cpu"}))
    assert one.finished() is None, "these files hold no training"
    failing(name)
    with pytest.raises(RunError, match="cannot be read now"):
        one.finished()


def under_way(folder: Path) -> UnderWay:
    settings = FinetuneSettings(
        "yolo11n.yaml", Path("a.yaml"), Path("a.pt"), epochs=1, out=folder, name="cell", key="k"
    )
    settings.folder.mkdir(exist_ok=True)
    return UnderWay(settings, "sha", {}, torch.device("cpu"), 0)


def test_the_state_of_a_fine_tuning_that_cannot_be_read_now_is_kept(tmp_path: Path, failing: Failing) -> None:
    under_way(tmp_path).keep(2, {"weights": torch.ones(2)})
    before = contents(tmp_path)
    failing("under-way.pt")
    with pytest.raises(RunError, match="cannot be read now"):
        under_way(tmp_path).go_on(lambda state: None)
    failing()
    assert contents(tmp_path) == before
    epochs: list[int] = []
    under_way(tmp_path).go_on(lambda state: epochs.append(state["epoch"]))
    assert epochs == [2]


def test_a_gpu_that_is_full_costs_no_fine_tuning_its_state(tmp_path: Path) -> None:
    def full(state: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    under_way(tmp_path).keep(2, {"weights": torch.ones(2)})
    with pytest.raises(RunError, match="CUDA out of memory"):
        under_way(tmp_path).go_on(full)
    assert (tmp_path / "cell" / "under-way.pt").is_file()


def test_pseudo_labels_that_cannot_be_read_now_are_not_searched_again(tmp_path: Path, failing: Failing) -> None:
    found = tmp_path / "pseudolabels.pt"
    torch.save({"a": torch.ones(2)}, found)
    seal(found)
    assert going_on._is_whole(found)
    assert not going_on._is_whole(tmp_path / "none.pt")
    job: Any = SimpleNamespace(record={"options": {}, "resolved": {"steps": 4}}, early=False)
    failing(found.name)
    with pytest.raises(RunError, match="cannot be read now"):
        going_on._is_whole(found)
    with pytest.raises(RunError, match="cannot be read now"):
        search._stored(job, RunFolder(tmp_path))
    assert not (tmp_path / "log.txt").exists()
