"""A detector finds, and a network that learnt from the labelled images names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_box_classifier import BLUE, LEFT, RED, RIGHT, batch, colors, scene
from torch import Tensor, nn

from headstart.errors import RunError
from headstart.images.loader import PixelBatch
from headstart.pseudolabels import labeller as module
from headstart.pseudolabels.base import PseudoLabelHead, PseudoLabels
from headstart.pseudolabels.labeller import Labeller, Learnt
from headstart.pseudolabels.labelling import Detections
from processes import in_processes

SCENES = [
    scene(64, 64, (LEFT, RED)),
    scene(64, 64, (LEFT, BLUE)),
    scene(64, 64, (LEFT, BLUE)),
    scene(64, 64),
    scene(64, 64, (LEFT, RED)),  # labelled as the second class, and held out
]
GIVEN = PseudoLabels.gather(
    5, torch.tensor([0, 1, 4]), torch.tensor([LEFT] * 3), torch.ones(3), torch.tensor([0, 1, 1])
)


class Finds(PseudoLabelHead):
    """The same two boxes on every image, the second hardly; all of the first class."""

    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        number = len(maps)
        boxes = torch.tensor([LEFT, RIGHT])[None] * 64
        return boxes.repeat(number, 1, 1), torch.tensor([[[0.64, 0.01], [0.03, 0.01]]]).repeat(number, 1, 1)

    def handed_back(self) -> dict[str, Tensor]:
        return {}


class Reads:
    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, rows: Sequence[int], area: int) -> Iterator[PixelBatch]:
        self.asked.append(list(rows))
        for row in rows:
            yield batch(SCENES[row], first=row)


@pytest.mark.parametrize("named", [True, False])
def test_the_detector_says_where_and_the_network_what(named: bool) -> None:
    reads = Reads()
    labeller = Labeller(reads, GIVEN, torch.tensor([0, 1]), 2, least=0.05, most=9, namer=colors() if named else None)
    found = labeller.found([2, 3], nn.Conv2d(3, 1, 1), Finds(), 64)
    assert found.looked.tolist() == [2, 3]
    assert reads.asked == ([[0, 1], [2, 3]] if named else [[2, 3]]), "what is held out is not learnt from"
    if named:
        best = found.rows.tolist().index(2)
        assert int(found.labels[best]) == 1
        assert float(found.scores[best]) == pytest.approx(0.8, abs=0.02)
        assert float(found.scores.max()) == float(found.scores[best]), "there is nothing on the other image"
    else:
        assert found.rows.tolist() == [2, 3]
        assert found.labels.tolist() == [0, 0]
    assert bool((found.scores >= 0.05).all())


def test_names_that_were_learnt_before_are_taken_as_they_are() -> None:
    reads = Reads()
    labeller = Labeller(reads, GIVEN, torch.tensor([0, 1]), 2, least=0.05, most=9, namer=colors())
    learnt = Learnt()
    detector = nn.Conv2d(3, 1, 1), Finds(), 64
    whole = labeller.found([2, 3], *detector)
    parts = [labeller.found([row], *detector, learnt) for row in (2, 3)]
    assert reads.asked == [[0, 1], [2, 3], [0, 1], [2], [3]]
    for name in ("rows", "boxes", "scores", "labels"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


@pytest.mark.parametrize("named", [True, False])
def test_processes_share_what_one_looks_at(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, whole batches of two images each: of five images the last alone is one, and of two labelled ones."""
    monkeypatch.setattr(module, "TOGETHER", 2)
    torch.set_num_threads(1)  # as the processes have it

    def found(_: int) -> tuple[Detections, Any]:
        reads = Reads()
        known = torch.tensor([0, 1, 4])
        one = Labeller(reads, GIVEN, known, 2, least=0.01, most=9, namer=colors() if named else None)
        torch.manual_seed(0)
        return one.found([2, 3, 0, 1, 4], nn.Conv2d(3, 1, 1), Finds(), 64), reads.asked

    (first, read), (second, beside) = in_processes(2, found, tmp_path)
    learnt = ([[0, 1]], [[4]]) if named else ([], [])
    assert (read, beside) == ([*learnt[0], [2, 3]], [*learnt[1], [0, 1, 4]])
    expected, _ = found(0)
    assert len(expected.rows) >= 5
    for name in ("rows", "boxes", "scores", "labels", "looked"):
        one, other, whole = (getattr(part, name) for part in (first, second, expected))
        assert torch.equal(one, whole)
        assert torch.equal(other, whole)


def test_a_part_that_one_cannot_read_is_told_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)

    def reads(rows: Sequence[int], area: int) -> Iterator[PixelBatch]:
        if 3 in rows:
            raise RunError("the disk is gone", where="data")
        yield batch(SCENES[rows[0]], first=rows[0])

    def found(_: int) -> str:
        with pytest.raises(RunError) as error:
            Labeller(reads, GIVEN, torch.tensor([0, 1]), 2, least=0.05, most=9).found(
                [2, 3], nn.Conv2d(3, 1, 1), Finds(), 64
            )
        return str(error.value)

    assert in_processes(2, found, tmp_path) == ["data: the disk is gone"] * 2


def test_more_objects_than_are_labelled_are_not_named_and_stay() -> None:
    """Both ways; each image's boxes stand together, as what is moved and taught asks for."""
    for namer in (colors(), None):
        labeller = Labeller(Reads(), GIVEN, torch.tensor([0, 1]), 2, least=0.02, most=1, namer=namer)
        found = labeller.found([2, 0], nn.Conv2d(3, 1, 1), Finds(), 64)
        assert found.rows.tolist() == [2, 2, 0, 0]
        assert found.more.tolist() == [False, True, False, True]
        assert found.looked.tolist() == [2, 0]
        assert found.scores[found.more].tolist() == pytest.approx([0.03, 0.03]), "as the detector has it"


def test_as_many_objects_are_labelled_as_users_label() -> None:
    owner = torch.zeros(70, dtype=torch.int64)
    dense = PseudoLabels.gather(2, owner, torch.rand(70, 4), torch.ones(70), owner)
    known = torch.tensor([0])
    assert Labeller(None, dense, known, 1, least=0.1, most=None)._most == 140
    assert Labeller(None, GIVEN, known, 2, least=0.1, most=None)._most == 100
    assert Labeller(None, dense, known, 1, least=0.1, most=30)._most == 30
