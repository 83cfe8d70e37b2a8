"""Measures of a network on a few fixed images: while it is trained, and of any checkpoint (``headstart probe``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.detectors.base import evaluating
from headstart.errors import UserError
from headstart.images.index import ImageIndex
from headstart.images.labels import Labels, keypoints_for, label_path, read_labels
from headstart.images.samples import sample_images
from headstart.launch.random_state import undrawn
from headstart.probes import metrics
from headstart.probes.labelled import box_features, knn_accuracy, linear_accuracy
from headstart.settings.schema import PretrainSettings

BOXES = 64
"""Labelled boxes of an image, evenly over its list: each is compared with each of all images."""
CELLS = 2_000
"""Cells of the maps from which DSE is computed: its clusters cost time."""


@dataclass
class Samples:
    """Images that a probe looks at.

    Attributes:
        pixels: uint8 ``(N, 3, S, S)``: whole images, stretched to squares.
        boxes: Labelled boxes of each, ``(n, 4)`` in shares of its sides; empty without labels.
        classes: int64, of all boxes in the order of the images.
        owner: int64, the image of each box.
        skipped: Path of each image that was to be looked at and could not be read, and why.
    """

    pixels: Tensor
    boxes: list[Tensor]
    classes: Tensor
    owner: Tensor
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, images: ImageIndex, *, number: int, imgsz: int, labels: bool) -> Samples:
        """Up to `number` images, evenly spread over the index; with `labels` also the boxes that lie beside them."""
        pixels: list[Tensor] = []
        found: list[Tensor] = []
        skipped: list[tuple[str, str]] = []
        keypoints = keypoints_for("", images.keypoints)
        for path, image in sample_images(images, number, 4 * imgsz**2, skipped):
            pixels.append(_squeezed(image, imgsz))
            there = read_labels(label_path(path), keypoints=keypoints) if labels else Labels(label_path(path))
            boxes = torch.from_numpy(there.array())
            some = min(len(boxes), BOXES)
            found.append(boxes[torch.arange(some) * len(boxes) // max(1, some)])
        if not pixels:
            raise UserError("no image can be read of those that were tried", where="data", hint="look at the files")
        owner = torch.tensor([place for place, boxes in enumerate(found) for _ in range(len(boxes))], dtype=torch.long)
        rows = torch.cat(found)
        return cls(torch.stack(pixels), [boxes[:, 1:] for boxes in found], rows[:, 0].long(), owner, skipped)


def _squeezed(image: Tensor, size: int) -> Tensor:
    pixels = functional.interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True)[0]
    return pixels.round().clamp(0, 255).byte()


@torch.no_grad()
def measured(trunk: nn.Module, samples: Samples, batch: int = 32) -> dict[str, float]:
    """Spread, RankMe and DSE of the last map; with labels how well boxes are told apart on all maps.

    The trunk, and all random numbers, stay as they were.

    Args:
        trunk: Called with images float (B, 3, S, S) in [0, 1], gives maps.
        samples: What it is fed.
        batch: Images at once.
    """
    device = next(trunk.parameters()).device
    with evaluating(trunk):
        parts = [trunk(part.to(device).float() / 255) for part in torch.split(samples.pixels, batch)]
    maps = [torch.cat(level).float().cpu() for level in zip(*parts, strict=True)]
    return measures(maps, samples)


class Probe:
    """Measures one trunk as it is trained, and remembers what it began with; the arguments are those of `measured`."""

    def __init__(self, trunk: nn.Module, samples: Samples, batch: int = 32) -> None:
        self.trunk, self.samples, self.batch = trunk, samples, batch
        first = measured(trunk, samples, batch)
        # The lines that alarms compare with; the same in a resumed run, which begins with the same weights.
        self._start = {f"{name}_start": first[name] for name in ("probe_rankme", "probe_knn") if name in first}

    def __call__(self) -> dict[str, float]:
        """The measures now, and where they were before the first step."""
        return {**measured(self.trunk, self.samples, self.batch), **self._start}


def during(student: nn.Module, images: ImageIndex, settings: PretrainSettings) -> Probe | None:
    """The probe of a run, made before its first step; None where the run is to have none, or no image was found."""
    if not settings.probe_every:
        return None
    imgsz = max(32, settings.imgsz // 32 * 32)
    try:
        samples = Samples.read(images, number=64, imgsz=imgsz, labels=settings.probe_labels)
    except UserError:  # bad images never stop a run that still has good ones; the loader tells of them
        return None
    return Probe(student, samples)


def measures(maps: Sequence[Tensor], samples: Samples) -> dict[str, float]:
    """What a probe says of feature maps ``(N, C, h, w)``, finest first."""
    pooled = maps[-1].mean((2, 3))
    if not bool(pooled.isfinite().all()):
        return {}
    found = {f"probe_{name.removeprefix('feature_')}": one for name, one in metrics.spread_measures(pooled).items()}
    found |= {"probe_rankme": metrics.rankme(pooled), "probe_dse": dse(maps[-1])}
    if len(samples.classes):
        features = box_features(list(maps), samples.boxes)
        found["probe_knn"] = knn_accuracy(features, samples.classes, samples.owner)
        found["probe_linear"] = linear_accuracy(features, samples.classes, samples.owner)
    return found


def dse(cells: Tensor) -> float:
    """DSE of a map ``(N, C, h, w)``, as lightly has it: separation of clusters of cells plus effective dimensions.

    Its clusters begin at random: drawn from a fixed seed, so that two measures of the same features agree.
    """
    from lightly.loss.regularizer import DSERegularizer  # brings timm: a second and a half that a run without needs not

    tokens = cells.flatten(2).transpose(1, 2)
    tokens = tokens[:: max(1, tokens.shape[0] * tokens.shape[1] // CELLS)]
    with undrawn():  # a seed is one of every device, too, wherever the map is
        torch.manual_seed(0)
        return -float(DSERegularizer()(tokens))
