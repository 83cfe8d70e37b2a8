"""Exports, read by the libraries that they are for; a run's folder is written by the real writers."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import fake_comparison
import fake_run
import pytest
import torch
import yaml
from ultralytics import YOLO

from headstart import cli
from headstart.detectors.find import load_detector
from headstart.detectors.torchvision.detector import TorchvisionDetector
from headstart.errors import RunError, UserError
from headstart.export import formats
from headstart.export.card import Known, card, text
from headstart.files import OwnedFolder
from headstart.jobs.export import CONTENTS, Exported, export
from headstart.report.run_reader import find_run
from headstart.settings.tools import ExportSettings
from small import small_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights whose batch norms are not at their beginnings."""
    path = tmp_path_factory.mktemp("yolo") / "net.pt"
    torch.manual_seed(0)
    live = YOLO("yolo11n.yaml", verbose=False)
    live.model.train()(torch.rand(4, 3, 64, 64))
    live.save(path)
    return path


@pytest.fixture
def run(yolo: Path, tmp_path: Path) -> Path:
    """A finished run with that checkpoint, whose names try to be markup."""
    folder = fake_run.write_run(tmp_path / "run")
    fake_run.write_settings(folder, data="/home/me/air<b>field", teacher="lite|0", init="w/yolo11n.pt")
    lines = fake_run.lines(steps=50)
    lines[0] |= {"probe_rankme": 20.0, "probe_rankme_start": 10.0}
    lines[-1] |= {"probe_rankme": 31.25, "probe_rankme_start": 10.0}
    fake_run.write_lines(folder, lines)
    (folder / "headstart.pt").write_bytes(yolo.read_bytes())
    return folder


def exported(source: Path, **options: Any) -> Exported:
    return export(ExportSettings(source=str(source), **options))


def test_the_backbone_as_safetensors(yolo: Path, tmp_path: Path) -> None:
    """Every tensor of the layers before the neck, and no other; 0 to 10 are yolo11n's backbone in its YAML."""
    made = exported(yolo, out=str(tmp_path / "out"))
    found = safetensors.load_file(made.file)
    state = YOLO(str(yolo)).model.float().state_dict()
    assert set(found) == {name for name in state if int(name.split(".")[1]) <= 10}
    assert all(torch.equal(found[name], state[name]) for name in found)
    assert json.loads((made.folder / "export.json").read_text())["name"] == "yolo11n"
    assert {one.name for one in made.folder.iterdir()} == {"README.md", "export.json", "model.safetensors"}


@pytest.mark.parametrize(("channels", "called"), [(1, "gray"), (4, "of 4 channels")])
def test_a_detector_of_other_channels(tmp_path: Path, channels: int, called: str) -> None:
    """No images are there that it would have to fit: it is exported as it is."""
    network = small_checkpoint(tmp_path / "net.pt", channels)
    made = exported(network, out=str(tmp_path / "out"))
    assert safetensors.load_file(made.file)["model.0.conv.weight"].shape == (8, channels, 3, 3)
    assert f"Images are {called}, float" in (made.folder / "README.md").read_text()
    pytest.importorskip("onnxruntime")
    assert exported(network, out=str(tmp_path / "onnx"), format="onnx", imgsz=64).file.is_file()


def test_what_is_read_back_otherwise_is_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor(3)}
    formats.write_safetensors(tmp_path / "x.safetensors", state, {})  # NaN is a bit pattern as well
    load = safetensors.load_file
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: {**load(path), "a": torch.zeros(2)})
    with pytest.raises(RunError, match="1 tensors are not what was written, such as a"):
        formats.write_safetensors(tmp_path / "x.safetensors", state, {})


def test_the_card_of_a_run(run: Path, tmp_path: Path) -> None:
    comparison = fake_comparison.write_comparison(tmp_path / "compared")
    assert cli.main(["export", str(run), f"comparison={tmp_path / 'compared'}"]) == 0
    written = (run / "export-safetensors" / "README.md").read_text(encoding="utf-8")
    _, head, body = written.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "safetensors",
        "license": "agpl-3.0",
        "tags": ["object-detection", "backbone", "headstart"],
    }
    assert "| data | air\\<b\\>field, 5,948 images |" in body
    assert "/home/me" not in body
    assert "| steps | 50 of 5,000 |" in body
    assert "| started from | yolo11n.pt |" in body
    assert "| teacher | lite\\|0 |" in body
    assert "| rankme | 10 | 31.25 |" in body
    assert "backbone 207 of 207 tensors" in body
    assert text(comparison.verdict) in body
    assert "AGPL-3.0" in body


