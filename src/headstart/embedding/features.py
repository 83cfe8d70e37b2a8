"""Features of whole images and of boxes on them, pooled from a detector's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from headstart.detectors.base import Detector, evaluating
from headstart.images.loader import PixelBatch
from headstart.probes.labelled import box_features
from headstart.pseudolabels.base import PseudoLabelHead
from headstart.pseudolabels.labelling import OVERLAP, at_once
from headstart.pseudolabels.search import Search, chosen, fitted

LEAST = 0.1
"""Least score of a detection whose uncertainty counts; an image's best one counts in any case."""
Kind = Literal["label", "detection"]


@dataclass(frozen=True)
class Box:
    """A box on an image: corners as shares of its sides; class of a label; score of a detection."""

    corners: tuple[float, float, float, float]
    source: Kind
    label: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Described:
    """What is known of some images.

    Attributes:
        rows: Of the images in the index.
        sizes: Height and width of each, as far as it was decoded.
        features: float32 ``(B, D)`` on the CPU; the part of each map has length 1.
        boxes: Of each image.
        box_features: float32 ``(N, D)``, of all boxes in the order of the images.
        uncertainty: Of each image, from 0 to 1; None where it was not asked for.
    """

    rows: list[int]
    sizes: list[list[int]]
    features: Tensor
    boxes: list[list[Box]]
    box_features: Tensor
    uncertainty: list[float] | None

    @classmethod
    def join(cls, parts: Sequence[Described]) -> Described:
        """What is known of the images of several, at least one."""
        known = [part.uncertainty for part in parts if part.uncertainty is not None]
        return cls(
            [row for part in parts for row in part.rows],
            [size for part in parts for size in part.sizes],
            torch.cat([part.features for part in parts]),
            [boxes for part in parts for boxes in part.boxes],
            torch.cat([part.box_features for part in parts]),
            [one for some in known for one in some] if known else None,
        )


