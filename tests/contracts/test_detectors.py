"""Every model YAML of the installed Ultralytics is read, run, and handed back; none is skipped by name."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.detectors.find import built_in
from headstart.detectors.ultralytics import model_files

# The checks that make docs/detectors.md.
_SPEC = importlib.util.spec_from_file_location(
    "detector_table", Path(__file__).parents[2] / "benchmarks" / "detectors.py"
)
assert _SPEC
assert _SPEC.loader
checks = sys.modules["detector_table"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(checks)


def smallest() -> list[str]:
    return [checks.every_name([stem])[0] for stem in model_files.shipped()]


LARGER = [name for name in checks.every_name([]) if name not in set(smallest())]
LARGE = 2e7
"""Parameters above which handing back takes seconds, and is for `-m slow`: of the YAMLs that come in one size."""
PARAMS = [
    *(pytest.param((name, LARGE), id=name) for name in smallest()),
    *(pytest.param((name, math.inf), id=f"{name}-back", marks=pytest.mark.slow) for name in [*smallest(), *LARGER]),
]


@pytest.fixture(scope="module", params=PARAMS)
def row(request: pytest.FixtureRequest) -> Any:
    """One model, built and handed back once for all the tests below."""
    return checks.examine(*request.param)


def test_maps_and_measures(row: Any) -> None:
    """Trunk and whole model make the same maps, of the measured width and stride; nothing was dropped."""
    assert row.problems == []


def test_the_pyramid_is_a_pyramid(row: Any) -> None:
    strides = [level.stride for level in row.detector.levels]
    assert all(stride & (stride - 1) == 0 for stride in strides)
    assert len(set(strides)) == len(strides)
    declared = getattr(row.detector.module, "stride", torch.tensor([1.0])).tolist()
    if len(declared) == len(strides) > 1:  # as Ultralytics measures it with its own head
        assert strides == declared


def test_layers_are_those_of_the_yaml(row: Any) -> None:
    """The split, read from the file with nothing but a pattern."""
    stem = next(stem for stem in model_files.shipped() if row.name in checks.every_name([stem]))
    text = model_files.shipped()[stem].read_text(encoding="utf-8")
    backbone, head = (
        len(re.findall(r"^\s+- \[", part, re.MULTILINE)) for part in text.split("\nbackbone:")[1].split("\nhead:")
    )
    state = row.detector.module.state_dict()
    layers = {part: {int(n.split(".")[1]) for n in state if row.detector.part_of(n) == part} for part in checks.PARTS}
    assert max(layers["backbone"]) < backbone
    assert layers["neck"] <= set(range(backbone, backbone + head - 1))
    assert layers["head"] == {backbone + head - 1}
    assert row.detector.backbone.layer == backbone - 1


def test_everything_arrived(row: Any) -> None:
    if row.handback is None:
        assert sum(one.numel() for one in row.detector.module.parameters()) > LARGE
        pytest.skip("large: with -m slow")
    state = row.detector.module.state_dict()
    parts = row.handback.parts
    assert row.handback.ok
    assert sum(count.arrived for count in parts.values()) == len(state)
    assert parts["backbone"].trained == parts["backbone"].total > 0
    assert parts["neck"].trained == parts["neck"].total
    assert parts["head"].trained == 0
    assert {row.detector.part_of(name) for name in row.handback.fresh} <= {"head"}


def test_every_yaml_is_here() -> None:
    assert len(smallest()) == len(model_files.shipped()) >= 66
    assert "ultralytics" in built_in()


def test_scaled_names_are_understood_by_ultralytics() -> None:
    from ultralytics.nn.tasks import guess_model_scale

    for stem, path in model_files.shipped().items():
        for scale in model_files.scales(path):
            if model_files.scaled_name(stem, scale) != stem:
                assert guess_model_scale(model_files.scaled_name(stem, scale)) == scale
