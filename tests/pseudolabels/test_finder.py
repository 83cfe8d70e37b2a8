"""A detector that labels the first time: whose classes it knows, and what its scores are worth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_box_classifier import LEFT, batch, colors
from test_labeller import SCENES, Finds
from torch import Tensor, nn
from ultralytics import YOLO

from headstart.detectors.find import load_detector
from headstart.errors import UserError
from headstart.pseudolabels import labeller as module
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.finder import AnyObject, Finder
from headstart.pseudolabels.labeller import Labeller


@pytest.fixture(scope="module")
def coco() -> Any:
    torch.manual_seed(0)
    return load_detector(YOLO("yolo11n.yaml", verbose=False))


def other_names(detector: Any, names: list[str]) -> Any:
    made = detector.with_classes(names)
    return made


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (["nut", "bolt"], True),
        (["bolt", "nut"], True),
        (["nut"], True),  # it knows more than is asked
        (["nut", "screw"], False),
        (["Nut", "bolt"], False),
    ],
)
def test_a_detector_of_the_users_classes_tells_them_in_their_order(coco: Any, names: list[str], own: bool) -> None:
    detector = other_names(coco, ["nut", "bolt"])
    found = Finder.of(detector, names, 64)
    assert found.knows_classes == own
    found.network.eval()
    found.head.eval()
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(1))
        boxes, scores = found.head.detections(found.network(images))
        if not own:
            assert scores.shape[2] == 1
            torch.testing.assert_close(torch.cat([boxes, scores], 2), detector.propose(images))
            return
        alone = detector.class_head().eval()
        _, both = alone.detections(detector.trunk(neck=True).eval()(images))
    for place, name in enumerate(names):
        assert torch.equal(scores[..., place], both[..., ["nut", "bolt"].index(name)])


def test_classes_of_one_name_are_none_that_can_be_told(coco: Any) -> None:
    detector = other_names(coco, ["nut", "bolt"])
    detector.names = {0: "nut", 1: "nut"}  # of another trainer: to make one of such names is refused
    assert not Finder.of(detector, ["nut"], 64).knows_classes


def least(scores: Tensor, right: Tensor) -> tuple[float, float]:
    """The same by gradient descent, Platt's targets with a pull of a thousandth to the scores as they are."""
    hits = int(right.sum())
    target = torch.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2)).double()
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = line[0] * scores.double().logit() + line[1]
        value = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        value = value + 0.5e-3 * ((line[0] - 1) ** 2 + line[1] ** 2)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    slope, intercept = line.detach().tolist()
    return slope, intercept


@pytest.mark.parametrize(("seed", "number"), [(0, 400), (1, 30), (2, 5), (3, 2000)])
def test_what_a_score_is_worth_is_learnt_from_what_was_right(coco: Any, seed: int, number: int) -> None:
    """Objects at an odds of 14 times what the score says, as COCO's detector scores debris."""
    random = torch.manual_seed(seed)
    scores = torch.rand(number, generator=random) ** 3 * 0.3 + 1e-3
    right = torch.rand(number, generator=random) < torch.sigmoid(scores.logit() + 2.64)
    head = AnyObject(coco)
    head.learn(scores, right)
    assert head.line == pytest.approx(least(scores, right), abs=2e-3)


@pytest.mark.parametrize("right", [True, False])
def test_where_all_or_none_is_right_the_line_stays_finite(coco: Any, right: bool) -> None:
    head = AnyObject(coco)
    scores = torch.tensor([1e-4, 0.2, 1.0])
    head.learn(scores, torch.full((3,), right))
    slope, intercept = head.line
    assert slope >= 0
    chances = torch.sigmoid(slope * scores.clamp(1e-6, 1 - 1e-6).logit() + intercept)
    assert bool((chances > 0.5).all()) == right
    assert bool((chances < 0.5).all()) != right


def finds(right: float, objects: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Labeller, Finder]:
    """A labeller with as many labelled objects, of which so large a share lies where the finder sees one."""
    monkeypatch.setattr(module, "LABELLED", 2)
    here = [place < right * objects for place in range(objects)]
    boxes = torch.tensor([LEFT if one else [0.0, 0.0, 0.1, 0.1] for one in here])
    given = PseudoLabels.gather(objects, torch.arange(objects), boxes, torch.ones(objects), torch.zeros(objects).long())

    def read(rows: Any, area: int) -> Any:
        for row in rows:
            yield batch(SCENES[0], first=row)

    made = Labeller(read, given, torch.arange(objects), 2, least=0.05, most=9, namer=colors())
    return made, Finder("coco", nn.Conv2d(3, 1, 1), Finds(), 64)


def test_it_says_how_many_labelled_objects_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made, finder = finds(0.5, 10, monkeypatch)
    assert made.taught_by(finder).startswith("coco finds 5 of 10 labelled objects")


def test_a_detector_that_finds_hardly_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, finder = finds(0.05, 40, monkeypatch)
    with pytest.raises(UserError, match="proposals: coco finds 2 of 40 labelled objects"):
        made.taught_by(finder)


def test_the_size_fits_the_detectors_largest_stride() -> None:
    """64 for those of Ultralytics with a level more, whose maps do not join at 480 pixels."""
    detector = load_detector(YOLO("yolov8n-p6.yaml", verbose=False)).with_classes(["nut", "bolt"])
    found = Finder.of(detector, ["nut", "bolt"], 450)
    assert found.knows_classes
    assert found.imgsz == 512
    assert Finder.of(detector, ["screw"], 450).imgsz == 512
