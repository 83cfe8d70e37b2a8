"""Where a detector's boxes end beside the objects: by hand, with noise and wrong matches, and in a labelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.box_ends import LEAST, BoxEnds, off_by
from headstart.pseudolabels.labeller import Labeller
from headstart.pseudolabels.labelling import Detections


def batch(*sizes: tuple[int, int], first: int = 0) -> PixelBatch:
    """Gray images of these heights and widths, in the rows from `first` on."""
    height, width = (max(one) for one in zip(*sizes, strict=True))
    pixels = torch.full((len(sizes), 3, height, width), 90, dtype=torch.uint8)
    return PixelBatch(pixels, torch.tensor(sizes), torch.arange(first, first + len(sizes)), [])


def detections(rows: Sequence[int], boxes: Tensor, score: float = 0.9) -> Detections:
    number = len(rows)
    none = torch.zeros(number, dtype=torch.int64)
    return Detections(torch.tensor(rows), boxes, torch.full((number,), score), none, torch.tensor(sorted(set(rows))))


def test_what_boxes_are_off_by() -> None:
    """Two images, the second 200 wide and 100 high, shown with 400 and 200 pixels."""
    found = detections([5, 6, 6], torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.4, 0.6], [0.7, 0.7, 0.9, 0.9]]))
    owner, boxes = torch.tensor([1, 1]), torch.tensor([[0.19, 0.2, 0.4, 0.64], [0.1, 0.1, 0.5, 0.5]])
    told = off_by(batch((100, 100), (100, 200), first=5), found, owner, boxes, 400)
    # By hand: on the first image nothing is labelled, and the third box is no object. 0.2 - 0.19 of 400 pixels are 4,
    # 0.64 - 0.6 of 200 are 8; the box is 0.2 of 400 pixels wide and 0.4 of 200 high.
    torch.testing.assert_close(told, torch.tensor([[-4.0, 0, 0, 8, 80, 80]]))
    unsure = Detections(found.rows, found.boxes, torch.full((3,), 0.1), found.labels, found.looked)
    assert off_by(batch((100, 100), (100, 200), first=5), unsure, owner, boxes, 400).shape == (0, 6)
    assert off_by(batch((100, 100), first=5), found.on(torch.tensor([5])), owner[:0], boxes[:0], 400).shape == (0, 6)


@pytest.mark.parametrize("growth", [0.0, 0.06])
def test_boxes_are_moved_to_where_objects_end(growth: float) -> None:
    """Boxes two pixels too small at each end, and a share of their sides; an eighth of the matches is wrong."""
    random = torch.Generator().manual_seed(0)
    corner, sides = 150 * torch.rand(400, 2, generator=random), 20 + 60 * torch.rand(400, 2, generator=random)
    true = torch.cat([corner, corner + sides], 1)
    inward = torch.tensor([1.0, 1, -1, -1])
    drawn = true + inward * (2 + growth * sides.repeat(1, 2)) + 0.7 * torch.randn(400, 4, generator=random)
    labelled = true.clone()
    labelled[::8, 2:] += 15
    owner = torch.zeros(400, dtype=torch.int64)
    off = torch.cat([labelled - drawn, drawn[:, 2:] - drawn[:, :2]], 1)
    ends = BoxEnds.learnt(off)
    moved = ends.moved(batch((250, 250)), detections(owner.tolist(), drawn / 250), 250).boxes * 250
    assert (drawn - true).mean(0).abs().min() > 1.9
    assert (moved - true)[off[:, 2] < 10].mean(0).abs().max() < 0.25
    assert (ends.growth * inward).max() < 0 if growth else ends.growth.abs().max() < 0.02
    middle = 2 + growth * 50
    assert ends.most == pytest.approx(middle, rel=0.15)
    assert ends.record()["ends"]["most"] == ends.most


def test_of_a_few_objects_nothing_is_learnt() -> None:
    off = torch.tensor([[5.0, 5, 5, 5, 30, 30]]).repeat(LEAST, 1)
    assert BoxEnds.learnt(off).most == pytest.approx(5, abs=0.1)
    ends = BoxEnds.learnt(off[1:])
    assert ends.record() == {}
    found = detections([0], torch.tensor([[0.1, 0.1, 0.5, 0.5]]))
    assert ends.moved(batch((50, 50)), found, 50) is found


def test_ends_stay_that_are_off_by_no_more_than_chance() -> None:
    """Errors of 2 pixels of 60 boxes: their median has a standard error of 0.3; one end is off by 1.5."""
    random = torch.Generator().manual_seed(2)
    off = torch.cat([2 * torch.randn(60, 4, generator=random), 30 + 20 * torch.rand(60, 2, generator=random)], 1)
    assert BoxEnds.learnt(off).record() == {}
    off[:, 2] += 1.5
    ends = BoxEnds.learnt(off)
    assert ends.shift[[0, 1, 3]].tolist() == ends.growth[[0, 1, 3]].tolist() == [0, 0, 0]
    assert ends.most == pytest.approx(1.5, abs=0.8)


def test_boxes_stay_within_the_image_and_none_is_turned_inside_out() -> None:
    ends = BoxEnds(torch.tensor([-8.0, 8, 8, -8]), torch.zeros(4), 8.0)
    found = detections([0, 0], torch.tensor([[0.0, 0.1, 0.95, 0.8], [0.4, 0.5, 0.6, 0.6]]))
    moved = ends.moved(batch((100, 100)), found, 100)
    # By hand: 8 of 100 pixels wider at both sides, lower by 8 above and below; the second is 10 high, and would be -6.
    torch.testing.assert_close(moved.boxes, torch.tensor([[0.0, 0.18, 1.0, 0.72], [0.4, 0.5, 0.6, 0.6]]))


class _Small(nn.Module):
    """Draws boxes of a quarter of the image three pixels too small at each end."""

    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        boxes = torch.tensor([[[16.0 + 3, 16 + 3, 48 - 3, 48 - 3]]]).repeat(len(maps[0]), 1, 1)
        return boxes, torch.full((len(maps[0]), 1, 2), 0.01).index_fill(2, torch.tensor([1]), 0.9)


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("known", [LEAST, LEAST - 1])
def test_a_labelling_moves_its_boxes(calibrate: bool, known: int) -> None:
    true = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
    images, read = known + 2, []  # type: ignore[var-annotated]

    def reads(rows: Sequence[int], area: int) -> Iterator[PixelBatch]:
        read.append(list(rows))
        yield from (batch((64, 64), first=row) for row in rows)

    rows = torch.arange(known)
    given: Any = PseudoLabels.gather(images, rows, true.repeat(known, 1), torch.ones(known), torch.ones(known).long())
    labeller = Labeller(reads, given, rows, 2, least=0.05, most=9, calibrate=calibrate)
    found = labeller.found([known, known + 1], _AsIs(), _Small(), 64)  # type: ignore[arg-type]
    learns = calibrate and known == LEAST
    assert read == ([rows.tolist()] if learns else []) + [[known, known + 1]]
    expected = true.repeat(2, 1) if learns else torch.tensor([[19, 19, 45, 45]]).repeat(2, 1) / 64
    torch.testing.assert_close(found.boxes, expected, atol=0.002, rtol=0)


class _AsIs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]
