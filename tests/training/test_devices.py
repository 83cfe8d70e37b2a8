"""A pretraining on a GPU is that of the CPU. The same code is run on both, so that no GPU is needed to try it."""

from __future__ import annotations

import functools
import gc
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml
from torch import Tensor, nn

import headstart
from headstart import machine
from headstart.detectors.find import load_detector
from headstart.errors import RunError
from headstart.images.loader import PixelBatch
from headstart.launch.devices import make_fabric
from headstart.pseudolabels.labelling import detect
from headstart.training import checkpoint, step
from headstart.training.step import Step
from headstart.views.mixup import mixed
from headstart.views.mosaic import mosaics
from headstart.views.render import make_views
from headstart.views.spec import View
from small import SMALL

pytestmark = pytest.mark.usefixtures("repeatable")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
CASE: dict[str, Any] = {
    "method": "simclr", "imgsz": 64, "batch": 8, "steps": 4, "save_every": 2, "log_every": 1, "workers": 0,
    "report": False, "probe_every": 0, "cache": "off",
}  # fmt: skip


@pytest.fixture
def given(image_folder: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "small.yaml").write_text(SMALL)
    return {**CASE, "data": str(image_folder), "model": str(tmp_path / "small.yaml")}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def differing(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two contents of checkpoints are not the same, to the bit."""
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [place for key in one for place in differing(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)):
        return [
            place for at, two in enumerate(zip(one, other, strict=True)) for place in differing(*two, f"{where}/{at}")
        ]
    return [] if one == other else [where]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("method", ["simclr", "dino"])
def test_a_resumed_run_is_the_uninterrupted_one(
    device: str, precision: str, method: str, given: dict[str, Any], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given |= {"method": method, "device": device, "precision": precision}
    headstart.pretrain(**given, out=str(whole))
    end, _ = checkpoint.newest(whole / "checkpoints")
    assert bool(end["scaler"]) == (device == "cuda" and precision == "16")  # the loss is scaled in fp16 alone
    shutil.copytree(whole, cut)
    (cut / "checkpoints" / "step-00000004.pt").unlink()
    headstart.pretrain(out=str(cut), resume=True)
    again, _ = checkpoint.newest(cut / "checkpoints")
    assert not [one for part in ("method", "optimizer", "scaler") for one in differing(again[part], end[part], part)]
    assert losses(cut) == losses(whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("more", "tolerance"),
    [
        ({"cache": "device"}, 0.0),
        ({"cache": "disk"}, 0.0),
        ({"channels_last": True}, 2e-4),
        ({"compile": True}, 2e-3),
        ({"precision": "bf16"}, 0.05),
        ({"precision": "16"}, 0.05),
    ],
    ids=lambda one: "-".join(one) + str(one.get("precision", "")) if isinstance(one, dict) else "",
)
def test_what_is_for_speed_changes_losses_little(
    device: str, more: dict[str, Any], tolerance: float, given: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    if device == "cpu":  # without a compiler, in a second: what it is used for is what is tried
        compiled = functools.partialmethod(nn.Module.compile, backend="eager")
        monkeypatch.setattr(nn.Module, "compile", compiled)
    given |= {"device": device, "cache_dir": str(tmp_path / "cache")}
    plain = {"precision": "32", "channels_last": False, "compile": False}
    headstart.pretrain(**{**given, **plain}, out=str(tmp_path / "plain"))
    headstart.pretrain(**{**given, **plain, **more}, out=str(tmp_path / "fast"))
    log = (tmp_path / "fast" / "log.txt").read_text()
    assert ("compiled: student" in log) == ("compile" in more), log
    expected, found = losses(tmp_path / "plain"), losses(tmp_path / "fast")
    assert len(set(expected)) == 4
    assert found == pytest.approx(expected, rel=tolerance, abs=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "preset"), tiny.cases())
def test_every_method_computes_what_it_does_on_the_cpu(device: str, name: str, preset: str | None) -> None:
    found = {}
    for place in ("cpu", device):
        method = tiny.build(name, preset)
        one = Step(method, method.settings, make_fabric(machine.parse_device(place)), seed=0)
        losses = [one([moved(view, place) for view in tiny.views(method, n)], tiny.progress(n)) for n in range(2)]
        found[place] = [float(loss.detach()) for loss in losses]
    assert found[device] == pytest.approx(found["cpu"], rel=5e-3)


def moved(view: View, device: str) -> View:
    return replace(view, **{name: getattr(view, name).to(device) for name in ("images", "boxes", "flipped")})


@pytest.mark.parametrize("device", DEVICES)
def test_mosaics_and_mixes_are_those_of_the_cpu(device: str) -> None:
    images = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    owner, boxes = torch.arange(8), torch.tensor([[10.0, 20, 60, 70]] * 8)
    for make in (mosaics, functools.partial(mixed, share=0.7)):
        here, there = (
            make(place, owner, boxes, owner, torch.Generator().manual_seed(2)) for place in (images, images.to(device))
        )
        assert there[0].device.type == device
        torch.testing.assert_close(there[0].cpu(), here[0], rtol=0, atol=2e-4)
        for one, other in zip(here[1:], there[1:], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_teacher_labels_as_on_the_cpu(device: str, channels_last: bool) -> None:
    """A detector with random weights, whose scores are spread out, so that their order is not one of rounding."""
    random = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 255, (4, 3, 90, 120), generator=random, dtype=torch.uint8)
    batch = PixelBatch(pixels, torch.tensor([(90, 120), (90, 80), (60, 120), (90, 120)]), torch.arange(4), [])
    found = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        detector = load_detector("yolo11n.yaml")
        trunk, head = detector.trunk(neck=True).eval().to(place), detector.class_head().eval().to(place)
        for name, weight in head.named_parameters():
            if re.search(r"cv3\.\d\.2\.", name):  # the scores' last layer, made for scores near zero at first
                weight.data.mul_(40) if name.endswith("weight") else weight.data.fill_(-2)
        if channels_last and place == device:
            trunk.to(memory_format=torch.channels_last)
        found.append(detect(trunk, head, batch.to(torch.device(place)), 128, least=0.02, most=10)[0])
    here, there = found
    assert len(here.rows) > 4
    assert all(tensor.device.type == "cpu" for tensor in (there.rows, there.boxes, there.scores, there.labels))
    assert torch.equal(here.rows, there.rows)
    assert torch.equal(here.labels, there.labels)
    torch.testing.assert_close(there.scores, here.scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(there.boxes, here.boxes, rtol=0, atol=1e-3)


# Memory


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A batch of 64 that does not fit, and what is needed to try it.

    On a GPU by its size: two views of 2048 pixels of each image, in float32, are 84 times 3.59 million numbers each,
    154 GB for the forward pass alone. On a CPU it is made up for batches over 16.
    """
    device = request.getfixturevalue("device")
    folder = tmp_path / "many"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(64):
        cv2.imwrite(str(folder / f"{number}.jpg"), random.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "small.yaml").write_text(SMALL)
    model, imgsz = ("yolo11n.yaml", 2048) if device == "cuda" else (str(tmp_path / "small.yaml"), 64)
    if device == "cpu":
        plain = Step.__call__

        def limited(self: Step, views: list[View], *rest: Any) -> Tensor:
            if len(views[0].images) > 16:
                raise torch.OutOfMemoryError("made up. Tried to allocate 20.00 GiB.")
            return plain(self, views, *rest)

        monkeypatch.setattr(step.Step, "__call__", limited)
    more = {"precision": "32", "steps": 3, "save_every": 500, "device": device}
    return {**CASE, **more, "data": str(folder), "model": model, "imgsz": imgsz}


def memory_error(given: dict[str, Any], out: Path) -> str | None:
    """What is said where memory runs out."""
    try:
        headstart.pretrain(**given, out=str(out))
    except RunError as error:
        return str(error)
    return None


@pytest.mark.parametrize("device", DEVICES)
def test_what_would_fit_is_said_and_fits(device: str, large: dict[str, Any], tmp_path: Path) -> None:
    batch, tries = 64, 0
    while (said := memory_error({**large, "batch": batch}, tmp_path / f"run{batch}")) is not None:
        assert f"a step of {batch} images of {large['imgsz']} pixels needs more" in said
        found = re.search(r"batch=(\d+) should fit", said)
        assert found, said
        assert int(found[1]) < batch
        batch, tries = int(found[1]), tries + 1
        gc.collect()
    assert tries > 0, "64 images are more than fit"
    assert batch <= 32
    assert (tmp_path / f"run{batch}" / "headstart.pt").is_file()


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_that_was_found_does_not_run_out(device: str, large: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = headstart.pretrain(**{**large, "batch": "auto"}, out=str(out))
    assert run.step == 3
    found = yaml.safe_load((out / "settings.yaml").read_text())
    assert found["asked"]["batch"] == "auto"
    assert 2 <= found["options"]["batch"] <= 32
    assert found["resolved"]["batch_trial"]["tried"][found["options"]["batch"]] is not None


@pytest.mark.parametrize("device", DEVICES)
def test_views_of_a_batch_on_the_device_are_those_of_the_cpu(device: str) -> None:
    pixels = tiny.scenes()[:4]
    sizes, specs = torch.tensor([(128, 128)] * 4), tiny.build("simclr").view_specs()
    made = [make_views(p, sizes, specs, torch.Generator().manual_seed(0)) for p in (pixels, pixels.to(device))]
    for one, other in zip(*made, strict=True):
        assert other.images.device.type == device
        torch.testing.assert_close(other.images.cpu(), one.images, rtol=0, atol=5 / 255)
