"""``headstart.callbacks.verify`` in trainings by Ultralytics' own trainer."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

import headstart
from headstart.detectors.find import load_detector
from headstart.detectors.torchvision.names import MARK
from headstart.errors import UserError
from headstart.jobs.ending import Run
from small import SMALL

BACKBONE, NECK = 24, 6  # four and one convolutions: a weight and five tensors of batch norm each


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images, data sets of two and of three classes, and a model YAML."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
        (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n")
    for names in ("ab", "abc"):
        text = f"path: {folder}\ntrain: images\nval: images\nnames: [{', '.join(names)}]\n"
        (folder / f"{names}.yaml").write_text(text)
    (folder / "small.yaml").write_text(SMALL)
    return folder


def pretrained(folder: Path, out: Path, neck: bool) -> Run:
    """A run whose backbone, and neck, are other numbers than any start has; its classes are a and b."""
    detector = load_detector(str(folder / "small.yaml")).with_classes(["a", "b"])
    state = {name: torch.rand(one.shape) for name, one in detector.trunk(neck).state_dict().items() if one.ndim}
    detector.graft(state)
    out.mkdir()
    detector.save(out / "headstart.pt", {})
    return Run(out, out / "headstart.pt", None, 1, interrupted=False)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrained(folder, tmp_path_factory.mktemp("runs") / "a", neck=True)


def trained(yolo: Any, check: Any, data: Path, out: Path) -> dict[str, torch.Tensor]:
    """One epoch with the callback; what the model held before it was called."""
    began: list[dict[str, torch.Tensor]] = []

    def on_train_start(trainer: Any) -> None:
        began.append({name: one.clone() for name, one in trainer.model.state_dict().items()})

    yolo.add_callback("on_train_start", on_train_start)
    yolo.add_callback("on_train_start", check)
    yolo.train(
        data=str(data), epochs=1, imgsz=64, batch=4, workers=0, device="cpu", plots=False, val=False, project=str(out)
    )
    return began[0]


def test_all_of_it_arrived(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = headstart.callbacks.verify(run)
    began = trained(run.yolo(), check, folder / "ab.yaml", tmp_path)
    assert check.handback is not None
    assert check.handback.ok
    assert (check.handback.fresh, check.handback.dropped) == ((), ())
    assert [check.handback.parts[part].total for part in ("backbone", "neck")] == [BACKBONE, NECK]
    head = len(began) - BACKBONE - NECK
    told = f"backbone {BACKBONE} of {BACKBONE}, neck {NECK} of {NECK}, head {head} of {head} tensors\n"
    assert f"{run.checkpoint} in the trainer's model and the trainer's EMA: {told}" in capsys.readouterr().err
    held = torch.load(run.checkpoint or "", weights_only=False)["model"].state_dict()
    assert all(torch.equal(began[name], one) for name, one in held.items())


def test_other_classes_are_no_fault(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = headstart.callbacks.verify(run.folder)
    trained(run.yolo(), check, folder / "abc.yaml", tmp_path)
    assert check.handback is not None
    assert check.handback.ok
    # The class branch (cv3) of each of three maps ends in a convolution of as many channels as classes.
    assert {name.split(".")[2] for name in check.handback.fresh} == {"cv3"}
    assert len(check.handback.fresh) == 6
    assert "; 6 of the head start fresh, for other classes" in capsys.readouterr().err
    total = sum(count.total for count in check.handback.parts.values())
    assert f"all {total - 6} tensors bitwise equal in" in check.handback.lines()[1]


def test_weights_that_ultralytics_drops_end_the_training(
    folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model from a YAML passes none of its weights to its training."""
    yolo = YOLO(str(folder / "small.yaml"))
    yolo.model.load_state_dict(run.yolo().model.state_dict())
    check = headstart.callbacks.verify(str(run.checkpoint))
    with pytest.raises(UserError) as caught:
        trained(yolo, check, folder / "ab.yaml", tmp_path)
    assert str(caught.value).startswith(f"{run.checkpoint}: ")
    # Batch norms count their batches from 0 in both: five of them agree.
    assert f"{BACKBONE + NECK - 5} of {BACKBONE + NECK} tensors of backbone and neck did not reach" in caught.value.what
    assert "model.0.conv.weight has other values in the trainer's model" in caught.value.what
    assert "headstart.load_into(yolo, run)" in str(caught.value.hint)
    assert "DID NOT ARRIVE, 20 of the backbone (pretrained): model.0.conv.weight has" in capsys.readouterr().err
    assert not list(tmp_path.rglob("last.pt"))


