"""Features and uncertainty, with expected values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from headstart.detectors.find import load_detector
from headstart.embedding.features import Box, Describer, one_against_two, pooled
from headstart.images.loader import PixelBatch
from headstart.pseudolabels import labelling
from headstart.pseudolabels.search import Search
from headstart.settings.method_options import ProposalOptions

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


def test_passes_are_as_large_as_pixels_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five images two a pass, or all at once: the same is said of each, and labels stay with their images."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    search = Search.of(ProposalOptions(proposal_imgsz=128), 0)
    describe = Describer(
        load_detector("yolo11n.yaml"), level="neck", imgsz=128, device=device, search=search, uncertain=True
    )
    # Of random weights the least rounding tells which boxes are kept.
    found = torch.tensor([[[0.0, 0, 20, 20, 1], [10, 25, 40, 39, 1]]])
    monkeypatch.setattr(describe.detector, "propose", lambda images: found * images.mean((2, 3))[:, :1, None])
    passes: list[int] = []
    describe.trunk.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    images = batch([(128, 128), (64, 128), (128, 40), (100, 128), (128, 128)])
    labels = {3: [Box((0.0, 0.0, 0.5, 0.5), "label", 1)]}
    whole = describe(images, labels)
    monkeypatch.setattr(labelling, "AT_ONCE", 2 * 128**2 + 1)
    parts = describe(images, labels)
    assert passes == [5, 2, 2, 1]
    assert (parts.rows, parts.sizes) == (whole.rows, whole.sizes)
    assert parts.boxes[3] == labels[3]
    scores = [[[box.score for box in some] for some in made.boxes] for made in (whole, parts)]
    assert scores[1] == [pytest.approx(some) for some in scores[0]]
    assert [len(some) for some in scores[0]] == [2, 2, 2, 1, 2]
    assert len({one[0] for one in scores[0]}) == 5
    torch.testing.assert_close(parts.features, whole.features)
    torch.testing.assert_close(parts.box_features, whole.box_features, atol=1e-4, rtol=1e-4)
    assert parts.uncertainty == pytest.approx(whole.uncertainty, abs=1e-5)
    monkeypatch.setattr(labelling, "AT_ONCE", 1)  # one that is too large by itself is looked at all the same
    assert describe(images).rows == whole.rows
