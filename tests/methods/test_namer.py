"""The network that names what selftrain finds, where the user leaves it open."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO

import headstart
from headstart.errors import UserError
from headstart.jobs.prepare import Job, prepare
from headstart.methods import namer
from headstart.methods.namer import at_hand
from headstart.methods.selftrain import Selftrain
from headstart.teachers import timm as timm_source
from headstart.teachers.base import FrozenTeacher, TeacherSource

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the network that names, as timm's own file of them has them."""
    timm = pytest.importorskip("timm")
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.fixture
def options(image_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Seven labelled images, one to validate on, and 16 without labels."""
    for part in ("images", "labels", "val", "pool"):
        (tmp_path / part).mkdir()
    for number, path in enumerate(sorted(image_folder.iterdir())):
        shutil.copy(path, tmp_path / ("images" if number < 7 else "val" if number == 7 else "pool") / path.name)
        if number < 7:
            (tmp_path / "labels" / path.name).with_suffix(".txt").write_text("0 0.5 0.5 0.4 0.6\n")
    (tmp_path / "my.yaml").write_text("train: images\nval: val\nnames: [a]\n")
    torch.manual_seed(3)
    YOLO("yolo11n.yaml", verbose=False).save(tmp_path / "start.pt")
    given = {"data": str(tmp_path / "pool"), "labels": str(tmp_path / "my.yaml"), "model": str(tmp_path / "start.pt")}
    small = {"batch": 4, "imgsz": 64, "steps": 4, "workers": 0, "device": "cpu", "report": False, "precision": "32"}
    return {**given, **small, "out": str(tmp_path / "run")}


def used(job: Job) -> Any:
    return job.used()["teacher"]


def test_it_is_taken_where_it_can_be_had(options: dict[str, Any], net: Path) -> None:
    run = headstart.pretrain(**options, teacher_weights=str(net))
    settings = yaml.safe_load((run.folder / "settings.yaml").read_text())
    assert settings["options"]["teacher"] == NAME
    assert "teacher" not in settings["asked"]
    assert f"teacher={NAME}: it names" in (run.folder / "log.txt").read_text()
    record = json.loads((run.folder / "teacher.json").read_text())
    assert record["unlabelled"] == 16
    again = prepare({**options, "teacher_weights": str(net), "resume": True})
    assert used(again) == NAME, "the run goes on with what it began with"


def test_where_it_cannot_be_had_the_run_says_so_and_does_without(options: dict[str, Any]) -> None:
    job = prepare(options)
    assert used(job) is None
    (said,) = [line for line in job.why if NAME in line]
    assert f"timm cannot load '{NAME}'" in said
    assert "the detector names what it finds by itself" in said
    asked = prepare({**options, "teacher": "none"} | {"teacher": None})
    assert used(asked) is None
    assert not [line for line in asked.why if "cannot load" in line]
    assert [line for line in asked.why if "the detector names what it finds by itself" in line]


def test_a_run_that_did_without_goes_on_without(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    headstart.pretrain(**options)
    monkeypatch.setattr(namer, "load_teacher", Loads())
    assert used(prepare({**options, "resume": True})) is None


def test_where_all_images_have_labels_there_is_nothing_to_name(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namer, "load_teacher", Loads())
    job = prepare({**options, "data": str(Path(options["labels"]).parent / "images")})
    assert used(job) is None
    assert not [line for line in job.why if "names" in line]


class Loads:
    """Stands in for the loading of a teacher that is at hand; draws random numbers, as timm does."""

    def __init__(self) -> None:
        self.sources: list[TeacherSource] = []

    def __call__(self, source: TeacherSource) -> FrozenTeacher:
        self.sources.append(source)
        torch.rand(7)
        return FrozenTeacher(nn.Conv2d(3, 4, 8, 8), str(source.teacher))


def test_it_changes_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namer, "load_teacher", Loads())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert at_hand(Selftrain, {"teacher": "auto"})[0] == NAME
    assert torch.get_rng_state().equal(before)


def test_images_of_other_channels_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = Loads()
    monkeypatch.setattr(namer, "load_teacher", loads)
    name, why = at_hand(Selftrain, {"teacher": "auto"}, channels=1)
    assert name is None
    assert why.startswith(f"{NAME} reads RGB")
    assert not loads.sources


def test_weights_that_were_given_must_fit(options: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt lacks"):
        prepare({**options, "teacher_weights": str(tmp_path / "other.pt")})
    with pytest.raises(UserError, match=r"teacher_weights: there is no file .*none\.pt"):
        prepare({**options, "teacher_weights": str(tmp_path / "none.pt")})
    with pytest.raises(UserError, match="teacher_mean: has no effect"):
        prepare({**options, "teacher_mean": [0.5, 0.5, 0.5]})


# -- a hub that cannot be reached --------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_source, "getproxies", lambda: {})
    return constants


def test_a_hub_that_cannot_be_reached_is_not_tried(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with timm_source._no_vain_wait():
            assert hub.HF_HUB_OFFLINE
    assert not hub.HF_HUB_OFFLINE


def test_a_hub_that_takes_connections_is_asked(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with timm_source._no_vain_wait():
            assert not hub.HF_HUB_OFFLINE


def test_behind_a_proxy_the_hub_is_asked(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_source, "getproxies", lambda: {"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    with timm_source._no_vain_wait():
        assert not hub.HF_HUB_OFFLINE
