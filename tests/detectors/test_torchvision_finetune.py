from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
import torchvision
import yaml

from headstart.comparison.finetune import finetune
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import LAST, FinetuneResult, FinetuneSettings, StartSettings
from headstart.detectors.torchvision import data, models, training
from headstart.detectors.torchvision.finetuning import recipe
from headstart.detectors.torchvision.scores import score
from headstart.detectors.used import Counts, Used
from headstart.errors import UserError
from headstart.images.labels import Keypoints

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"
MODEL = f"torchvision:{NAME}"
FAMILY = finetuner(MODEL)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images to train on and two to test on, of one bright square each and of two classes; one is background."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for place in range(7):
        pixels = random.integers(0, 60, (64, 96, 3), np.uint8)
        if place != 4:
            x = 8 * place
            cv2.rectangle(pixels, (x, 16), (x + 31, 47), (255, 255 * (place % 2), 0), -1)
            (folder / f"labels/{place}.txt").write_text(f"{place % 2} {(x + 16) / 96} 0.5 {32 / 96} 0.5\n")
        cv2.imwrite(str(folder / f"images/{place}.png"), pixels)
    for part, places in (("train", range(5)), ("val", (5, 6))):
        (folder / f"{part}.txt").write_text("".join(f"{folder}/images/{place}.png\n" for place in places))
    content = {"train": str(folder / "train.txt"), "val": str(folder / "val.txt"), "names": {0: "a", 1: "b"}}
    (folder / "my.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starts") / "scratch.pt"
    FAMILY.build_start(StartSettings(MODEL, ["a", "b"], seed=0), path)
    return path


@pytest.fixture(scope="module")
def settings(dataset: Path, start: Path) -> FinetuneSettings:
    asked = {"imgsz": 64, "batch": 2, "device": "cpu", "threads": 1, "epochs": 4, "lr0": 0.001, "seed": 3}
    return FinetuneSettings(MODEL, dataset / "my.yaml", start, dataset / "runs", "one", **asked)


@pytest.fixture(scope="module")
def result(settings: FinetuneSettings) -> FinetuneResult:
    return finetune(settings)


# A training


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "time"} for row in csv.DictReader(file)]


def test_a_training_learns_and_says_what_it_did(result: FinetuneResult, start: Path) -> None:
    assert len(result.curve) == 4
    losses = [sum(float(value) for name, value in row.items() if "loss" in name) for row in rows(result.folder)]
    assert losses[-1] < losses[0]
    assert 0 <= result.map50_95 <= result.map50 <= 1
    assert [(one.name, one.objects) for one in result.classes] == [("a", 1), ("b", 1)]
    total = len(torch.load(start, weights_only=True))
    assert (result.arrival.tensors, result.arrival.model, result.arrival.skipped) == (total, total, ())
    assert result.used == Used(Counts(images=5, labelled=4, objects=4), Counts(images=2, labelled=2, objects=2))


def test_torchvision_loads_the_last_weights(result: FinetuneResult, start: Path) -> None:
    model = getattr(torchvision.models.detection, NAME)(weights=None, weights_backbone=None, num_classes=3)
    state = torch.load(result.folder / LAST, weights_only=True)
    model.load_state_dict(state)
    name = "backbone.body.0.0.weight"
    assert not torch.equal(state[name], torch.load(start, weights_only=True)[name])


def test_without_epochs_the_start_is_measured_as_it_is(settings: FinetuneSettings, result: FinetuneResult) -> None:
    last = result.folder / LAST
    found = finetune(dataclasses.replace(settings, name="as-is", epochs=0, start=last))
    (point,) = found.curve
    assert (point.epoch, point.map50_95, point.map50) == (0, result.map50_95, result.map50)
    assert (found.classes, found.used) == (result.classes, result.used)
    states = [torch.load(path, weights_only=True) for path in (last, found.folder / LAST)]
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


def test_the_seed_decides_order_and_augmentation(settings: FinetuneSettings) -> None:
    found = []
    for name, seed in (("same", 3), ("again", 3), ("other", 4)):
        short = dataclasses.replace(settings, epochs=1, name=name, seed=seed)
        short.folder.mkdir(parents=True)
        FAMILY.train(short)
        found.append(rows(short.folder))
    same, again, other = found
    assert same == again
    assert same != other


def test_a_damaged_start_is_refused(settings: FinetuneSettings, start: Path, tmp_path: Path) -> None:
    state = torch.load(start, weights_only=True)
    state["backbone.body.0.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(UserError, match=r"nan.pt: holds NaN or infinity: backbone.body.0.0.weight"):
        training.check_arrival(models.build(NAME, 3), dataclasses.replace(settings, start=tmp_path / "nan.pt"))
    with pytest.raises(UserError, match=r"tensors did not reach the model: .* has other values in the model"):
        training.check_arrival(models.build(NAME, 3), settings)


def test_what_is_found_is_in_shares_of_the_image(result: FinetuneResult, dataset: Path) -> None:
    images = [str(dataset / "images/5.png"), str(dataset / "images/6.png")]
    found = FAMILY.detect(result.folder / LAST, images, imgsz=64, device="cpu", least=0.0)
    assert len(found) == 2
    assert all(
        len(row) == 6 and row[0] in (0, 1) and 0 <= min(row[2:]) <= max(row[2:]) <= 1 for rows in found for row in rows
    )


# Starts


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True))


