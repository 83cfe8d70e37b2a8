"""What a teacher finds, and how far it agrees with labels that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from headstart.detectors.find import load_detector
from headstart.images.class_names import told_apart
from headstart.images.loader import PixelBatch
from headstart.pseudolabels import labelling
from headstart.pseudolabels.base import PseudoLabelHead, PseudoLabels
from headstart.pseudolabels.labelling import (
    Agreement,
    Detections,
    Labelling,
    agreement,
    average_precision,
    best_overlaps,
    detect,
    kept,
    told,
)
from headstart.pseudolabels.taught import Taught


class Fixed(PseudoLabelHead):
    """Finds what it is told to."""

    def __init__(self, boxes: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.found = (boxes, scores)

    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.found

    def handed_back(self) -> dict[str, Tensor]:
        return {}


def batch(*sizes: tuple[int, int]) -> PixelBatch:
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    pixels = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    return PixelBatch(pixels, torch.tensor(sizes), torch.arange(10, 10 + len(sizes)), [])


def test_boxes_are_shares_of_the_image_and_one_an_object() -> None:
    """An image of 100 x 200 pixels (width 200) is scaled by 0.32 to fit 64 pixels: 64 wide, 32 high."""
    boxes = torch.tensor([[[16.0, 8, 32, 24], [17, 8, 33, 24], [40, 16, 80, 32], [0, 0, 5, 5]]])
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.6], [0.05, 0.01]]])
    found, _ = detect(nn.Conv2d(3, 1, 1), Fixed(boxes, scores), batch((100, 200)), 64, least=0.1, most=9)
    assert found.rows.tolist() == [10, 10]
    assert found.looked.tolist() == [10]
    assert found.labels.tolist() == [0, 1], "the second overlaps the first, whatever its class"
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6]))
    torch.testing.assert_close(found.boxes, torch.tensor([[0.25, 0.25, 0.5, 0.75], [0.625, 0.5, 1.0, 1.0]]))


def test_those_on_some_of_the_images() -> None:
    rows, four = torch.tensor([4, 4, 7, 9]), torch.arange(4)
    all_ = Detections(rows, torch.rand(4, 4), four / 4, four, torch.tensor([4, 5, 7, 9]))
    some = all_.on(torch.tensor([9, 5, 4]))
    assert (some.rows.tolist(), some.labels.tolist(), some.looked.tolist()) == ([4, 4, 9], [0, 1, 3], [4, 5, 9])


def test_no_more_objects_an_image_than_allowed() -> None:
    places = torch.arange(0, 60, 10).float()
    boxes = torch.stack([places, places, places + 5, places + 5], 1).expand(2, -1, -1)
    scores = torch.linspace(0.9, 0.4, 6)[:, None].expand(2, -1, -1)
    found, _ = detect(nn.Conv2d(3, 1, 1), Fixed(boxes, scores), batch((64, 64), (64, 64)), 64, least=0.1, most=2)
    assert found.rows.tolist() == [10, 10, 11, 11]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.9, 0.8]))


def test_nothing_at_all() -> None:
    found, _ = detect(
        nn.Conv2d(3, 1, 1), Fixed(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2)), batch((9, 9)), 32, least=0.1, most=9
    )
    assert len(found.rows) == len(found.boxes) == 0
    assert found.looked.tolist() == [10]
    assert Detections.join([found, found]).looked.tolist() == [10, 10]
    assert len(Detections.join([]).rows) == 0


def test_a_real_detector() -> None:
    torch.manual_seed(0)
    detector = load_detector("yolo11n.yaml")
    trunk, head = detector.trunk(neck=True).eval(), detector.class_head().eval()
    found, _ = detect(trunk, head, batch((48, 64), (64, 20)), 64, least=0.0, most=50)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= 1).all()
    for row in (10, 11):
        here = found.boxes[found.rows == row]
        overlap = box_iou(here, here).fill_diagonal_(0)
        # Shares of an image that is not square: overlap of boxes is the same in shares as in pixels.
        assert overlap.max() <= 0.6 + 1e-4


def test_large_images_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is the same: networks are in evaluation mode. 640 px: 64 / 4 images; here one."""
    detector = load_detector("yolo11n.yaml")
    trunk, head = detector.trunk(neck=True).eval(), detector.class_head().eval()
    images = batch((48, 64), (64, 20), (64, 64))
    images.pixels.random_(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found, scores), seen = detect(trunk, head, images, 64, least=0.0, most=50), list[int]()
        trunk.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        monkeypatch.setattr(labelling, "AT_ONCE", 2 * 64 * 64 - 1)
        again, other = detect(trunk, head, images, 64, least=0.0, most=50)
    assert seen == [1, 1, 1]
    assert torch.equal(found.rows, again.rows)
    torch.testing.assert_close(found.scores, again.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores.sort(0).values, other.sort(0).values, atol=1e-5, rtol=1e-4)


