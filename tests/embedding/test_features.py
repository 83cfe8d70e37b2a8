"""Features and uncertainty, with expected values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from headstart.detectors.find import load_detector
from headstart.embedding.features import Box, Describer, one_against_two, pooled
from headstart.images.loader import PixelBatch

LIMIT = torch.tensor([100.0, 100.0, 100.0, 100.0])


def test_maps_are_averaged_over_what_is_image() -> None:
    """An image of half the square's height: of 4 x 4 cells the upper two rows count."""
    one = torch.zeros(1, 2, 4, 4)
    one[0, 0, :2], one[0, 1, :2], one[0, :, 2:] = 3.0, 4.0, 99.0
    assert pooled([one], torch.tensor([[1.0, 0.5]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    both = pooled([one, one[:, :1]], torch.tensor([[1.0, 0.5]]))
    assert both.tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 1.0]]  # each map's part has length 1


def test_uncertainty_is_the_margin_of_the_two_best_classes() -> None:
    """(1 - (0.9 - 0.2))^2 = 0.09 and (1 - (0.5 - 0.4))^2 = 0.81: their mean is 0.45."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 80, 80], [20, 20, 30, 30]])
    scores = torch.tensor([[0.9, 0.2, 0.1], [0.4, 0.1, 0.5], [0.05, 0.01, 0.0]])  # the third is no detection
    assert one_against_two(boxes, scores, LIMIT) == pytest.approx(0.45)


def test_overlapping_boxes_are_one_detection() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11]])
    scores = torch.tensor([[0.9, 0.2], [0.5, 0.4]])
    assert one_against_two(boxes, scores, LIMIT) == pytest.approx(0.09)


def test_the_best_box_counts_however_low() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 80, 80]])
    assert one_against_two(boxes, torch.tensor([[0.04, 0.02], [0.01, 0.0]]), LIMIT) == pytest.approx(0.98**2)
    assert one_against_two(boxes[:1], torch.tensor([[0.6]]), LIMIT) == pytest.approx(0.16)  # one class: 0 is next


def batch(sizes: list[tuple[int, int]]) -> PixelBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(len(sizes), 3, 128, 128, dtype=torch.uint8)
    for place, (high, wide) in enumerate(sizes):
        pixels[place, :, :high, :wide] = torch.randint(0, 255, (3, high, wide), generator=generator, dtype=torch.uint8)
    return PixelBatch(pixels, torch.tensor(sizes), torch.arange(len(sizes)), [])


@pytest.mark.parametrize(("level", "width"), [("backbone", 256), ("neck", 64 + 128 + 256)])
def test_a_real_detector_describes_images_and_boxes(level: str, width: int) -> None:
    torch.manual_seed(0)
    detector = load_detector("yolo11n.yaml")
    device = torch.device("cpu")
    describe = Describer(
        detector,
        level=level,
        imgsz=128,
        device=device,
        search=None,
        uncertain=True,  # type: ignore[arg-type]
    )
    before = detector.module.state_dict()["model.0.bn.running_mean"].clone()
    labels = {0: [Box((0.0, 0.0, 1.0, 1.0), "label", 3), Box((0.0, 0.0, 0.5, 0.5), "label", 1)]}
    found = describe(batch([(128, 128), (64, 128)]), labels)
    assert found.features.shape == (2, width)
    assert found.box_features.shape == (2, width)
    assert [len(some) for some in found.boxes] == [2, 0]
    assert found.uncertainty is not None
    assert all(0 <= one <= 1 for one in found.uncertainty)
    assert torch.equal(detector.module.state_dict()["model.0.bn.running_mean"], before)
    assert detector.module.training
    # A whole square image: the box of all of it is near the image's own features, pooled another way.
    assert float(torch.nn.functional.cosine_similarity(found.features[0], found.box_features[0], dim=0)) > 0.95
    alone = describe(batch([(128, 128), (64, 128)]), None)
    assert torch.equal(alone.features, found.features)
