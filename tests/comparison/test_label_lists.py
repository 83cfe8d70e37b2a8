from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from headstart.comparison import budgets, label_lists
from headstart.comparison.budgets import parse_budgets
from headstart.comparison.dataset import read_dataset
from headstart.comparison.leaks import on_both_sides, refuse_leaks
from headstart.detectors.find import finetuner
from headstart.errors import UserError


def made_up(images: int = 400, classes: int = 6, seed: int = 0) -> dict[str, frozenset[int]]:
    """Classes that are ever rarer, up to two in an image, some images without any."""
    random = np.random.default_rng(seed)
    shares = 0.5 ** np.arange(1, classes + 1)
    drawn = {f"/d/images/{n:04d}.jpg": random.choice(classes, random.integers(0, 3), p=shares / shares.sum())
             for n in range(images)}  # fmt: skip
    return {path: frozenset(int(label) for label in found) for path, found in drawn.items()}


def test_each_beginning_is_stratified_and_in_the_next() -> None:
    found = made_up()
    order = label_lists.stratified_order(found, seed=3)
    assert sorted(order) == sorted(found)
    counts = Counter(label for one in found.values() for label in one)

    def group(image: str) -> int:
        return min(found[image], key=lambda label: (counts[label], label), default=-1)

    groups = Counter(map(group, order))
    assert set(map(group, order[: len(groups)])) == set(groups), "one of each first"
    for size in (40, 80, 133, 399):
        part = Counter(map(group, order[:size]))
        # The share that the smallest group's share rounds up to: every group has it, to within one image.
        taken = [part[name] / total for name, total in groups.items()]
        assert all(part[name] <= min(taken) * total + 1 for name, total in groups.items())


def test_the_order_follows_from_the_seed_alone() -> None:
    found = made_up()
    shuffled = dict(sorted(found.items(), reverse=True))
    assert label_lists.stratified_order(found, 1) == label_lists.stratified_order(shuffled, 1)
    assert label_lists.stratified_order(found, 1) != label_lists.stratified_order(found, 2)


def dataset(folder: Path, train: int = 12, test: int = 4) -> Path:
    for part, count in (("train", train), ("test", test)):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([len(part), number]).integers(0, 255, (16, 16, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / f"images/{part}/{number}.jpg"), pixels)
            (folder / f"labels/{part}/{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.2 0.2\n")
    path = folder / "my.yaml"
    path.write_text("train: images/train\nval: images/test\nnames: {0: cat, 1: dog}\nkpt_shape: [2, 3]\n")
    return path


def test_lists_are_nested_and_their_yaml_keeps_the_classes(tmp_path: Path) -> None:
    found = read_dataset(dataset(tmp_path), "val", finetuner("yolo11n"))
    assert (found.names, len(found.pool), len(found.test)) == (("cat", "dog"), 12, 4)
    order = label_lists.stratified_order(found.classes, 0)
    (tmp_path / "test.txt").write_text("\n".join(found.test))
    small, large = (label_lists.write_list(tmp_path, str(n), found, order[:n], tmp_path / "test.txt") for n in (4, 8))
    images = [set(one.file.read_text().split()) for one in (small, large)]
    assert images[0] < images[1]
    assert [sorted(found.classes[image]) for image in sorted(images[0])].count([0]) == 2
    content = yaml.safe_load(large.yaml.read_text())
    assert content["names"] == {0: "cat", 1: "dog"}
    assert content["kpt_shape"] == [2, 3]
    assert Path(content["train"]).read_text() == large.file.read_text()


