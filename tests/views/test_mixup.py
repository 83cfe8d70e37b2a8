"""Images over each other, and the boxes of both."""

from __future__ import annotations

import torch

from headstart.views.mixup import mixed

IMAGES = torch.tensor([0.0, 1.0, 10.0, 100.0])[:, None, None, None].expand(4, 3, 8, 8)
OWNER, LABELS = torch.tensor([0, 1, 1, 3]), torch.tensor([5, 6, -1, 7])
BOXES = torch.arange(16.0).reshape(4, 4)


def test_each_image_is_mixed_with_one_other_and_has_the_boxes_of_both() -> None:
    """Image i is w times its value and 1 - w times that of another: which one, its boxes tell."""
    own = [(0, 5), (1, 6), (1, -1), (3, 7)]
    for seed in range(20):
        made, owner, boxes, labels = mixed(IMAGES, OWNER, BOXES, LABELS, torch.Generator().manual_seed(seed), 1.0)
        assert [(int(a), int(b)) for a, b in zip(owner[:4], labels[:4], strict=True)] == own
        assert torch.equal(boxes[:4], BOXES)
        values = IMAGES[:, 0, 0, 0]
        for image in range(4):
            more = labels[4:][owner[4:] == image].tolist()
            others = [one for one in range(4) if one != image and [b for a, b in own if a == one] == more]
            assert others, "the boxes of one other image, whole"
            shares = [(made[image, 0, 0, 0] - values[one]) / (values[image] - values[one]) for one in others]
            assert any(0.2 < share < 0.8 for share in shares)
            assert made[image].unique().numel() == 1
        for label, box in zip(labels[4:].tolist(), boxes[4:], strict=True):
            assert torch.equal(box, BOXES[LABELS.tolist().index(label)])


def test_the_weight_is_near_a_half() -> None:
    """Beta(32, 32) has a standard deviation of 1 / sqrt(4 * 65) = 0.062."""
    images = torch.tensor([0.0, 1.0]).repeat(2000)[:, None, None, None].expand(4000, 1, 1, 1)
    none = torch.zeros(0, dtype=torch.int64)
    made = mixed(images, none, torch.zeros(0, 4), none, torch.Generator().manual_seed(0), 1.0)[0].flatten()
    both = made[(made > 0) & (made < 1)]
    assert 1800 < len(both) < 2200  # with one of the other value
    assert abs(float(both.mean()) - 0.5) < 0.005
    assert abs(float(both.std()) - 0.062) < 0.004


def test_a_share_of_them_is_mixed() -> None:
    images = torch.arange(400.0)[:, None, None, None].expand(400, 1, 2, 2)
    owner = torch.arange(400)
    made, whose, _, labels = mixed(images, owner, torch.zeros(400, 4), owner, torch.Generator().manual_seed(0), 0.25)
    changed = (made != images).flatten(1).any(1)
    assert 75 < int(changed.sum()) < 125
    assert whose[400:].tolist() == changed.nonzero()[:, 0].tolist()
    assert (labels[400:] != whose[400:]).all()
    same = mixed(images, owner, torch.zeros(400, 4), owner, torch.Generator().manual_seed(0), 0.0)
    assert torch.equal(same[0], images)
    assert len(same[1]) == 400


def test_a_single_image_stays() -> None:
    made, owner, _, _ = mixed(IMAGES[1:2], OWNER[:1], BOXES[:1], LABELS[:1], torch.Generator().manual_seed(0), 1.0)
    assert torch.equal(made, IMAGES[1:2])
    assert owner.tolist() == [0]


def test_the_same_seed_the_same_images() -> None:
    one, other, third = (
        mixed(IMAGES, OWNER, BOXES, LABELS, torch.Generator().manual_seed(seed), 0.5) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], third[0])
