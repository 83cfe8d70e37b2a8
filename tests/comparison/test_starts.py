from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from headstart.comparison.dataset import Dataset
from headstart.comparison.starts import Start, build_starts, called_coco, pretraining_of
from headstart.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with 80 classes, as Ultralytics saves it."""
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("weights") / "coco.pt"
    torch.manual_seed(5)
    yolo = YOLO("yolo11n.yaml")
    with torch.no_grad():
        for parameter in yolo.model.parameters():
            parameter.copy_(parameter.half())  # as precise as Ultralytics saves it
    yolo.save(path)
    return path


def data(*names: str) -> Dataset:
    return Dataset(Path("my.yaml"), names, (), (), "val", {})


def state(path: Path) -> dict[str, torch.Tensor]:
    from ultralytics import YOLO

    return dict(YOLO(path).model.state_dict())


@pytest.fixture(scope="module")
def built(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, torch.Tensor]]:
    starts = [Start("scratch", "scratch", ""), Start("coco", "coco", str(weights))]
    starts.append(Start("coco-backbone", "coco-backbone", str(weights)))
    folder = tmp_path_factory.mktemp("starts")
    files = build_starts(starts, [0, 1], data("a", "b", "c"), "yolo11n.yaml", folder)
    assert len({file.parameters for file in files.values()}) == 1
    assert len({file.sha256 for file in files.values()}) == 6
    taken = {name: files[name, 0].taken for name in ("scratch", "coco", "coco-backbone")}
    assert taken["scratch"] == {"backbone": [0, 240], "neck": [0, 138], "head": [0, 121]}
    assert taken["coco-backbone"] == {"backbone": [240, 240], "neck": [0, 138], "head": [0, 121]}
    # All but the last convolution (weight, bias) of the class branch at each of three levels.
    assert taken["coco"] == {"backbone": [240, 240], "neck": [138, 138], "head": [115, 121]}
    return {key: state(file.path) for key, file in files.items()}


Built = dict[tuple[str, int], dict[str, torch.Tensor]]


def test_all_starts_are_one_network_with_the_users_classes(built: Built) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in one.items()} for one in built.values()]
    assert all(one == shapes[0] for one in shapes)
    # 3 classes of the user; the class branch before them as wide as in the 80-class model.
    assert shapes[0]["model.23.cv3.0.2.weight"] == (3, 80, 1, 1)


def test_what_a_start_does_not_bring_is_alike_for_all_of_a_seed(built: Built, weights: Path) -> None:
    logits = [name for name in built["coco", 0] if "cv3" in name and name.split(".")[-2] == "2"]
    assert len(logits) == 6
    neck = "model.13.cv1.conv.weight"
    assert torch.equal(built["scratch", 0][neck], built["coco-backbone", 0][neck])
    assert not torch.equal(built["scratch", 0][neck], built["scratch", 1][neck])
    for name in logits:
        assert torch.equal(built["scratch", 0][name], built["coco", 0][name])
    assert not torch.equal(built["scratch", 0][logits[0]], built["scratch", 1][logits[0]])
    given = state(weights)
    for key in ("coco", "coco-backbone"):
        assert torch.equal(built[key, 1]["model.2.m.0.cv1.conv.weight"], given["model.2.m.0.cv1.conv.weight"])
    assert torch.equal(built["coco", 1][neck], given[neck])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"train_args": {"data": "/usr/src/cfg/coco.yaml"}}, ""),
        ({"train_args": {"data": "my/fod.yaml"}}, "it was trained on fod"),
        ({"train_args": {"data": "coco128.yaml"}}, "it was trained on coco128"),
        ({"headstart": {"trained": ["backbone"]}}, "headstart wrote it"),
    ],
)
def test_whether_weights_are_of_coco(changed: dict[str, Any], told: str, weights: Path, tmp_path: Path) -> None:
    content = torch.load(weights, weights_only=False)
    torch.save({**content, **changed}, tmp_path / "given.pt")
    start = [Start("coco-longer", "coco-longer", str(tmp_path / "given.pt"))]
    for _ in range(2):  # built, and read again
        (file,) = build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path).values()
        assert file.foreign == called_coco(start[0], file) == told
    assert called_coco(Start("mine", "checkpoint", ""), file) == "", "it is called by its own name"


def test_a_start_of_another_architecture_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"starts: coco: .*coco.pt is of another architecture than yolo11s.yaml"):
        build_starts([Start("coco", "coco", str(weights))], [0], data("a"), "yolo11s.yaml", tmp_path)


def test_a_checkpoint_with_other_classes_makes_the_same_network(weights: Path, tmp_path: Path) -> None:
    """A class branch is as wide as the classes it was made for (80 or 64 wide here): the starts would differ."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    yolo = YOLO("yolo11n.yaml")
    yolo.model = DetectionModel("yolo11n.yaml", nc=5, verbose=False)
    yolo.save(tmp_path / "five.pt")
    assert tuple(state(tmp_path / "five.pt")["model.23.cv3.0.2.weight"].shape) == (5, 64, 1, 1)
    starts = [Start("coco", "coco", str(weights)), Start("five", "checkpoint", str(tmp_path / "five.pt"))]
    files = build_starts(starts, [0], data("a", "b", "c"), "yolo11n.yaml", tmp_path)
    shapes = [{name: tuple(t.shape) for name, t in state(file.path).items()} for file in files.values()]
    assert shapes[0] == shapes[1]
    assert files["five", 0].taken["neck"] == [138, 138]


