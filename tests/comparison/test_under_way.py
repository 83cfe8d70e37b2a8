"""A training that was killed goes on, and gives what it would have given: every number and every weight of it."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import small
from headstart.comparison.child import environment
from headstart.comparison.finetune import finetune
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import (
    LAST,
    LOG,
    REQUEST,
    UNDER_WAY,
    FinetuneResult,
    FinetuneSettings,
    StartSettings,
    write_json,
)
from headstart.errors import UserError
from headstart.files import seal
from headstart.jobs.scenes import draw_dataset

TORCHVISION = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
# Six batches and two images an epoch, and a step every four batches: gradients wait at the end of most epochs.
WAITING: dict[str, Any] = {"nbs": 16, "warmup_epochs": 1.0}
CASES = {
    "yolo11n": ("yolo11n.yaml", 2, {**WAITING, "close_mosaic": 1}),
    "a few layers, mosaics closed before": ("small.yaml", 3, {**WAITING, "close_mosaic": 2}),
    "yolo11n, mosaics closed then": ("yolo11n.yaml", 2, {**WAITING, "close_mosaic": 2}),
    "a few layers, a loss that changes, SGD, images in memory": (
        "small26.yaml",  # as YOLO26: the weights of its two losses change from epoch to epoch
        2,
        {"nbs": 4, "warmup_epochs": 0.0, "cache": "ram", "optimizer": "SGD"},
    ),
    "a few layers": ("small.yaml", 1, {"warmup_epochs": 0.0}),
    "torchvision": (TORCHVISION, 2, {}),
}
KILLED = """\
import os, sys
from headstart.comparison import child
from headstart.detectors import under_way

under_way.EVERY, under_way._SHARE = 0.0, 1e9
keep, last = under_way.UnderWay.keep, int(sys.argv[2])

def keep_and_die(self, epoch, state):
    keep(self, epoch, state)
    if epoch == last:
        os._exit(9)

under_way.UnderWay.keep = keep_and_die
child.main(sys.argv[1:2])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("under_way")
    draw_dataset(folder, unlabelled=0, train=26, val=4, imgsz=64)
    return folder / "scenes.yaml"


def settings_for(case: str, data: Path, out: Path) -> FinetuneSettings:
    model, _, extra = CASES[case]
    start = out / "start.pt"
    out.mkdir()
    if model.startswith("small"):
        more = "end2end: true\nreg_max: 1\n" if model == "small26.yaml" else ""
        model = str(out / model)
        Path(model).write_text(small.SMALL + more)
    names = _names(data)
    finetuner(model).build_start(StartSettings(model, names, seed=1), start)
    listed = _lists(data, out, 8 if model == TORCHVISION else None)  # the larger network's steps take longer
    extra = dict(extra)
    asked: dict[str, Any] = {"optimizer": extra.pop("optimizer", "AdamW"), "imgsz": 64, "batch": 4}
    asked["epochs"] = 3 if model == TORCHVISION else 4
    return FinetuneSettings(
        model, listed, start, out, "one", **asked, lr0=0.001, seed=3, device="cpu", threads=1, extra=extra, key="k"
    )


def _names(data: Path) -> list[str]:
    import yaml

    return list(yaml.safe_load(data.read_text())["names"].values())


def _lists(data: Path, out: Path, most: int | None) -> Path:
    """The dataset YAML as a comparison writes it: lists of paths, of so many images at most."""
    import yaml

    content: dict[str, Any] = {"names": yaml.safe_load(data.read_text())["names"]}
    for part in ("train", "val"):
        images = sorted((data.parent / "images" / part).iterdir())[:most]
        (out / f"{part}.txt").write_text("".join(f"{image}\n" for image in images))
        content[part] = str(out / f"{part}.txt")
    (out / "lists.yaml").write_text(yaml.safe_dump(content))
    return out / "lists.yaml"


