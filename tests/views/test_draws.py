"""Random numbers by seed, step and purpose."""

from __future__ import annotations

import torch

from headstart.views.draws import Purpose, draws


def test_the_same_arguments_the_same_numbers_and_others_others() -> None:
    asked = [(0, Purpose.VIEWS, 0), (0, Purpose.VIEWS, 1), (1, Purpose.VIEWS, 0), (0, Purpose.MOSAICS, 0)]
    drawn = [float(torch.rand((), generator=draws(*one))) for one in asked]
    assert drawn == [float(torch.rand((), generator=draws(*one))) for one in asked]
    assert len(set(drawn)) == 4


def test_every_part_of_a_batch_has_numbers_of_its_own() -> None:
    largest = 2**32 - 1
    asked = [(0, Purpose.MOSAICS, 5, part) for part in range(3)] + [
        (largest, Purpose.MIXUP, 5, part) for part in (0, 1)
    ]
    states = {draws(*one).initial_seed() for one in asked} | {draws(0, Purpose.MOSAICS, 5).initial_seed()}
    assert len(states) == 5, "the first part is the step of a batch that is taken whole"


def test_the_numbers_are_those_that_runs_of_earlier_versions_drew() -> None:
    """A run that is resumed draws the rest of the same numbers: seed 3, step 17, by the sum written out."""
    other = torch.Generator().manual_seed(3 * 1_000_003 + 17 + 800_000)
    assert torch.equal(torch.rand(5, generator=draws(3, Purpose.MOSAICS, 17)), torch.rand(5, generator=other))
