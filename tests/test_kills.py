"""The benchmark that kills runs: it names functions of ours, which move; they are looked up here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kills")


def test_every_phase_is_a_function(kills: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells of its phase takes the place of the function, and is undone after the test."""
    for places in kills.PHASES.values():
        for place in places:
            module, _, name = place.partition(":")
            owner: Any = importlib.import_module(module)
            *outer, name = name.split(".")
            for one in outer:
                owner = getattr(owner, one)
            assert callable(getattr(owner, name)), place
            monkeypatch.setattr(owner, name, getattr(owner, name))
    kills.Watch().wrap()
