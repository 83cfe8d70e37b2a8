"""Near-duplicates and what to label next, on points whose order is known."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from headstart.embedding import neighbors, selection
from headstart.embedding.neighbors import duplicates, nearest, threshold
from headstart.embedding.selection import k_center, least_sure


def points(*values: float) -> np.ndarray:
    return np.array([[value, 0.0] for value in values], np.float32)


def test_the_nearest_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_BLOCK", 7)
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    far = np.linalg.norm(values[:, None] - values[None], axis=2)
    np.fill_diagonal(far, np.inf)
    found = nearest(values)
    assert np.allclose(found.distances, np.sort(far, 1)[:, : neighbors.NEIGHBORS], atol=1e-5)
    assert np.array_equal(found.rows, np.argsort(far, 1)[:, : neighbors.NEIGHBORS])


def test_the_threshold_is_that_of_the_pool() -> None:
    """On a line of points one apart the fifth neighbor is 3 away (1, 1, 2, 2, 3); copies lie 0.01 from theirs."""
    line = [float(at) for at in range(60)]
    near = nearest(points(*line, 10.01, 30.01))
    assert threshold(near) == pytest.approx(0.3 * 3, rel=0.01)
    pairs = duplicates(near, threshold(near) or 0)
    assert {(one, two) for one, two, _ in pairs} == {(10, 60), (30, 61)}
    assert pairs[0][2] == pytest.approx(0.01, rel=0.01)
    # The same points a hundred times as close, as the frames of a recording: the same pairs.
    close = nearest(points(*(value / 100 for value in (*line, 10.01, 30.01))))
    assert {(one, two) for one, two, _ in duplicates(close, threshold(close) or 0)} == {(10, 60), (30, 61)}


def test_a_small_pool_says_nothing_and_equal_ones_are_pairs() -> None:
    assert threshold(nearest(points(*range(19)))) is None
    assert duplicates(nearest(points(1, 1, 5)), 0.0) == [(0, 1, 0.0)]
    assert nearest(points(1)).rows.shape == (1, 0)
    assert duplicates(nearest(points(1)), 1.0) == []


def test_k_center_by_hand() -> None:
    """Labelled 0; the farthest is 10, then 5 (5 from both), then 2 (2 and 3 away; 8 is 2 and 3 away, and later)."""
    found = k_center(points(0, 2, 5, 8, 10), 4, labelled=[0])
    assert [(one.row, one.distance) for one in found] == [(4, 10.0), (2, 5.0), (1, 2.0), (3, 2.0)]


def test_labelled_images_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: blocks of them against blocks of the others, the same choice as one by one."""
    monkeypatch.setattr(selection, "_BLOCK", 16)
    monkeypatch.setattr(selection, "_KNOWN", 7)
    values = np.random.default_rng(2).normal(size=(90, 5)).astype(np.float32)
    values[40] = values[3]  # a copy of a labelled image is never chosen
    labelled = list(range(0, 60, 3))
    read: list[int] = []

    class Counted(np.ndarray):
        def __getitem__(self, rows: Any) -> Any:
            read.append(np.size(rows))
            return np.asarray(super().__getitem__(rows))

    found = k_center(values.view(Counted), 0, labelled=labelled)
    assert found == []
    assert sum(read) == 70 + -(-70 // 16) * len(labelled)  # each of the others once, the labelled once a block
    (first,) = k_center(values, 1, labelled=labelled)
    rest = [row for row in range(90) if row not in labelled]
    far = [min(float(np.linalg.norm(values[row] - values[known])) for known in labelled) for row in rest]
    assert first.row == rest[int(np.argmax(far))]
    assert first.distance == pytest.approx(max(far))
    assert 40 not in [one.row for one in k_center(values, 90, labelled=labelled)]


def test_without_labels_it_begins_in_the_middle() -> None:
    found = k_center(points(0, 1, 2, 3, 9), 2)  # the mean is 3
    assert [one.row for one in found] == [3, 4]
    assert math.isinf(found[0].distance)


def test_equal_images_are_not_chosen_twice() -> None:
    assert [one.row for one in k_center(points(0, 0, 0, 7, 7), 5, labelled=[0])] == [3]
    assert k_center(points(0, 1), 5, labelled=[0, 1]) == []
    assert k_center(points(), 5) == []


def test_the_greedy_cover_is_within_twice_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of k-center greedy (Gonzalez, 1985), against every choice of three of twelve points."""
    monkeypatch.setattr(selection, "_BLOCK", 5)
    values = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    far = np.linalg.norm(values[:, None] - values[None], axis=2)
    best = min(far[list(three)].min(0).max() for three in combinations(range(12), 3))
    chosen = [one.row for one in k_center(values, 3)]
    assert far[chosen].min(0).max() <= 2 * best + 1e-5


def test_candidates_are_the_least_sure() -> None:
    assert least_sure([0.1, 0.9, 0.5, 0.9], [0, 1, 2, 3], 1) == [0, 1, 2, 3]
    many = [at / 100 for at in range(100)]
    assert least_sure(many, range(100), 2) == list(range(80, 100))
    assert [one.row for one in k_center(points(*range(100)), 2, labelled=[0], candidates=range(80, 100))] == [99, 80]
