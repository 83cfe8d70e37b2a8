"""A run whose processes share the search for objects: stopped in the midst of it, gone on with by two and by one."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

import headstart
from headstart.errors import UserError
from headstart.jobs import pretrain
from headstart.pseudolabels import search
from headstart.pseudolabels.base import PseudoLabels
from headstart.run.stopping import Stopped
from processes import in_processes
from small import SMALL

GIVEN: dict[str, Any] = {
    "method": "objects", "clusters": 4, "batch": 4, "imgsz": 64, "proposal_imgsz": 192, "workers": 0, "device": "cpu",
    "precision": "32", "report": False, "cache": "off", "steps": 6,
}  # fmt: skip


def search_alone(folder: Path, name: str, **more: Any) -> None:
    """A run up to its first step."""
    given = {**GIVEN, "model": str(folder / "small.pt"), "data": str(folder / "images"), "out": str(folder / name)}
    with pytest.raises(UserError, match="far enough"):
        headstart.pretrain(**{**given, **more})


def found(folder: Path) -> dict[str, torch.Tensor]:
    labels, rows, _ = PseudoLabels.load(folder / "pseudolabels.pt")
    assert rows is None, "all images are searched"
    return labels.tensors()


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detector, and 24 images of which one cannot be read."""

    def make(*_: Any) -> None:
        raise UserError("far enough")

    monkeypatch.setattr(pretrain, "make_method", make)
    torch.set_num_threads(1)  # as the processes have it
    torch.manual_seed(3)
    (tmp_path / "small.yaml").write_text(SMALL)
    YOLO(str(tmp_path / "small.yaml"), verbose=False).save(tmp_path / "small.pt")
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "images" / "11.jpg").write_text("no image")
    return tmp_path


def test_a_signal_to_one_keeps_what_was_found_and_the_search_goes_on_with_two_or_one(folder: Path) -> None:
    """Six batches of four images: two rounds are searched before the signal is heard."""
    search_alone(folder, "one")

    def work(rank: int) -> int:
        looks, number = search._look, [0]

        def look(*given: Any) -> Any:
            number[0] += 1
            if rank == 1 and number[0] == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return looks(*given)

        search._look = look  # in this process alone: a test's is a copy
        with pytest.raises(Stopped):
            search_alone(folder, "two", devices=2)
        if rank == 0:
            shutil.copytree(folder / "two", folder / "again")
        search_alone(folder, "two", devices=2, resume=True)
        return number[0]

    assert in_processes(2, work, folder) == [3, 3]
    search_alone(folder, "again", resume=True, devices=1)
    for name in ("two", "again"):
        log = (folder / name / "log.txt").read_text()
        assert log.count("searching 24 images for objects with small, before the first step") == 2
        assert log.count("going on with the search: 16 images were searched before") == 1
        assert "budget" not in log, "an image that cannot be read is not one for which there was no time"
        assert (folder / name / "skipped.csv").read_text().count("11.jpg") == 1
        assert not (folder / name / "search").exists()
        expected, tensors = found(folder / "one"), found(folder / name)
        assert len(tensors["boxes"]) > 24
        assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors.items())
