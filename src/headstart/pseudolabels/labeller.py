"""Finds objects of the user's classes on images: by a detector, and by a network that names what the detector finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headstart import ranks
from headstart.errors import UserError
from headstart.images.loader import PixelBatch
from headstart.pseudolabels import box_ends
from headstart.pseudolabels.base import DetectionHead, PseudoLabels
from headstart.pseudolabels.box_classifier import AREA, LEAST_SCORE, BoxClassifier, Looks
from headstart.pseudolabels.box_ends import BoxEnds
from headstart.pseudolabels.examples import some_boxes, some_images
from headstart.pseudolabels.finder import AnyObject, Finder
from headstart.pseudolabels.fit import LABELLED, RECALL
from headstart.pseudolabels.labelling import Detections, detect, hits
from headstart.pseudolabels.search import fitted_from
from headstart.teachers.base import Teacher
from headstart.views.draws import Purpose, draws

TOGETHER = 64
"""Images that are looked at together: processes share out whole batches, which are those that one process looks at."""
LEARNT_FROM = 2000
"""Labelled images that a network learns the names of classes from, at most."""
BOXES = 4000
"""Labelled boxes, likewise: eight looks at each take a minute or two on a core, and some 160 MB."""
MOST = 100
"""Objects that are labelled on an image, at most, where none with labels has half as many."""
_LEAST, _MOST = 0.002, 300  # score and number of boxes on a labelled image among which those that are no object are


@dataclass
class Learnt:
    """What the labelled images tell of one very detector; empty before it was asked.

    Attributes:
        classifier: Names the classes of what it finds; None also where no network names them.
        ends: By how much its boxes are to be moved.
    """

    classifier: BoxClassifier | None = None
    ends: BoxEnds | None = None

    def record(self) -> dict[str, Any]:
        """What is told of it beside the labels."""
        return {} if self.ends is None else self.ends.record()


class Labeller:
    """What one finds on images, batch after batch.

    Args:
        read: Brings the images at some rows; see `headstart.methods.base.Context.read`.
        labels: Those that the user gives, for all rows of the index.
        known: int64 ``(K,)``: rows of the labelled images that may be learnt from.
        classes: How many there are.
        least: Least score of what is found.
        most: Objects an image at most; None: 100, or twice as many as any image has labels, which may be few of all.
        namer: Network that tells the classes of what the detector finds; None: the detector tells them.
        mirrored: Whether a class looks the same in a mirror.
        calibrate: Whether boxes are moved to where the labelled images say that objects end.
        seed: Of the choice among many labelled images.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int], int], Iterable[PixelBatch]] | None,
        labels: PseudoLabels,
        known: Tensor,
        classes: int,
        *,
        least: float,
        most: int | None,
        namer: Teacher | None = None,
        calibrate: bool = True,
        mirrored: bool = True,
        seed: int = 0,
    ) -> None:
        self._read, self._labels, self._known, self._classes = read, labels, known, classes
        self._least, self._most = least, most or max(MOST, 2 * int(labels.first.diff().max()))
        self._namer, self._calibrate, self._mirrored, self._seed = namer, calibrate, mirrored, seed

    def found(
        self,
        rows: Sequence[int],
        network: nn.Module,
        head: DetectionHead,
        imgsz: int,
        learnt: Learnt | None = None,
        both: bool = False,
    ) -> Detections:
        """What a detector, which is put into evaluation mode, finds on the images at these rows.

        Of several processes each looks at a part of the images; all get what all have found.

        Args:
            rows: Of the images in the index.
            network: Up to the pyramid.
            head: Of the detector.
            imgsz: Side of the square at which images are looked at, pixels; rounded up to a multiple of 32.
            learnt: What was learnt of this very detector before; what is not there yet is put here.
            both: Whether the detector has a say in the class beside the network that names.
        """
        network.eval()
        head.eval()
        imgsz = -(-imgsz // 32) * 32
        learnt = Learnt() if learnt is None else learnt
        if learnt.ends is None:
            learnt.ends = self._ends(network, head, imgsz)
        ends = learnt.ends
        if self._namer is None:
            batches = self._detected(rows, network, head, imgsz, self._least, self._most, open_from=self._least)
            return self._joined(lambda: [ends.moved(batch, found, imgsz) for batch, found, _ in batches])
        if learnt.classifier is None:
            learnt.classifier = self._classifier(self._namer, network, head, imgsz)
        classifier = learnt.classifier
        least = min(LEAST_SCORE, self._least)
        batches = self._detected(rows, network, head, imgsz, least, self._most, AREA, open_from=self._least)
        found = self._joined(
            lambda: [
                ends.moved(batch, _named(classifier, batch, found, own if both else None), imgsz)
                for batch, found, own in batches
            ]
        )
        return found.those(found.scores >= self._least)

    def taught_by(self, finder: Finder) -> str:
        """What a finder finds, in words; one that was taught other things learns what its scores are worth here.

        Raises:
            UserError: It finds hardly any of the labelled objects.
        """
        finder.network.eval()
        finder.head.eval()
        random = draws(self._seed, Purpose.NAMER_IMAGES)
        some = some_images(self._labels, self._known, LEARNT_FROM, random)
        batches = self._detected(some.tolist(), finder.network, finder.head, finder.imgsz, _LEAST, _MOST)

        def look() -> Detections:
            return Detections.join([found for _, found, _ in batches])

        found = Detections.join(ranks.of_all(ranks.all_do(look)))
        owner, boxes, _ = self._labels.of(some)
        any_class = torch.zeros(len(boxes), dtype=torch.int64)
        right = hits(replace(found, labels=torch.zeros_like(found.labels)), some[owner], boxes, any_class)
        number, objects = int(right.sum()), len(boxes)
        told = f"{finder.name} finds {number:,} of {objects:,} labelled objects"
        if objects >= LABELLED and number < RECALL * objects:
            hint = "give a detector that knows such images, or leave it out"
            raise UserError(told, where="proposals", hint=hint)
        if isinstance(finder.head, AnyObject):
            finder.head.learn(found.scores, right)
        return f"{told}, and labels the images the first time"

    @staticmethod
    def _joined(work: Callable[[], list[Detections]]) -> Detections:
        """What all processes find, in the order of the images."""
        return Detections.join(ranks.of_all(Detections.join(ranks.all_do(work))))

    def _ends(self, network: nn.Module, head: DetectionHead, imgsz: int) -> BoxEnds:
        """Learnt anew from the labelled images, as the detector itself has."""
        if not self._calibrate or len(self._labels.of(self._known)[0]) < box_ends.LEAST:
            return BoxEnds.learnt(torch.zeros(0, 6))
        random = draws(self._seed, Purpose.CALIBRATION_IMAGES)
        some = self._known[torch.randperm(len(self._known), generator=random)[: box_ends.IMAGES]].sort().values.tolist()
        batches = self._detected(some, network, head, imgsz, self._least, self._most)

        def look() -> list[Tensor]:
            return [box_ends.off_by(one, found, *self._labels.of(one.indices)[:2], imgsz) for one, found, _ in batches]

        off = [one for own in ranks.of_all(ranks.all_do(look)) for one in own]
        return BoxEnds.learnt(torch.cat([torch.zeros(0, 6), *off]))

    def _classifier(self, namer: Teacher, network: nn.Module, head: DetectionHead, imgsz: int) -> BoxClassifier:
        """Learnt anew from the labelled images: what the detector takes for objects changes as it learns."""
        random = draws(self._seed, Purpose.NAMER_IMAGES)
        some = some_images(self._labels, self._known, LEARNT_FROM, random)
        boxes = some_boxes(self._labels, some, BOXES, random)
        made = BoxClassifier(namer, self._classes, mirrored=self._mirrored)
        batches = self._detected(some.tolist(), network, head, imgsz, _LEAST, _MOST, AREA)

        def look() -> list[Looks]:
            return [
                made.looks(one, found, *self._labels.of(one.indices), boxes.of(one.indices)[2] == 1)
                for one, found, _ in batches
            ]

        looks: list[Looks] = []
        ranks.to_first(ranks.all_do(look), looks.extend)
        made.learnt = ranks.first_does(lambda: made.learn(looks))
        return made

    def _detected(
        self,
        rows: Sequence[int],
        network: nn.Module,
        head: DetectionHead,
        imgsz: int,
        least: float,
        most: int,
        area: int = 0,
        open_from: float | None = None,
    ) -> Iterator[tuple[PixelBatch, Detections, Tensor]]:
        """Batches of this process's part of the images, of so many pixels each at most; see `detect`."""
        assert self._read is not None, "there is nothing to read images with"
        device = next(network.parameters()).device
        for batch in self._read(own_part(rows), max(area, fitted_from(imgsz))):
            there = batch.to(device)
            yield there, *detect(network, head, there, imgsz, least=least, most=most, open_from=open_from)


def _named(classifier: BoxClassifier, batch: PixelBatch, found: Detections, own: Tensor | None) -> Detections:
    """See `BoxClassifier.named`; what is beyond the objects that are labelled is not looked at, and comes last."""
    if found.beyond is None:
        return classifier.named(batch, found, own)
    named = classifier.named(batch, found.within, None if own is None else own[~found.beyond])
    both = Detections.join([named, replace(found.those(found.beyond), looked=found.looked[:0])])
    return both.those(both.owner(batch).argsort(stable=True))


def own_part(rows: Sequence[int]) -> Sequence[int]:
    """Of some images those that this process looks at: whole batches, after those of the process before it."""
    batches = -(-len(rows) // TOGETHER)
    first, last = (batches * end // ranks.world() * TOGETHER for end in (ranks.rank(), ranks.rank() + 1))
    return rows[first:last]
