"""Thresholds by class, by hand."""

from __future__ import annotations

import pytest
import torch

from headstart.pseudolabels.labelling import Detections, Labelling, told
from headstart.pseudolabels.thresholds import aligned, thresholds


def found(*scores: list[float]) -> Detections:
    """Boxes of class 0, of class 1, ...: each on an image of its own."""
    labels = torch.tensor([label for label, own in enumerate(scores) for _ in own], dtype=torch.int64)
    rows = torch.arange(len(labels))
    return Detections(
        rows, torch.zeros(len(rows), 4), torch.tensor([one for own in scores for one in own]), labels, rows
    )


@pytest.mark.parametrize(
    ("kept", "known", "numbers"),
    [
        # Half a label a box: 15 and 5 labels would be expected of 10 and 10. 15 - 5 * 12.5 / 22.5 = 12.22, twice that
        # is 24.4; 5 + 5 * 7.5 / 17.5 = 7.14, twice that is 14.3.
        ([30, 10], [10, 10], [24, 14]),
        # A class that the teacher never names: 20 - 10 * 15 / 25 = 14; 0 + 10 * 5 / 15 = 3.33.
        ([20, 0], [10, 10], [14, 3]),
        # Many labels: nearly their shares, 2,000 each. 1,500 - 500 * 1,250 / 1,260 = 1,003.97; 500 + 500 * 750 / 760.
        ([3000, 1000], [1000, 1000], [2008, 1987]),
        ([12, 4, 0], [6, 2, 0], [12, 4, 0]),
    ],
)
def test_numbers_move_from_the_teachers_to_those_of_the_labels(
    kept: list[int], known: list[int], numbers: list[int]
) -> None:
    assert aligned(torch.tensor(kept), torch.tensor(known)).tolist() == numbers


def test_the_score_of_the_last_box_that_is_kept_is_the_threshold() -> None:
    """14 of 20 boxes from 0.90 down in steps of 0.02, to 0.64; 3 of the other class, to 0.25."""
    often = [0.90 - 0.02 * place for place in range(20)]
    chosen = thresholds(found(often, [0.1, 0.25, 0.35, 0.3]), torch.tensor([10, 10]))
    assert chosen.tolist() == pytest.approx([0.64, 0.25])
    labelled = Labelling.split(found(often, [0.1, 0.25, 0.35, 0.3]), chosen)
    assert torch.bincount(labelled.sure.labels).tolist() == [14, 3]
    assert labelled.unsure.scores.tolist() == pytest.approx([0.62, 0.60, 0.58, 0.56, 0.54, 0.52, 0.1])
    counts = labelled.counts(["bolt", "nut"])
    assert counts["keep"] == pytest.approx({"bolt": 0.64, "nut": 0.25})
    assert told(counts).endswith("; 7 left open; kept from a score of 0.25 (nut) to 0.64 (bolt)")


def test_thresholds_have_bounds() -> None:
    """20 sure boxes of one class lose none: 0.7 is enough. Of the other there are no three from 0.2 on."""
    assert thresholds(found([0.95] * 20, [0.35, 0.1, 0.1]), torch.tensor([10, 10])).tolist() == [0.7, 0.2]
    # Of a class without labels a single box of many others: 1 - 1 * 0.5 / 10.5 = 0.95 of a label, which is kept; of 40
    # in 80, 40 - 40 * 20 / 30 = 13.3; without any box it is 0.
    assert thresholds(found([0.5] * 79, [0.45]), torch.tensor([80, 0])).tolist()[1] == 0.4
    spread = [0.41 + 0.01 * place for place in range(40)]  # the 13th of them from 0.80 down is 0.68
    assert thresholds(found([0.5] * 40, spread), torch.tensor([80, 0])).tolist()[1] == pytest.approx(0.68)


@pytest.mark.parametrize("known", [[5, 5], [0, 0]])
def test_where_nothing_tells_another_it_is_that_of_all(known: list[int]) -> None:
    assert thresholds(found([0.9, 0.5, 0.3], [0.8, 0.41, 0.3]), torch.tensor(known)).tolist() == [0.4, 0.4]
    assert thresholds(found([0.3], [0.2]), torch.tensor([5, 5])).tolist() == [0.4, 0.4]
    assert thresholds(Detections.join([]), torch.tensor([5, 5])).tolist() == [0.4, 0.4]