def test_agreement_by_hand() -> None:
    """Image 3: two known, one found right, one of the wrong class; image 5: found twice; image 7: nobody looked."""
    square, other = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
    found = Detections(
        torch.tensor([3, 3, 5, 5]),
        torch.tensor([square, other, square, [0.1, 0.1, 0.5, 0.48]]),
        torch.tensor([0.9, 0.8, 0.6, 0.7]),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([3, 5, 6]),
    )
    rows, labels = torch.tensor([3, 3, 5, 7]), torch.tensor([0, 1, 1, 0])
    agreed = agreement(found, rows, torch.tensor([square, other, square, square]), labels, 3)
    assert agreed.right.tolist() == [1, 1, 0]
    assert agreed.given.tolist() == [2, 2, 0]
    assert agreed.known.tolist() == [1, 2, 0]
    assert agreed.precision == pytest.approx(2 / 4)
    assert agreed.recall == pytest.approx(2 / 3)
    assert agreed.f1 == pytest.approx(2 * 2 / (4 + 3))
    assert agreed.by_class(["a", "b", "c"])["a"] == {"known": 1, "given": 2, "right": 1}


def test_agreement_without_anything() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    agreed = agreement(Detections.join([]), none, torch.zeros(0, 4), none, 2)
    assert (agreed.precision, agreed.recall, agreed.f1) == (None, None, None)


def test_what_was_labelled_is_counted_and_told_by_hand() -> None:
    """Image 3: two labels; image 5: a label and an open box; image 6: an open box; image 8: nothing."""
    found = Detections(
        torch.tensor([3, 3, 5, 5, 6]),
        torch.zeros(5, 4),
        torch.tensor([0.9, 0.6, 0.5, 0.4, 0.1]),
        torch.tensor([0, 2, 2, 1, 1]),
        torch.tensor([3, 5, 6, 8]),
    )
    counts = Labelling.split(found, 0.5).counts(["bolt", "nut", "washer"])
    assert counts.pop("mean_score") == pytest.approx(2 / 3)
    assert counts == {
        "images": 4,
        "with_labels": 2,
        "labels": 3,
        "left_open": 2,
        "classes": {"bolt": 1, "washer": 2},
    }
    said = "the teacher labelled 2 of 4 images: 3 boxes of 2 classes, mean score 0.67; 2 left open"
    assert told({**counts, "mean_score": 2 / 3}) == said
    judged = {**counts, "mean_score": 2 / 3, "recall": 0.5, "precision": 0.25}
    assert told(judged) == f"{said}; of the held-out labels 50% found, 25% of what it gave right"
    nothing = Labelling.split(found, 1.0).counts(["bolt", "nut", "washer"])
    assert told(nothing, "it") == "it labelled 0 of 4 images: 0 boxes of 0 classes; 5 left open"


def test_classes_of_one_name_are_counted_each() -> None:
    """One label of the first bolt, two of the second, each by its number; so are thresholds and held-out labels."""
    found = Detections(
        torch.tensor([3, 3, 5]),
        torch.zeros(3, 4),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([0, 2, 2]),
        torch.arange(6),
    )
    names = ["bolt", "nut", "bolt"]
    counts = Labelling.split(found, torch.tensor([0.3, 0.4, 0.5])).counts(names)
    assert counts["classes"] == {"bolt (0)": 1, "bolt (2)": 2}
    assert counts["keep"] == pytest.approx({"bolt (0)": 0.3, "nut": 0.4, "bolt (2)": 0.5})
    one, none, two = torch.tensor([1, 0, 2]), torch.zeros(3).long(), torch.tensor([2, 0, 3])
    assert Agreement(none, one, two).by_class(names) == {
        "bolt (0)": {"known": 2, "given": 1, "right": 0},
        "bolt (2)": {"known": 3, "given": 2, "right": 0},
    }


