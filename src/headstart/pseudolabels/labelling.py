"""Labels for images that have none, by a detector of the user's classes; how far they agree with labels that are known.

What it is sure of becomes a label, what it hardly sees is background, and what lies between is left open (-1): to teach
it as background would punish a student for finding what its teacher missed (Xu et al., "Efficient Teacher", 2023, arXiv
2302.07577).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from headstart.images.class_names import told_apart
from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import DetectionHead, PseudoLabels, rank_of
from headstart.pseudolabels.search import fitted

OVERLAP = 0.6
"""Intersection over union from which two boxes are one object, whatever their classes."""
AT_ONCE = 64 * 320**2
"""Pixels that the network looks at in one pass, about those of a step: more may not fit beside what training took."""
MATCH = 0.5
"""Intersection over union from which a box is the labelled one."""
NAMED = {"network": "named by the network", "both": "named by network and detector together"}


def at_once(imgsz: int) -> int:
    """Images of this side, pixels, that go through a network in one pass: one at least."""
    return max(1, AT_ONCE // imgsz**2)


@dataclass(frozen=True)
class Detections:
    """What a detector finds on some images.

    Attributes:
        rows: int64 ``(M,)``: of the images in the index; best first within an image.
        boxes: float32 ``(M, 4)``: x0, y0, x1, y1 as shares of the image's sides.
        scores: float32 ``(M,)``.
        labels: int64 ``(M,)``.
        looked: int64 ``(R,)``: rows of all images that were looked at.
        beyond: bool ``(M,)``: found beyond as many objects as are labelled on an image: there is something, which
            nobody names, so that it is left open. None: nothing was.
    """

    rows: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    looked: Tensor
    beyond: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[Detections]) -> Detections:
        """Those of several batches."""
        names = ("rows", "boxes", "scores", "labels", "looked")
        if not parts:
            none = torch.zeros(0, dtype=torch.int64)
            return cls(none, torch.zeros(0, 4), torch.zeros(0), none, none)
        rows, boxes, scores, labels, looked = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        beyond = torch.cat([part.more for part in parts])
        return cls(rows, boxes, scores, labels, looked, beyond if beyond.any() else None)

    @property
    def more(self) -> Tensor:
        """`beyond` as a tensor, whatever it is."""
        return torch.zeros(len(self.rows), dtype=torch.bool) if self.beyond is None else self.beyond

    @property
    def within(self) -> Detections:
        """Without those that are `beyond`."""
        return self if self.beyond is None else self.those(~self.beyond)

    def on(self, rows: Tensor) -> Detections:
        """Those on some of the images, int64 ``(n,)``."""
        here = torch.isin(self.rows, rows)
        looked = self.looked[torch.isin(self.looked, rows)]
        return replace(self.those(here), looked=looked)

    def owner(self, batch: PixelBatch) -> Tensor:
        """int64 ``(M,)``: place in the batch of the image of each box, all of which are in it."""
        place = {row: at for at, row in enumerate(batch.indices.tolist())}
        return torch.tensor([place[row] for row in self.rows.tolist()], dtype=torch.int64)

    def those(self, good: Tensor) -> Detections:
        """Some of the boxes; all images stay looked at."""
        beyond = None if self.beyond is None else self.beyond[good]
        return Detections(self.rows[good], self.boxes[good], self.scores[good], self.labels[good], self.looked, beyond)


@dataclass(frozen=True)
class Labelling:
    """What a detector labels on some images.

    Attributes:
        sure: Boxes that are taken for objects.
        unsure: Boxes that are left open, on the same images.
        keep: float64 ``(C,)``: score of each class that tells the two apart; None where all have the same.
    """

    sure: Detections
    unsure: Detections
    keep: Tensor | None = None

    @classmethod
    def split(cls, found: Detections, keep: float | Tensor) -> Labelling:
        """Take what has a score of `keep` and up, a number or one for each class, for objects; leave the rest open."""
        good = kept(found, keep)
        return cls(found.those(good), found.those(~good), keep if isinstance(keep, Tensor) else None)

    def counts(self, names: Sequence[str]) -> dict[str, Any]:
        """In numbers: images, those with labels, labels, boxes left open, mean score (None without labels), classes.

        Args:
            names: Of the classes, which are `told_apart`; those without a label are left out of ``classes``.

        Returns:
            Also ``keep``, the score of each class from which boxes are kept, where they differ; and ``cut``, the
            number of images with more objects than are labelled on one, where there are any.
        """
        sure, names = self.sure, told_apart(names)
        number = torch.bincount(sure.labels, minlength=len(names)).tolist()
        return {
            "images": len(sure.looked),
            "with_labels": len(set(sure.rows.tolist())),
            "labels": len(sure.rows),
            "left_open": len(self.unsure.rows),
            "mean_score": float(sure.scores.mean()) if len(sure.rows) else None,
            "classes": {name: count for name, count in zip(names, number, strict=True) if count},
            **({"cut": cut} if (cut := len(set(self.unsure.rows[self.unsure.more].tolist()))) else {}),
            **({} if self.keep is None else {"keep": dict(zip(names, self.keep.tolist(), strict=True))}),
        }


def kept(found: Detections, keep: float | Tensor) -> Tensor:
    """bool ``(M,)``: whether a box has the score from which it is kept, a number or one for each class, ``(C,)``."""
    good: Tensor = found.scores >= (keep[found.labels].float() if isinstance(keep, Tensor) else keep)
    return good & ~found.more


def told(counts: Mapping[str, Any], who: str = "the teacher") -> str:
    """`Labelling.counts` in a sentence, with how far they agree with held-out labels where that was measured."""
    words = (
        f"{who} labelled {counts['with_labels']:,} of {counts['images']:,} images: {counts['labels']:,} boxes of "
        f"{len(counts['classes'])} classes"
    )
    words += f", mean score {counts['mean_score']:.2f}" if counts["mean_score"] is not None else ""
    words += f"; {counts['left_open']:,} left open"
    if cut := counts.get("cut"):
        words += f"; {cut:,} images show more objects than max_objects=, and the others are left open: raise it"
    words += f"; {NAMED[counts['named_by']]}" if counts.get("named_by") in NAMED else ""
    if ends := counts.get("ends"):
        words += f"; boxes moved by {ends['most']:.1f} pixels at one end, as far as they end beside the labels you gave"
    if keep := counts.get("keep"):
        least, most = min(keep, key=keep.__getitem__), max(keep, key=keep.__getitem__)
        words += f"; kept from a score of {keep[least]:.2f} ({least}) to {keep[most]:.2f} ({most})"
    if counts.get("precision") is not None and counts.get("recall") is not None:
        words += (
            f"; of the held-out labels {counts['recall']:.0%} found, {counts['precision']:.0%} of what it gave right"
        )
    return words


@torch.no_grad()
def detect(
    network: nn.Module,
    head: DetectionHead,
    batch: PixelBatch,
    imgsz: int,
    *,
    least: float,
    most: int,
    open_from: float | None = None,
) -> tuple[Detections, Tensor]:
    """What a detector in evaluation mode finds on whole images, scaled to fit a gray square.

    Args:
        network: Up to the pyramid, on the device of the batch's pixels.
        head: Of the detector.
        batch: Images.
        imgsz: Side of the square in pixels, a multiple of the largest stride.
        least: Least score.
        most: Objects an image at most.
        open_from: Least score of what is found beyond these, and stays as `Detections.beyond`; None: nothing does.

    Returns:
        The boxes, and the scores of all classes of each, float32 ``(M, C)`` on the CPU.
    """
    device = batch.pixels.device
    images, scale = fitted(batch.pixels, batch.sizes, imgsz)
    if next(network.parameters()).is_contiguous(memory_format=torch.channels_last):
        images = images.contiguous(memory_format=torch.channels_last)
    sizes = (batch.sizes.flip(1).float() * scale[:, None]).to(device).repeat(1, 2)
    passes, first = [], 0
    for some in torch.split(images, at_once(imgsz)):  # of all scores of all places there is no room
        boxes, scores = head.detections(network(some))
        best, label = scores.max(2)
        own, place = (best >= least).nonzero(as_tuple=True)
        passes.append((own + first, *(one[own, place] for one in (boxes, best, label, scores))))
        first += len(some)
    owner, boxes, best, label, scores = (torch.cat(each) for each in zip(*passes, strict=True))
    boxes = torch.minimum(boxes.clamp_min(0), sizes[owner])
    good = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    owner, boxes, best, label, scores = owner[good], boxes[good], best[good], label[good], scores[good]
    kept = batched_nms(boxes, best, owner, OVERLAP)
    kept = kept[owner[kept].argsort(stable=True)]
    beyond = rank_of(owner[kept]) >= most
    stay = ~beyond if open_from is None else ~beyond | (best[kept] >= open_from)
    kept, beyond = kept[stay], beyond[stay].cpu()
    owner = owner[kept]
    shares = boxes[kept] / sizes[owner]
    found = Detections(
        batch.indices[owner.cpu()],
        shares.float().cpu(),
        best[kept].float().cpu(),
        label[kept].cpu(),
        batch.indices.clone(),
        beyond if beyond.any() else None,
    )
    return found, scores[kept].float().cpu()


def best_overlaps(boxes: Tensor, place: Tensor, others: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Of each box the largest intersection over union with one of the others on its image, and which that is.

    Image by image: a batch with a thousand objects an image has more pairs than memory has room for.

    Args:
        boxes: ``(M, 4)``.
        place: int64 ``(M,)``: of the image of each.
        others: ``(N, 4)``.
        owner: int64 ``(N,)``: place of the image of each of these.

    Returns:
        ``(M,)``, 0 where an image has no other, and int64 ``(M,)``.
    """
    best, which = torch.zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64)
    for image in torch.unique(place).tolist():
        mine, theirs = (place == image).nonzero()[:, 0], (owner == image).nonzero()[:, 0]
        if len(theirs):
            best[mine], nearest = box_iou(boxes[mine], others[theirs]).max(1)
            which[mine] = theirs[nearest]
    return best, which


