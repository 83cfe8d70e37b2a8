"""The detection loss on a batch split over two processes against that of the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart import ranks
from headstart.detectors.find import load_detector
from headstart.detectors.ultralytics.head import DetectHead
from headstart.training.norm import synchronized
from processes import in_processes

IMAGES = 4
OWNERS = {
    "uneven": [0, 0, 0, 0, 1, 2],
    "in the second alone": [2, 2, 3],
    "nowhere": [],
}


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml", "yolov10n.yaml"])  # the latter with two branches
def test_the_mean_of_the_losses_is_that_of_the_joined_batch(name: str, tmp_path: Path) -> None:
    """Of one family with as many places an object as it likes, of two with one as well, each divided by its own sum."""
    torch.manual_seed(0)
    head = DetectHead(load_detector(name).module, 5).train()
    layer: Any = head._layer
    widths = [branch[0].conv.in_channels for branch in layer.cv2]
    maps = [torch.randn(IMAGES, width, side, side) for width, side in zip(widths, (8, 4, 2), strict=True)]

    def losses(head: DetectHead, images: slice) -> dict[str, list[Tensor]]:
        found = {}
        for case, places in OWNERS.items():
            owner, random = torch.tensor(places, dtype=torch.int64), torch.Generator().manual_seed(len(places))
            corner = 0.5 * torch.rand(len(owner), 2, generator=random)
            boxes = torch.cat([corner, corner + 0.2 + 0.3 * torch.rand(len(owner), 2, generator=random)], 1)
            labels = torch.randint(-1, 5, (len(owner),), generator=random)
            here = (owner >= images.start) & (owner < images.stop)
            given = [one[images].clone().requires_grad_() for one in maps]
            parts = head(given, owner[here] - images.start, boxes[here], labels[here])
            parts.sum().backward()
            weights = [ranks.mean(one.grad) for one in head.parameters() if one.grad is not None]
            found[case] = [ranks.mean(parts.detach()), *weights, *(one.grad / ranks.world() for one in given)]
            head.zero_grad()
        return found

    def work(rank: int) -> dict[str, list[Tensor]]:
        half = IMAGES // 2
        with synchronized(head, torch.device("cpu")):
            return losses(head, slice(half * rank, half * rank + half))

    first, second = in_processes(2, work, tmp_path)
    for case, expected in losses(head, slice(0, IMAGES)).items():
        assert float(expected[0][0]) > 0 if OWNERS[case] else float(expected[0][0]) == 0
        scale = max(float(one.abs().max()) for one in expected)
        shared = len(expected) - len(maps)
        found = first[case][:shared] + [
            torch.cat(pair) for pair in zip(first[case][shared:], second[case][shared:], strict=True)
        ]
        for mine, one in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, one, rtol=1e-4, atol=2e-6 * scale, msg=lambda m, case=case: f"{case}: {m}")