def test_names_are_told_apart_by_their_numbers() -> None:
    assert told_apart(["bolt", "nut"]) == ("bolt", "nut")
    assert told_apart(["bolt", "bolt", "bolt (1)"]) == ("bolt (0)", "bolt (1) (1)", "bolt (1)")


def test_average_precision_by_hand() -> None:
    """Four known boxes, five found: right, of another class, right, the same once more, on another image."""
    left, right = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)
    rows, labels = torch.tensor([3, 3, 7, 7]), torch.tensor([0, 1, 0, 1])
    boxes = torch.tensor([left, right, left, right])
    found = Detections(
        torch.tensor([3, 3, 7, 7, 7]),
        torch.tensor([left, right, left, left, right]),
        torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
        torch.tensor([0, 0, 0, 0, 1]),
        torch.tensor([3, 7]),
    )
    # Right at ranks 1, 3 and 5: precision 1, 2/3 and 3/5, each a quarter of what is known.
    assert average_precision(found, rows, boxes, labels) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    better = Detections(found.rows, found.boxes, found.scores, torch.tensor([0, 1, 0, 0, 1]), found.looked)
    assert average_precision(better, rows, boxes, labels) == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    none = found.those(torch.zeros(5, dtype=torch.bool))
    assert average_precision(none, rows, boxes, labels) == 0
    assert average_precision(found, rows[:0], boxes[:0], labels[:0]) == 0


def grid(number: int, score: float) -> Fixed:
    """A head that finds so many objects apart from each other, each a little less sure than the one before."""
    side = 5
    across = 60 // side
    places = torch.tensor([[float(at % across * side), float(at // across * side)] for at in range(number)])
    boxes = torch.cat([places, places + side - 1], 1)[None]
    return Fixed(
        boxes, torch.linspace(score, score - 0.01, number)[None, :, None].expand(-1, -1, 2) * torch.tensor([1, 0.1])
    )


def test_what_is_found_beyond_as_many_as_are_labelled_is_left_open() -> None:
    """A hundred objects, all as sure: taught as background they would tell the detector that there are twenty."""
    found, _ = detect(nn.Conv2d(3, 1, 1), grid(100, 0.9), batch((64, 64)), 64, least=0.02, most=20, open_from=0.05)
    assert len(found.rows) == 100
    assert found.more.tolist() == [False] * 20 + [True] * 80
    labelling = Labelling.split(found, 0.4)
    assert (len(labelling.sure.rows), len(labelling.unsure.rows)) == (20, 80)
    counts = labelling.counts(["a", "b"])
    assert (counts["labels"], counts["left_open"], counts["cut"]) == (20, 80, 1)
    assert "1 images show more objects than max_objects=, and the others are left open: raise it" in told(counts)
    none = torch.zeros(0, dtype=torch.int64)
    empty = PseudoLabels.gather(11, none, torch.zeros(0, 4), torch.zeros(0), none)
    taught = Taught(empty, torch.zeros(11, dtype=torch.bool))
    _, boxes, labels = taught.with_found(found, kept(found, 0.4)).of(torch.tensor([10]))
    assert (len(boxes), int((labels == 0).sum()), int((labels == -1).sum())) == (100, 20, 80)
    on, both = found.on(torch.tensor([10])), Detections.join([found, found])
    assert on.more.tolist() == found.more.tolist()
    assert len(both.within.rows) == 40
    assert len(found.those(found.scores > 0.5).within.rows) == 20


def test_what_hardly_scores_is_not_left_open_beyond_them() -> None:
    found, _ = detect(nn.Conv2d(3, 1, 1), grid(100, 0.04), batch((64, 64)), 64, least=0.02, most=20, open_from=0.05)
    assert len(found.rows) == 20
    assert found.beyond is None


def test_the_largest_overlap_is_that_with_a_box_of_the_same_image() -> None:
    random = torch.Generator().manual_seed(0)
    boxes, others = (torch.rand(number, 4, generator=random).sort(1).values for number in (40, 30))
    place, owner = torch.arange(40) % 4, torch.arange(30) // 12  # image 3 has none of the others
    best, which = best_overlaps(boxes, place, others, owner)
    all_ = box_iou(boxes, others) * (place[:, None] == owner[None])
    torch.testing.assert_close(best, all_.max(1).values)
    assert torch.equal(which[best > 0], all_.max(1).indices[best > 0])
    assert bool((best[place == 3] == 0).all())
