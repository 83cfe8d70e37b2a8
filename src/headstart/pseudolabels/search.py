"""Finding objects on unlabelled images with a trained detector, and dividing them into kinds: once, before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, roi_align

from headstart.detectors.base import Detector, evaluating, load_detector
from headstart.errors import UserError
from headstart.images.index import ImageIndex
from headstart.images.loader import ImageLoader, PixelBatch, steps_for
from headstart.machine import loader_workers
from headstart.pseudolabels.base import MARGIN, Objects
from headstart.pseudolabels.cluster import clustered
from headstart.run.display import Filling
from headstart.run.folder import RunFolder
from headstart.settings.resolve import Resolved
from headstart.teachers.base import Teacher, TeacherSource
from headstart.teachers.load import load_teacher
from headstart.views.boxes import area
from headstart.views.mosaic import GRAY

UNSURE = 0.02
"""Median of the images' best scores below which that is said; COCO's detector has 0.17 on FOD-A, whose debris it was
never taught and finds."""
OVERLAP = 0.5
"""Intersection over union from which two boxes are one object."""
LOOK = 160
"""Pixels a side to which the square around an object, `MARGIN`, is scaled; none is smaller than a fifth of that."""


@dataclass(frozen=True)
class Search:
    """How objects are looked for; see the options of ``methods/objects.py``."""

    imgsz: int
    most: int
    least: float
    largest: float
    clusters: int
    components: int
    seed: int


def objects_of(
    resolved: Resolved,
    folder: RunFolder,
    images: ImageIndex,
    detector: Detector,
    device: torch.device,
    steps: int,
    resuming: bool,
) -> Objects:
    """What is found on the images that a run will see; in a run that goes on, what was found when it began.

    Args:
        resolved: Settings; the method's have the options of the search.
        folder: Where the objects are kept.
        images: Of the run.
        detector: Of the run, with the weights that it starts from.
        device: Where to compute.
        steps: Of the run.
        resuming: Whether it goes on.

    Raises:
        UserError: Nothing is found; or a run that goes on has other images, or has lost its objects.
    """
    path = folder.path / "objects.pt"
    if resuming:
        if folder.read_settings()["resolved"].get("images_fingerprint") != images.fingerprint():
            what = "the images are not those on which this run found its objects"
            raise UserError(what, where="data", hint="bring the images back, or start a new run")
        return Objects.load(path)
    s, o = resolved.run, resolved.method
    search = Search(
        **{name: getattr(o, name) for name in ("most", "least", "largest", "clusters", "components")},
        imgsz=-(-o.proposal_imgsz // 32) * 32,  # type: ignore[attr-defined]
        seed=s.seed,
    )
    proposals = o.proposals  # type: ignore[attr-defined]
    finder = detector if proposals is None else load_detector(proposals)
    asked = TeacherSource.of(o.model_dump())
    teacher = load_teacher(asked, neck=False) if asked.teacher is not None else None
    all_of_them = steps_for(1, len(images), s.batch)
    batches = min(steps, all_of_them) if s.budget is None else all_of_them
    total = min(len(images), batches * s.batch)
    kinds = f" and for their kinds with {teacher.name}" if teacher else ""
    say_found = f"looking for objects on {total:,} images with {finder.name}{kinds}, once before the first step"
    folder.log(say_found)
    display = Filling(label="finding objects")
    display.console.print(say_found)
    with ImageLoader(
        images,
        batch=s.batch,
        max_area=2 * search.imgsz**2,
        workers=loader_workers(s.workers, device),
        seed=s.seed,
        steps=batches,
    ) as loader:
        found = find_objects(
            finder, loader, len(images), search,
            device=device, teacher=teacher, skip=folder.skip, progress=display, total=total,
        )  # fmt: skip
    found.save(path)
    for line in summary(found, total, unseen=len(images) - total):
        folder.log(line)
        display.console.print(line)
    return found


def summary(found: Objects, images: int, unseen: int) -> list[str]:
    """What came out of a search of `images` images; `unseen` others will not be shown to the network."""
    number = found.first.diff()
    without = int((number == 0).sum()) - unseen
    sure = float(found.scores[found.first[:-1][number > 0]].median())  # an image's best comes first
    lines = [
        f"{len(found.boxes):,} objects on {images:,} images ({len(found.boxes) / images:.1f} an image), "
        f"{without:,} images without; {len(torch.unique(found.clusters))} kinds; median score of the best {sure:.2g}"
    ]
    if sure < UNSURE:
        lines.append(
            "that detector is hardly sure of anything on these images: look at the kinds in the report, and if they "
            "are no things, give proposals= a detector that knows such images, or use method=pyramid"
        )
    return lines


def find_objects(
    detector: Detector,
    batches: Iterable[PixelBatch],
    images: int,
    search: Search,
    *,
    device: torch.device,
    teacher: Teacher | None = None,
    skip: Callable[[list[tuple[str, str]]], Any] = lambda skipped: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    total: int = 0,
) -> Objects:
    """The objects that `detector` sees, with numbers for their kinds.

    Args:
        detector: A trained one; its classes are not looked at. Left as it was, on `device`.
        batches: Each image once or more.
        images: Number of images in the index.
        search: What counts as an object.
        device: Where to compute.
        teacher: Tells the kinds apart; None: the detector's backbone.
        skip: Told of unreadable images.
        progress: Told how many of `total` images are done.
        total: Images that `batches` bring.

    Raises:
        UserError: No object is found at all.
    """
    detector.module.to(device)
    looks: nn.Module = detector.trunk()
    if teacher is not None:
        # Depthwise convolutions, which many a teacher has, take 0.6 of the time on a CPU in this order.
        looks = teacher.to(device).to(memory_format=torch.channels_last)
    seen = torch.zeros(images, dtype=torch.bool)
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    done = 0
    for batch in batches:
        skip(batch.skipped)
        new = torch.tensor([place for place, row in enumerate(batch.indices.tolist()) if _first(seen, row)])
        done += len(batch.indices)
        if len(new):
            kept.append(_of_batch(detector, looks, batch, new, search, device))
        progress(min(done, total), total)
    rows, boxes, scores, features = (torch.cat(parts) for parts in zip(*kept, strict=True))
    if not len(rows):
        hint = "give proposals= a detector that knows such images, or use method=pyramid, which needs no objects"
        raise UserError(f"{detector.name} finds no object on {int(seen.sum())} images", where="proposals", hint=hint)
    kinds = clustered(features, search.clusters, search.components, search.seed)
    return Objects.gather(images, rows, boxes, scores, kinds)


def _first(seen: Tensor, row: int) -> bool:
    """Whether an image comes for the first time: the last batch is filled up from the next epoch."""
    again = bool(seen[row])
    seen[row] = True
    return not again


@torch.no_grad()
def _of_batch(
    detector: Detector, looks: nn.Module, batch: PixelBatch, new: Tensor, search: Search, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row of the image, box in shares of it, score and features of every object; on the CPU."""
    images, scale = fitted(batch.pixels[new].to(device), batch.sizes[new], search.imgsz)
    sizes = batch.sizes[new].flip(1).float().to(device) * scale[:, None].to(device)
    found = detector.propose(images)
    owner = torch.arange(len(images), device=device).repeat_interleave(found.shape[1])
    owner, boxes, scores = chosen(owner, found[..., :4].flatten(0, 1), found[..., 4].flatten(), sizes, search)
    with nullcontext() if isinstance(looks, Teacher) else evaluating(looks):
        parts = zip(torch.split(owner, 64), torch.split(boxes, 64), strict=True)
        shifted = images - GRAY  # what lies outside of an image is read as 0
        features = [_features(looks, shifted, *part) for part in parts if len(part[0])]
    rows = batch.indices[new][owner.cpu()]
    return rows, (boxes / sizes.repeat(1, 2)[owner]).cpu(), scores.cpu(), torch.cat([torch.zeros(0).half(), *features])


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
    good = (room <= search.largest * sizes.prod(1)[owner]) & (boxes[:, 2:] - boxes[:, :2] >= 2).all(1)
    owner, boxes, scores = owner[good], boxes[good], scores[good]
    kept = batched_nms(boxes.float(), scores.float(), owner, OVERLAP)  # best first over the batch
    kept = kept[owner[kept].argsort(stable=True)]
    owner, boxes, scores = owner[kept], boxes[kept], scores[kept]
    number = torch.bincount(owner, minlength=len(sizes))
    place = torch.arange(len(owner), device=owner.device) - (number.cumsum(0) - number)[owner]
    best = scores.new_zeros(len(sizes)).scatter_reduce(0, owner, scores, "amax")
    good = (place < search.most) & (scores >= search.least * best[owner])
    return owner[good], boxes[good], scores[good]


