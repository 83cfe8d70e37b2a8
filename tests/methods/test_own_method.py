"""The example of docs/adding-a-method.md, run as it stands there, and the page of methods held against them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from headstart import cli
from headstart.errors import UserError
from headstart.jobs.pretrain import pretrain
from headstart.methods import find

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "extending" / "my_method.py"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "rotation.py"
    path.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_the_example_learns_and_is_handed_back(own: Path, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [f"data={image_folder}", f"method={own}", "preset=small", "lr=0.002", "steps=3", "batch=4", "imgsz=64"]
    words += ["workers=0", "device=cpu", "log_every=1", f"out={out}", "report=false"]
    assert cli.main(["pretrain", *words]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all({"loss", "feature_spread", "spread_alarm"} <= line.keys() for line in lines)
    assert json.loads((out / "handback.json").read_text())["parts"]["backbone"]["trained"] == 240
    state = YOLO(out / "headstart.pt").model.state_dict()
    assert any(tensor.is_floating_point() and tensor.abs().sum() > 0 for tensor in state.values())


def test_the_example_goes_on_where_it_stopped(own: Path, image_folder: Path, tmp_path: Path) -> None:
    common = {"data": str(image_folder), "method": str(own), "batch": 4, "imgsz": 64, "workers": 0, "report": False}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        pretrain(**common, steps=4, save_every=2, out=str(out), device="cpu")
    (cut / "checkpoints" / "step-00000004.pt").unlink()
    pretrain(out=str(cut), resume=True, method=str(own))
    ends = [torch.load(out / "checkpoints" / "step-00000004.pt", weights_only=True)["method"] for out in (whole, cut)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_method_that_cannot_be_imported_says_why(image_folder: Path, own: Path, tmp_path: Path) -> None:
    own.write_text("import a_package_of_mine\n" + own.read_text())
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError: No module named 'a_package_of_mine'"):
        pretrain(data=str(image_folder), method=str(own), steps=1, batch=2, out=str(tmp_path / "run"))


@pytest.mark.parametrize("name", find.names())
def test_the_page_names_every_method_and_preset(name: str) -> None:
    row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
    assert re.findall(r"`(\w+)`", row.split("|")[-2]) == list(find.find(name).presets)
