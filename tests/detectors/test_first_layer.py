"""Detectors for images of one and of many channels: the first layer is made for them as Ultralytics makes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import headstart
from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.run.listing import Listing
from small import SMALL

FIRST = "model.0.conv.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that reads RGB."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(SMALL)
    torch.manual_seed(7)
    detector = load_detector(str(folder / "small.yaml"))
    detector.trained = True
    detector.save(folder / "small.pt", {})
    return folder / "small.pt"


def dataset(folder: Path, channels: int, images: int = 6) -> Path:
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for number in range(images):
            random = np.random.default_rng(number)
            pages = [cv2.resize(random.integers(0, 255, (5, 5), np.uint8), (64, 64)) for _ in range(channels)]
            assert cv2.imwritemulti(str(folder / f"images/{part}/{part}{number}.tiff"), pages)
            (folder / f"labels/{part}/{part}{number}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    content = f"path: {folder}\ntrain: images/train\nval: images/val\nchannels: {channels}\nnames: [a, b]\n"
    (folder / "data.yaml").write_text(content)
    return folder / "data.yaml"


@pytest.mark.parametrize("channels", [1, 2, 4, 10])
def test_the_first_layer_is_that_of_ultralytics(channels: int, weights: Path) -> None:
    rgb = YOLO(str(weights)).model.float()
    torch.manual_seed(3)
    reference = DetectionModel(rgb.yaml, ch=channels, nc=2, verbose=False)
    reference.load(rgb, verbose=False)
    torch.manual_seed(3)
    detector = load_detector(str(weights), channels=channels)
    state, wanted = detector.module.state_dict(), reference.state_dict()
    assert detector.channels == channels
    assert state[FIRST].shape[1] == channels
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    own = rgb.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own if name != FIRST)
    if channels == 1:
        assert torch.equal(state[FIRST], own[FIRST].sum(1, keepdim=True))
        gray = torch.rand(1, 1, 64, 64)
        maps = (
            detector.trunk().eval()(gray)[-1],
            load_detector(str(weights)).trunk().eval()(gray.expand(-1, 3, -1, -1))[-1],
        )
        assert torch.allclose(*maps, atol=1e-5)  # gray images have the features that they had as RGB
        assert "first layer made for 1 channels: its filters are the sum" in detector.notes[-1]
    else:
        assert torch.equal(state[FIRST][:, : min(3, channels)], own[FIRST][:, : min(3, channels)])
        assert f"those of red, green and blue for the first {min(3, channels)}" in detector.notes[-1]


def test_a_first_layer_that_ultralytics_leaves_random_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "focus.yaml").write_text(SMALL.replace("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, Focus, [8, 3]]", 1))
    detector = load_detector(str(tmp_path / "focus.yaml"))
    detector.trained = True
    detector.save(tmp_path / "focus.pt", {})
    assert "its weights are random" in load_detector(str(tmp_path / "focus.pt"), channels=4).notes[-1]


def test_init_is_made_for_them_too(weights: Path) -> None:
    detector = load_detector(str(weights.with_suffix(".yaml")), str(weights), channels=4)
    own = YOLO(str(weights)).model.float().state_dict()
    assert torch.equal(detector.module.state_dict()[FIRST][:, :3], own[FIRST])
    assert detector.trained


def test_what_does_not_fit_is_refused(weights: Path, tmp_path: Path) -> None:
    load_detector(str(weights), channels=4).save(tmp_path / "four.pt", {})
    assert load_detector(str(tmp_path / "four.pt"), channels=4).notes == ()
    with pytest.raises(UserError, match="reads images of 4 channels, not of 3"):
        load_detector(str(tmp_path / "four.pt"))
    with pytest.raises(UserError, match="reads RGB, and the images of the data set have 4 channels"):
        load_detector("torchvision:retinanet_resnet50_fpn", channels=4)


@pytest.mark.parametrize(("channels", "method"), [(1, "dino"), (4, "dino"), (4, "selftrain")])
def test_what_is_handed_back_is_trained_on_as_it_is(channels: int, method: str, weights: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", channels)
    more = {"labels": str(data), "imgsz": 64} if method == "selftrain" else {"imgsz": 32, "local_imgsz": 32}
    source = str(data) if method == "dino" else str(tmp_path / "data/images/train")
    drawn = (channels, method) == (4, "dino")
    run = headstart.pretrain(
        data=source, model=str(weights), method=method, steps=2, batch=4, workers=0, device="cpu", report=drawn,
        probe_every=0, out=str(tmp_path / "run"), precision="32", **more,
    )  # fmt: skip
    assert run.handback.ok
    if drawn:  # its pictures show three of the channels
        assert {"views.png", "components.png"} <= {path.name for path in (tmp_path / "run/assets").iterdir()}
    log = (tmp_path / "run/log.txt").read_text()
    assert f"first layer made for {channels} channels" in log
    assert f"channels: {channels}" in (tmp_path / "run/settings.yaml").read_text()
    assert len(Listing(tmp_path / "run/skipped.csv", "reason")) == 0
    yolo = YOLO(str(run.checkpoint))
    assert yolo.model.yaml["channels"] == channels
    given = {name: tensor.clone() for name, tensor in yolo.model.float().state_dict().items()}
    before = YOLO(str(weights)).model.float().state_dict()
    assert any(not torch.equal(given[name], before[name]) for name in before if name != FIRST)
    seen = {}

    class EnoughError(Exception):
        pass

    def stop(trainer: object) -> None:
        seen.update({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})  # type: ignore[attr-defined]
        raise EnoughError

    yolo.add_callback("on_train_start", stop)
    with pytest.raises(EnoughError):
        yolo.train(
            data=str(data), epochs=1, imgsz=64, batch=2, workers=0, device="cpu", plots=False, project=str(tmp_path)
        )
    head = f"model.{len(yolo.model.model) - 1}."
    shared = [name for name in given if method == "selftrain" or not name.startswith(head)]
    assert all(torch.equal(seen[name], given[name]) for name in shared)


def test_networks_that_read_rgb_beside_are_refused(weights: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", 4, images=2)
    with pytest.raises(UserError, match="teacher: reads RGB, and the images of the data set have 4 channels"):
        headstart.pretrain(data=str(data), model=str(weights), method="distill", teacher=str(weights), steps=1)