def kill_after(settings: FinetuneSettings, epoch: int) -> None:
    """Train in a process of its own that is gone as soon as the state after `epoch` is kept."""
    settings.folder.mkdir()
    write_json(settings.folder / REQUEST, settings.resolved())
    command = [sys.executable, "-c", KILLED, str(settings.folder / REQUEST), str(epoch)]
    env = environment(1, finetuner(settings.model).environment)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stdout + done.stderr
    assert (settings.folder / UNDER_WAY).is_file()


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneSettings:
    """A training of two epochs of few weights that was killed after the first."""
    out = tmp_path_factory.mktemp("killed") / "out"
    settings = dataclasses.replace(settings_for("a few layers", data, out), epochs=2)
    kill_after(settings, 1)
    return settings


def copied(killed: FinetuneSettings, out: Path) -> FinetuneSettings:
    """The same in a folder of its own, to be changed."""
    shutil.copytree(killed.out, out)
    return dataclasses.replace(killed, out=out, start=out / "start.pt")


def figures(result: FinetuneResult) -> list[dict[str, str]]:
    with (result.folder / "results.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key.strip() != "time"} for row in csv.DictReader(file)]


def weights(result: FinetuneResult) -> dict[str, torch.Tensor]:
    found = torch.load(result.folder / LAST, map_location="cpu", weights_only=False)
    return dict(found["model"].state_dict()) if "model" in found and hasattr(found["model"], "state_dict") else found


SLOW = {"a few layers", "yolo11n", "yolo11n, mosaics closed then"}


@pytest.mark.parametrize("case", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in CASES])
def test_as_if_it_had_not_been_killed(case: str, data: Path, tmp_path: Path) -> None:
    settings = settings_for(case, data, tmp_path / "out")
    whole = finetune(dataclasses.replace(settings, name="whole", key=""))
    kill_after(settings, CASES[case][1])
    assert "going on" not in (whole.folder / LOG).read_text()

    result = finetune(settings)
    assert f"going on after epoch {CASES[case][1]}" in (result.folder / LOG).read_text()
    assert figures(result) == figures(whole)
    found, expected = weights(result), weights(whole)
    assert found.keys() == expected.keys()
    different = [name for name, one in expected.items() if isinstance(one, torch.Tensor) and not one.equal(found[name])]
    assert not different
    assert result.classes == whole.classes
    assert result.used == whole.used
    assert result.arrival.before > 0
    assert result.arrival.breaks == ()
    assert result.arrival.initial == whole.arrival.initial
    times = [point.seconds for point in result.curve]
    assert times == sorted(times)
    assert result.seconds > times[-1]


@pytest.mark.parametrize("change", ["key", "damage", "start"])
def test_what_is_of_another_training_is_not_used(
    change: str, data: Path, killed: FinetuneSettings, tmp_path: Path
) -> None:
    settings = copied(killed, tmp_path / "out")
    if change == "key":
        settings = dataclasses.replace(settings, key="another")
    elif change == "damage":
        content = bytearray((settings.folder / UNDER_WAY).read_bytes())
        content[len(content) // 2] ^= 1
        (settings.folder / UNDER_WAY).write_bytes(content)
    else:
        finetuner(settings.model).build_start(StartSettings(settings.model, _names(data), seed=2), Path(settings.start))
    result = finetune(settings)
    log = (result.folder / LOG).read_text()
    assert "begins again" in log
    assert {"key": "key", "damage": "checksum", "start": "initial"}[change] in log
    assert result.arrival.before == 0
    assert len(result.curve) == 2


def test_without_a_key_nothing_is_kept(killed: FinetuneSettings, tmp_path: Path) -> None:
    settings = copied(killed, tmp_path / "out")
    result = finetune(dataclasses.replace(settings, key=""))
    assert "under-way" not in (result.folder / LOG).read_text()
    assert len(result.curve) == 2


def test_a_state_that_cannot_be_put_back_is_removed(killed: FinetuneSettings, tmp_path: Path) -> None:
    settings = copied(killed, tmp_path / "out")
    kept = settings.folder / UNDER_WAY
    content = torch.load(kept, weights_only=True)
    content["state"]["model"].popitem()
    torch.save(content, kept)
    seal(kept)
    with pytest.raises(UserError, match=r"(?s)could not be put back: RuntimeError.*the same command begins"):
        finetune(settings)
    assert not kept.exists()
    assert finetune(settings).arrival.before == 0
