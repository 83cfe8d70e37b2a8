from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.comparison.finetune import finetune
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import LAST, FinetuneSettings, read_curve, read_result
from headstart.detectors.ultralytics.untouched import leaving_data_alone
from headstart.errors import UserError
from headstart.jobs.scenes import draw_dataset


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    draw_dataset(folder / "data", unlabelled=0, train=8, val=4, imgsz=64)
    return folder


@pytest.fixture(scope="module")
def settings(work: Path) -> FinetuneSettings:
    data, start = work / "data/scenes.yaml", work / "start.pt"
    if not start.exists():
        save_start(start)
    return FinetuneSettings(
        "yolo11n.yaml",
        data,
        start,
        work / "runs",
        "one",
        epochs=1,
        imgsz=64,
        batch=4,
        seed=3,
        device="cpu",
        threads=1,
        extra={"nbs": 4},
    )


def save_start(path: Path, **yaml: Any) -> None:
    """A checkpoint as Ultralytics saves it, its 80 classes not ours; `yaml` is changed after the weights were made."""
    from ultralytics import YOLO

    torch.manual_seed(11)
    yolo = YOLO("yolo11n.yaml")
    with torch.no_grad():
        for parameter in yolo.model.parameters():
            # An Ultralytics checkpoint is float16: values that survive that are what must arrive bit by bit.
            parameter.copy_(parameter.half())
    yolo.model.yaml.update(yaml)
    yolo.save(path)


def test_one_epoch_from_a_checkpoint(settings: FinetuneSettings) -> None:
    result = finetune(settings)
    assert len(result.curve) == 1
    assert (result.map50_95, result.map50) == (result.curve[-1].map50_95, result.curve[-1].map50)
    assert 0 <= result.map50_95 <= result.map50 <= 1
    assert result.seconds > result.curve[-1].seconds > 0
    # Only the last convolution of each level's class branch (weight and bias, 3 levels) knows the classes.
    arrival = result.arrival
    assert (arrival.tensors, arrival.model, arrival.ema) == (499, 493, 493)
    assert {name.split(".", 3)[2] for name in arrival.skipped} == {"cv3"}
    assert read_result(result.folder) == result
    lines = {
        part: [
            len(path.read_text().splitlines())
            for path in (settings.folder.parents[1] / f"data/labels/{part}").iterdir()
        ]
        for part in ("train", "val")
    }
    assert result.used is not None
    for counts, part, images in ((result.used.train, "train", 8), (result.used.test, "val", 4)):
        assert (counts.images, counts.objects) == (images, sum(lines[part]))

    files = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert {"args.yaml", "results.csv", "train.log", "arrived.json", "weights/last.pt"} <= files
    assert "weights/best.pt" not in files, "it would have been chosen by the test score"
    assert not [name for name in files if name.endswith((".png", ".jpg"))]
    assert not list(settings.folder.parents[1].rglob("*.cache")), "the data are the user's"


def test_of_many_epochs_some_are_measured_and_the_last(settings: FinetuneSettings) -> None:
    """21 epochs, every second one measured: what is in the CSV between stands still."""
    result = finetune(dataclasses.replace(settings, name="many", epochs=21))
    assert len(result.curve) == 21
    with (result.folder / "results.csv").open(newline="") as file:
        losses = [float(row["val/box_loss"]) for row in csv.DictReader(file)]
    changed = [epoch for epoch in range(2, 22) if losses[epoch - 1] != losses[epoch - 2]]
    assert changed == [*range(2, 21, 2), 21]


def test_without_epochs_the_start_is_measured_as_it_is(settings: FinetuneSettings) -> None:
    """What a training left behind has, measured as it is, the losses of that training's last epoch."""
    trained = finetune(dataclasses.replace(settings, name="before", epochs=2))
    last = trained.folder / "weights/last.pt"
    found = finetune(dataclasses.replace(settings, name="as-is", epochs=0, start=last))
    assert [(point.epoch, point.map50_95) for point in found.curve] == [(0, found.map50_95)]
    assert (found.arrival.tensors, found.arrival.model, found.arrival.ema) == (499, 499, 499)
    assert found.used == trained.used
    assert [(one.name, one.objects) for one in found.classes] == [(one.name, one.objects) for one in trained.classes]
    rows = [list(csv.DictReader((one.folder / "results.csv").open(newline="")))[-1] for one in (trained, found)]
    for name in ("val/box_loss", "val/cls_loss", "val/dfl_loss"):
        # The trainer's EMA is float32, the checkpoint float16.
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=0.01)
        assert float(rows[1][name]) > 0
    states = [torch.load(path, weights_only=False)["model"].state_dict() for path in (last, found.folder / LAST)]
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())
    assert [path.name for path in (found.folder / "weights").iterdir()] == ["last.pt"]


