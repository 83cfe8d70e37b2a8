"""Files of strangers, through every command and every option that takes one: nothing that they hold runs."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import Any

import cv2
import hostile
import numpy as np
import pytest
import torch
import yaml

import headstart
from headstart import trust
from headstart.cli.command import main
from headstart.comparison import child
from headstart.comparison.dataset import read_dataset
from headstart.comparison.recipes import read_recipe
from headstart.detectors.find import finetuner, load_detector
from headstart.detectors.finetuner import StartSettings
from headstart.detectors.ultralytics.safe_loading import safe_loading
from headstart.errors import UserError
from headstart.jobs.going_on import command, continued
from headstart.run.folder import RunFolder

REFUSED = "cannot be read without running code of posix.mkdir, which is no known layer"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def evil(tmp_path: Path, mark: Path) -> Path:
    return hostile.checkpoint(tmp_path, more=hostile.Payload(mark))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset YAML of four images with a label each, in both parts."""
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for number in range(2):
            noise = np.random.default_rng(number + len(part)).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"images/{part}/{number}.png"), noise)
            (tmp_path / f"labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    path = tmp_path / "data.yaml"
    content = {"path": str(tmp_path), "train": "images/train", "val": "images/val", "names": ["a", "b"]}
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_fixture_is_dangerous(evil: Path, mark: Path) -> None:
    torch.load(evil, weights_only=False)
    assert mark.is_dir()


@pytest.mark.parametrize("option", ["model", "init", "proposals", "teacher"])
def test_pretrain(option: str, evil: Path, mark: Path, data: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": str(hostile.model_yaml(tmp_path)), option: str(evil), "imgsz": 64}
    given |= {"method": {"proposals": "objects", "teacher": "distill"}.get(option, "pyramid")}
    given |= {"steps": 1, "batch": 2, "workers": 0, "device": "cpu", "report": False, "cache": "off"}
    with pytest.raises(UserError) as caught:
        headstart.pretrain(data=str(tmp_path / "images"), out=str(tmp_path / "out"), **given)
    assert REFUSED in str(caught.value)
    assert "trust=true" in str(caught.value)
    assert not mark.exists()


def test_probe_and_the_command_line(evil: Path, mark: Path, data: Path, capsys: Any) -> None:
    with pytest.raises(UserError, match=REFUSED):
        headstart.probe(evil, data, images=2, imgsz=64)
    assert main(["probe", str(evil), f"data={data}"]) == 2
    assert REFUSED in capsys.readouterr().err
    assert not mark.exists()
    (evil.parent / "run").mkdir()
    evil.rename(evil.parent / "run/headstart.pt")
    with pytest.raises(UserError, match=REFUSED):
        headstart.probe(evil.parent / "run", data, images=2, imgsz=64)
    assert not mark.exists()


def test_a_start_of_a_comparison(evil: Path, mark: Path, data: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": str(hostile.model_yaml(tmp_path)), "data": str(data), "labels": "100%"}
    given |= {"seeds": 1, "epochs": 1, "imgsz": 64, "lr": 1e-3, "device": "cpu", "out": str(tmp_path / "out")}
    with pytest.raises(UserError, match=REFUSED):
        headstart.compare(**given, starts=f"scratch,mine={evil}")
    assert not mark.exists()


def test_a_start_that_was_put_in_place_of_ours(evil: Path, mark: Path, tmp_path: Path) -> None:
    """What a child process trains from: the file may have been exchanged since it was built."""
    from headstart.detectors.ultralytics.training import detect

    with pytest.raises(TypeError, match="references types outside"):
        detect(evil, [], imgsz=64, device="cpu", least=0.5)
    assert not mark.exists()


def test_load_into(evil: Path, mark: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    with pytest.raises(UserError, match=REFUSED):
        headstart.load_into(YOLO(str(hostile.model_yaml(tmp_path))), evil)
    assert not mark.exists()


def test_with_trust_it_runs(evil: Path, mark: Path) -> None:
    with trust.granted(True):
        load_detector(str(evil))
    assert mark.is_dir()
    assert not trust.trusted()


def test_a_layer_of_ones_own(tmp_path: Path) -> None:
    path = hostile.with_own_layer(tmp_path)
    with pytest.raises(UserError, match=r"running code of hostile\.OwnLayer, which is no known layer"):
        load_detector(str(path))
    with trust.granted(True):
        detector = load_detector(str(path))
        detector.save(tmp_path / "back.pt", {})
        assert detector.verify(tmp_path / "back.pt", set()).ok
    # Without trust it is refused again; but a network in memory has its code here already.
    with pytest.raises(UserError, match=r"hostile\.OwnLayer"):
        load_detector(str(tmp_path / "back.pt"))
    assert detector.verify(tmp_path / "back.pt", set()).ok


@pytest.mark.parametrize("word", ["nn.ReLU()", "torch.nn.LeakyReLU(0.1)"])
def test_an_activation_that_is_a_layer(word: str, tmp_path: Path) -> None:
    assert load_detector(str(hostile.model_yaml(tmp_path, f"activation: {word}\n"))).levels


def test_an_activation_that_is_code(tmp_path: Path, mark: Path) -> None:
    word = hostile.script(mark)
    given = hostile.with_activation(tmp_path, word)
    for path in (given, hostile.model_yaml(tmp_path, f'activation: "{word}"\n')):
        with pytest.raises(UserError, match="has an activation that is code") as caught:
            load_detector(str(path))
        assert "mkdir" in str(caught.value)
        assert "trust=true" in str(caught.value)
    named = StartSettings(str(hostile.model_yaml(tmp_path, f'activation: "{word}"\n')), ("a", "b"), 0)
    with pytest.raises(UserError, match="has an activation that is code"):
        finetuner(named.model).build_start(named, tmp_path / "start.pt")
    assert not mark.exists()


def test_a_layer_that_is_a_function(tmp_path: Path) -> None:
    path = hostile.model_yaml(tmp_path)
    path.write_text(path.read_text().replace("Conv, [16, 1, 1]", "yaml_model_load, ['/etc/passwd']"))
    with pytest.raises(UserError, match="as a layer, which is no known one"):
        load_detector(str(path))


@pytest.mark.parametrize("start", ["", "http = "])
def test_a_script_in_a_dataset(start: str, data: Path, mark: Path) -> None:
    content = yaml.safe_load(data.read_text()) | {"train": "none/a", "val": "none/b"}
    data.write_text(yaml.safe_dump(content | {"download": f"{start}__import__('os').mkdir({str(mark)!r})"}))
    with pytest.raises(UserError, match=r"(?s)its download: is a script, which would run .* trust=true") as caught:
        read_dataset(data, "val", finetuner("yolo11n"))
    assert "put its images where it says" in str(caught.value)
    data.write_text(yaml.safe_dump(content | {"download": f"bash {data}"}))
    with pytest.raises(UserError, match="is a script"):
        read_dataset(data, "val", finetuner("yolo11n"))
    assert not mark.exists()


def test_a_script_that_slips_through_is_not_run(data: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.detectors.ultralytics.safe_loading.check_script", lambda *given: None)
    content = yaml.safe_load(data.read_text()) | {"train": "none/a", "val": "none/b"}
    for script in (f"__import__('os').mkdir({str(mark)!r})", f"bash -c 'mkdir {mark}'"):
        data.write_text(yaml.safe_dump(content | {"download": script}))
        with pytest.raises(UserError, match="a script in a dataset YAML is not run"):
            read_dataset(data, "val", finetuner("yolo11n"))
    assert not mark.exists()


def test_caches_that_came_with_the_data(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.data import base, dataset, utils
    from ultralytics.models.yolo.world import train as world

    from headstart.detectors.ultralytics.untouched import leaving_data_alone

    changed = [(dataset, "save_dataset_cache_file"), (dataset, "load_dataset_cache_file"), (utils, "ImageOps")]
    changed += [(base.BaseDataset, "check_cache_disk"), (utils, "_replace_image")]
    for owner, name in changed:
        if hasattr(owner, name):
            monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    monkeypatch.setattr(base.BaseDataset, "npy_files", None, raising=False)
    cache = hostile.label_cache(tmp_path, mark)
    with leaving_data_alone(tmp_path / "run"), pytest.raises(FileNotFoundError):
        dataset.load_dataset_cache_file(cache)
    torch.save({"person": hostile.Payload(mark)}, tmp_path / "text_embeddings_clip_ViT-B_32.pt")
    with safe_loading(), pytest.raises(Exception, match=r"posix\.mkdir"):
        world.torch_load(tmp_path / "text_embeddings_clip_ViT-B_32.pt", map_location="cpu")
    assert not mark.exists()


def test_the_weights_of_a_timm_teacher(tmp_path: Path, mark: Path) -> None:
    pytest.importorskip("timm")
    from headstart.teachers import timm

    torch.save({"state_dict": hostile.Payload(mark)}, tmp_path / "weights.pth")
    with pytest.raises(Exception, match=r"weights_only|allowlisted|mkdir"):
        timm._checked_weights("resnet18", str(tmp_path / "weights.pth"))
    assert not mark.exists()


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    """A user's own calls of Ultralytics are as before."""
    from ultralytics.data import utils
    from ultralytics.nn import tasks

    before = (tasks.SAFE_LOAD, utils.subprocess)
    with safe_loading(), safe_loading():
        assert tasks.SAFE_LOAD
    assert (tasks.SAFE_LOAD, utils.subprocess) == before
    assert "exec" not in vars(utils)


# What a file says of other files


def test_a_file_does_not_trust_itself(tmp_path: Path, data: Path, evil: Path, mark: Path) -> None:
    cfg = tmp_path / "options.yaml"
    cfg.write_text(yaml.safe_dump({"data": str(tmp_path / "images"), "model": str(evil), "trust": True}))
    for run in (headstart.pretrain, headstart.compare):
        with pytest.raises(UserError, match="trust: cannot be set in a file, which would trust itself"):
            run(cfg=str(cfg))
    problems: list[UserError] = []
    assert read_recipe(cfg, problems) is None
    assert "would trust itself" in str(problems[0])
    # A run's own record says that it was trusted once: that is not handed on.
    cfg.write_text(yaml.safe_dump({"asked": yaml.safe_load(cfg.read_text()), "options": {}}))
    with pytest.raises(UserError, match=REFUSED):
        headstart.pretrain(cfg=str(cfg), method="pyramid", imgsz=64, batch=2)
    assert not mark.exists()


@pytest.mark.parametrize("option", ["method", "teacher", "loggers"])
def test_a_python_file_that_a_file_names(option: str, tmp_path: Path, data: Path, mark: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    cfg = tmp_path / "options.yaml"
    value = [str(code)] if option == "loggers" else str(code)
    cfg.write_text(yaml.safe_dump({"data": str(tmp_path / "images"), option: value}))
    with pytest.raises(UserError, match="names a Python file, which would run") as caught:
        headstart.pretrain(cfg=str(cfg))
    assert "trust=true" in str(caught.value)
    assert not mark.exists()


def test_a_run_folder_that_names_a_python_file(tmp_path: Path, mark: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    folder = RunFolder.create(tmp_path / "run")
    folder.write_settings({"method": str(code), "trust": True, "data": "a"}, {"steps": 1})
    folder.close()
    for typed in ({}, {"method": "dino"}, {"trust": True}):
        with pytest.raises(UserError, match="names a Python file, which would run"):
            continued({"out": str(folder.path), **typed}, [])
    assert not mark.exists()
    with trust.granted(True), pytest.raises(UserError, match="Settings"):  # it runs, and is no method
        continued({"out": str(folder.path)}, [])
    assert mark.exists()


# Processes


def test_a_process_knows_what_its_job_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, "1")  # whoever set it: a job says it by an option
    assert trust.VARIABLE not in child.environment(1, {})
    with trust.granted(True):
        told = child.environment(1, {})
    assert told[trust.VARIABLE] == "1"
    with trust.granted(False):  # put back afterwards
        trust.from_parent()
        assert trust.trusted()
    assert not trust.trusted()


def test_a_process_imports_nothing_from_where_it_works(tmp_path: Path, mark: Path) -> None:
    for name in ("calendar", "datetime", "runpy"):
        (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    log = tmp_path / "log.txt"
    assert child.run("calendar", ["2024", "2"], log, 1, threading.Event(), folder=tmp_path) == 0
    assert "February 2024" in log.read_text()
    assert not mark.exists()


def test_what_to_type_to_go_on(tmp_path: Path) -> None:
    used: dict[str, Any] = {"method": "dino", "teacher": None, "loggers": ["csv"], "trust": False}
    assert command(tmp_path, used) == f"headstart pretrain resume=true out={tmp_path}"
    used |= {"method": "/a b/mine.py", "loggers": ["csv", "/c/notes.py"], "trust": True}
    shown = shlex.split(command(tmp_path, used))
    assert shown[4:] == ["method=/a b/mine.py", "loggers=csv", "loggers=/c/notes.py", "trust=true"]
