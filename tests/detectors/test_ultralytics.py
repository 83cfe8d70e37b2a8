from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.engine import trainer as ultralytics_trainer

import headstart
from headstart.detectors.base import Detector, Level
from headstart.detectors.find import check_model, load_detector
from headstart.detectors.handback import HandBack
from headstart.detectors.ultralytics import model_files
from headstart.errors import UserError
from headstart.trust import granted


def changed(detector: Detector, neck: bool = False) -> dict[str, torch.Tensor]:
    """Other weights for the trunk, as after a pretraining."""
    random = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(tensor.shape, generator=random) if tensor.is_floating_point() else tensor + 5
        for name, tensor in detector.trunk(neck).state_dict().items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose headstart.pt is yolo11n with another backbone, and class names of its own."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    live = YOLO("yolo11n.yaml")
    live.model.names = {i: f"thing {i}" for i in range(80)}
    detector = load_detector(live)
    detector.graft(changed(detector))
    detector.save(folder / "headstart.pt", {"method": "dino", "out": folder})
    return folder


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> Path:
    return run / "headstart.pt"


@pytest.fixture
def detector(checkpoint: Path) -> Detector:
    return load_detector(checkpoint)


# Loading


def test_yolo11n_is_read_as_its_yaml_says() -> None:
    detector = load_detector("yolo11n")
    # Widths: 1024, 256, 512, 1024 of the YAML times 0.25, each a multiple of 8.
    assert detector.backbone == Level(layer=10, stride=32, width=256)
    assert detector.levels == (Level(16, 8, 64), Level(19, 16, 128), Level(22, 32, 256))
    assert (detector.name, detector.task, len(detector.names)) == ("yolo11n", "detect", 80)
    assert [detector.part_of(f"model.{i}.x") for i in (0, 10, 11, 22, 23)] == ["backbone"] * 2 + ["neck"] * 2 + ["head"]
    assert all(parameter.requires_grad for parameter in detector.module.parameters())
    assert all(module.training for module in detector.module.modules())


def test_a_classifier_has_its_backbone_map_as_its_only_level() -> None:
    detector = load_detector("yolo11n-cls")
    assert detector.levels == (detector.backbone,)
    assert detector.task == "classify"


def test_measuring_moves_no_statistics() -> None:
    state = load_detector("yolo11n.yaml").module.state_dict()
    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {0}
    assert all(not value.any() for name, value in state.items() if name.endswith("running_mean"))


