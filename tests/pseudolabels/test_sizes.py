"""How far labelled objects of one class differ in size, and what mosaics make of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.sizes import ADDED, LEAST, ZOOM, spread, zoom_of


def given(sides: Tensor, labels: Tensor) -> PseudoLabels:
    """Boxes of these sides (width, height) as shares, all on one image."""
    corner = torch.full((len(sides), 2), 0.01)
    return PseudoLabels.gather(
        1,
        torch.zeros(len(sides), dtype=torch.int64),
        torch.cat([corner, corner + sides], 1),
        torch.ones(len(sides)),
        labels,
    )


def of(given: PseudoLabels) -> tuple[Tensor, Tensor]:
    return given.boxes, given.labels


def pairs(factor: float, number: int = 40) -> PseudoLabels:
    """Classes of two objects each, one `factor` times as large as the other; classes differ much more."""
    small = torch.linspace(0.01, 0.3, number)[:, None] * torch.tensor([[1.0, 2.0]])
    labels = torch.arange(number)
    return given(torch.cat([small, small * factor]), torch.cat([labels, labels]))


def test_what_is_added_is_that_of_a_uniform_magnification() -> None:
    drawn = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1 - ZOOM
    assert float(drawn.log().std()) == pytest.approx(ADDED, abs=1e-3)


def test_the_spread_is_within_the_classes() -> None:
    # By hand: of two numbers that differ by d the standard deviation, with n - 1, is d / sqrt(2).
    assert spread(*of(pairs(1.5))) == pytest.approx(math.log(1.5) / math.sqrt(2), rel=1e-4)
    assert spread(*of(pairs(1.0))) == pytest.approx(0, abs=1e-5)


def test_a_turned_object_has_its_size() -> None:
    labels = torch.zeros(60, dtype=torch.int64)
    turned = torch.tensor([[0.1, 0.2], [0.2, 0.1]]).repeat(30, 1)
    assert spread(*of(given(turned, labels))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("factor", "zoom"), [(1.0, 0.0), (1.5, 0.0), (1.6, ZOOM), (3.0, ZOOM)])
def test_mosaics_zoom_where_objects_vary_as_much(factor: float, zoom: float) -> None:
    """By hand: log(1.5) / sqrt(2) = 0.287, log(1.6) / sqrt(2) = 0.332, and a magnification's is 0.308."""
    found, why = zoom_of(pairs(factor))
    assert found == zoom
    assert f"zoom={'0' if zoom == 0 else zoom}" in why


def test_few_objects_do_not_tell() -> None:
    assert spread(*of(pairs(1.0, LEAST))) is not None
    for few in (
        pairs(1.0, LEAST - 1),
        given(torch.full((100, 2), 0.1), torch.arange(100)),
        given(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
    ):
        assert spread(*of(few)) is None
        assert zoom_of(few) == (ZOOM, "")


def test_what_is_left_open_or_has_no_area_does_not_count() -> None:
    known = pairs(1.5)
    more = torch.tensor([[0.9, 0.9], [0.0, 0.5], [0.9, 0.001]])
    sides = torch.cat([known.boxes[:, 2:] - known.boxes[:, :2], more])
    labels = torch.cat([known.labels, torch.tensor([-1, 0, -1])])
    assert spread(*of(given(sides, labels))) == pytest.approx(spread(*of(known)), rel=1e-4)
