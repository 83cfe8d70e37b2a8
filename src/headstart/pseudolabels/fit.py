"""Do the objects that a detector finds mean anything on these images? Measured on a few of them, before the search.

Where labels may be looked at, their recall decides. Without labels the detector is asked three times: on an image, on
its mirror image and on a smaller one. What it knows it finds again; what it takes for an object where it knows nothing
depends on the pixels. Of COCO's yolo11n 94 % of the best objects on COCO's own images were found again both times, on
airport debris that it was never taught 88 %; but on binarised circuit boards, where it finds 1 of 444 defects, 47 %,
and on noise 50 %. Scores alone do not tell: their medians were 0.18 on the debris and 0.14 on the boards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from headstart.pseudolabels.base import ProposalSource
from headstart.pseudolabels.search import OVERLAP, UNSURE, Search, chosen, fitted

IMAGES = 64
"""Images that are looked at."""
AGAIN = 0.7
"""Share of the images' best objects that must be found again: between the 88 % and the 50 % above."""
RECALL = 0.1
"""Share of labelled objects that must be found: 0.89 on the debris, 0.47 on COCO's images, 0.005 on the boards."""
LABELLED = 20
"""Labelled objects from which their recall decides."""
_SMALLER = 0.7  # side of the smaller image


@dataclass(frozen=True)
class Fit:
    """How well a detector's proposals fit images.

    Attributes:
        source: The detector's name.
        images: How many were looked at.
        score: Median over them of the best object's score; 0 for an image without any.
        again: Share of the best objects that were found again on the mirrored and on the smaller image.
        labelled: Objects that labels name, at most as many an image as are kept.
        found: How many of these a proposal covers, at an intersection over union of 0.5.
        beyond: Objects that labels name in all; None for `labelled`.
    """

    source: str
    images: int
    score: float
    again: float
    labelled: int = 0
    found: int = 0
    beyond: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the proposals fit, as far as a look at a few images tells."""
        if self.labelled >= LABELLED:
            return self.found >= RECALL * self.labelled
        return self.again >= AGAIN and self.score >= UNSURE

    def sentence(self) -> str:
        """What was found, on what it rests."""
        word = "fit" if self.ok else "do not fit"
        start = f"the objects that {self.source} finds {word} these images, by a look at {self.images}: "
        if self.labelled >= LABELLED:
            return f"{start}they hold {self.found:,} of {self.labelled:,} labelled objects{self.left_out()}"
        return (
            f"{start}{self.again:.0%} of the best ones are found again when the image is mirrored and made smaller "
            f"(least {AGAIN:.0%}), their median score is {self.score:.2g} (least {UNSURE:g})"
        )

    def left_out(self) -> str:
        """What is said beside `labelled` of crowded images, on which not all objects are looked for; "" of others."""
        if (more := (self.beyond or 0) - self.labelled) <= 0:
            return ""
        return f" ({more:,} more are on images that show more objects than max_objects= keeps)"

    def as_dict(self) -> dict[str, Any]:
        """As ``settings.yaml`` keeps it."""
        return {"fits": self.ok, "found": self.sentence()}


@torch.no_grad()
def look(
    source: ProposalSource,
    samples: Iterable[tuple[str, Tensor]],
    search: Search,
    *,
    device: torch.device,
    labels: Callable[[str], Tensor] | None = None,
) -> Fit:
    """Measure the fit.

    Args:
        source: A trained detector, on `device`.
        samples: Path and pixels of some images, uint8 ``(3, H, W)``.
        search: What counts as an object.
        device: Where to compute.
        labels: The labelled boxes of an image, ``(N, 4)`` as shares of its sides; None where none may be looked at.
    """
    smaller = max(64, round(_SMALLER * search.imgsz / 32) * 32)
    best: list[float] = []
    again = labelled = found = beyond = 0
    for path, pixels in samples:
        boxes, scores = _objects(source, pixels, search, search.imgsz, device)
        best.append(float(scores[0]) if len(scores) else 0.0)
        mirrored, _ = _objects(source, pixels.flip(-1), search, search.imgsz, device)
        mirrored = torch.stack([1 - mirrored[:, 2], mirrored[:, 1], 1 - mirrored[:, 0], mirrored[:, 3]], 1)
        reduced, _ = _objects(source, pixels, search, smaller, device)
        again += int(all(_covered(boxes[:1], other) for other in (mirrored, reduced)))
        if labels is not None and len(wanted := labels(path)):
            beyond += len(wanted)
            labelled += min(len(wanted), search.max_objects)
            found += min(_covered(wanted, boxes), search.max_objects)
    number = max(1, len(best))
    score = float(torch.tensor(best or [0.0]).median())
    return Fit(source.name, len(best), score, again / number, labelled, found, beyond)


def _objects(
    source: ProposalSource, pixels: Tensor, search: Search, imgsz: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Boxes ``(N, 4)``, as shares of the sides, and scores of the objects on an image, best first; on the CPU."""
    sizes = torch.tensor([pixels.shape[1:]])
    image, scale = fitted(pixels[None].to(device), sizes, imgsz)
    extent = (sizes.flip(1).float() * scale[:, None]).to(device)
    found = source.propose(image)[0]
    owner = torch.zeros(len(found), dtype=torch.int64, device=device)
    _, boxes, scores = chosen(owner, found[:, :4], found[:, 4], extent, search)
    return (boxes / extent.repeat(1, 2)).float().cpu(), scores.float().cpu()


def _covered(boxes: Tensor, others: Tensor) -> int:
    """How many of `boxes` ``(N, 4)`` one of `others` ``(M, 4)`` covers."""
    return int((box_iou(boxes, others) >= OVERLAP).any(1).sum()) if len(boxes) and len(others) else 0