class Describer:
    """Describes images with a detector, which is left as it was.

    Args:
        detector: On the device of `device`.
        level: ``backbone``: its last map. ``neck``: all maps that the head reads, one after the other.
        imgsz: Longer side to which images are scaled, pixels.
        device: Where to compute.
        search: What of the detector's own detections counts as an object; None for no boxes of its own.
        uncertain: Whether the uncertainty of its classes is computed.

    Raises:
        UserError: Its head gives no classes, where these are wanted.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        level: Literal["backbone", "neck"],
        imgsz: int,
        device: torch.device,
        search: Search | None,
        uncertain: bool,
    ) -> None:
        self.detector, self.imgsz, self.device, self.search = detector, imgsz, device, search
        self.head: PseudoLabelHead | None = detector.class_head().to(device) if uncertain else None
        self.trunk: nn.Module = detector.trunk(neck=level == "neck").to(device)
        self.pyramid: nn.Module | None = detector.trunk(neck=True).to(device) if uncertain else None

    @property
    def together(self) -> int:
        """Images that go through the network in one pass."""
        return at_once(self.imgsz)

    @torch.no_grad()
    def __call__(self, batch: PixelBatch, labels: Mapping[int, Sequence[Box]] | None = None) -> Described:
        """Describe a batch, in passes of as many images as there is room for at their size.

        Args:
            batch: Images, each once.
            labels: Row of the index -> its labelled boxes; the others get the detector's own.
        """
        pixels, sizes, indices = (torch.split(one, self.together) for one in (batch.pixels, batch.sizes, batch.indices))
        parts = zip(pixels, sizes, indices, strict=True)
        return Described.join([self._in_one_pass(*part, labels or {}) for part in parts])

    def _in_one_pass(
        self, pixels: Tensor, sizes: Tensor, indices: Tensor, labels: Mapping[int, Sequence[Box]]
    ) -> Described:
        rows = indices.tolist()
        images, scale = fitted(pixels.to(self.device), sizes, self.imgsz)
        extent = sizes.flip(1).float() * scale[:, None]  # width and height of what is image, in pixels
        with evaluating(self.trunk):
            maps = [one.float() for one in self.trunk(images)]
        boxes = self._detections(images, extent.to(self.device)) if self.search else [[] for _ in rows]
        for place, row in enumerate(rows):
            if row in labels:
                boxes[place] = list(labels[row])
        shares = extent.repeat(1, 2) / self.imgsz
        placed = [
            torch.tensor([box.corners for box in some]).reshape(-1, 4) * share
            for some, share in zip(boxes, shares, strict=True)
        ]
        return Described(
            rows,
            sizes.tolist(),
            pooled(maps, extent / self.imgsz).cpu(),
            boxes,
            box_features(maps, placed).cpu(),
            self._uncertainty(images, extent.to(self.device)) if self.head is not None else None,
        )

    def _detections(self, images: Tensor, extent: Tensor) -> list[list[Box]]:
        """The objects that the detector finds, of any class, on each image, best first."""
        assert self.search is not None
        found = self.detector.propose(images)
        owner = torch.arange(len(images), device=images.device).repeat_interleave(found.shape[1])
        owner, boxes, scores = chosen(owner, found[..., :4].flatten(0, 1), found[..., 4].flatten(), extent, self.search)
        shares = (boxes / extent.repeat(1, 2)[owner]).cpu().tolist()
        made: list[list[Box]] = [[] for _ in images]
        for place, (x0, y0, x1, y1), score in zip(owner.tolist(), shares, scores.tolist(), strict=True):
            made[place].append(Box((x0, y0, x1, y1), "detection", score=score))
        return made

    def _uncertainty(self, images: Tensor, extent: Tensor) -> list[float]:
        """Of each image: the mean over its detections of (1 - (best - second best class score))^2."""
        assert self.head is not None
        assert self.pyramid is not None
        with evaluating(self.pyramid), evaluating(self.head):
            boxes, scores = self.head.detections(self.pyramid(images))
        return [
            one_against_two(own, score, limit)
            for own, score, limit in zip(boxes, scores, extent.repeat(1, 2), strict=True)
        ]


def one_against_two(boxes: Tensor, scores: Tensor, limit: Tensor) -> float:
    """How little a detector tells its best class from the next, on one image.

    The margin of Brust et al., "Active Learning for Deep Object Detection", 2019, averaged over the detections.

    Args:
        boxes: ``(A, 4)`` in pixels, before overlapping ones are joined.
        scores: ``(A, L)`` in [0, 1].
        limit: Width, height, width, height of what is image.

    Returns:
        From 0 to 1; of one class alone the second best score is 0.
    """
    best = functional.pad(scores.float(), (0, 1)).topk(2, dim=1).values
    inside = torch.minimum(boxes.float().clamp_min(0), limit)
    best = torch.where((inside[:, 2:] - inside[:, :2] >= 1).all(1, keepdim=True), best, torch.zeros_like(best))
    counted = best[:, 0] >= min(LEAST, float(best[:, 0].max()))
    inside, best = inside[counted], best[counted]
    kept = batched_nms(inside, best[:, 0], torch.zeros(len(best), dtype=torch.int64, device=best.device), OVERLAP)
    return float(((1 - (best[kept, 0] - best[kept, 1])) ** 2).mean())


def pooled(maps: Sequence[Tensor], extent: Tensor) -> Tensor:
    """Maps ``(B, C, h, w)`` averaged over the cells that show the image, each map's part of length 1: ``(B, sum C)``.

    Args:
        maps: Of images in the upper left of gray squares.
        extent: ``(B, 2)``: width and height of the image as shares of the square.
    """
    parts = []
    for one in maps:
        cells = (extent.cpu() * torch.tensor([one.shape[3], one.shape[2]])).ceil().long().clamp_min(1)
        means = [one[place, :, :high, :wide].mean((1, 2)) for place, (wide, high) in enumerate(cells.tolist())]
        parts.append(functional.normalize(torch.stack(means), dim=1))
    return torch.cat(parts, 1)