def test_a_checkpoint_with_the_users_classes_arrives_whole(weights: Path, tmp_path: Path) -> None:
    """Class layers included, bit by bit; in another order the classes are others, and these layers start fresh."""
    names = ("nut", "bolt", "wire")
    first = build_starts([Start("coco", "coco", str(weights))], [0], data(*names), "yolo11n.yaml", tmp_path)
    from ultralytics import YOLO

    yolo = YOLO(first["coco", 0].path)
    with torch.no_grad():
        for tensor in yolo.model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    expected = {name: tensor.clone().float() for name, tensor in yolo.model.state_dict().items()}
    yolo.ckpt["model"] = yolo.model
    torch.save(yolo.ckpt, tmp_path / "mine.pt")
    start = [Start("mine", "checkpoint", str(tmp_path / "mine.pt"))]
    files = build_starts(start, [1], data(*names), "yolo11n.yaml", tmp_path)
    assert files["mine", 1].taken == {"backbone": [240, 240], "neck": [138, 138], "head": [121, 121]}
    found = state(files["mine", 1].path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert files["mine", 1].parameters == first["coco", 0].parameters
    other = build_starts(start, [1], data("bolt", "nut", "wire"), "yolo11n.yaml", tmp_path)
    assert other["mine", 1].taken["head"][0] < 121


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolov8n.yaml", "yolo26n.yaml", "yolo11n-seg.yaml"])
def test_a_detector_that_was_trained_from_a_yaml_detects_the_same(name: str, weights: Path, tmp_path: Path) -> None:
    """Ultralytics makes its class branch as narrow as few classes allow: 64 channels, and 80 from COCO's weights."""
    from ultralytics import YOLO

    torch.manual_seed(3)
    yolo = YOLO(name)
    narrow = type(yolo.model)(name, nc=3, verbose=False)
    for module in narrow.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    narrow.half().float()
    narrow.names = {0: "nut", 1: "bolt", 2: "wire"}
    yolo.model = narrow
    yolo.save(tmp_path / "mine.pt")
    starts = [Start("scratch", "scratch", ""), Start("mine", "checkpoint", str(tmp_path / "mine.pt"))]
    files = build_starts(starts, [0], data("nut", "bolt", "wire"), name, tmp_path)
    assert files["mine", 0].taken == {part: [total, total] for part, (_, total) in files["mine", 0].taken.items()}
    assert files["mine", 0].parameters == files["scratch", 0].parameters
    both = (narrow.state_dict(), state(files["mine", 0].path))
    widths = [{len(tensor) for key, tensor in one.items() if "cv3" in key and tensor.dim()} for one in both]
    assert (80 in widths[0], 80 in widths[1]) == (False, True)
    images = torch.rand(2, 3, 64, 64)
    wide = YOLO(files["mine", 0].path).model.float().eval()
    with torch.no_grad():
        found = [one(images)[0] for one in (narrow.eval(), wide)]
    outputs = [one[0] if isinstance(one, (tuple, list)) else one for one in found]
    assert outputs[0][:, 4:7].std() > 0, "the scores"
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4, rtol=1e-4)


