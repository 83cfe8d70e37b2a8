from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightly.utils.debug import std_of_l2_normalized
from PIL import Image
from torch import Tensor

from headstart.probes import metrics, sheets
from headstart.probes.assets import write_assets
from headstart.run.health import WARMUP, Health


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- measures ---------------------------------------------------------------------------------------------------------


def test_feature_spread_is_lightlys() -> None:
    found = features(40, 16) * 3 + 1
    torch.testing.assert_close(metrics.feature_spread(found), std_of_l2_normalized(found))


def test_feature_spread_of_even_and_of_equal_features() -> None:
    assert metrics.feature_spread(features(4000, 64)).item() == pytest.approx(1 / 8, rel=0.02)
    assert metrics.feature_spread(torch.ones(10, 64)).item() == pytest.approx(0, abs=1e-6)
    assert metrics.feature_spread(torch.ones(1, 64)).isnan()


def test_spread_alarm() -> None:
    assert metrics.spread_alarm(256) == pytest.approx(0.3 / 16)


def test_teacher_entropy_by_hand() -> None:
    assert metrics.teacher_entropy(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    assert metrics.teacher_entropy(torch.eye(8) * 1000).item() == 0
    # Probabilities 1/2, 1/4, 1/4: 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2, averaged with a certain answer (0).
    logits = torch.tensor([[0.5, 0.25, 0.25], [1.0, 1e-30, 1e-30]]).log()
    assert metrics.teacher_entropy(logits).item() == pytest.approx(0.75 * math.log(2))
    assert not metrics.teacher_entropy(torch.zeros(2, 4, requires_grad=True)).requires_grad


def test_rankme_by_hand() -> None:
    assert metrics.rankme(torch.eye(7)) == pytest.approx(7)
    assert metrics.rankme(torch.ones(9, 5)) == pytest.approx(1)
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert metrics.rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)


def test_nearest_neighbours_by_hand() -> None:
    angles = torch.tensor([0.0, 10.0, 30.0, 100.0]).deg2rad()
    lengths = torch.tensor([1.0, 5.0, 0.1, 2.0])
    points = torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]
    indices, cosines = metrics.nearest_neighbours(points, 2)
    assert indices.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    torch.testing.assert_close(cosines[0], torch.tensor([10.0, 30.0]).deg2rad().cos())


def test_nearest_neighbours_of_few() -> None:
    assert metrics.nearest_neighbours(torch.ones(3, 4), 5)[0].shape == (3, 2)
    assert metrics.nearest_neighbours(torch.ones(1, 4), 5)[0].shape == (1, 0)


# -- principal components ---------------------------------------------------------------------------------------------


def test_principal_components_are_those_of_numpy() -> None:
    maps = [features(6, 5, 4), features(6, 3, 7, seed=1) * 2]
    cells = np.concatenate([one.flatten(1).T.double().numpy() for one in maps])
    cells = cells - cells.mean(axis=0)
    scores = cells @ np.linalg.svd(cells, full_matrices=False)[2].T
    found = metrics.principal_components(maps)
    assert [tuple(one.shape) for one in found] == [(5, 4, 3), (3, 7, 3)]
    colors = np.concatenate([one.reshape(-1, 3).numpy() for one in found])
    assert colors.min() >= 0
    assert colors.max() <= 1
    for number in range(3):
        low, high = np.quantile(scores[:, number], [0.02, 0.98])
        expected = np.clip((scores[:, number] - low) / (high - low), 0, 1)
        # The sign of a component is a convention: the loading with the largest magnitude is positive.
        same = np.abs(colors[:, number] - expected).max()
        flipped = np.abs(1 - colors[:, number] - expected).max()
        assert min(same, flipped) < 1e-5


def test_principal_components_without_variation_are_grey() -> None:
    (found,) = metrics.principal_components([torch.full((4, 3, 3), 2.0)])
    assert (found == 0.5).all()
    (narrow,) = metrics.principal_components([features(2, 3, 3)])
    assert narrow.shape == (3, 3, 3)
    assert (narrow[..., 2] == 0.5).all()


# -- alarms in words --------------------------------------------------------------------------------------------------

GOOD = {
    "loss": 3.0,
    "teacher_entropy": 3.0,
    "teacher_entropy_max": math.log(2048),
    "feature_spread": 0.05,
    "spread_alarm": 0.01875,
}


def feed(health: Health, count: int, start: int = WARMUP, **changed: float) -> list[str]:
    return [text for step in range(start, start + count) for text in health.update(step, GOOD | changed)]


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("uniform", {"teacher_entropy": 7.6}, "same uniform answer for every image"),
        ("peaked", {"teacher_entropy": 0.01}, "everything on one answer"),
        ("spread", {"feature_spread": 0.01}, "features of different images are becoming the same"),
    ],
)
def test_alarm_sounds_once_until_it_recovers(kind: str, changed: dict[str, float], words: str) -> None:
    health = Health()
    assert feed(health, 20) == []
    said = feed(health, 20, **changed)
    assert len(said) == 1
    assert words in said[0]
    assert "ower the" in said[0] or "Raise the" in said[0]
    assert health.active == [kind]
    assert feed(health, 20) == []
    assert health.active == []
    assert len(feed(health, 20, **changed)) == 1