def _features(looks: nn.Module, shifted: Tensor, owner: Tensor, boxes: Tensor) -> Tensor:
    """How objects look: a network's last map of a square around each, averaged; float16 ``(N, C)`` on the CPU."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = ((boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * MARGIN).clamp_min(LOOK / 5)
    squares = torch.cat([owner[:, None].to(boxes.dtype), middle - side / 2, middle + side / 2], 1)
    looked = roi_align(shifted, squares, LOOK, sampling_ratio=2, aligned=True) + GRAY
    if isinstance(looks, Teacher):
        looked = looked.contiguous(memory_format=torch.channels_last)
    last = looks(looked)[-1].float().mean((2, 3))
    return functional.normalize(last, dim=1).half().cpu()


def fitted(pixels: Tensor, sizes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Images scaled so that their longer side is `size`, in the upper left of gray squares.

    Args:
        pixels: uint8 ``(B, 3, H, W)``.
        sizes: int64 ``(B, 2)`` on the CPU: true heights and widths.
        size: A multiple of 32.

    Returns:
        float32 ``(B, 3, size, size)`` in [0, 1], and the scale of each ``(B,)`` on the CPU.
    """
    scale = size / sizes.amax(1).float()
    made = torch.full((len(pixels), 3, size, size), GRAY, device=pixels.device)
    for place, (height, width) in enumerate(sizes.tolist()):
        high, wide = (max(1, min(size, round(side * float(scale[place])))) for side in (height, width))
        one = pixels[place : place + 1, :, :height, :width].float() / 255
        made[place, :, :high, :wide] = functional.interpolate(
            one, (high, wide), mode="bilinear", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    return made, scale
