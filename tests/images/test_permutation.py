from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from headstart.images import stream
from headstart.images.permutation import permuted
from headstart.images.stream import Stream


def order(number: int, *key: int) -> list[int]:
    found: list[int] = permuted(np.arange(number, dtype=np.uint64), number, key).tolist()
    return found


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097])
def test_each_thing_has_one_place(number: int) -> None:
    for seed in range(5):
        assert sorted(order(number, seed)) == list(range(number))


def test_all_orders_come_as_often() -> None:
    """4 things have 24 orders, each expected 200 times in 4,800; the 99.9 % point of chi-square, 23, is 49.7."""
    counts = Counter(tuple(order(4, seed)) for seed in range(4800))
    assert set(counts) == set(permutations(range(4)))
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7


def test_neighbors_go_anywhere() -> None:
    """Of the steps from each thing to the next a random order of N has a mean length of N / 3."""
    number = 100_000
    steps = np.abs(np.diff(np.array(order(number, 1, 2))))
    assert abs(steps.mean() - number / 3) < 0.01 * number  # 0.01 are 13 times its spread


def test_beyond_a_table_an_epoch_has_each_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SORTED", 50)
    whole = [row for step in range(20) for row in Stream(100, 10, seed=3).rows(step)]
    assert sorted(whole[:100]) == sorted(whole[100:]) == list(range(100))
    assert whole[:100] != whole[100:]
    parts = [Stream(100, 10, seed=3, rank=rank, world=2).rows(13) for rank in (0, 1)]
    assert parts[0] + parts[1] == whole[130:140]
    over = Stream(101, 10, seed=3)  # a batch that begins in one epoch and ends in the next
    both = [row for step in range(11) for row in over.rows(step)]
    assert sorted(both[:101]) == list(range(101))
    assert next(Stream(100, 10, seed=3).spares(12)) == whole[130]


def test_a_hundred_million_images_need_no_table() -> None:
    rows = Stream(100_000_000, 64, seed=0).rows(1_000_000)
    assert len(set(rows)) == 64
    assert max(rows) < 100_000_000
    assert np.std(rows) == pytest.approx(100_000_000 / 12**0.5, rel=0.3)
