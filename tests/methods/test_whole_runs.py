"""Whole pretrainings on a real YOLO: what was trained arrives, and a resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from ultralytics import YOLO

import small
from headstart.errors import UserError
from headstart.jobs.pretrain import pretrain
from headstart.launch.threads import computing_on
from headstart.methods import find
from headstart.pseudolabels.base import PseudoLabels
from headstart.run.folder import RunFolder
from headstart.training import checkpoint
from untouched import untouched

SMALL: dict[str, Any] = {"batch": 4, "imgsz": 64, "local_imgsz": 32, "steps": 4, "save_every": 2, "log_every": 1}
SMALL |= {"workers": 0, "device": "cpu", "report": False}
NECK = {"pyramid", "distill"}
HEAD = {"objects", "selftrain"}
CLASSES = ["disk", "ring"]


class Patches(nn.Module):
    """A teacher: colors of 8 x 8 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 8)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights, as far as a test is concerned."""
    path = tmp_path_factory.mktemp("weights") / "start.pt"
    torch.manual_seed(3)
    YOLO("yolo11n.yaml", verbose=False).save(path)
    return path


def labelled(images: Path, folder: Path) -> Path:
    """A dataset YAML of a third of the images, each with an object in the middle."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, path in enumerate(sorted(images.iterdir())[::3]):
        shutil.copy(path, folder / "images" / path.name)
        (folder / "labels" / path.name).with_suffix(".txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.6\n")
    data = folder / "few.yaml"
    data.write_text(f"path: {folder}\ntrain: images\nnames: {CLASSES}\n")
    return data


def options(method: str, data: Path, weights: Path, few: Path, device: str = "cpu") -> dict[str, Any]:
    given = {
        **SMALL,
        "device": device,
        "data": str(data),
        "model": "yolo11n.yaml",
        "method": method,
        "init": str(weights),
        "lr": 1e-3,
    }
    own = find.find(method).settings.model_fields
    given |= {"hidden_dim": 32} if "hidden_dim" in own else {}
    given |= {"teacher": Patches()} if "teacher" in own and own["teacher"].is_required() else {}
    if "labels" in own:
        given |= {"labels": str(labelled(data, few)), "held_out": 0}
    return {**given, "anchor": 0.5} if method == "byol" else given