def test_it_may_be_said_alone(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = headstart.callbacks.verify(run, strict=False)
    trained(YOLO(str(folder / "small.yaml")), check, folder / "ab.yaml", tmp_path)
    assert check.handback is not None
    assert not check.handback.ok
    assert "DID NOT ARRIVE, 5 of the neck (pretrained)" in capsys.readouterr().err
    assert list(tmp_path.rglob("last.pt"))


def test_a_neck_that_was_not_pretrained_is_named_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrained(folder, tmp_path / "run", neck=False)
    yolo = YOLO(str(folder / "small.yaml"))
    headstart.load_into(yolo, run.folder)
    check = headstart.callbacks.verify(run)
    trained(yolo, check, folder / "ab.yaml", tmp_path)
    assert check.handback is not None
    assert check.handback.parts["backbone"].arrived == BACKBONE
    assert {one.part for one in check.handback.dropped} == {"neck", "head"}
    assert "of the neck (not pretrained): model.4.conv.weight has other values" in capsys.readouterr().err


def test_the_ema_is_looked_at_as_well(run: Run) -> None:
    model, ema = run.yolo().model.float(), run.yolo().model.float()
    trainer = SimpleNamespace(model=model, ema=SimpleNamespace(ema=ema), data={"names": {0: "a", 1: "b"}})
    headstart.callbacks.verify(run)(trainer)
    ema.state_dict()["model.2.bn.bias"][3] += 1e-6
    with pytest.raises(UserError, match=r"1 of 30 .*model\.2\.bn\.bias has other values in the trainer's EMA"):
        headstart.callbacks.verify(run)(trainer)


def test_a_resumed_training_is_not_compared(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    check = headstart.callbacks.verify(run)
    check(SimpleNamespace(model=None, ema=SimpleNamespace(ema=None), start_epoch=3))
    assert check.handback is None
    assert "the training goes on after epoch 3: its weights are not compared with" in capsys.readouterr().err


def test_where_it_was_added_too_early(run: Run) -> None:
    with pytest.raises(UserError, match="this callback is for on_train_start"):
        headstart.callbacks.verify(run)(SimpleNamespace(ema=None))


def test_it_travels_to_the_processes_of_several_gpus(run: Run) -> None:
    model = run.yolo().model.float()
    trainer = SimpleNamespace(model=model, ema=SimpleNamespace(ema=model), data={"names": {0: "a", 1: "b"}})
    check = pickle.loads(pickle.dumps(headstart.callbacks.verify(run)))
    check(trainer)
    assert check.handback.ok


def test_weights_that_are_no_numbers(folder: Path, tmp_path: Path) -> None:
    run = pretrained(folder, tmp_path / "run", neck=False)
    content = torch.load(run.checkpoint or "", weights_only=False)
    content["model"].state_dict()["model.1.bn.bias"][0] = float("nan")
    torch.save(content, run.checkpoint or "")
    model = run.yolo().model.float()
    trainer = SimpleNamespace(model=model, ema=SimpleNamespace(ema=model), data={"names": {0: "a", 1: "b"}})
    with pytest.raises(UserError, match=r"holds NaN or infinity in 1 tensors: model\.1\.bn\.bias"):
        headstart.callbacks.verify(run)(trainer)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none.pt", "checkpoint: none.pt does not exist"),
        (Run(Path("out"), None, None, 3, interrupted=True), "checkpoint: the run in out has no checkpoint"),
    ],
)
def test_no_checkpoint(given: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        headstart.callbacks.verify(given)
    assert str(caught.value).startswith(said)


def test_no_yolo_of_a_run_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint: the run was interrupted"):
        Run(tmp_path, None, None, 3, interrupted=True).yolo()


def test_no_yolo_of_another_family(tmp_path: Path) -> None:
    torch.save({"headstart": MARK}, tmp_path / "headstart.pt")
    with pytest.raises(UserError, match="is not a checkpoint of Ultralytics, so there is no YOLO object of it"):
        Run(tmp_path, tmp_path / "headstart.pt", None, 1, interrupted=False).yolo()