def replaced(labels: PseudoLabels, found: Detections, classes: Tensor) -> PseudoLabels:
    """`labels` with those of the images that were looked at replaced by what was `found`."""
    images = len(labels.first) - 1
    looked = torch.zeros(images, dtype=torch.bool)
    looked[found.looked] = True
    owner = torch.repeat_interleave(torch.arange(images), labels.first.diff())
    stay = ~looked[owner]
    return PseudoLabels.gather(
        images,
        torch.cat([owner[stay], found.rows]),
        torch.cat([labels.boxes[stay], found.boxes]),
        torch.cat([labels.scores[stay], found.scores]),
        torch.cat([labels.labels[stay], classes]),
    )


@dataclass(frozen=True)
class Agreement:
    """How far labels agree with those that are known, class by class.

    Attributes:
        right: int64 ``(C,)``: labels that a known one of their class overlaps.
        given: int64 ``(C,)``: labels.
        known: int64 ``(C,)``: labels that are known.
    """

    right: Tensor
    given: Tensor
    known: Tensor

    @property
    def precision(self) -> float | None:
        """Share of the labels that are right; None without any."""
        return _share(self.right, self.given)

    @property
    def recall(self) -> float | None:
        """Share of the known labels that were given; None without any."""
        return _share(self.right, self.known)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two: 2 right / (given + known); None where there are neither."""
        return _share(2 * self.right, self.given + self.known)

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of each class that is known or given, by names that are `told_apart`: how many, and how many are right."""
        return {
            name: {
                "known": int(self.known[at]),
                "given": int(self.given[at]),
                "right": int(self.right[at]),
            }
            for at, name in enumerate(told_apart(names))
            if int(self.known[at]) or int(self.given[at])
        }