def test_the_run_used_what_was_asked_for(settings: FinetuneSettings) -> None:
    import yaml

    folder = settings.folder if settings.folder.exists() else finetune(settings).folder
    used = yaml.safe_load((folder / "args.yaml").read_text())
    expected = {"optimizer": "AdamW", "lr0": 0.001, "seed": 3, "nbs": 4, "patience": 0, "warmup_bias_lr": 0.0}
    assert {key: used[key] for key in expected} == expected
    checkpoint = torch.load(folder / "weights/last.pt", weights_only=False, map_location="cpu")
    assert checkpoint["train_args"]["model"] == str(settings.start)


def test_a_start_that_ultralytics_would_drop_is_caught(settings: FinetuneSettings, work: Path) -> None:
    # The checkpoint's own YAML says "s": Ultralytics rebuilds a model twice as wide, and copies what happens to fit.
    save_start(work / "broken.pt", scale="s")
    broken = dataclasses.replace(settings, start=work / "broken.pt", name="broken")
    with pytest.raises(UserError) as caught:
        finetune(broken)
    message = str(caught.value)
    assert "tensors did not reach the trainer's model" in message
    assert "model.0.conv.weight has shape (32, 3, 3, 3) in the trainer's model, not (16, 3, 3, 3)" in message
    assert "broken.pt" in message
    with pytest.raises(UserError, match="not a finished training"):
        read_result(broken.folder)