def test_a_list_that_was_changed_is_seen(tmp_path: Path) -> None:
    found = read_dataset(dataset(tmp_path), "val", finetuner("yolo11n"))
    (tmp_path / "test.txt").write_text("")
    listed = label_lists.write_list(tmp_path, "a", found, found.pool[:5], tmp_path / "test.txt")
    listed.check()
    listed.file.write_text("".join(f"{image}\n" for image in found.pool[1:6]))
    with pytest.raises(UserError, match="the list of labelled images was changed"):
        listed.check()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["13"], "13 labelled images were asked for, there are 12"), (["50%", "6"], "50% and 6 are the same 6 images")],
)
def test_budgets_that_make_no_sense(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        budgets.check_budgets(parse_budgets(words)[0], 12)


def test_the_part_to_choose_a_rate_on() -> None:
    found = made_up()
    images = label_lists.stratified_order(found, 0)[:60]
    held = label_lists.held_out_part(images, found, 0.2, seed=0)
    assert len(held) == 12
    assert set(held) < set(images)
    with pytest.raises(UserError, match=r"(?s)too few.*lr=0.001"):
        label_lists.held_out_part(images[:9], found, 0.2, seed=0)


def test_leaks_are_found_by_content_not_by_name(tmp_path: Path) -> None:
    found = read_dataset(dataset(tmp_path), "val", finetuner("yolo11n"))
    refuse_leaks(found.test, {"train": found.pool})
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.jpg").write_bytes(b"same name, another picture" * 10)
    (other / "renamed.png").write_bytes((tmp_path / "images/test/2.jpg").read_bytes())
    unlabelled = [str(other / "0.jpg"), str(other / "renamed.png"), str(other / "gone.jpg")]
    assert on_both_sides(found.test, unlabelled) == [(str(tmp_path / "images/test/2.jpg"), unlabelled[1])]
    with pytest.raises(UserError, match=r"(?s)pretraining of ssl: 1 of 3 files.*renamed.png"):
        refuse_leaks(found.test, {"train": found.pool, "the pretraining of ssl": unlabelled})


def test_images_that_are_not_there_are_said_and_left_out(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    listed = [str(one) for one in sorted((tmp_path / "images/train").iterdir())]
    (tmp_path / "train.txt").write_text("\n".join([str(tmp_path / "images/train/gone.jpg"), *listed]))
    path.write_text(path.read_text().replace("images/train", "train.txt"))
    found = read_dataset(path, "val", finetuner("yolo11n"))
    assert len(found.pool) == 12
    assert f"train: 1 of 13 images are not there, such as '{tmp_path}/images/train/gone.jpg'" in found.notes
    (tmp_path / "train.txt").write_text("images/train/gone.jpg\n")
    with pytest.raises(UserError, match=r"none of the 1 images of train is there: .*gone.jpg"):
        read_dataset(path, "val", finetuner("yolo11n"))


@pytest.mark.parametrize("name", ["line\nbreak.jpg", "carriage\rreturn.jpg", "line\u2028.jpg", b"latin-\xe9.jpg"])
def test_images_whose_names_no_list_can_have_are_said_and_left_out(tmp_path: Path, name: str | bytes) -> None:
    """A line break would make two images of one, of which neither is there; Ultralytics reads lists as UTF-8."""
    path = dataset(tmp_path)
    image = tmp_path / "images/train" / os.fsdecode(name)
    shutil.copy(tmp_path / "images/train/0.jpg", image)
    shutil.copy(tmp_path / "labels/train/0.txt", tmp_path / "labels/train" / image.with_suffix(".txt").name)
    found = read_dataset(path, "val", finetuner("yolo11n"))
    assert len(found.pool) == 12
    assert str(image) not in found.pool
    (said,) = [note for note in found.notes if "cannot stand in a list" in note]
    assert said.startswith("train: 1 of 13 images have a name that cannot stand in a list of images: rename them")
    assert repr(str(image)) in said  # on one line, whatever is in the name


@pytest.mark.parametrize(
    ("channels", "model", "message"),
    [
        ("1", "yolo11n", r"has channels: 1, and every start of yolo11n takes 3.*\n.*leave channels out"),
        ("4", "gray.yaml", "has channels: 4, and every start of .*gray.yaml takes 1"),
        ("'3'", "yolo11n", "has channels: '3', and every start of yolo11n takes 3"),
        ("3", "yolo11n", ""),
        ("1", "gray.yaml", ""),
        ("1", "torchvision:fcos_resnet50_fpn", ""),
    ],
)
def test_channels_that_no_start_takes_are_refused_before_anything_is_trained(
    tmp_path: Path, channels: str, model: str, message: str
) -> None:
    path = dataset(tmp_path)
    path.write_text(path.read_text() + f"channels: {channels}\n")
    if model == "gray.yaml":
        model = str(tmp_path / model)
        Path(model).write_text("nc: 80\nchannels: 1\n")
    if message:
        with pytest.raises(UserError, match=f"(?s){message}"):
            read_dataset(path, "val", finetuner(model), model)
    else:
        assert read_dataset(path, "val", finetuner(model), model).others["channels"] == int(channels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\nval: images/test\n", "has no class names"),
        ("train: images/train\nnames: [a, b]\n", "has no val images"),
        ("train: images/train\nval: images/test\nnames: [a, b]\nnc: 3\n", "nc is 3, but there are 2 names"),
        ("train: images/none\nval: images/test\nnames: [a]\n", "train"),
        ("- a\n", "is not a dataset YAML"),
    ],
)
def test_datasets_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = dataset(tmp_path)
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_dataset(path, "val", finetuner("yolo11n"))


def test_a_label_of_no_class(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    (tmp_path / "labels/train/3.txt").write_text("0 0.5 0.5 0.1 0.1\n2 0.5 0.5 0.1 0.1\n")
    found = read_dataset(path, "val", finetuner("yolo11n"))
    assert sorted(Path(image).stem for image in found.pool) == sorted(str(n) for n in range(12) if n != 3)
    assert set(found.classes) == set(found.pool)
    label = tmp_path / "labels/train/3.txt"
    why = f"{label}: line 2 has the class 2; there are 2 classes, from 0"
    assert found.notes == (f"train: 1 of 12 images are left out for their label files: {why}",)
    for number in range(12):
        (tmp_path / f"labels/train/{number}.txt").write_text("inf 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match="none of the label files of train can be used"):
        read_dataset(path, "val", finetuner("yolo11n"))


def test_a_dataset_that_ultralytics_ships_is_downloaded_when_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dataset(tmp_path)
    path.write_text(
        path.read_text().replace("images/train", "images/fetched") + "download: https://example.org/a.zip\n"
    )
    asked = []

    def fetch(file: str) -> None:
        asked.append(file)
        (tmp_path / "images/train").rename(tmp_path / "images/fetched")
        (tmp_path / "labels/train").rename(tmp_path / "labels/fetched")

    monkeypatch.setattr("ultralytics.data.utils.check_det_dataset", fetch)
    assert len(read_dataset(path, "val", finetuner("yolo11n")).pool) == 12
    assert len(read_dataset(path, "val", finetuner("yolo11n")).pool) == 12
    assert asked == [str(path)]
