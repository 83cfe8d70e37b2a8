"""Random numbers go on where they were."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.errors import UserError
from headstart.jobs.signature import with_signature
from headstart.launch.random_state import CPU, kept_random_state, random_state, set_random_state


def draw() -> list[float]:
    return [random.gauss(0, 1), np.random.standard_normal(), torch.randn(()).item()]


@pytest.fixture(autouse=True)
def half_drawn() -> None:
    """NumPy and Python keep the second of two normal numbers."""
    draw()


def test_they_come_back_from_a_file_that_can_run_no_code(tmp_path: Path) -> None:
    torch.save(random_state(CPU), tmp_path / "state.pt")
    first = [draw() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert [draw() for _ in range(3)] == first


def test_what_is_drawn_meanwhile_does_not_count() -> None:
    state = random_state(CPU)
    first, second = draw(), draw()
    set_random_state(state, CPU)
    with kept_random_state(CPU):
        draw()
    assert draw() == first
    with pytest.raises(ZeroDivisionError), kept_random_state(CPU):
        draw()[0] / 0
    assert draw() == second


def test_a_pretraining_leaves_the_random_numbers_of_the_process_where_they_were() -> None:
    """It seeds torch, and one that goes on sets Python's and NumPy's, too; also where it ends with an error."""

    def seeding(**options: Any) -> list[float]:
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        drawn = draw()
        if "fails" in options:
            raise UserError("it failed")
        return drawn

    made = with_signature("pretrain")(seeding)
    state = random_state(CPU)
    expected = [draw() for _ in range(3)]
    set_random_state(state, CPU)
    found, first = [draw()], made()
    found.append(draw())
    with pytest.raises(UserError):
        made(fails=True)
    found.append(draw())
    assert found == expected
    assert first == made() == seeding(), "what it draws itself is as ever"


def test_states_of_gpus_that_are_not_there_are_passed_over() -> None:
    """As earlier versions kept them: torch's alone, one for each GPU of the machine."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state(), "cuda": [torch.zeros(16).byte()] * 8}
    expected = torch.rand(3)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(3), expected)