def test_the_example_of_the_page_runs(yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "headstart.pt").write_bytes(yolo.read_bytes())
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8").split("## What timm can load")[1]
    (line,) = re.findall(r"^    headstart (.+)$", page, re.MULTILINE)
    assert cli.main(line.split()) == 0
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    held: dict[str, Any] = {}
    exec(code, held)
    assert torch.equal(held["model"].model[0].conv.weight, YOLO(str(yolo)).model.float().model[0].conv.weight)


def test_the_card_of_a_checkpoint_says_what_is_not_known(yolo: Path, tmp_path: Path) -> None:
    body = (exported(yolo, out=str(tmp_path / "out")).folder / "README.md").read_text()
    assert "how it was made is not known here" in body
    assert "No comparison is named" in body


def test_an_export_is_replaced_when_asked(yolo: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    exported(yolo, out=out)
    with pytest.raises(UserError, match="holds an export already"):
        exported(yolo, out=out)
    exported(yolo, out=out, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="files that are not an export of headstart"):
        exported(yolo, out=str(tmp_path / "mine"), overwrite=True)


def test_half_an_export_is_none(yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = safetensors.load_file
    monkeypatch.setattr(
        "safetensors.torch.load_file", lambda path: {**load(path), "model.0.conv.weight": torch.ones(1)}
    )
    assert cli.main(["export", str(yolo), f"out={tmp_path / 'out'}"]) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_not_there(yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        exported(tmp_path / "no.pt")
    with pytest.raises(UserError, match=r"holds no headstart.pt"):
        exported(tmp_path)
    monkeypatch.setattr("headstart.export.formats.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"format=onnx needs onnx and onnxruntime\n  -> pip install onnx onnxruntime"):
        exported(yolo, format="onnx")


# -- ONNX -------------------------------------------------------------------------------------------------------------


def test_onnx_takes_any_size_and_gives_torchs_maps(yolo: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    made = exported(yolo, format="onnx", out=str(tmp_path / "out"), imgsz=64)
    images = torch.rand(3, 3, 96, 160)
    session = onnxruntime.InferenceSession(str(made.file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        maps = YOLO(str(yolo)).model.float().eval()
        layer, expected = images, images
        for layer in maps.model[:11]:  # the backbone is a chain
            expected = layer(expected)
    assert found.shape == (3, 256, 3, 5)
    assert torch.allclose(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_onnx_that_differs_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    class Trunk(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images[:, :, ::32, ::32] * float(images.mean())]  # the tracer keeps this number for good

    with pytest.raises(RunError, match="onnxruntime's maps differ from torch's"):
        formats.write_onnx(tmp_path / "x.onnx", Trunk(), 64, 32)
    assert not (tmp_path / "x.onnx").exists()


# -- timm -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retina() -> TorchvisionDetector:
    """A torchvision detector's checkpoint; with a ResNet-18, which is small, in place of the 50."""
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d)
    backbone.body.train()(torch.rand(2, 3, 64, 64))
    return TorchvisionDetector("retinanet_resnet18_fpn", RetinaNet(backbone, 3), ["none", "a", "b"])


def test_timm_takes_a_resnet_of_torchvision(retina: Any, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = formats.write_timm(tmp_path / "model.safetensors", retina, {})
    assert name == "resnet18"
    model = timm.create_model(name, num_classes=0, checkpoint_path=str(tmp_path / "model.safetensors"))
    body = retina.module.backbone.body.state_dict()
    assert all(torch.equal(tensor, body[key]) for key, tensor in model.state_dict().items())


def test_maps_that_differ_in_timm_are_told(retina: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    name, state = retina.timm_backbone()
    wrong = {key: tensor * 2 if key == "conv1.weight" else tensor for key, tensor in state.items()}
    monkeypatch.setattr(TorchvisionDetector, "timm_backbone", lambda self: (name, wrong))
    with pytest.raises(RunError, match="timm's resnet18 gives other maps"):
        formats.write_timm(tmp_path / "x.safetensors", retina, {})
    monkeypatch.setattr(TorchvisionDetector, "timm_backbone", lambda self: ("resnet34", state))
    with pytest.raises(RunError, match="timm's resnet34 does not take these weights"):
        formats.write_timm(tmp_path / "y.safetensors", retina, {})
    assert list(tmp_path.iterdir()) == []


def test_what_timm_does_not_have(yolo: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"timm has no backbone of yolo11n\n  -> use format=safetensors"):
        exported(yolo, format="timm", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    mobile = load_detector("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn")
    with pytest.raises(UserError, match=r"names the tensors of the backbone of .* otherwise"):
        mobile.timm_backbone()


def test_an_export_is_there_until_another_is_whole(yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    exported(yolo, out=str(out))

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir()}

    before = held()

    def fail(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise UserError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_safetensors", fail)
        with pytest.raises(UserError, match="full"):
            exported(yolo, out=str(out), overwrite=True)
    assert held() == before
    folder = OwnedFolder(out, CONTENTS)  # one that was killed
    folder.take()
    folder.set_aside()
    (out / "export.json").write_text("{}")
    (out / "model.safetensors").write_bytes(b"half")
    folder.release()
    with pytest.raises(UserError, match="holds an export already"):
        exported(yolo, out=str(out))
    assert {name: data for name, data in held().items() if name != ".lock"} == before
    (out / "README.md").unlink()  # and one that was killed where there was none before
    exported(yolo, out=str(out))
    again = held()
    # safetensors writes what it is told of a file in any order
    assert {name: sorted(data) for name, data in again.items()} == {name: sorted(data) for name, data in before.items()}


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="the disk is full"):
        formats.write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "trained", "said"),
    [
        ({"in_memory": "YOLO", "origin": "/home/me/yolo11n.pt"}, True, "yolo11n.pt"),
        ({"in_memory": "YOLO", "origin": "yolo11n.yaml"}, False, "yolo11n.yaml (random weights)"),
        ({"in_memory": "YOLO", "origin": "yolo11n.yaml"}, True, "yolo11n.yaml"),  # trained, or loaded into, since
        (
            {"in_memory": "YOLO", "origin": "yolo11n.yaml"},
            None,
            "yolo11n.yaml (random weights)",
        ),  # an earlier version's
        ({"in_memory": "YOLO", "origin": None}, None, "YOLO"),
        ("yolo11n", False, "yolo11n (random weights)"),
    ],
)
def test_the_card_says_what_a_detector_in_memory_was_made_from(
    model: object, trained: bool | None, said: str, tmp_path: Path
) -> None:
    folder = fake_run.write_run(tmp_path / "run")
    fake_run.write_settings(folder, model=model, init=None, teacher={"in_memory": "Net", "origin": None})
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    if trained is not None:
        settings["resolved"]["detector"]["trained"] = trained
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    body = card(Known(load_detector("yolo11n.yaml"), "onnx", "m.onnx", "", "", find_run(folder)))
    assert f"| started from | {said} |" in body
    assert "| teacher | Net |" in body
    assert "in_memory" not in body.replace("\\", "")


@pytest.mark.parametrize(("kind", "said"), [("onnx", False), ("safetensors", True)])
def test_images_are_normalized_once(kind: str, said: bool) -> None:
    """By who uses the tensors of a torchvision backbone, and within an ONNX graph, which begins with that."""
    detector = load_detector("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn")
    trunk, images = detector.trunk().eval(), torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():  # what is written as ONNX is the trunk
        within = trunk.backbone["body"]((images - mean) / std)
        torch.testing.assert_close(trunk(images)[-1], list(within.values())[-1])
    body = card(Known(detector, kind, "m", "", ""))
    assert ("normalized as the detector's own transform does" in body) == said
    assert "Images are RGB, float, in [0, 1]" in body
