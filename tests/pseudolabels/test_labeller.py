"""A detector finds, and a network that learnt from the labelled images names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from test_box_classifier import BLUE, LEFT, RED, RIGHT, batch, colors, scene
from torch import Tensor, nn

from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import PseudoLabelHead, PseudoLabels
from headstart.pseudolabels.box_classifier import BoxClassifier
from headstart.pseudolabels.labeller import Labeller

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
    learnt: list[BoxClassifier] = []
    detector = nn.Conv2d(3, 1, 1), Finds(), 64
    whole = labeller.found([2, 3], *detector)
    parts = [labeller.found([row], *detector, learnt) for row in (2, 3)]
    assert reads.asked == [[0, 1], [2, 3], [0, 1], [2], [3]]
    for name in ("rows", "boxes", "scores", "labels"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
