"""One run in two processes: it is the run that one process makes, with one of all that a run has once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import headstart
from headstart import UserError
from headstart.training import checkpoint
from processes import in_processes
from small import SMALL

OWN_METHOD = '''
"""The mean over images of what two linear layers make of them: no image is looked at beside another."""

from torch import Tensor, nn

from headstart.methods.base import Method, pooled
from headstart.settings.schema import MethodSettings
from headstart.views.spec import pair_specs


class Settings(MethodSettings):
    pass


class Apart(Method):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.head = nn.Linear(self.widths[-1], 4)

    def view_specs(self):
        return pair_specs(self.context.imgsz, (0.3, 1.0))

    def forward(self, views, progress) -> Tensor:
        one, other = (self.head(pooled(self.student(view.images))).float() for view in views)
        return (one - other + 1).square().mean()
'''
COMMON = {
    "batch": 8, "imgsz": 32, "steps": 4, "workers": 0, "precision": "32", "device": "cpu", "log_every": 1,
    "probe_every": 0, "report": False, "cache": "off", "save_every": 2, "optimizer": "sgd", "lr": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.yaml").write_text(SMALL)
    (folder / "apart.py").write_text(OWN_METHOD)
    return folder


def pretrain(files: Path, data: Path, out: Path, **options: Any) -> headstart.Run:
    own = {"model": str(files / "small.yaml"), "method": str(files / "apart.py"), "data": str(data), "out": str(out)}
    return headstart.pretrain(**{**COMMON, **own, **options})


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trained(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.newest(folder / "checkpoints")[0]["method"]
    return state


def test_two_processes_make_the_run_of_one(files: Path, image_folder: Path, tmp_path: Path) -> None:
    """Images, views, batch norm and gradients are those of the joined batch; half of it began in one process."""

    def work(rank: int) -> tuple[Any, ...]:
        run = pretrain(files, image_folder, tmp_path / "two", devices=2)
        return run.folder, run.checkpoint, run.step, run.ok

    pretrain(files, image_folder, tmp_path / "one")
    first, second = in_processes(2, work, tmp_path)
    assert first == second == (tmp_path / "two", tmp_path / "two" / "headstart.pt", 4, True)
    one, two = (metrics(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    torch.testing.assert_close(trained(tmp_path / "two"), trained(tmp_path / "one"), rtol=1e-3, atol=1e-5)
