"""Whatever a folder is called: what lies in it is read, and what is written there is found."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from headstart.detectors.find import load_detector
from headstart.detectors.ultralytics.odd_paths import is_plain
from headstart.detectors.ultralytics.opening import open_checkpoint
from headstart.jobs.pretrain import pretrain

ODD = ["it's", " both ends ", 'a "b"', "100%s #1", "ünï 図", "two\nlines", "[a]*?", "$(ls);`ls`", "back\\slash"]
needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows has not")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.pt"
    torch.manual_seed(5)
    YOLO("yolo11n.yaml", verbose=False).save(path)
    return path


@pytest.mark.parametrize(
    ("path", "plain"),
    [("a/b c.pt", True), ("it's/a.pt", False), (" a.pt", False), ("a.pt ", False), ("x/yolov5n.pt", False),
     ("x/yolov5nu.pt", True), ("ünï #1.pt", True), ("a?/b.pt", False)],
)  # fmt: skip
def test_what_ultralytics_takes_as_it_is(
    path: str, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.checks import check_suffix, check_yolov5u_filename
    from ultralytics.utils.downloads import attempt_download_asset

    assert is_plain(path) == plain
    monkeypatch.chdir(tmp_path)
    for one in {path, check_yolov5u_filename(path.strip().replace("'", ""), verbose=False)}:
        Path(one).parent.mkdir(exist_ok=True)
        Path(one).touch()
    try:
        found = Path(attempt_download_asset(path)) == Path(path) and check_suffix(path, ".pt") is None
    except AssertionError:  # of check_suffix
        found = False
    assert found == plain


@needs_unix
@pytest.mark.parametrize("name", [*ODD, "yolov5n"])
def test_a_checkpoint_is_read_and_called_by_its_name(start: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / f"{name}.pt"
    path.parent.mkdir()
    shutil.copy(start, path)
    live = open_checkpoint(path)
    assert torch.equal(
        live.model.state_dict()["model.0.conv.weight"], YOLO(start).model.state_dict()["model.0.conv.weight"]
    )
    assert {str(live.ckpt_path), str(live.model_name), str(live.overrides["model"])} == {str(path)}


@needs_unix
def test_a_run_in_and_of_folders_with_odd_names(image_folder: Path, start: Path, tmp_path: Path) -> None:
    """All of them at once, and each part of a run: images, start, what is written, what is read again, the way on."""
    here = tmp_path.joinpath(*ODD)
    shutil.copytree(image_folder, here / "images")
    shutil.copy(start, here / "start.pt")
    given = {"data": str(here / "images"), "model": "yolo11n.yaml", "init": str(here / "start.pt"), "method": "simclr"}
    given |= {"batch": 4, "imgsz": 64, "steps": 2, "hidden_dim": 16, "workers": 0, "device": "cpu", "cache": "disk"}
    run = pretrain(**given, out=str(here / "run"), cache_dir=str(here / "cache"))
    assert run.ok
    assert (here / "run" / "report.html").is_file()
    (here / "run" / "headstart.pt").unlink()
    assert pretrain(**given, out=str(here / "run"), cache_dir=str(here / "cache"), resume=True).ok
    advised = (here / "run" / "finetune.yaml").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or not line or ":" in line for line in advised)
    detector = load_detector(str(here / "run" / "headstart.pt"))
    assert detector.trained
    assert "copy it to another folder first" in detector.how_to_train(here / "run" / "headstart.pt")
    assert "copy it" not in detector.how_to_train(Path("runs/a/headstart.pt"))
