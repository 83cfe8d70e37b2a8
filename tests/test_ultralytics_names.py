"""Data sets by the names that Ultralytics has for them; its settings and folders stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ultralytics.utils

from headstart.comparison.dataset import read_dataset
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.images.dataset_yaml import dataset_of, find_dataset_yaml, read_dataset_yaml
from headstart.images.index import find_images
from headstart.jobs.doctor import doctor
from headstart.jobs.scenes import draw_dataset
from headstart.settings.tools import DoctorSettings
from small import SMALL
from untouched import own_settings, untouched

ALL = """
import headstart
from headstart.jobs.doctor import doctor
from headstart.jobs.embed import embed
from headstart.settings.tools import DoctorSettings, EmbedSettings

run = headstart.pretrain(
    data="coco8.yaml", model="small.yaml", method="byol", steps=1, batch=2, imgsz=64, hidden_dim=8, output_dim=4,
    workers=0, device="cpu", cache="off", report=False, out="run",
)
found = headstart.probe(run.folder, "coco8.yaml", images=4, imgsz=64)
asked = {"model": str(run.checkpoint), "imgsz": 64, "workers": 0, "device": "cpu", "out": "embedded.parquet"}
embed(EmbedSettings(data="coco8.yaml", **asked))
told = doctor(DoctorSettings(data="coco8.yaml", model="no.pt", device="cpu"))
print(run.ok, sorted(found), any("train: 4 images" in one.words for one in told.findings))
"""


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ultralytics keeps data sets, with coco8 in it: 4 images to train on, 2 to measure on."""
    folder = tmp_path / "datasets"
    draw_dataset(folder / "coco8", unlabelled=0, train=4, val=2, imgsz=64)
    monkeypatch.setattr(ultralytics.utils, "DATASETS_DIR", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_a_name_is_the_data_set_everywhere(datasets: Path) -> None:
    found = [str(datasets / f"coco8/images/train/{number:05d}.jpg") for number in range(4)]
    assert list(find_images("coco8.yaml")) == found  # pretrain, probe and embed read images so
    assert list(read_dataset("coco8.yaml", "val", finetuner("yolo11n"), "yolo11n").pool) == found  # compare
    assert dataset_of("coco8.yaml").paths("train") == [str(datasets / "coco8/images/train")]  # labels=
    file = find_dataset_yaml("coco8.yaml")
    assert file is not None
    assert file.parent == Path(ultralytics.utils.__file__).parents[1] / "cfg" / "datasets"


ASKED: list[Callable[[str], Any]] = [
    lambda name: find_images(name),
    lambda name: read_dataset(name, "val", finetuner("yolo11n"), "yolo11n"),
    lambda name: doctor(DoctorSettings(data=name, model="no.pt", device="cpu")).findings,
]


@pytest.mark.parametrize("ask", ASKED, ids=["pretrain", "compare", "doctor"])
def test_what_is_not_there_is_not_fetched_by_a_script(
    ask: Callable[[str], Any], datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VOC is downloaded by Python in its YAML: it is said where its images were looked for, and how to get them."""
    ran: list[str] = []
    monkeypatch.setattr("ultralytics.data.utils.check_det_dataset", ran.append)
    assert read_dataset_yaml(find_dataset_yaml("VOC.yaml") or Path()).download.count("\n") > 5
    try:
        said = "\n".join(f"{one.words} {one.do}" for one in ask("VOC.yaml"))
    except UserError as error:
        said = str(error)
    assert "VOC.yaml is a data set that Ultralytics ships; its images are not on this machine (looked for " in said
    assert str(datasets / "VOC/images/train2012") in said
    assert "check_det_dataset('VOC.yaml')" in said
    assert "yolo settings datasets_dir=FOLDER" in said
    assert ran == []


def test_an_archive_of_a_shipped_data_set_is_fetched_without_running_anything(
    datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ultralytics.data.utils as data

    really = data.subprocess
    (datasets / "coco8").rename(datasets / "away")

    def fetch(file: str) -> None:
        assert data.subprocess is not really, "scripts can run"
        (datasets / "away").rename(datasets / "coco8")

    monkeypatch.setattr(data, "check_det_dataset", fetch)
    assert len(read_dataset("coco8.yaml", "val", finetuner("yolo11n"), "yolo11n").pool) == 4


def test_settings_and_folders_of_ultralytics_stay_as_they_are(datasets: Path, tmp_path: Path) -> None:
    """In a process of its own: Ultralytics reads its settings when it is imported."""
    settings = own_settings(tmp_path / "config", datasets)
    Path("small.yaml").write_text(SMALL)
    env = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path / "config"), "HEADSTART_CACHE": str(tmp_path / "cache")}
    with untouched(settings.parent), untouched(datasets):
        done = subprocess.run([sys.executable, "-c", ALL], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True ['backbone', 'neck'] True"
    assert {path.name.split(".")[0].split("-")[0] for path in Path().iterdir()} == {"embedded", "run", "small"}
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "config", "datasets", "work"}


@pytest.mark.parametrize("ask", [*ASKED, dataset_of], ids=["pretrain", "compare", "doctor", "labels"])
def test_a_name_that_is_nearly_that_of_a_dataset_yaml(ask: Callable[[str], Any], datasets: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean coco8\.yaml\?"):
        ask("coco8")
    (datasets / "mine.ndjson").write_text('{"type": "dataset"}\n')
    with pytest.raises(UserError, match=r"python -c 'import .*convert_ndjson_to_yolo\(\".*mine\.ndjson\"\)\)\)'; give"):
        ask(str(datasets / "mine.ndjson"))


def folder_with_yaml(datasets: Path) -> Path:
    folder = datasets / "coco8"
    (folder / "scenes.yaml").unlink()
    (folder / "a.yaml").write_text("anything: else\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    return folder


@pytest.mark.parametrize("ask", [ASKED[1], dataset_of], ids=["compare", "labels"])
def test_where_a_dataset_yaml_is_wanted_the_one_in_the_folder_is_named(
    ask: Callable[[str], Any], datasets: Path
) -> None:
    folder = folder_with_yaml(datasets)
    with pytest.raises(UserError, match=f"give the dataset YAML in it: {folder}/data.yaml"):
        ask(str(folder))


def test_a_folder_is_used_whole_and_the_dataset_yaml_in_it_named(datasets: Path) -> None:
    folder = folder_with_yaml(datasets)
    found = find_images(str(folder))
    assert len(found) > len(find_images(str(folder / "data.yaml")))
    (note,) = found.notes
    assert f"data={folder}/data.yaml leaves them out" in note
    (folder / "data.yaml").write_text("train: images/train\nnames: [a]\n")
    assert find_images(str(folder)).notes == ()
