"""The order of labelled and unlabelled images."""

from __future__ import annotations

import pickle
from collections import Counter

from headstart.images.mixed import MixedStream


def plan(step: int) -> tuple[int, int]:
    """Labelled ones alone, then both, then half a step of labelled ones."""
    return (4, 0) if step < 5 else (1, 3) if step < 25 else (2, 0)


def stream(**more: int) -> MixedStream:
    return MixedStream([range(10), range(100, 130)], plan, steps=30, seed=3, **more)


def test_so_many_of_each_kind_a_step() -> None:
    one = stream()
    for step in range(30):
        rows = one.rows(step)
        assert [sum(row < 100 for row in rows), sum(row >= 100 for row in rows)] == list(plan(step))


def test_each_image_of_a_kind_comes_once_an_epoch() -> None:
    one = stream()
    known = one.of_kind(0, 0, 30)  # 20 + 20 + 10: five epochs of ten
    assert len(known) == 50
    for epoch in range(5):
        assert sorted(known[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert Counter(one.of_kind(1, 0, 30)) == dict.fromkeys(range(100, 130), 2)
    assert [row for step in range(30) for row in one.rows(step) if row >= 100] == one.of_kind(1, 0, 30)


def test_a_row_that_stands_twice_comes_twice() -> None:
    assert Counter(MixedStream([[1, 2, 2]], lambda step: (3,), 4, 0).of_kind(0, 0, 4)) == {1: 4, 2: 8}


def test_a_function_of_seed_and_step_alone() -> None:
    one, other = stream(), pickle.loads(pickle.dumps(stream()))
    assert [other.rows(step) for step in (17, 3, 29)] == [one.rows(step) for step in (17, 3, 29)]
    assert MixedStream([range(10), range(100, 130)], plan, 30, seed=4).rows(3) != one.rows(3)


def test_ranks_share_a_step() -> None:
    parts = [stream(rank=rank, world=2) for rank in (0, 1)]
    for step in (2, 10):
        assert sorted(parts[0].rows(step) + parts[1].rows(step)) == sorted(stream().rows(step))


def test_spares_come_from_all_kinds() -> None:
    assert {*stream().spares(3)} == {*range(10), *range(100, 130)}
