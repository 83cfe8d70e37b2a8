from __future__ import annotations

import inspect

import pytest
import tiny
import torch

from headstart.jobs.checks import check_method
from headstart.methods.anchor import Anchored, distance
from headstart.methods.base import Method
from headstart.methods.dino import DINO


def test_distance_by_hand() -> None:
    """Cells that point the same way are 0 apart, right angles 1, opposite ways 2; maps count alike."""
    now = [torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]]), torch.tensor([[[[2.0]], [[0.0]]]])]
    before = [torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[[-1.0]], [[0.0]]]])]
    assert float(distance(now, before)) == pytest.approx(((0 + 1) / 2 + 2) / 2)


@pytest.mark.parametrize("name", ["pyramid", "dino"])
def test_the_anchor_adds_its_weighted_distance_and_pulls_back(name: str) -> None:
    plain, held = tiny.build(name), Anchored(tiny.build(name), 3.0)
    views = tiny.views(plain)
    torch.testing.assert_close(held(views, tiny.progress(0)), plain(views, tiny.progress(0)))
    moved = {key: parameter.detach().clone() for key, parameter in held.student.named_parameters()}
    with torch.no_grad():
        for one, other in zip(plain.student.parameters(), held.student.parameters(), strict=True):
            noise = 0.05 * torch.randn_like(one)
            one.add_(noise)
            other.add_(noise)
    view = views[0].images
    with torch.no_grad():
        expected = distance(held.student(view), held.origin(view))
    loss = held(views, tiny.progress(1))
    torch.testing.assert_close(loss, plain(views, tiny.progress(1)) + 3 * expected, rtol=1e-4, atol=1e-5)
    assert held.measures()["anchor_drift"] == pytest.approx(float(expected), rel=1e-3)
    # Steps along the distance alone bring the weights' features back.
    optimizer = torch.optim.SGD(held.student.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        distance(held.student(view), held.origin(view)).backward()
        optimizer.step()
    with torch.no_grad():
        assert distance(held.student(view), held.origin(view)) < 0.9 * expected
    assert all(torch.equal(moved[key], parameter) for key, parameter in held.origin.named_parameters())


def test_what_is_held_on_to_must_be_trained() -> None:
    given = {"anchor": 0.1, "model": "yolo11n.yaml", "teacher": None}
    (problem,) = check_method(given, "dino", DINO)
    assert "random weights are nothing to hold on to" in str(problem)
    assert check_method({**given, "init": "a.pt"}, "dino", DINO) == []
    assert check_method({**given, "model": "a.pt"}, "dino", DINO) == []


def test_rates_for_a_batch_and_for_trained_weights() -> None:
    def rate(trained: bool, **given: object) -> float:
        return tiny.resolve({"data": "x", **given}, trained=trained).method.lr

    assert rate(False, preset="lightlytrain", batch=64) == pytest.approx(0.03 * 64 / 256)
    assert rate(True, preset="lightlytrain", batch=64) == pytest.approx(0.03 * 64 / 256 * 0.2)
    assert rate(True, method="byol") == pytest.approx(0.2e-3)
    assert rate(True, method="byol", lr=5e-4) == 5e-4
    assert rate(True, method="objects") == 1e-3


def test_an_anchored_method_answers_all_that_a_method_is_asked() -> None:
    """What it does not hand on would be the contract's own answer, not the method's."""
    asked = {name for name, one in vars(Method).items() if inspect.isfunction(one) and not name.startswith("_")}
    assert {"order", "phases", "reordered", "specs_at"} <= asked
    assert asked <= set(vars(Anchored))
