"""What every family of detectors must do, run over all that are found; one more needs a model here, no other line."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.detectors import find
from headstart.detectors.finetuner import Finetuner, StartSettings
from headstart.errors import UserError
from headstart.settings.schema import CompareSettings

# A small model of each family, and how many maps its head reads.
MODELS = {"ultralytics": ("yolo11n.yaml", 3), "torchvision": ("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", 3)}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> str:
    return MODELS[request.param][0]


@pytest.fixture(scope="module")
def shared(model: str) -> Any:
    torch.manual_seed(0)
    return find.load_detector(model)


@pytest.fixture
def detector(shared: Any) -> Any:
    return deepcopy(shared)


@pytest.fixture(scope="module")
def trainer(model: str) -> Finetuner:
    return find.finetuner(model)


def changed(detector: Any) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(tensor.shape, generator=random) if tensor.is_floating_point() else tensor + 5
        for name, tensor in detector.trunk(neck=True).state_dict().items()
    }


def test_every_family_is_here() -> None:
    assert set(MODELS) == set(find.families())


def test_a_misspelt_name_is_answered_with_a_near_one(model: str) -> None:
    stem, dot, suffix = model.partition(".")
    (problem,) = find.check_model(f"{stem[:-1]}{stem[-1] * 2}{dot}{suffix}")
    assert "did you mean" in str(problem)
    assert find.check_model(model) == []


def test_maps_are_of_the_declared_width_and_stride(detector: Any, model: str) -> None:
    size = 2 * max(level.stride for level in detector.levels)
    images = torch.rand(2, 3, size, size)
    (last,), pyramid = detector.trunk()(images), detector.trunk(neck=True)(images)
    assert len(pyramid) == len(detector.levels) == dict(MODELS.values())[model]
    for level, one in zip((detector.backbone, *detector.levels), (last, *pyramid), strict=True):
        assert one.shape == (2, level.width, size // level.stride, size // level.stride)


def test_the_trunk_trains_the_detector(detector: Any) -> None:
    state = detector.module.state_dict()
    for neck, parts in ((False, {"backbone"}), (True, {"backbone", "neck"})):
        trunk = detector.trunk(neck)
        assert {detector.part_of(name) for name in trunk.state_dict()} == parts
        assert set(trunk.state_dict()) <= set(state)
        sum(one.sum() for one in trunk(torch.rand(2, 3, 64, 64))).backward()
        own = dict(detector.module.named_parameters())
        assert all(own[name] is parameter for name, parameter in trunk.named_parameters())
        assert all(parameter.grad is not None for parameter in trunk.parameters())
        twin = deepcopy(trunk)
        assert not {parameter.data_ptr() for parameter in twin.parameters()} & {p.data_ptr() for p in own.values()}


def test_random_weights_are_drawn_from_the_seed_and_not_called_trained(detector: Any, model: str) -> None:
    torch.manual_seed(0)
    again = find.load_detector(model)
    assert not again.trained
    assert all(torch.equal(one, again.module.state_dict()[name]) for name, one in detector.module.state_dict().items())


def test_a_fine_tuning_is_advised_to_mirror_as_the_run_did(detector: Any) -> None:
    """Where the family's trainer reads settings from a file; others are told by the documentation."""
    for detects in (True, False):
        usual = detector.finetune_settings(160, 20, detects=detects)
        own = detector.finetune_settings(160, 20, detects=detects, flip=0.0)
        assert (usual is None) == (own is None)
        if own is not None:
            added = own.keys() - usual.keys()
            assert [own[name].value for name in added] == [0.0]


def test_graft_changes_all_or_nothing(detector: Any) -> None:
    given = changed(detector)
    name = next(iter(given))
    before = detector.module.state_dict()[name].clone()
    for wrong in ({"nobody": torch.zeros(1)}, {list(given)[1]: torch.zeros(1, 2, 3, 4, 5)}):
        with pytest.raises(UserError):
            detector.graft({**given, **wrong})
        assert torch.equal(detector.module.state_dict()[name], before)


def test_handed_back_and_read_again(detector: Any, model: str, tmp_path: Path) -> None:
    given = changed(detector)
    detector.graft(given)
    path = tmp_path / "headstart.pt"
    detector.save(path, {"method": "none", "out": tmp_path})
    found = detector.verify(path, given)
    assert found.ok
    assert sum(count.arrived for count in found.parts.values()) == len(detector.module.state_dict())
    assert [found.parts[part].trained for part in ("backbone", "neck", "head")] == [
        found.parts["backbone"].total, found.parts["neck"].total, 0,
    ]  # fmt: skip
    assert found.fresh
    assert {detector.part_of(name) for name in found.fresh} == {"head"}
    again = find.load_detector(path)
    assert (again.trained, again.name, again.names) == (True, detector.name, detector.names)
    started = find.load_detector(model, init=path)
    again.save(tmp_path / "gone-on.pt", {})
    further = find.load_detector(tmp_path / "gone-on.pt")
    assert (detector.trained, detector.from_scratch) == (False, False)
    assert [one.from_scratch for one in (again, started, further)] == [True, True, True]
    for other in (again, started):
        state = other.module.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
    assert "backbone" in started.notes[-1]
    assert str(path) in detector.how_to_train(path)


def test_weights_that_are_not_those_of_the_detector_are_seen(detector: Any, tmp_path: Path) -> None:
    detector.save(tmp_path / "headstart.pt", {})
    name, parameter = next(iter(detector.module.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] += 1
    found = detector.verify(tmp_path / "headstart.pt", [name])
    assert [(one.name, one.part, one.trained) for one in found.dropped] == [(name, "backbone", True)]


# Fine-tuning


def test_a_comparison_can_ask(trainer: Finetuner, model: str) -> None:
    name = trainer.architecture(model)
    assert trainer.architecture(name) == name
    assert trainer.check_model(model) == []
    assert trainer.check_model(model.replace("_", "").replace("yolo", "yola"))
    assert trainer.published(model) == trainer.published(name)
    assert "AdamW" in trainer.optimizers, "what a comparison takes by default"
    assert trainer.optimizer_problems("AdamW") == []
    assert trainer.optimizer_problems("Addam")
    assert trainer.extra_problems({"nothing_of_ours": 1})
    assert not set(trainer.arguments()) & (set(CompareSettings.model_fields) - {"split"})
    assert {"torch"} < set(trainer.versions())


def test_starts_of_a_seed_are_one_network(trainer: Finetuner, model: str, detector: Any, tmp_path: Path) -> None:
    given = changed(detector)
    detector.graft(given)
    detector.save(tmp_path / "headstart.pt", {})
    asked = StartSettings(model, ["a", "b"], seed=3)
    scratch = trainer.build_start(asked, tmp_path / "1.pt")
    again = trainer.build_start(asked, tmp_path / "2.pt")
    ours = trainer.build_start(replace(asked, weights=str(tmp_path / "headstart.pt")), tmp_path / "3.pt")
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in scratch.state.items())
    assert {name: one.shape for name, one in scratch.state.items()} == {n: one.shape for n, one in ours.state.items()}
    assert scratch.parameters == ours.parameters
    assert set(scratch.taken.values()) == {0}
    assert [ours.taken[part] for part in ("backbone", "neck")] == [ours.total[part] for part in ("backbone", "neck")]
    assert 0 < ours.taken["head"] < ours.total["head"], "the classes are others"
    assert all(torch.equal(ours.state[name], tensor) for name, tensor in given.items())