def test_a_failure_shows_the_end_of_the_log(settings: FinetuneSettings, work: Path) -> None:
    (work / "nowhere.yaml").write_text("train: images/none\nval: images/none\nnames: [a]\n")
    with pytest.raises(UserError) as caught:
        finetune(dataclasses.replace(settings, data=work / "nowhere.yaml", name="nowhere"))
    assert "images not found" in str(caught.value)
    assert "train.log" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "auto"}, "optimizer: 'auto' chooses optimizer and learning rate by the number of iterations"),
        ({"optimizer": "SDG"}, "did you mean 'SGD'?"),
        ({"start": "missing.pt"}, "start: missing.pt does not exist"),
        ({"start": "weights.onnx"}, "start: weights.onnx is neither a checkpoint nor a model"),
        ({"data": "missing.yaml"}, "data: missing.yaml does not exist"),
        ({"name": "a/b"}, "name: 'a/b' is not a folder name"),
        ({"epochs": -1}, "epochs: -1 is too small"),
        ({"lr0": 0.0}, "lr0: 0.0 is not a learning rate"),
        ({"device": "0,1"}, "device: '0,1' names several devices"),
        ({"extra": {"patience": 5}}, "extra.patience: cannot be changed: stopping early would choose"),
        ({"extra": {"lr0": 5}}, "extra.lr0: has a field of its own\n  -> set lr0"),
        ({"extra": {"warmup_epoch": 5}}, "did you mean 'warmup_epochs'"),
    ],
)
def test_bad_settings_are_refused(settings: FinetuneSettings, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        finetuner("yolo11n").check(dataclasses.replace(settings, **change))
    assert message in str(caught.value)


def test_all_problems_are_told_at_once(settings: FinetuneSettings) -> None:
    with pytest.raises(UserError, match="3 problems"):
        finetuner("yolo11n").check(dataclasses.replace(settings, epochs=-1, optimizer="auto", data="x.yaml"))


def test_somebody_elses_folder_is_left_alone(settings: FinetuneSettings, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not a run of this kind"):
        finetune(dataclasses.replace(settings, out=tmp_path))
    assert (tmp_path / "one/thesis.tex").read_text() == "mine"


def test_curve_is_read_as_ultralytics_writes_it(tmp_path: Path) -> None:
    head = "epoch,time,train/box_loss,metrics/precision(B),metrics/recall(B),metrics/mAP50(B),metrics/mAP50-95(B)\n"
    (tmp_path / "results.csv").write_text(head + "1,2.5,3.1,0.1,0.2,0.3,0.15\n2,5.0,2.9,0.1,0.2,0.25,0.125\n")
    curve = read_curve(tmp_path / "results.csv")
    assert [(row.epoch, row.seconds, row.map50_95, row.map50) for row in curve] == [
        (1, 2.5, 0.15, 0.3),
        (2, 5, 0.125, 0.25),
    ]
    (tmp_path / "results.csv").write_text(head + "1,2.5,3.1,0.1,0.2,0.3,0.15,9\n")
    with pytest.raises(UserError, match=r"results.csv: is damaged: a row has more values than there are columns"):
        read_curve(tmp_path / "results.csv")
    (tmp_path / "results.csv").write_text(head + "1,2.5,nan,nan,nan,nan,nan\n")
    with pytest.raises(UserError, match="diverged"):
        read_curve(tmp_path / "results.csv")


def test_the_request_can_be_run_by_hand(settings: FinetuneSettings) -> None:
    folder = settings.folder if settings.folder.exists() else finetune(settings).folder
    request = json.loads((folder / "finetune.json").read_text())
    assert FinetuneSettings(**request) == settings.resolved()


def test_a_batch_that_was_halved_fails_the_training(
    settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' own way out of too little memory, through its own trainer."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    from headstart.detectors.ultralytics import training

    before = DetectionTrainer.preprocess_batch
    sizes = []

    def full(trainer: Any, batch: dict[str, Any]) -> Any:
        sizes.append(len(batch["img"]))
        if len(sizes) == 1:
            raise RuntimeError("CUDA out of memory")
        return before(trainer, batch)

    asked = dataclasses.replace(settings, name="halved", workers=0)
    monkeypatch.setattr(training, "_stay_offline", lambda: None)  # it changes settings of this process
    keep_patches(monkeypatch)
    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", full)
    with pytest.raises(UserError, match=r"batch: there is too little memory for 4 images in a batch; with 2 it"):
        training.train(asked)
    assert sizes == [4], "nothing was trained with another batch"


def keep_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back at the end what a training changes of Ultralytics in its own process."""
    from ultralytics.data import base, dataset, utils

    for owner, names in (
        (dataset, ("save_dataset_cache_file", "load_dataset_cache_file")),
        (utils, ("ImageOps", "_replace_image")),
        (base, ("imread",)),
        (base.BaseDataset, ("check_cache_disk",)),
    ):
        for name in names:
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(base.BaseDataset, "npy_files", None, raising=False)


def test_a_jpeg_without_its_end_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics would train on what it has written anew; OpenCV 5 decodes no such bytes."""
    import cv2
    import numpy as np
    from ultralytics.data import base

    image = tmp_path / "a.jpg"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    whole = cv2.imread(str(image))
    image.write_bytes(image.read_bytes()[:-2])
    (tmp_path / "b.jpg").write_bytes(b"no image")
    keep_patches(monkeypatch)
    with leaving_data_alone(tmp_path / "run"):
        read = base.imread(str(image), flags=cv2.IMREAD_COLOR)
        assert np.abs(read.astype(int) - whole).max() == 0
        assert base.imread(str(image), flags=cv2.IMREAD_GRAYSCALE).shape[:2] == (64, 64)
        assert base.imread(str(tmp_path / "b.jpg"), flags=cv2.IMREAD_COLOR) is None


@pytest.mark.parametrize("replaces", [True, False])
def test_a_jpeg_without_its_end_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool
) -> None:
    """In versions of Ultralytics that replace the file, and in those that save in its place."""
    import cv2
    import numpy as np
    from PIL import Image
    from ultralytics.data import utils

    image = tmp_path / "a.jpg"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    cut = image.read_bytes()[:-2]
    image.write_bytes(cut)
    keep_patches(monkeypatch)
    with leaving_data_alone(tmp_path / "run"):
        if replaces:
            assert utils.check_image(str(image))[1] == (64, 64)
        else:  # the line of version 8.4.9
            utils.ImageOps.exif_transpose(Image.open(image)).save(str(image), "JPEG", subsampling=0, quality=100)
    assert image.read_bytes() == cut
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
