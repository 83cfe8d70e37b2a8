from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart import cli
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.jobs.pretrain import pretrain
from headstart.jobs.probe import probe
from headstart.jobs.scenes import draw_dataset
from headstart.probes.probe import Probe, Samples, measures
from headstart.report import write_report
from headstart.run import health
from small import small_checkpoint
from untouched import untouched


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "drawn"
    draw_dataset(folder, unlabelled=0, train=16, val=0, imgsz=96)
    return folder / "images" / "train"


class Colors(nn.Module):
    """The image itself, coarser, times a weight, with dropout and batch norm: a probe has to switch both off."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(self.drop(self.norm(images)), 8) * self.weight]


def test_samples_have_the_labels_that_lie_beside(scenes: Path) -> None:
    samples = Samples.read(find_images(str(scenes)), number=8, imgsz=64, labels=True)
    lines = [path.read_text().splitlines() for path in sorted((scenes.parents[1] / "labels" / "train").iterdir())][::2]
    assert samples.pixels.shape == (8, 3, 64, 64)
    assert [len(boxes) for boxes in samples.boxes] == [len(one) for one in lines]
    assert samples.classes.tolist() == [int(line.split()[0]) for one in lines for line in one]
    assert len(Samples.read(find_images(str(scenes)), number=8, imgsz=64, labels=False).classes) == 0


def test_of_wrong_data_no_fault_of_the_detector_is_made(tmp_path: Path) -> None:
    """How many channels the images have is not known then; one that reads gray images is as good as any."""
    gray = small_checkpoint(tmp_path / "gray.pt", 1)
    with pytest.raises(UserError) as raised:
        probe(str(gray), str(tmp_path / "nowhere"))
    assert "nowhere" in str(raised.value)
    assert "channels" not in str(raised.value)


def test_of_poses_the_boxes_are_looked_at(scenes: Path, tmp_path: Path) -> None:
    whole = Samples.read(find_images(str(scenes)), number=8, imgsz=64, labels=True)
    shutil.copytree(scenes.parents[1], tmp_path, dirs_exist_ok=True)
    for label in (tmp_path / "labels" / "train").iterdir():
        label.write_text("".join(f"{line} 0.01 0.01 2 0.99 0.99 1\n" for line in label.read_text().splitlines()))
    train = tmp_path / "images" / "train"
    (tmp_path / "pose.yaml").write_text(f"train: {train}\nval: none\nnames: [a]\nkpt_shape: [2, 3]\n")
    images = find_images(str(tmp_path / "pose.yaml"), keep=tmp_path / "cache")
    assert images.keypoints == (2, 3)
    assert images.subset([0]).keypoints == (2, 3)
    found = Samples.read(images.subset(range(len(images))), number=8, imgsz=64, labels=True)
    assert [boxes.tolist() for boxes in found.boxes] == [boxes.tolist() for boxes in whole.boxes]


def test_a_probe_changes_nothing_and_agrees_with_itself(scenes: Path) -> None:
    samples = Samples.read(find_images(str(scenes)), number=16, imgsz=64, labels=True)
    trunk = Colors().train()
    trunk.norm.eval()  # as someone may have left it
    before, random = {k: v.clone() for k, v in trunk.state_dict().items()}, torch.get_rng_state()
    probe = Probe(trunk, samples, batch=5)
    first, second = probe(), probe()
    assert first == second
    assert {"probe_spread", "probe_rankme", "probe_dse", "probe_knn", "probe_knn_start"} <= first.keys()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())
    assert trunk.training
    assert not trunk.norm.training


def test_measures_tell_features_that_vary_from_features_that_do_not(scenes: Path) -> None:
    samples = Samples.read(find_images(str(scenes)), number=16, imgsz=64, labels=False)
    random = torch.randn(16, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    alive = measures([random], samples)
    flat = measures([random[:1].expand(16, -1, -1, -1) + 1e-3 * random], samples)
    for name in ("probe_spread", "probe_rankme", "probe_dse"):
        assert alive[name] > 1.2 * flat[name], name
    assert measures([random * torch.nan], samples) == {}


def test_a_run_writes_and_draws_its_probes(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    common: dict[str, Any] = {"data": str(scenes), "method": "byol", "hidden_dim": 32, "batch": 4, "imgsz": 64}
    common |= {"workers": 0, "device": "cpu", "log_every": 3, "steps": 4, "probe_every": 2, "report": False}
    pretrain(**common, probe_labels=True, out=str(out))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "probe_knn" in line) for line in lines] == [(1, False), (2, True), (3, False), (4, True)]
    page = write_report(out).read_text(encoding="utf-8")
    assert all(title in page for title in ("Dimensions in use", "Labelled boxes told apart", "Dense structure"))
    pretrain(**{**common, "probe_every": 0}, out=str(tmp_path / "quiet"))
    quiet = [json.loads(line) for line in (tmp_path / "quiet" / "metrics.jsonl").read_text().splitlines()]
    assert quiet[-1]["loss"] == lines[-1]["loss"]  # probing disturbs nothing
    assert not any(name.startswith("probe") for name in quiet[-1])


def test_the_command(scenes: Path, capsys) -> None:
    words = ["probe", "yolo11n.yaml", f"data={scenes}", "images=6", "imgsz=64"]
    with untouched(scenes.parents[1]):
        assert cli.main(words) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["backbone", "neck"]
    assert [row.split()[0] for row in rows] == ["spread", "spread_alarm", "rankme", "dse", "knn", "linear"]
    assert all(float(value) >= 0 for row in rows for value in row.split()[1:])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["yolo11n.yaml"], "data: is needed"),
        (["yolo11n.yaml", "data=x", "images=few"], "images: must be a whole number, not 'few'"),
        (["yolo11n.yaml", "data=x", "imagesz=3"], "did you mean"),
        (["nowhere.pt", "data=x"], "nowhere.pt"),
        (["nowhere.pt", "data=x"], "no such file or folder: x"),
        ([".", "data=x"], "holds no headstart.pt"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["probe", *words]) == 2
    assert said in capsys.readouterr().err


def test_no_image_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="no image can be read"):
        Samples.read(find_images(str(tmp_path)), number=4, imgsz=64, labels=False)


@pytest.mark.parametrize(
    ("kind", "good", "bad", "word"),
    [
        ("rank", {"probe_rankme": 12.0, "probe_rankme_start": 20.0}, {"probe_rankme": 5.0}, "5.0 dimensions"),
        ("forgotten", {"probe_knn": 0.56, "probe_knn_start": 0.6}, {"probe_knn": 0.5}, "kNN 50.0%, 60.0% at the start"),
    ],
)
def test_alarms_of_probes(kind: str, good: dict[str, float], bad: dict[str, float], word: str) -> None:
    watch = health.Health()
    for step in range(500, 3000, 500):
        assert watch.update(step, good) == []
    said = [sentence for step in range(3000, 4500, 500) for sentence in watch.update(step, {**good, **bad})]
    assert len(said) == 1
    assert word in said[0]
    assert watch.active == [kind]
    watch.update(5000, {**good, "probe_knn": 0.61})
    assert watch.active == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imgsz": 0}, "imgsz: must be at least 32, not 0"),
        ({"imgsz": 40}, "imgsz: must be a multiple of 32, not 40"),
        ({"images": "x"}, "images: must be a whole number, not 'x'"),
        ({"device": "gpu7"}, "device: "),
    ],
)
def test_what_is_refused(scenes: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        probe("yolo11n.yaml", scenes, **options)
    assert said in str(caught.value)


def test_each_part_is_measured_once(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    monkeypatch.setattr("headstart.probes.probe.measures", lambda maps, samples: fed.append(len(maps)) or {})
    assert probe("yolo11n.yaml", scenes, images=4, imgsz=64) == {"backbone": {}, "neck": {}}
    assert fed == [1, 3]


def test_maps_that_do_not_meet_are_no_end_of_it(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """224 pixels are 3.5 cells of a stride of 64: the neck could not join its maps."""
    found = probe(source="yolov8n-p6.yaml", data=str(scenes), images=4)
    assert set(found) == {"backbone", "neck"}
    assert "imgsz=256 in place of 224: a multiple of 64, the largest stride of yolov8n-p6" in capsys.readouterr().err