def test_the_same_seed_builds_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(load_detector("yolov8n.yaml").module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_half_checkpoint_without_gradients_can_be_trained(tmp_path: Path) -> None:
    live = YOLO("yolov8n.yaml")
    live.model.requires_grad_(False)
    live.save(tmp_path / "published.pt")
    detector = load_detector(tmp_path / "published.pt")
    assert {parameter.dtype for parameter in detector.module.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in detector.module.parameters())


def test_a_live_object_stays_as_it_is() -> None:
    live = YOLO("yolov8n.yaml")
    live.model.eval().requires_grad_(False)
    before = deepcopy(live.model.state_dict())
    detector = load_detector(live)
    detector.graft(changed(detector))
    assert not live.model.training
    assert not any(parameter.requires_grad for parameter in live.model.parameters())
    assert all(torch.equal(value, live.model.state_dict()[name]) for name, value in before.items())


def test_what_a_training_or_a_prompt_left_behind_is_not_kept(tmp_path: Path) -> None:
    live = YOLO("yolov8n-world.yaml")
    live.model.clip_model = torch.nn.Linear(3, 3)
    live.model.criterion = live.model.init_criterion()
    detector = load_detector(live)
    assert not any("clip_model" in name for name in detector.module.state_dict())
    detector.save(tmp_path / "a.pt", {})
    assert detector.verify(tmp_path / "a.pt", []).ok
    assert isinstance(live.model.clip_model, torch.nn.Linear)


def test_an_rtdetr_is_built_under_its_own_class() -> None:
    detector = load_detector("yolov8n-rtdetr.yaml")
    assert type(detector.module).__name__ == "RTDETRDetectionModel"
    assert detector.levels == load_detector(RTDETR("yolov8n-rtdetr.yaml")).levels


def test_whether_the_weights_were_trained(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert not load_detector("yolo11n").trained
    assert not load_detector(YOLO("yolo11n.yaml")).trained
    assert load_detector(checkpoint).trained
    assert load_detector(YOLO(checkpoint)).trained
    assert load_detector("yolo11n.yaml", init=checkpoint).trained
    filled = YOLO("yolo11n.yaml")
    headstart.load_into(filled, run)
    assert load_detector(filled).trained
    # What a live object without training was is kept for a run to go on with.
    load_detector(YOLO("yolo11n.yaml")).save(tmp_path / "start.pt", {})
    assert not load_detector(tmp_path / "start.pt").trained
    YOLO("yolo11n.yaml").save(tmp_path / "theirs.pt")
    assert load_detector(tmp_path / "theirs.pt").trained


def test_whether_headstart_began_at_random_weights_is_known_of_its_own_checkpoints_alone(tmp_path: Path) -> None:
    started = load_detector("yolo11n.yaml")
    started.graft({name: one + 1 for name, one in list(started.module.state_dict().items())[:1]})
    started.save(tmp_path / "ours.pt", {})
    YOLO("yolo11n.yaml").save(tmp_path / "theirs.pt")
    assert load_detector(tmp_path / "ours.pt").from_scratch
    assert not load_detector(tmp_path / "theirs.pt").from_scratch
    filled = YOLO("yolo11n.yaml")
    headstart.load_into(filled, tmp_path / "ours.pt")
    assert load_detector(filled).from_scratch
    assert not load_detector(tmp_path / "ours.pt", init=str(tmp_path / "theirs.pt")).from_scratch
    assert load_detector(tmp_path / "theirs.pt", init=str(tmp_path / "ours.pt")).from_scratch


def test_a_name_without_scale_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_detector("yolo11").notes == ("yolo11 names no scale: Ultralytics takes 'n'",)
    assert capsys.readouterr() == ("", "")


def test_a_model_yaml_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(model_files.shipped()["yolo11"].read_text(encoding="utf-8"), encoding="utf-8")
    assert load_detector(tmp_path / "mine.yaml").backbone.width == 256


# Bad input: each with the message that a user sees

BAD_NAMES = {
    "yolo11m-sg.yaml": "no model YAML is called 'yolo11m-sg.yaml'\n  -> did you mean 'yolo11m-seg'",
    "yolo11q": "no model is called 'yolo11q'\n  -> did you mean 'yolo11",
    "yolov9n.yaml": "no model YAML is called 'yolov9n.yaml'",
    "weights/yolo11n.pt": "weights/yolo11n.pt does not exist\n  -> the folder weights does not exist",
    "my-best.pt": "my-best.pt does not exist",
    "best.onnx": "best.onnx is an exported model, which cannot be trained\n  -> give its .pt",
    "": "is empty",
}


@pytest.mark.parametrize(("name", "message"), BAD_NAMES.items())
def test_bad_names(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = check_model(name)
    assert message in str(problem)
    with pytest.raises(UserError) as error:
        load_detector(name)
    assert str(error.value) == str(problem)


def write_bad_files(folder: Path) -> None:
    (folder / "empty.pt").touch()
    (folder / "corrupt.pt").write_bytes(b"\x89PNG, not a checkpoint" * 40)
    torch.save(YOLO("yolov8n.yaml").model.state_dict(), folder / "state.pt")
    torch.save({"model": YOLO("yolov8n.yaml").model.state_dict(), "epoch": 1}, folder / "other.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, folder / "linear.pt")
    torch.save([1, 2], folder / "list.pt")
    whole = folder / "whole.pt"
    YOLO("yolov8n.yaml").save(whole)
    (folder / "half.pt").write_bytes(whole.read_bytes()[:100_000])
    YOLO("yolov8n.yaml").fuse(verbose=False).save(folder / "fused.pt")
    (folder / "folder.pt").mkdir()
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [a]\n", encoding="utf-8")
    (folder / "broken.yaml").write_text("backbone: [", encoding="utf-8")
    (folder / "wrong.yaml").write_text(
        "nc: 1\nbackbone: [[-1, 1, Cnov, [64]]]\nhead: [[-1, 1, Detect, [nc]]]\n", encoding="utf-8"
    )
    gray = model_files.shipped()["yolov8"].read_text(encoding="utf-8")
    (folder / "gray-cls.yaml").write_text(
        "channels: 1\n" + model_files.shipped()["yolov8-cls"].read_text(encoding="utf-8"), encoding="utf-8"
    )
    (folder / "model.txt").write_text(gray, encoding="utf-8")


BAD_FILES = {
    "empty.pt": "empty.pt is empty",
    "corrupt.pt": "corrupt.pt cannot be read as an Ultralytics checkpoint",
    "state.pt": "state.pt holds tensors only (a state dict), not a model",
    "other.pt": "other.pt holds tensors only (a state dict), not a model",
    "linear.pt": "linear.pt is not built from a model YAML",
    "list.pt": "list.pt holds a list, not a model",
    "half.pt": "half.pt cannot be read as an Ultralytics checkpoint",
    "fused.pt": "fused for prediction: its batch norms are gone",
    "folder.pt": "folder.pt is a folder, not a checkpoint",
    "data.yaml": "data.yaml is a dataset YAML\n  -> give it as data=",
    "broken.yaml": "broken.yaml cannot be read as YAML",
    "wrong.yaml": "Ultralytics cannot build wrong.yaml: 'Cnov'",
    "gray-cls.yaml": "reads images of 1 channels, not of 3",
    "model.txt": "model.txt is neither a model YAML nor an Ultralytics checkpoint",
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_bad_files(folder)
    return folder


@pytest.mark.parametrize(("name", "message"), BAD_FILES.items())
def test_bad_files(name: str, message: str, bad_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bad_files)
    with pytest.raises(UserError) as error:
        load_detector(name)
    assert message in str(error.value)
    assert str(error.value).startswith("model: ")
    with pytest.raises(UserError) as error:
        load_detector(name, where="proposals")
    assert message in str(error.value)
    assert str(error.value).startswith("proposals: "), "a wrong option would be looked at"


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise ConnectionError("Download failure for https://somewhere")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", no_network)
    assert check_model("yolo11x.pt") == []
    with pytest.raises(
        UserError, match=r"yolo11x.pt is not on disk, and Ultralytics could not download it: Download fail"
    ):
        load_detector("yolo11x.pt")
    for option, told in (({"where": "proposals"}, "proposals"), ({"init": "yolo11x.pt"}, "init")):
        with pytest.raises(UserError, match=rf"^{told}: yolo11x.pt(.|\n)*-> connect this machine, or give a path"):
            load_detector("yolo11n.yaml" if "init" in option else "yolo11x.pt", **option)


def test_a_backbone_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr("torchvision.models.get_model", no_network)
    with pytest.raises(UserError, match="is built with weights that have to be downloaded, and that failed"):
        load_detector("yolo11-cls-resnet18.yaml")


def test_what_is_no_detector() -> None:
    with pytest.raises(UserError, match="Linear is not a detector that can be pretrained"):
        load_detector(torch.nn.Linear(2, 2))
    exported = YOLO("yolov8n.yaml")
    exported._modules.pop("model")
    exported.__dict__["model"] = "best.onnx"  # as YOLO("best.onnx") has it
    (problem,) = check_model(exported)
    assert "it holds the exported model best.onnx" in str(problem)


def test_a_checkpoint_that_names_an_unknown_package_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("no_such_package")
    module.Thing = type("Thing", (torch.nn.Module,), {"__module__": "no_such_package"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_such_package", module)
    torch.save({"model": module.Thing()}, tmp_path / "foreign.pt")
    monkeypatch.delitem(sys.modules, "no_such_package")
    monkeypatch.setattr(subprocess, "check_output", lambda *a, **k: pytest.fail("pip was called"))
    with pytest.raises(UserError, match=r"code of no_such_package\.Thing, which is no known layer"):
        load_detector(tmp_path / "foreign.pt")
    with (
        granted(True),
        pytest.raises(UserError, match="it needs the package 'no_such_package', which is not installed"),
    ):
        load_detector(tmp_path / "foreign.pt")


# Trunk and graft


def test_the_trunk_shares_its_weights_and_a_copy_does_not(detector: Detector) -> None:
    trunk = detector.trunk()
    teacher = deepcopy(trunk)
    with torch.no_grad():
        next(trunk.parameters()).fill_(2.0)
    assert detector.module.state_dict()["model.0.conv.weight"].unique().tolist() == [2.0]
    assert next(teacher.parameters()).unique().numel() > 1
    assert trunk.state_dict().keys() == teacher.state_dict().keys()


def test_the_trunk_holds_only_what_its_maps_need(detector: Detector) -> None:
    parts = {neck: {detector.part_of(name) for name in detector.trunk(neck).state_dict()} for neck in (False, True)}
    assert parts == {False: {"backbone"}, True: {"backbone", "neck"}}
    images = torch.rand(2, 3, 64, 96, requires_grad=True)
    assert [tuple(one.shape) for one in detector.trunk()(images)] == [(2, 256, 2, 3)]
    maps = detector.trunk(neck=True)(images)
    assert [tuple(one.shape) for one in maps] == [(2, 64, 8, 12), (2, 128, 4, 6), (2, 256, 2, 3)]
    maps[0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model.0.conv.wieght": torch.zeros(16, 3, 3, 3)}, "model.0.conv.wieght is not in yolo11n"),
        ({"model.0.conv.weight": torch.zeros(8, 3, 3, 3)}, r"has shape \(16, 3, 3, 3\) in yolo11n, not \(8, 3, 3, 3\)"),
    ],
)
def test_graft_is_strict(detector: Detector, state: dict[str, torch.Tensor], message: str) -> None:
    before = detector.module.state_dict()["model.1.conv.weight"].clone()
    with pytest.raises(UserError, match=message):
        detector.graft({"model.1.conv.weight": torch.zeros_like(before), **state})
    assert torch.equal(detector.module.state_dict()["model.1.conv.weight"], before)


# init


def test_init_says_what_arrived(checkpoint: Path) -> None:
    seg = load_detector("yolo11n-seg.yaml", init=checkpoint)
    assert seg.notes[-1].startswith("backbone 240 of 240 tensors, neck 138 of 138 tensors, head 121 of 1")
    weight = YOLO(checkpoint).model.state_dict()["model.3.conv.weight"]
    assert torch.equal(seg.module.state_dict()["model.3.conv.weight"], weight)


@pytest.mark.parametrize(
    ("model", "init", "message"),
    [
        ("yolov8n", None, "is of another architecture than yolov8n: "),
        (
            "yolo11s",
            None,
            "200 of 240 backbone tensors do not fit (model.0.conv.weight has shape (32, 3, 3, 3) in yolo11s",
        ),
        ("yolo11n", "yolo11n.yaml", "init: yolo11n.yaml is a model YAML: it has no weights"),
        ("yolo11n", "none/best.pt", "init: none/best.pt does not exist"),
    ],
)
def test_bad_init(model: str, init: str | None, message: str, checkpoint: Path) -> None:
    with pytest.raises(UserError) as error:
        load_detector(model, init=init or checkpoint)
    assert message in str(error.value)


# Hand-back


def test_the_checkpoint_is_an_ordinary_one(checkpoint: Path, detector: Detector) -> None:
    live = YOLO(checkpoint)
    state = live.model.state_dict()
    assert (live.task, live.model.names[79], live.model.yaml["nc"]) == ("detect", "thing 79", 80)
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    expected = changed(detector)
    assert all(torch.equal(state[name], value) for name, value in expected.items() if value.is_floating_point())
    record = {"method": "dino", "out": str(checkpoint.parent), "trained": ["backbone"], "from_scratch": True}
    assert live.ckpt["headstart"] == record, "it began with random weights"
    assert live.overrides == {
        "task": "detect",
        "imgsz": 640,
        "data": None,
        "single_cls": False,
        "model": str(checkpoint),
    }


def test_a_classifier_trains_at_its_usual_size(tmp_path: Path) -> None:
    load_detector("yolo11n-cls").save(tmp_path / "a.pt", {})
    assert YOLO(tmp_path / "a.pt").overrides["imgsz"] == 224


def test_a_machine_without_headstart_reads_it(checkpoint: Path) -> None:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint)
    assert all(name.startswith(("ultralytics.", "torch.", "__builtin__.", "builtins.")) for name in names)
    code = (
        "import sys; sys.modules['headstart'] = None\n"
        f"from ultralytics import YOLO; YOLO({str(checkpoint)!r})"
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "ULTRALYTICS_SAFE_LOAD": "1"})


def test_a_full_disk_leaves_the_file_as_it_was(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "headstart.pt"
    path.write_bytes(b"before")

    def full(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        detector.save(path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["headstart.pt"]
    assert path.read_bytes() == b"before"


def test_all_is_well(detector: Detector, checkpoint: Path) -> None:
    handback = detector.verify(checkpoint, set(detector.trunk().state_dict()))
    assert handback.ok
    assert handback.as_dict()["parts"]["backbone"] == {"total": 240, "trained": 240, "arrived": 240}
    assert handback.lines()[:2] == [
        "backbone 240 of 240 tensors, neck 0 of 138 (not trained), head 0 of 121 (not trained)",
        "all 499 tensors bitwise equal in the file read back, the trainer's model, the trainer's EMA",
    ]
    # The last convolution of three class branches, weight and bias: nothing else depends on the class count.
    assert handback.fresh == tuple(f"model.23.cv3.{i}.2.{kind}" for i in range(3) for kind in ("weight", "bias"))
    assert handback.classes == (80, 3)


def change(module: Any) -> str:
    module.model[3].conv.weight.data[0, 0, 0, 0] += 1e-6
    return "has other values in the file read back"


def change_sign_of_zero(module: Any) -> str:
    module.model[3].conv.weight.data[0, 0, 0, 0] = -0.0
    return "has other values in the file read back"


def rename(module: Any) -> str:
    conv = module.model[3]
    conv.renamed, _ = conv.conv, delattr(conv, "conv")
    return "is not in the file read back"


def reshape(module: Any) -> str:
    module.model[3].conv = torch.nn.Conv2d(64, 60, 3, bias=False)
    return "has shape (60, 64, 3, 3) in the file read back, not (64, 64, 3, 3)"


@pytest.mark.parametrize("damage", [change, change_sign_of_zero, rename, reshape])
def test_a_damaged_checkpoint_is_named(damage: Any, detector: Detector, checkpoint: Path, tmp_path: Path) -> None:
    detector.module.model[3].conv.weight.data[0, 0, 0, 0] = 0.0  # type: ignore[index, union-attr]
    detector.save(tmp_path / "a.pt", {})
    content = torch.load(tmp_path / "a.pt", weights_only=False)
    reason = damage(content["model"])
    torch.save(content, tmp_path / "a.pt")
    handback = detector.verify(tmp_path / "a.pt", ["model.3.conv.weight"])
    assert [(one.name, one.part, one.trained) for one in handback.dropped] == [
        ("model.3.conv.weight", "backbone", True)
    ]
    assert not handback.ok
    assert handback.parts["backbone"] == (240, 1, 239)
    assert any("DROPPED model.3.conv.weight (backbone, pretrained): " in line for line in handback.lines())
    assert handback.dropped[0].reason == reason
    assert handback.lines()[0].startswith("backbone 0 of 240 tensors")


def test_a_trainer_that_drops_a_tensor_is_seen(
    detector: Detector, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intersect = ultralytics_trainer.unwrap_model.__globals__["intersect_dicts"]
    drop = "model.22.m.0.cv1.conv.weight"
    monkeypatch.setattr(
        "ultralytics.nn.tasks.intersect_dicts", lambda a, b: {k: v for k, v in intersect(a, b).items() if k != drop}
    )
    (dropped,) = detector.verify(checkpoint, []).dropped
    assert (dropped.name, dropped.part, dropped.trained) == (drop, "neck", False)
    assert dropped.reason == "has other values in the trainer's model"


def test_an_ema_that_differs_is_seen(detector: Detector, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ultralytics_trainer.ModelEMA):  # type: ignore[misc]
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.ema.model[0].bn.running_var += 1

    monkeypatch.setattr(ultralytics_trainer, "ModelEMA", Other)
    (dropped,) = detector.verify(checkpoint, []).dropped
    assert (dropped.name, dropped.reason) == ("model.0.bn.running_var", "has other values in the trainer's EMA")


def test_a_trainer_that_fails_is_said(detector: Detector, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("an unknown release\nwith details")

    monkeypatch.setattr(ultralytics_trainer, "ModelEMA", fails)
    with pytest.raises(UserError, match=r"Ultralytics cannot start a training from it: an unknown release$"):
        detector.verify(checkpoint, [])


def test_verifying_leaves_no_trace(
    detector: Detector,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    torch.use_deterministic_algorithms(True, warn_only=True)
    threads = torch.get_num_threads()

    def state() -> list[object]:
        return [
            dict(os.environ), torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()),
            torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic, torch.get_num_threads(),
        ]  # fmt: skip

    try:
        torch.set_num_threads(1)
        before = state()
        detector.verify(checkpoint, [])
        assert state() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# load_into


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with one box each, of two classes."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(4):
        cv2.imwrite(
            str(folder / "images" / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        )
        (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n", encoding="utf-8")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: [a, b]\n", encoding="utf-8")
    return folder / "data.yaml"


def weights_at_start(live: Any, data: Path, out: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Train one epoch and return what model and EMA held when it began."""
    seen: list[dict[str, torch.Tensor]] = []

    def on_train_start(trainer: Any) -> None:
        seen.extend(deepcopy(one.state_dict()) for one in (trainer.model, trainer.ema.ema))

    live.add_callback("on_train_start", on_train_start)
    live.train(
        data=str(data), epochs=1, imgsz=64, batch=2, workers=0, device="cpu", plots=False, val=False, project=str(out)
    )
    return seen[0], seen[1]


@pytest.mark.parametrize("from_yaml", [True, False])
def test_load_into_survives_train(from_yaml: bool, run: Path, tiny_data: Path, tmp_path: Path) -> None:
    live = YOLO("yolo11n.yaml")
    if not from_yaml:
        live.save(tmp_path / "start.pt")
        live = YOLO(tmp_path / "start.pt")
    own = deepcopy(live.model.state_dict())
    handback = headstart.load_into(live, run)
    assert handback.lines() == ["backbone 240 of 240 tensors, neck 0 of 138 (not trained), head 0 of 121 (not trained)"]
    pretrained = YOLO(run / "headstart.pt").model.state_dict()
    for state in weights_at_start(live, tiny_data, tmp_path):
        for name, value in state.items():
            layer = int(name.split(".")[1])
            if layer < 11:
                assert torch.equal(value, pretrained[name]), name
            elif layer < 23:
                assert torch.equal(value, own[name]), name


def test_without_load_into_a_yaml_passes_nothing_to_its_training(tiny_data: Path, tmp_path: Path) -> None:
    """The complaint that load_into answers: should this fail, Ultralytics has changed and load_into can go."""
    live = YOLO("yolo11n.yaml")
    with torch.no_grad():
        live.model.model[0].conv.weight.fill_(0.25)
    start, _ = weights_at_start(live, tiny_data, tmp_path)
    assert not (start["model.0.conv.weight"] == 0.25).all()


def test_load_into_another_task(run: Path) -> None:
    live = YOLO("yolo11n-seg.yaml")
    assert headstart.load_into(live, run / "headstart.pt").parts["backbone"] == (240, 240, 240)


def test_a_neck_that_does_not_fit_is_left_and_said(tmp_path: Path) -> None:
    detector = load_detector("yolov8n.yaml")
    detector.graft(changed(detector, neck=True))
    detector.save(tmp_path / "headstart.pt", {})
    same, other = YOLO("yolov8n-seg.yaml"), YOLO("yolov8n-p2.yaml")
    assert (
        headstart.load_into(same, tmp_path)
        .lines()[0]
        .startswith("backbone 162 of 162 tensors, neck 108 of 108, head 0")
    )
    before = deepcopy(other.model.state_dict())
    handback: HandBack = headstart.load_into(other, tmp_path)
    assert not handback.ok
    assert {one.part for one in handback.dropped} == {"neck"}
    assert ", neck 0 of " in handback.lines()[0]
    after = other.model.state_dict()
    assert {int(name.split(".")[1]) for name in after if not torch.equal(after[name], before[name])} == {*range(10)}


@pytest.mark.parametrize(
    ("model", "message"),
    [("yolov8n.yaml", "the backbone of this model is not the one of"), ("yolo11s.yaml", "has shape")],
)
def test_load_into_refuses_another_backbone(model: str, message: str, run: Path) -> None:
    with pytest.raises(UserError, match=message):
        headstart.load_into(YOLO(model), run)


def test_load_into_refuses_what_is_no_run(tmp_path: Path) -> None:
    live = YOLO("yolov8n.yaml")
    with pytest.raises(UserError, match="does not exist"):
        headstart.load_into(live, tmp_path)
    live.save(tmp_path / "headstart.pt")
    with pytest.raises(UserError, match="holds no pretrained weights"):
        headstart.load_into(live, tmp_path)
