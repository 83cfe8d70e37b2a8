"""Finding objects on unlabelled images with a trained detector, and clustering them: once, before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from headstart import ranks
from headstart.detectors.base import evaluating
from headstart.errors import UserError
from headstart.images.loader import PixelBatch
from headstart.pseudolabels.base import ProposalSource, PseudoLabels, rank_of
from headstart.pseudolabels.cluster import clustered
from headstart.pseudolabels.looks import looks_of
from headstart.pseudolabels.parts import Objects, Parts
from headstart.pseudolabels.rounds import Look, in_rounds
from headstart.settings.method_options import ProposalOptions
from headstart.teachers.base import Teacher
from headstart.views.boxes import area
from headstart.views.resize import GRAY
from headstart.views.spec import SHARP

UNSURE = 0.02
"""Median of the images' best scores below which that is said; COCO's detector has 0.17 on FOD-A, whose debris it was
never taught and finds."""
AT_ONCE, _PIXELS = 32, 32 * 640**2
"""Images of a batch that are looked at together, and pixels of them: a batch is that of all devices, of any size."""
OVERLAP = 0.5
"""Intersection over union from which two boxes are one object."""


@dataclass(frozen=True)
class Search:
    """What counts as an object, and into how many clusters objects are divided; see `ProposalOptions`."""

    imgsz: int
    max_objects: int
    min_score: float
    max_area: float
    clusters: int
    components: int
    seed: int

    @classmethod
    def of(cls, options: ProposalOptions, seed: int) -> Search:
        """As the options of a method say; images are searched at a multiple of 32 pixels."""
        names = ("max_objects", "min_score", "max_area", "clusters", "components")
        return cls(-(-options.proposal_imgsz // 32) * 32, **{n: getattr(options, n) for n in names}, seed=seed)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        labels: Boxes and clusters, for all rows of the index.
        searched: bool ``(images,)``: the images that were looked at.
    """

    labels: PseudoLabels
    searched: Tensor

    def summary(self) -> list[str]:
        """What came out, in sentences."""
        images, number, boxes = int(self.searched.sum()), self.labels.first.diff(), len(self.labels.boxes)
        without = int((number[self.searched] == 0).sum())
        best = self.labels.scores[self.labels.first[:-1][number > 0]]  # an image's best comes first
        sure = float(best.median())
        lines = [
            f"{boxes:,} objects on {images:,} images ({boxes / images:.1f} an image), "
            f"{without:,} images without; {len(torch.unique(self.labels.labels))} clusters; "
            f"median score of the best {sure:.2g}"
        ]
        if sure < UNSURE:
            lines.append(
                "that detector is hardly sure of anything on these images: look at the clusters in the report, and if "
                "they are no things, give proposals= a detector that knows such images, or use method=pyramid"
            )
        return lines


def find_pseudolabels(
    source: ProposalSource,
    features: nn.Module,
    batches: Iterable[PixelBatch],
    images: int,
    search: Search,
    *,
    device: torch.device,
    skip: Callable[[list[tuple[str, str]]], Any] = lambda skipped: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    total: int = 0,
    seconds: float = math.inf,
    parts: Parts | None = None,
    asked: Callable[[], BaseException | None] = lambda: None,
) -> Found:
    """The objects that `source` finds, with the number of a cluster for a label.

    Of several processes each looks at its share of the batches; the first keeps what they find, and clusters it. What
    is found on a batch depends on that batch alone: it is the same whoever looks at it.

    Args:
        source: A trained detector, on `device`; its classes are not looked at.
        features: The network whose last map is clustered: a `Teacher`, or a trunk, which is left as it was.
        batches: Each image once or more, in batches of a size, those left out that `parts` has already. Of several
            processes the first has the first one, the second the next, and so on, in turn.
        images: Number of images in the index; what comes after as many is repeated.
        search: What counts as an object.
        device: Where to compute.
        skip: Told of unreadable images.
        progress: Told how many of `total` images are done.
        total: Images that `batches` bring.
        seconds: Time after which no further batch is searched; the first one, of each process, is in any case.
        parts: What was found before, to which all is added, in the first process; by default nothing, in memory.
        asked: What this process is asked to stop by, which is then raised in all once what was found is kept.

    Raises:
        UserError: No object is found at all.
    """
    features = features.to(device)
    if isinstance(features, Teacher):
        # Depthwise convolutions, which many a teacher has, take 0.6 of the time on a CPU in this order.
        features = features.to(memory_format=torch.channels_last)
    kept = parts or Parts()
    searched = torch.zeros(images, dtype=torch.bool)
    searched[kept.looked()] = True

    def take(look: Look) -> bool:
        skip(look.skipped)
        rows = look.rows[~searched[look.rows]]
        searched[rows] = True
        kept.add(None if look.objects is None or not len(rows) else look.objects.on(rows), rows, look.images)
        progress(min(kept.images, total), total)
        return kept.seconds > seconds

    first, more = ranks.from_first((kept.batches, not kept.batches or kept.seconds <= seconds))
    numbered = zip(count(first + ranks.rank(), ranks.world()), batches if more else ())
    looks = (_look(source, features, batch, images - at * len(batch.indices), search, device) for at, batch in numbered)
    ended = in_rounds(looks, take, asked)
    with suppress(UserError) if ended else nullcontext():
        ranks.first_does(kept.finish)
    if ended:
        raise ended
    return ranks.first_does(lambda: _clustered(source, kept, searched, search))


