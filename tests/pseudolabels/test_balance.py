"""How often images of rare classes come, by hand."""

from __future__ import annotations

import pytest
import torch

from headstart.pseudolabels.balance import repeat_factors
from headstart.pseudolabels.base import PseudoLabels

# Image 0: class 0 twice; 1: classes 0 and 2; 2: class 0; 3: class 0, and a box left open; 4: nothing; 5: class 2.
OWNER, CLASSES = [0, 0, 1, 1, 2, 3, 3, 5], [0, 0, 0, 2, 0, 0, -1, 2]


@pytest.mark.parametrize(("exponent", "rare"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_an_image_comes_as_often_as_its_rarest_class(exponent: float, rare: float) -> None:
    """Class 0 is on four of the images, class 2 on one."""
    labels = PseudoLabels.gather(
        6, torch.tensor(OWNER), torch.zeros(8, 4), torch.ones(8), torch.tensor(CLASSES, dtype=torch.int64)
    )
    assert repeat_factors(labels, torch.arange(5), exponent).tolist() == [1, rare, 1, 1, 1]
    assert repeat_factors(labels, torch.tensor([4]), exponent).tolist() == [1]


def test_no_image_comes_more_than_ten_times_as_often() -> None:
    classes = torch.tensor([0] * 50 + [1])
    labels = PseudoLabels.gather(51, torch.arange(51), torch.zeros(51, 4), torch.ones(51), classes)
    assert repeat_factors(labels, torch.arange(51), 1.0).tolist() == [1.0] * 50 + [10.0]
    assert repeat_factors(labels, torch.arange(51), 0.5)[50] == pytest.approx(50**0.5)
