"""Which labelled images and boxes classes are learnt from, where there are too many."""

from __future__ import annotations

import pytest
import torch

from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.examples import EACH, some_boxes, some_images


def labels(classes: list[list[int]]) -> PseudoLabels:
    """Of images that show these classes, a box each."""
    owner = torch.tensor([at for at, one in enumerate(classes) for _ in one], dtype=torch.int64)
    flat = torch.tensor([label for one in classes for label in one], dtype=torch.int64)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(flat), 1)
    return PseudoLabels.gather(len(classes), owner, boxes, torch.ones(len(flat)), flat)


@pytest.mark.parametrize("seed", range(5))
def test_the_only_image_of_a_class_is_one_of_few(seed: int) -> None:
    """A hundred of 5,000 images; at random it would be one of them twice in a hundred times."""
    rare = 3_210
    known = labels([[1] if at == rare else [0] for at in range(5_000)])
    some = some_images(known, torch.arange(5_000), 100, torch.Generator().manual_seed(seed))
    assert rare in some.tolist()
    assert len(set(some.tolist())) == 100
    assert some.tolist() == sorted(some.tolist())


def test_where_there_are_few_images_all_are_learnt_from() -> None:
    some = some_images(labels([[0], [1], []]), torch.tensor([0, 2]), 10, torch.Generator().manual_seed(0))
    assert some.tolist() == [0, 2]


def test_of_more_classes_than_images_those_come_first_that_show_one_for_the_first_time() -> None:
    known = labels([[at // 2] for at in range(40)])
    some = some_images(known, torch.arange(40), 20, torch.Generator().manual_seed(0))
    assert {int(row) // 2 for row in some} == set(range(20))


def chosen(known: PseudoLabels, most: int, rows: list[int] | None = None, seed: int = 0) -> list[list[int]]:
    rows = list(range(len(known.first) - 1)) if rows is None else rows
    mask = some_boxes(known, torch.tensor(rows), most, torch.Generator().manual_seed(seed))
    owner, _, taken = mask.of(torch.tensor(rows))
    named = known.of(torch.tensor(rows))[2]
    return [[int(named[at]) for at in ((owner == row) & (taken == 1)).nonzero()[:, 0]] for row in range(len(rows))]


def test_where_there_are_few_boxes_all_are_learnt_from() -> None:
    assert chosen(labels([[0, 1], [], [2, 2]]), 4) == [[0, 1], [], [2, 2]]


@pytest.mark.parametrize("at", [0, 7, 25, 50])
def test_the_only_box_of_a_class_is_one_of_few_wherever_it_stands(at: int) -> None:
    busy = [0] * 51
    busy[at] = 1
    found = chosen(labels([busy, [0] * 51]), 8)
    assert found[0].count(1) == 1
    assert sum(map(len, found)) == 8
    assert abs(len(found[0]) - len(found[1])) <= 1, "images come in turn"


def test_common_classes_keep_the_most() -> None:
    found = chosen(labels([[0] * 300, [1] * 30]), 100)
    assert found[1] == [1] * max(EACH, len(found[1]))
    assert len(found[0]) + len(found[1]) == 100


def test_boxes_of_other_images_are_not_learnt_from() -> None:
    assert chosen(labels([[0], [1, 1], [2]]), 10, rows=[0, 2]) == [[0], [2]]
    mask = some_boxes(labels([[0], [1, 1], [2]]), torch.tensor([0, 2]), 10, torch.Generator().manual_seed(0))
    assert mask.labels.tolist() == [1, 0, 0, 1]