def test_one_odd_batch_and_the_warm_up_are_no_alarm() -> None:
    assert feed(Health(), 2, teacher_entropy=7.6) == []
    health = Health()
    assert feed(health, WARMUP, start=0, teacher_entropy=7.6) == []
    assert len(feed(health, 1, teacher_entropy=7.6)) == 1


def test_an_alarm_near_its_line_does_not_flutter() -> None:
    health = Health()
    assert len(feed(health, 5, feature_spread=0.0187)) == 1
    assert feed(health, 5, feature_spread=0.0190) == []
    assert feed(health, 5, feature_spread=0.0187) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_said_at_once(loss: float) -> None:
    health = Health()
    said = health.update(1, {"loss": loss})
    assert len(said) == 1
    assert "not a number" in said[0]
    assert health.update(2, {"loss": loss}) == []


def test_measures_that_a_method_lacks_are_not_judged() -> None:
    assert all(Health().update(step, {"loss": 1.0, "teacher_entropy": math.nan}) == [] for step in range(500))


# -- the assets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    name: str


@dataclass(frozen=True)
class View:
    images: Tensor
    boxes: Tensor
    spec: Spec


def look(images: Tensor) -> tuple[Tensor, Tensor]:
    grid = torch.nn.functional.avg_pool2d(images, 16)
    return grid.mean(dim=(2, 3)), grid


def samples(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(40 + 7 * i % 60, 50 + 11 * i % 70) for i in range(count)]
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def views(count: int) -> list[View]:
    boxes = torch.tensor([[2.0, 3.0, 30.0, 35.0]]).repeat(count, 1)
    sizes = {"global": 64, "local": 32}
    return [View(torch.rand(count, 3, sizes[n], sizes[n]), boxes, Spec(f"{n}0")) for n in ("global", "global", "local")]


def test_write_assets(tmp_path: Path) -> None:
    found = write_assets(tmp_path, look, samples(12), views(3), imgsz=64)
    assets = tmp_path / "assets"
    assert {path.name for path in assets.iterdir()} == {"views.png", "neighbours.png", "components.png", "probe.json"}
    assert sum(path.stat().st_size for path in assets.iterdir()) < 1_500_000
    stored = json.loads((assets / "probe.json").read_text())
    assert stored == found
    assert stored["images"] == 12
    assert stored["views"] == ["global 1", "global 2", "local"]
    assert stored["view_rows"] == 3
    assert stored["components"]["cells"] == [8, 8]
    assert stored["spread_alarm"] == pytest.approx(0.3 / math.sqrt(3))
    assert 1 <= stored["rankme"] <= 3
    assert all(len(one["indices"]) == 5 and one["query"] not in one["indices"] for one in stored["neighbours"])
    with Image.open(assets / "views.png") as sheet:
        assert sheet.mode == "RGBA"
        assert sheet.width > sheet.height


def test_mean_cosine_of_any_two(tmp_path: Path) -> None:
    points = features(6, 4)
    found = write_assets(tmp_path, lambda images: (points, images), samples(6), imgsz=32)
    directions = torch.nn.functional.normalize(points, dim=1)
    pairs = [float(directions[a] @ directions[b]) for a in range(6) for b in range(6) if a != b]
    assert found["cosine_any_two"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_samples(tmp_path: Path, count: int) -> None:
    found = write_assets(tmp_path, look, samples(count), views(count), imgsz=64)
    assert (tmp_path / "assets" / "views.png").is_file() is (count > 0)
    assert (tmp_path / "assets" / "components.png").is_file() is (count > 0)
    assert ("neighbours" in found["left_out"]) is (count < 2)


def test_features_that_are_not_finite_leave_their_pictures_out(tmp_path: Path) -> None:
    write_assets(tmp_path, look, samples(4), imgsz=64)
    found = write_assets(tmp_path, lambda x: tuple(y * math.nan for y in look(x)), samples(4), imgsz=64)  # type: ignore[arg-type]
    assert set(found["left_out"]) == {"neighbours", "components"}
    assert [path.name for path in (tmp_path / "assets").iterdir()] == ["probe.json"]


@pytest.mark.parametrize("lost", ["views", "neighbours", "components"])
def test_a_picture_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    save = sheets.save

    def saving(path: Path, *given: Any, **options: Any) -> None:
        if path.stem == lost:
            raise ValueError("no font")
        save(path, *given, **options)

    monkeypatch.setattr(sheets, "save", saving)
    found = write_assets(tmp_path, look, samples(12), views(3), imgsz=64)
    assert found["failed"] == {lost: "ValueError: no font"}
    there = {path.stem for path in (tmp_path / "assets").iterdir()}
    assert there == {"views", "neighbours", "components", "probe"} - {lost}


def test_noise_stays_within_the_limit(tmp_path: Path) -> None:
    noise = [torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8) for _ in range(6)]
    boxes = torch.tensor([[0.0, 0.0, 300.0, 300.0]]).repeat(4, 1)
    many = [View(torch.rand(4, 3, 96, 96), boxes, Spec("local")) for _ in range(8)]
    write_assets(tmp_path, look, noise, many, imgsz=64)
    assert sum(path.stat().st_size for path in (tmp_path / "assets").iterdir()) < 1_500_000