def together(imgsz: int) -> int:
    """Images that are looked at together at this side, at least one."""
    return max(1, min(AT_ONCE, _PIXELS // imgsz**2))


def _look(
    source: ProposalSource, features: nn.Module, batch: PixelBatch, fresh: int, search: Search, device: torch.device
) -> Look:
    """What is found on the first `fresh` images of a batch: the last one is filled up with what comes again."""
    places: dict[int, int] = {}
    for place, row in enumerate(batch.indices[: max(0, fresh)].tolist()):
        places.setdefault(row, place)
    few = torch.split(torch.tensor(list(places.values()), dtype=torch.int64), together(search.imgsz))
    found = [_of_images(source, features, batch, some, search, device) for some in few if len(some)]
    rows = torch.tensor(list(places), dtype=torch.int64)
    return Look(Objects.joined(found) if found else None, rows, len(batch.indices), batch.skipped)


def _clustered(source: ProposalSource, parts: Parts, searched: Tensor, search: Search) -> Found:
    every = [one for one in parts.found() if len(one.rows)]
    if not every:
        hint = "give proposals= a detector that knows such images, or use method=pyramid, which needs no objects"
        raise UserError(f"{source.name} finds no object on {int(searched.sum())} images", where="proposals", hint=hint)
    labels = clustered([one.features for one in every], search.clusters, search.components, search.seed)
    rows, boxes, scores = (torch.cat(several) for several in list(zip(*every, strict=True))[:3])
    return Found(PseudoLabels.gather(len(searched), rows, boxes, scores, labels), searched)


@torch.no_grad()
def _of_images(
    source: ProposalSource, looks: nn.Module, batch: PixelBatch, some: Tensor, search: Search, device: torch.device
) -> Objects:
    """The objects on `some` images of a batch, int64 ``(N,)``."""
    images, scale = fitted(batch.pixels[some].to(device), batch.sizes[some], search.imgsz)
    sizes = batch.sizes[some].flip(1).float().to(device) * scale[:, None].to(device)
    found = source.propose(images)
    owner = torch.arange(len(images), device=device).repeat_interleave(found.shape[1])
    owner, boxes, scores = chosen(owner, found[..., :4].flatten(0, 1), found[..., 4].flatten(), sizes, search)
    with nullcontext() if isinstance(looks, Teacher) else evaluating(looks):
        features = looks_of(looks, images, owner, boxes)
    rows = batch.indices[some][owner.cpu()]
    boxes = (boxes / sizes.repeat(1, 2)[owner]).cpu()
    return Objects(rows, boxes, scores.cpu(), features)


def chosen(
    owner: Tensor, boxes: Tensor, scores: Tensor, sizes: Tensor, search: Search
) -> tuple[Tensor, Tensor, Tensor]:
    """What of the boxes of a batch counts as an object: owner, box and score, image by image, best first.

    Args:
        owner: int64 ``(N,)``: image of each box.
        boxes: ``(N, 4)`` in pixels.
        scores: ``(N,)``.
        sizes: ``(B, 2)``: width and height of what is image in each, in pixels.
        search: The limits.
    """
    limit = sizes.repeat(1, 2)[owner]
    boxes = torch.minimum(boxes.clamp_min(0), limit)
    room = area(boxes)
    good = (room <= search.max_area * sizes.prod(1)[owner]) & (boxes[:, 2:] - boxes[:, :2] >= 2).all(1)
    owner, boxes, scores = owner[good], boxes[good], scores[good]
    kept = batched_nms(boxes.float(), scores.float(), owner, OVERLAP)  # best first over the batch
    kept = kept[owner[kept].argsort(stable=True)]
    owner, boxes, scores = owner[kept], boxes[kept], scores[kept]
    best = scores.new_zeros(len(sizes)).scatter_reduce(0, owner, scores, "amax")
    good = (rank_of(owner) < search.max_objects) & (scores >= search.min_score * best[owner])
    return owner[good], boxes[good], scores[good]


def fitted_from(size: int) -> int:
    """Pixels that images keep to be `fitted`: of twice the side, the four that it takes for one are all there are."""
    return SHARP * size**2


def fitted(pixels: Tensor, sizes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images scaled so that their longer side is `size`, as Ultralytics scales them, in the upper left of gray squares.

    Args:
        pixels: uint8 ``(B, C, H, W)``.
        sizes: int64 ``(B, 2)`` on the CPU: true heights and widths.
        size: A multiple of 32.

    Returns:
        float32 ``(B, C, size, size)`` in [0, 1], and the scale of each ``(B,)`` on the CPU.
    """
    scale = size / sizes.amax(1).float()
    made = torch.full((len(pixels), pixels.shape[1], size, size), GRAY, device=pixels.device)
    for place, (height, width) in enumerate(sizes.tolist()):
        high, wide = (max(1, min(size, round(side * float(scale[place])))) for side in (height, width))
        one = pixels[place : place + 1, :, :height, :width].float() / 255
        made[place, :, :high, :wide] = functional.interpolate(one, (high, wide), mode="bilinear", align_corners=False)[
            0
        ].clamp(0, 1)
    return made, scale