HEAD = "roi_heads.box_predictor.cls_score.weight"


def test_starts_are_alike_but_for_what_they_bring(start: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    FAMILY.build_start(StartSettings(MODEL, ["a", "b"], seed=9), whole)
    given = state_of(whole)
    same = FAMILY.build_start(StartSettings(MODEL, ["a", "b"], seed=0, weights=str(whole)), tmp_path / "1.pt")
    named = FAMILY.build_start(StartSettings(MODEL, ["c", "d"], seed=0, weights=str(whole)), tmp_path / "2.pt")
    more = FAMILY.build_start(StartSettings(MODEL, ["a", "b", "c"], seed=0, weights=str(whole)), tmp_path / "3.pt")
    body = FAMILY.build_start(
        StartSettings(MODEL, ["a", "b"], seed=0, weights=str(whole), parts=("backbone",)), tmp_path / "4.pt"
    )
    assert same.taken == same.total == {"backbone": 308, "neck": 8, "head": 14}
    assert torch.equal(state_of(tmp_path / "1.pt")[HEAD], given[HEAD])
    # Classes of other names: the two tensors of class scores and two of boxes start as those of scratch do.
    assert named.taken == more.taken == {"backbone": 308, "neck": 8, "head": 10}
    assert torch.equal(state_of(tmp_path / "2.pt")[HEAD], state_of(start)[HEAD])
    assert state_of(tmp_path / "3.pt")[HEAD].shape[0] == 4
    assert same.foreign == "it has 2 classes (a, b)"
    torch.save(dict(given), tmp_path / "plain.pt")
    plain = StartSettings(MODEL, ["a", "b"], seed=0, weights=str(tmp_path / "plain.pt"))
    assert FAMILY.build_start(plain, tmp_path / "5.pt").foreign == "it is not for 90 classes, as COCO's is"
    assert body.taken == {"backbone": 308, "neck": 0, "head": 0}
    neck = "backbone.fpn.inner_blocks.0.0.weight"
    assert torch.equal(state_of(tmp_path / "4.pt")[neck], state_of(start)[neck])
    assert not torch.equal(given[neck], state_of(start)[neck])


def test_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision gives them: 91 classes, batch norms that count nothing."""
    torch.manual_seed(5)
    theirs = {name: one for name, one in models.build(NAME, 91).state_dict().items() if "num_batches" not in name}
    kind = torchvision.models.get_model_weights(NAME)
    monkeypatch.setattr(kind, "get_state_dict", lambda self, **_: theirs)
    built = FAMILY.build_start(
        StartSettings(MODEL, ["a", "b"], seed=0, weights=FAMILY.published(MODEL)), tmp_path / "coco.pt"
    )
    assert built.taken == {"backbone": 308, "neck": 8, "head": 10}
    assert built.foreign == ""
    torch.save(theirs, tmp_path / "theirs.pt")
    file = StartSettings(MODEL, ["a", "b"], seed=0, weights=str(tmp_path / "theirs.pt"))
    assert FAMILY.build_start(file, tmp_path / "coco.pt").foreign == ""

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(kind, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"could not download the published weights.*\n.*coco=path.pth"):
        FAMILY.build_start(StartSettings(MODEL, ["a"], seed=0, weights=FAMILY.published(MODEL)), tmp_path / "coco.pt")


def test_masks_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="maskrcnn_resnet50_fpn learns masks, and only boxes can be compared"):
        FAMILY.build_start(StartSettings("torchvision:maskrcnn_resnet50_fpn", ["a"], seed=0), tmp_path / "a.pt")


# Images


def test_boxes_follow_their_image(dataset: Path) -> None:
    """Image 1 is 96 x 64 with a square from (8, 16) to (40, 48): at a longer side of 48, half of that."""
    paths = [str(dataset / f"images/{place}.png") for place in (1, 4)]
    image, target = data.LabelledImages(paths, 2, 48)[0]
    assert image.shape == (3, 32, 48)
    assert image.max() <= 1
    assert target["boxes"].tolist() == [pytest.approx([4, 8, 20, 24])]
    assert target["labels"].tolist() == [2]
    assert data.LabelledImages(paths, 2, 48)[1][1]["boxes"].shape == (0, 4)
    with pytest.raises(UserError, match=r"1.txt: line 1 has the class 1; there are 1 classes"):
        data.LabelledImages(paths, 1, 48)[0]


def test_of_poses_the_boxes_are_learnt(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    dataset = tmp_path
    label = dataset / "labels/1.txt"
    label.write_text(f"{label.read_text().strip()} 0.9 0.1 2 0.1 0.9 1\n")  # two keypoints that widen no box
    path = str(dataset / "images/1.png")
    images = data.LabelledImages([path], 2, 48, keypoints=Keypoints(2, 3, learnt=False))
    assert images[0][1]["boxes"].tolist() == [pytest.approx([4, 8, 20, 24])]
    assert images.counts() == Counts(images=1, labelled=1, objects=1)
    lists = dataset / "list.txt"
    lists.write_text(f"{path}\n")
    (dataset / "pose.yaml").write_text(f"train: {lists}\nval: {lists}\nnames: [a]\nkpt_shape: [2, 3]\n")
    assert data.read_lists(dataset / "pose.yaml") == ([path], [path], Keypoints(2, 3, learnt=False))


def test_the_augmentation_moves_boxes_with_their_pixels(dataset: Path) -> None:
    augment = data.augmentation(64, recipe({"scale_min": 0.5, "scale_max": 1.0}))
    images = data.LabelledImages([str(dataset / "images/0.png")], 2, 64, augment)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        image, target = images[0]
        assert image.shape == (3, 64, 64)
        ((x0, y0, x1, y1),) = target["boxes"].tolist()
        seen.add(x0)
        # The square is pure blue (as written, BGR), and nothing else is.
        blue = (image[2] > 0.9) & (image[0] < 0.2) & (image[1] < 0.2)
        columns, lines = blue.any(0).nonzero().flatten(), blue.any(1).nonzero().flatten()
        found = [float(columns.min()), float(lines.min()), float(columns.max() + 1), float(lines.max() + 1)]
        assert found == pytest.approx([x0, y0, x1, y1], abs=1.5)
    assert len(seen) > 4


def test_a_last_batch_of_one_image_is_left_out(dataset: Path) -> None:
    images = data.LabelledImages([str(dataset / f"images/{place}.png") for place in range(5)], 2, 48)
    assert [len(batch) for batch, _ in data.training_batches(images, 2, 0, 0)] == [2, 2]
    assert [len(batch) for batch, _ in data.training_batches(images, 3, 0, 0)] == [3, 2]


# Figures


def boxes(*corners: list[float], label: int = 1, sure: float = 0.9) -> tuple[dict[str, Any], dict[str, Any]]:
    place, labels = torch.tensor(corners).reshape(-1, 4), torch.full((len(corners),), label)
    return {"boxes": place, "labels": labels, "scores": torch.full((len(corners),), sure)}, {
        "boxes": place,
        "labels": labels,
    }


def test_a_perfect_prediction_has_a_map_of_1() -> None:
    pairs = [boxes([0, 0, 10, 10], [20, 20, 40, 40]), boxes([5, 5, 50, 50], label=2)]
    found = score(pairs, ["__background__", "a", "b"])
    assert (found.map50_95, found.map50) == pytest.approx((1, 1))
    assert [dataclasses.astuple(one) for one in found.classes] == [("a", 1.0, 1.0, 2), ("b", 1.0, 1.0, 1)]


def test_figures_by_hand() -> None:
    """a: found with an overlap of 70 of 100, right at 0.5 to 0.65 (0.7 is on the edge, so 72); b: never found."""
    there = {"boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), "labels": torch.tensor([1, 2])}
    found = {"boxes": torch.tensor([[0.0, 0, 10, 7.2]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    result = score([(found, there)], ["__background__", "a", "b"])
    assert [(one.map50_95, one.map50) for one in result.classes] == [(0.5, 1.0), (0.0, 0.0)]
    assert (result.map50_95, result.map50) == pytest.approx((0.25, 0.5))


def test_classes_of_one_name_are_told_apart() -> None:
    """By the user's numbers, in which the background is none."""
    found = score([boxes([0, 0, 10, 10]), boxes([5, 5, 50, 50], label=3)], ["__background__", "bolt", "nut", "bolt"])
    assert [one.name for one in found.classes] == ["bolt (0)", "bolt (2)"]


def test_images_without_objects_measure_nothing() -> None:
    with pytest.raises(UserError, match="the test images show no object"):
        score([boxes()], ["__background__", "a"])


def test_the_rate_rises_and_falls() -> None:
    factors = [training.rate_factor(step, 10, 0.4, 0.1) for step in range(11)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[7] == pytest.approx(1 - 0.9 * 3 / 6)
    assert factors[10] == pytest.approx(0.1)


# Options


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"flipp": 0.5}, "extra.flipp: there is no such argument\n  -> did you mean 'flip' or 'clip'?"),
        ({"flip": 2}, "extra.flip: must be a number from 0 to 1, not 2"),
        ({"clip": "much"}, "extra.clip: must be a number"),
        ({"scale_min": 2}, "extra.scale_min: is larger than scale_max"),
    ],
)
def test_bad_arguments(extra: dict[str, Any], message: str) -> None:
    (problem,) = FAMILY.extra_problems(extra)
    assert message in str(problem)


def test_what_measures_is_asked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.detectors.torchvision.finetuning.find_spec", lambda name: None)
    (problem,) = FAMILY.check_model(MODEL)
    assert "pip install 'headstart[torchvision]'" in str(problem)


def test_each_optimizer_can_be_made() -> None:
    for name in FAMILY.optimizers:
        training.make_optimizer(name, torch.nn.Linear(2, 2), 0.1, recipe({}))
    assert FAMILY.optimizer_problems("MuSGD")
