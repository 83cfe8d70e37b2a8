"""What ``model=`` of doctor says: which weights are measured, and whether labels are read as those of poses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ultralytics import YOLO

from headstart import cli
from headstart.doctor.findings import Finding
from headstart.errors import UserError
from headstart.jobs.doctor import doctor
from headstart.jobs.named_model import ModelHere
from headstart.jobs.scenes import draw_dataset
from headstart.settings.tools import DoctorSettings


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes: 12 labelled images to train on, 6 to validate on; beside them a detector and a pose model."""
    folder = tmp_path_factory.mktemp("scenes")
    draw_dataset(folder / "d", unlabelled=2, train=12, val=6, imgsz=96)
    YOLO("yolo11n.yaml", verbose=False).save(folder / "net.pt")
    YOLO("yolo11n-pose.yaml", verbose=False).save(folder / "points.pt")
    return folder


@pytest.fixture
def scenes(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whose YAML is one of poses, and whose label files are of boxes, as headstart exports them."""
    shutil.copytree(drawn / "d", tmp_path / "d")
    yaml = tmp_path / "d" / "scenes.yaml"
    yaml.write_text(yaml.read_text() + "kpt_shape: [2, 3]\n")
    monkeypatch.chdir(tmp_path)
    return yaml


def found_with(yaml: Path, **model: str) -> dict[str, Finding]:
    report = doctor(DoctorSettings(data=str(yaml), device="cpu", **model))
    return {one.about: one for one in report.findings if not one.about.startswith(("versions", "devices", "folders"))}


@pytest.mark.parametrize("model", [{}, {"model": "not-there.pt"}])
def test_boxes_for_a_detector_in_a_data_set_of_poses(scenes: Path, model: dict[str, str]) -> None:
    found = found_with(scenes, **model)
    assert [one.about for one in found.values() if one.outcome == "wrong"] == []
    assert found["labels.train"].facts["used"] == 12
    note = found["labels.train.pose"]
    assert note.outcome == "note"
    assert note.words.startswith("train: a pose model would leave out 12 of 12 images for their label files")
    assert note.details[0].endswith("00000.txt: line 1 has 5 numbers; a pose has 11")
    file = scenes.parent / "labels" / "train" / "00000.txt"
    file.write_text("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.5 0.5 2\n")  # a line of a pose is none of a polygon, nor left out
    found = found_with(scenes, **model)
    assert found["labels.train.pose"].words.startswith("train: a pose model would leave out 11 of 12 images")
    assert "labels.train.dropped" not in found


def test_boxes_for_a_pose_model(scenes: Path, drawn: Path) -> None:
    """By its name where it is not on this machine, else by what the file holds."""
    for model in ("yolo11n-pose.pt", str(drawn / "points.pt")):
        found = found_with(scenes, model=model)
        dropped = found["labels.train.dropped"]
        assert (dropped.outcome, dropped.words.split(" are ")[0]) == ("wrong", "train: 12 of 12 images")
        assert "labels.train.pose" not in found


def test_a_path_that_is_not_there_is_no_other_file(scenes: Path, drawn: Path, capsys) -> None:
    """A file of its name in the current folder was measured in its place, or nothing, with status 0."""
    shutil.copy(drawn / "net.pt", "best.pt")
    for model in ("runs/x/weights/best.pt", "./bset.pt", str(scenes.parent / "nowhere" / "yolo11n.yaml")):
        with pytest.raises(UserError, match="there is no such file") as caught:
            doctor(DoctorSettings(data=str(scenes), device="cpu", model=model))
        assert caught.value.where == f"model={model}"
    assert cli.main(["doctor", f"data={scenes}", "model=runs/x/weights/best.pt"]) == 2
    assert "model=runs/x/weights/best.pt" in capsys.readouterr().err


def test_a_bare_name_is_looked_for_here(scenes: Path, drawn: Path) -> None:
    assert found_with(scenes, model="yolo11n")["start"].outcome == "unknown"
    shutil.copy(drawn / "net.pt", "yolo11n.pt")
    for name in ("yolo11n", "yolo11n.yaml", "yolo11n.pt"):
        assert ModelHere(name, trust=False).path == "yolo11n.pt"
    assert ModelHere("torchvision:fcos_resnet50_fpn", trust=False).path is None


def test_the_folder_of_a_run(scenes: Path, drawn: Path) -> None:
    Path("run").mkdir()
    with pytest.raises(UserError, match=r"holds no headstart\.pt"):
        doctor(DoctorSettings(device="cpu", model="run"))
    shutil.copy(drawn / "net.pt", "run/headstart.pt")
    found = found_with(scenes, model="run")
    assert found["start.measure"].facts["images"] == 12
    assert "run/headstart.pt" in found["start.measure"].words
