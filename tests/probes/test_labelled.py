from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.probes import labelled
from headstart.probes.labelled import FOLDS, box_features, knn_accuracy, linear_accuracy


def test_features_of_a_box_are_those_of_its_part_of_the_maps() -> None:
    """The left half of a map points one way, the right half another; a coarser and a finer map of it agree."""
    maps = [torch.zeros(2, 2, side, side) for side in (16, 8)]
    for one in maps:
        half = one.shape[-1] // 2
        one[0, 0, :, :half], one[0, 1, :, half:] = 2.0, 3.0
    boxes = [torch.tensor([[0.1, 0.1, 0.4, 0.9], [0.6, 0.2, 0.9, 0.7]]), torch.zeros(0, 4)]
    torch.testing.assert_close(box_features(maps, boxes), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]]))


def test_neighbours_against_counting() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 6))
    classes, owner = random.integers(0, 3, 60), random.integers(0, 15, 60)
    features[classes == 1] += 1.5
    lengths = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for box in range(60):
        others = [other for other in range(60) if owner[other] != owner[box]]
        near = sorted(others, key=lambda other: -(lengths[other] @ lengths[box]))[:5]
        votes = np.zeros(3)
        for other in near:
            votes[classes[other]] += max(0, lengths[other] @ lengths[box]) + 1e-6
        right += votes.argmax() == classes[box]
    found = knn_accuracy(torch.from_numpy(features), torch.from_numpy(classes), torch.from_numpy(owner))
    assert found == pytest.approx(right / 60)
    assert 0.4 < found < 0.95


@pytest.mark.parametrize("accuracy", [knn_accuracy, linear_accuracy])
def test_numbers_of_classes_may_be_anything(accuracy: Any) -> None:
    """A track in place of a class: 16 million columns a box are not made, and the figure is that of classes 0 to 2."""
    random = torch.Generator().manual_seed(0)
    features, owner = torch.randn(40, 6, generator=random), torch.arange(40) // 3
    classes = torch.randint(0, 3, (40,), generator=random)
    features[classes == 1] += 1.5
    large = torch.tensor([5, 7, 16_000_000])[classes]
    assert accuracy(features, large, owner) == accuracy(features, classes, owner) > 0.4


def test_a_box_never_votes_for_its_own_image() -> None:
    """Two images of one class each: every neighbour in another image is of the wrong class."""
    features = torch.eye(2).repeat_interleave(3, 0) + 0.1
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    assert knn_accuracy(features, owner, owner) == 0.0
    assert math.isnan(knn_accuracy(features, owner, torch.zeros(6, dtype=torch.long)))


def test_linear_accuracy_against_the_normal_equations() -> None:
    random = np.random.default_rng(0)
    classes, owner = random.integers(0, 3, 60), np.repeat(np.arange(30), 2)
    features = random.normal(size=(60, 8)) + 0.7 * np.eye(8)[classes]
    right = 0
    for fold in range(FOLDS):
        judged = owner % FOLDS == fold
        x, y = features[~judged], np.eye(3)[classes[~judged]]
        mean, std = x.mean(0), x.std(0)
        x, asked = (x - mean) / std, (features[judged] - mean) / std
        weights = np.linalg.solve(x.T @ x + 0.5 * len(x) * np.eye(8), x.T @ (y - y.mean(0)))
        right += ((asked @ weights + y.mean(0)).argmax(1) == classes[judged]).sum()
    found = linear_accuracy(*(torch.from_numpy(one) for one in (features, classes, owner)), ridge=0.5)
    assert found == pytest.approx(right / 60)
    assert 0.4 < found < 0.95


@pytest.mark.parametrize(("boxes", "width"), [(40, 8), (12, 30)])
def test_either_form_of_ridge_regression_is_the_other(boxes: int, width: int) -> None:
    """With more boxes than features, and with fewer, against weights of numpy's least squares on rows for the ridge."""
    random = np.random.default_rng(1)
    known, wanted = random.normal(size=(boxes, width)), random.normal(size=(boxes, 3))
    rows = np.concatenate([known, np.sqrt(0.7 * boxes) * np.eye(width)])
    expected = np.linalg.lstsq(rows, np.concatenate([wanted, np.zeros((width, 3))]), rcond=None)[0]
    found = labelled.ridge_weights(torch.from_numpy(known), torch.from_numpy(wanted), 0.7 * boxes)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=1e-6)


def test_no_matrix_of_all_boxes_against_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many boxes: of blocks of neighbours as of all at once, and never as many equations as boxes."""
    random = torch.Generator().manual_seed(0)
    features, classes = torch.randn(300, 6, generator=random), torch.randint(0, 3, (300,), generator=random)
    features[classes == 1] += 1.5
    owner = torch.arange(300) // 4
    whole = knn_accuracy(features, classes, owner)
    largest, solve = [0], torch.linalg.solve

    def solved(equations: Tensor, answers: Tensor) -> Tensor:
        largest[0] = max(largest[0], len(equations))
        return solve(equations, answers)

    monkeypatch.setattr(torch.linalg, "solve", solved)
    monkeypatch.setattr(labelled, "BLOCK", 7)
    assert knn_accuracy(features, classes, owner) == whole
    assert linear_accuracy(features, classes, owner) > 0.4
    assert largest == [6]


def test_linear_accuracy_of_one_image_is_unknown() -> None:
    assert math.isnan(linear_accuracy(torch.rand(3, 4), torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.long)))