@pytest.mark.parametrize("method", find.names())
def test_what_was_trained_arrives_and_resuming_changes_nothing(
    method: str, image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    arrives_and_resumes(method, image_folder, weights, tmp_path, "cpu")


def test_the_same_with_a_thread_for_each_view(image_folder: Path, weights: Path, tmp_path: Path) -> None:
    with computing_on(2):
        arrives_and_resumes("dino", image_folder, weights, tmp_path, "cpu")


@pytest.mark.cuda
@pytest.mark.parametrize("method", find.names())
def test_the_same_from_a_gpu(method: str, image_folder: Path, weights: Path, tmp_path: Path, repeatable: None) -> None:
    arrives_and_resumes(method, image_folder, weights, tmp_path, "cuda")


def arrives_and_resumes(method: str, image_folder: Path, weights: Path, tmp_path: Path, device: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given = options(method, image_folder, weights, tmp_path / "few", device)
    with untouched(image_folder), untouched(tmp_path / "few") if "labels" in given else nullcontext():
        run = pretrain(**given, out=str(whole))
    assert run.checkpoint is not None
    end = checkpoint.newest(whole / "checkpoints")[0]

    # What arrived: the student's own tensors, the neck's among them where it is trained.
    found, start = YOLO(run.checkpoint).model, YOLO(weights).model.state_dict()
    names, neck_starts = found.state_dict(), len(found.yaml["backbone"])
    inner = "inner." if "anchor" in given else ""
    student = {
        name.removeprefix(inner + part): one
        for name, one in end["method"].items()
        for part in ("student.", "head.")
        if name.startswith(inner + part + "model.")
        if not (part == "head." and re.search(r"cv3\.\d\.2\.", name))  # its outputs are clusters, no classes
    }
    if "labels" in given:  # the mean of the teachers at the ends of burn-in and of the round, which weighs twice
        last, extra = end["method"], end["method"]["_extra_state"]
        assert extra["mean"]["number"] == 1
        student = {
            name: ((mean + 2 * last[f"{part}.{name}"]) / 3 if mean.is_floating_point() else last[f"{part}.{name}"])
            for part, states in extra["mean"]["states"].items()
            for name, mean in states.items()
            if name in names
        }
    for name, tensor in names.items():
        torch.testing.assert_close(tensor, student.get(name, start[name]), rtol=1e-6, atol=1e-7)
        assert name in student or torch.equal(tensor, start[name]), name
    if "labels" in given:
        assert list(found.names.values()) == CLASSES
        assert set(student) == set(names), "all of the detector is trained"
        start = {name: one for name, one in start.items() if one.shape == names[name].shape}
    changed = {
        int(name.split(".")[1]) for name in student if name in start and not torch.equal(names[name], start[name])
    }
    last = len(found.model) - 1
    assert max(changed) == (last if method in HEAD else last - 1 if method in NECK else neck_starts - 1)

    # Cut after step 2, as by a lost machine, and gone on with.
    shutil.copytree(whole, cut)
    (cut / "checkpoints" / "step-00000004.pt").unlink()
    again = {"teacher": given["teacher"]} if "teacher" in given else {}
    pretrain(out=str(cut), resume=True, **again)
    resumed = checkpoint.newest(cut / "checkpoints")[0]
    assert same(resumed["method"], end["method"])
    assert same(resumed["optimizer"], end["optimizer"])
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (whole, cut)]
    losses = [[(json.loads(line)["step"], json.loads(line)["loss"]) for line in one] for one in lines]
    assert losses[0] == losses[1]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_live_teacher_must_be_given_again(image_folder: Path, weights: Path, tmp_path: Path) -> None:
    pretrain(**{**options("distill", image_folder, weights, tmp_path / "few"), "steps": 2}, out=str(tmp_path / "run"))
    with pytest.raises(UserError, match="teacher: was a network in memory"):
        pretrain(out=str(tmp_path / "run"), resume=True)


def test_a_teachers_features_are_clustered_before_the_first_step(image_folder: Path, tmp_path: Path) -> None:
    run, other, plain, weights = (tmp_path / name for name in ("run", "other", "plain", "few.pt"))
    YOLO(small.small_yaml(), verbose=False).save(weights)
    given = {**options("objects", image_folder, weights, tmp_path / "few"), "clusters": 3, "model": small.small_yaml()}
    pretrain(**given, teacher=Patches(), out=str(run))
    pretrain(**given, out=str(plain))
    found, without = (PseudoLabels.load(one / "pseudolabels.pt")[0] for one in (run, plain))
    resolved = yaml.safe_load((run / "settings.yaml").read_text())["resolved"]
    assert resolved["shown"] == 1, "four images make one mosaic"
    assert resolved["search_seconds"] > 0
    assert torch.equal(found.boxes, without.boxes)
    assert not torch.equal(found.labels, without.labels)
    # A resumed run has its objects, and needs no teacher.
    shutil.copytree(run, other)
    (other / "checkpoints" / "step-00000004.pt").unlink()
    pretrain(out=str(other), resume=True)
    assert same(
        checkpoint.newest(other / "checkpoints")[0]["method"], checkpoint.newest(run / "checkpoints")[0]["method"]
    )


def test_a_gentler_rate_with_init(image_folder: Path, weights: Path, tmp_path: Path) -> None:
    given = {**options("byol", image_folder, weights, tmp_path / "few"), "steps": 2, "out": str(tmp_path / "run")}
    del given["lr"]
    pretrain(**given)
    resolved = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["resolved"]
    assert (resolved["shown"], resolved["search_seconds"]) == (4, 0.0)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["lr"] == pytest.approx(2e-4)  # a fifth of BYOL's 1e-3
    assert lines[0]["anchor_drift"] == pytest.approx(0, abs=1e-6)  # nothing has moved before the first step
    assert lines[1]["anchor_drift"] > 1e-4


def test_a_run_goes_on_with_its_own_labels_alone(image_folder: Path, tmp_path: Path) -> None:
    few, run = labelled(image_folder, tmp_path / "few"), tmp_path / "run"
    given = {**SMALL, "data": str(image_folder), "model": small.small_yaml(), "method": "selftrain"}
    given |= {"labels": str(few), "held_out": 0, "steps": 2, "save_every": 1, "out": str(run)}
    pretrain(**given)
    (run / "checkpoints" / "step-00000002.pt").unlink()
    edited = sorted((few.parent / "labels").iterdir())[-1]
    before = edited.read_text()
    edited.write_text(before + "0 0.2 0.2 0.1 0.1\n")
    with pytest.raises(UserError, match=r"labels: the labels of .*few.yaml are not those that this run began with: 8 "):
        pretrain(**given, resume=True)
    edited.write_text(before)
    more = image_folder / "0-new.png"  # before all others
    shutil.copy(next(image_folder.iterdir()), more)
    try:
        with pytest.raises(UserError, match="data: the images are not those that this run began with and has labels"):
            pretrain(**given, resume=True)
    finally:
        more.unlink()
    assert pretrain(**given, resume=True).ok


def test_a_detector_of_other_classes_labels_first(image_folder: Path, weights: Path, tmp_path: Path) -> None:
    """It is not needed where a run goes on: what it found is not looked for again."""
    given = {**SMALL, "data": str(image_folder), "model": small.small_yaml(), "method": "selftrain"}
    given |= {"labels": str(labelled(image_folder, tmp_path / "few")), "held_out": 0, "proposal_imgsz": 96}
    other = shutil.copy(weights, tmp_path / "other.pt")
    given |= {"proposals": str(other), "teacher": Patches(), "steps": 4, "rounds": 2, "unsure": 1e-5}
    whole = tmp_path / "whole"
    assert pretrain(**given, out=str(whole)).ok
    end = checkpoint.newest(whole / "checkpoints")[0]
    passes = end["method"]["_extra_state"]["history"]
    assert [(one["step"], one.get("by")) for one in passes] == [(0, "yolo11n"), (2, None)]
    (whole / "checkpoints" / "step-00000004.pt").unlink()
    other.unlink()  # it has done its part
    pretrain(out=str(whole), resume=True, teacher=Patches())
    other.write_bytes(weights.read_bytes())
    assert same(checkpoint.newest(whole / "checkpoints")[0]["method"], end["method"])
    record = (
        json.loads((whole / "teacher.json").read_text()) if (whole / "teacher.json").exists() else {"passes": passes}
    )
    assert record["passes"][0]["by"] == "yolo11n"
    with pytest.raises(UserError, match="proposals: yolo11n finds objects, but does not know your classes"):
        pretrain(**{**given, "teacher": None}, out=str(tmp_path / "nameless"))
    with pytest.raises(UserError, match=r"proposals: must be a \.pt checkpoint, not 'yolo11n.yaml'"):
        pretrain(**{**given, "proposals": "yolo11n.yaml"}, out=str(tmp_path / "other"))


def test_a_run_that_was_killed_before_it_had_settings_begins_by_resume(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**SMALL, "data": str(image_folder), "model": small.small_yaml(), "method": "dino", "steps": 1}
    given |= {"hidden_dim": 32, "out": str(tmp_path / "run")}
    killed = RunFolder.create(tmp_path / "run")
    killed.log("loading")
    killed._owned.release()  # no more is done for a process that is killed
    with pytest.raises(UserError, match="resume=true begins it"):
        pretrain(**given)
    assert pretrain(**given, resume=True).ok
    said = "no run had begun in this folder: it begins now"
    assert said in capsys.readouterr().err
    assert said in (tmp_path / "run" / "log.txt").read_text()
    assert pretrain(**given, resume=True).ok, "it has begun, and is gone on with"
    assert said not in capsys.readouterr().err


def test_every_option_of_selftrain_resumes_exactly(image_folder: Path, tmp_path: Path) -> None:
    """Labelled before steps 1 and 3 of 6, cut after 4; the same with loader processes, which read ahead."""
    given = {**SMALL, "data": str(image_folder), "model": small.small_yaml(), "method": "selftrain"}
    given |= {"labels": str(labelled(image_folder, tmp_path / "few")), "held_out": 0, "batch": 8, "steps": 6}
    given |= {"rounds": 2, "keep": "class", "unsure": 1e-5, "balance": 1.0, "mixup": 1.0, "burn_in": 0.2, "settle": 0.0}
    given |= {"close_mosaic": 0.0, "max_objects": 5}
    whole = tmp_path / "whole"
    pretrain(**given, out=str(whole))
    end = checkpoint.newest(whole / "checkpoints")[0]
    passes = end["method"]["_extra_state"]["history"]
    assert [one["step"] for one in passes] == [1, 3]
    assert all(set(one["keep"]) == set(CLASSES) for one in passes)
    assert [one[:2] for one in end["method"]["_extra_state"]["balanced"]] == [(2, 3), (4, 6)]
    pretrain(**{**given, "workers": 2}, out=str(tmp_path / "ahead"))
    assert same(checkpoint.newest(tmp_path / "ahead" / "checkpoints")[0]["method"], end["method"])
    (whole / "checkpoints" / "step-00000006.pt").unlink()
    pretrain(out=str(whole), resume=True)
    assert same(checkpoint.newest(whole / "checkpoints")[0]["method"], end["method"])