def _share(part: Tensor, whole: Tensor) -> float | None:
    total = int(whole.sum())
    return int(part.sum()) / total if total else None


def hits(found: Detections, rows: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """bool ``(M,)``: whether a box takes a known one of its image and class; the best-scored take first."""
    right = torch.zeros(len(found.rows), dtype=torch.bool)
    for row in sorted(set(rows.tolist())):  # image by image: all boxes of thousands of images against all are too many
        here, own = (found.rows == row).nonzero()[:, 0], (rows == row).nonzero()[:, 0]
        here = here[found.scores[here].argsort(descending=True, stable=True)]
        overlap = box_iou(found.boxes[here], boxes[own])
        overlap[found.labels[here][:, None] != labels[own][None]] = 0
        for place, one in enumerate(here.tolist()):
            best = int(overlap[place].argmax())
            if float(overlap[place, best]) >= MATCH:
                right[one] = True
                overlap[:, best] = 0
    return right


def average_precision(found: Detections, rows: Tensor, boxes: Tensor, labels: Tensor) -> float:
    """Area under precision over recall of boxes with their classes, all classes together; 0 where nothing is known.

    The arguments are those of `agreement`. Precision is that of the best recall beyond, as in Everingham et al., 2010.
    """
    if not len(boxes) or not len(found.rows):
        return 0.0
    right = hits(found, rows, boxes, labels).double()
    right = right[found.scores.argsort(descending=True, stable=True)]
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    return float((best * right).sum() / len(boxes))


def agreement(found: Detections, rows: Tensor, boxes: Tensor, labels: Tensor, classes: int) -> Agreement:
    """Compare what was found with labels that are known, on the images that were looked at.

    Each known box takes the best-scored box of its class that overlaps it by `MATCH` and is not taken.

    Args:
        found: Labels to be judged.
        rows, boxes, labels: Known ones: row of the image, box in shares of its sides, class.
        classes: How many there are.
    """
    looked = set(found.looked.tolist())
    seen = torch.tensor([row in looked for row in rows.tolist()], dtype=torch.bool)
    rows, boxes, labels = rows[seen], boxes[seen], labels[seen]
    right = found.labels[hits(found, rows, boxes, labels)]
    return Agreement(*(torch.bincount(values, minlength=classes) for values in (right, found.labels, labels)))