def test_a_start_that_was_built_in_another_way_is_built_anew(weights: Path, tmp_path: Path) -> None:
    """Seeds of one start would begin with other weights where some of them were built by an earlier version."""
    start = [Start("coco", "coco", str(weights))]
    first = build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path)["coco", 0]
    record = tmp_path / "coco-seed0.json"
    known = json.loads(record.read_text())
    assert known["origin"].pop("way")
    record.write_text(json.dumps(known))
    before = first.path.stat().st_mtime_ns
    again = build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path)["coco", 0]
    assert again == first
    assert again.path.stat().st_mtime_ns > before


def test_starts_are_kept_and_built_anew_when_they_must_be(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [Start("coco", "coco", str(weights))]
    first = build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("headstart.detectors.ultralytics.starting.build_start", None)
        assert build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path) == first
    first["coco", 0].path.write_bytes(b"cut short")
    again = build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path)
    assert again["coco", 0].sha256 == first["coco", 0].sha256
    for damaged in ("", "[]", '{"origin": 3', "{}"):
        (tmp_path / "coco-seed0.json").write_text(damaged)
        assert build_starts(start, [0], data("a"), "yolo11n.yaml", tmp_path) == first
    other = build_starts(start, [0], data("a", "b"), "yolo11n.yaml", tmp_path)
    assert other["coco", 0].sha256 != first["coco", 0].sha256


def test_what_a_run_folder_tells(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "options": {"data": "images", "method": "dino", "model": "yolo11n.yaml", "init": None},
        "resolved": {"images": 24, "steps": 8, "device": "cpu"},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(content))
    seconds = [1.0, 2.5, 4.0, 0.5, 3.0]  # resumed after the third line
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"seconds": {one}}}\n' for one in seconds) + '{"torn')
    (tmp_path / "headstart.pt").write_bytes(b"")
    found = pretraining_of(Start("a", "checkpoint", str(tmp_path / "headstart.pt")))
    assert found is not None
    assert (found.data, found.images, found.method, found.seconds) == (("images",), 24, "dino", 7.0)
    assert pretraining_of(Start("a", "checkpoint", str(tmp_path / "other.pt"))) is None
    (tmp_path / "metrics.jsonl").unlink()  # copied without it
    found = pretraining_of(Start("a", "checkpoint", str(tmp_path / "headstart.pt")))
    assert found is not None
    assert found.seconds is None, "not known, and not none at all"


@pytest.mark.parametrize("content", [b"options: \xff\n", b"options:\nresolved:\n", b"", b"options: 3\nresolved: {}\n"])
def test_a_damaged_record_of_a_pretraining_says_what_to_do(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)settings.yaml: cannot be read: .*-> restore it; or copy headstart.pt"):
        pretraining_of(Start("a", "checkpoint", str(tmp_path / "headstart.pt")))


def test_weights_that_are_no_numbers_are_no_start(weights: Path, tmp_path: Path) -> None:
    """Before, they were fine-tuned, and a comparison said how much worse they were."""
    from ultralytics import YOLO

    yolo = YOLO(weights)
    with torch.no_grad():
        next(yolo.model.parameters())[0] = torch.nan
    yolo.save(tmp_path / "nan.pt")
    starts = [Start("mine", "checkpoint", str(tmp_path / "nan.pt"))]
    with pytest.raises(UserError, match=r"holds NaN or infinity in 1 of \d+ tensors: model.0.conv.weight") as caught:
        build_starts(starts, [0], data("a", "b", "c"), "yolo11n.yaml", tmp_path / "starts")
    assert "starts: mine" in str(caught.value)
    assert not list((tmp_path / "starts").glob("*.pt"))


def test_weights_that_cannot_be_downloaded_are_asked_for_as_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has them elsewhere reads how to say so; ``model=`` names a network, not a file of COCO's weights."""
    from ultralytics.utils import downloads

    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "safe_download", fails)
    with pytest.raises(UserError) as told:
        build_starts([Start("coco", "coco", "yolo11n.pt")], [0], data("a"), "yolo11n.yaml", tmp_path / "starts")
    assert "starts: coco: yolo11n.pt is not on disk" in str(told.value)
    assert "starts=coco=path.pt" in str(told.value)
