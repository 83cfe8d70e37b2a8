"""Objects: the whole detector learns to find objects and to tell them apart, by boxes and kinds that no one labelled.

A trained detector (the COCO weights of the run's own start, or another) finds objects on the unlabelled images: its
boxes count, its classes do not. What is in the boxes is clustered by how it looks (`headstart.pseudolabels.cluster`) to
that detector's backbone, or to a stronger network that knows more things, `teacher=`. Boxes and cluster numbers then
serve as labels, and the detector is trained on them with the loss of its own family: backbone, neck and head together,
on mosaics as in the training that follows. After DeepCluster (Caron et al., 2018, arXiv 1807.05520), whose images are
boxes here, and pretraining of whole detectors on boxes without classes (AlignDet, Li et al., 2023, arXiv 2307.11077).
Objects are found and clustered once, before the first step.

The last layer of the class branches has an output a cluster while it trains; it stays out of the checkpoint.

Batch normalisation: the student is in training mode. No teacher is asked while it trains.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from headstart.methods.base import Method
from headstart.methods.schedules import Progress
from headstart.probes import metrics
from headstart.pseudolabels.base import ObjectHead
from headstart.pseudolabels.base import Objects as Found
from headstart.settings.schema import AdamWSettings, PretrainSettings, Scale
from headstart.views.boxes import to_view
from headstart.views.mosaic import clipped, mosaics
from headstart.views.spec import View, ViewSpec


class Settings(AdamWSettings):
    """Options of the objects method."""

    init_rate: float = Field(1.0, gt=0, le=1, description="with init=: factor on lr, unless you give lr")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises")
    clip: float | None = Field(10.0, gt=0, description="largest gradient norm; none: not clipped")
    proposals: str | None = Field(
        None, description="trained detector that finds the objects (a .pt); none: the run's own start, init= or model="
    )
    teacher: Any = Field(
        None,
        description="who tells the objects' kinds apart: a YOLO's .pt, the name of a timm model, or a torch module; "
        "none: the backbone of the detector that finds them",
    )
    teacher_weights: str | None = Field(
        None, description="file with the weights of a timm model as teacher; none: timm's own, downloaded once"
    )
    teacher_mean: tuple[float, float, float] | None = Field(
        None, description="mean of each colour that a torch module as teacher was trained with; none: 0"
    )
    teacher_std: tuple[float, float, float] | None = Field(
        None, description="standard deviation of each colour, likewise; none: 1"
    )
    proposal_imgsz: int = Field(320, ge=64, description="longer side at which images are searched for objects, pixels")
    most: int = Field(10, ge=1, description="objects that are kept an image at most")
    least: float = Field(0.4, gt=0, le=1, description="least score of an object, as a share of the image's best")
    largest: float = Field(0.8, gt=0, le=1, description="largest object, as a share of the image's area")
    clusters: int = Field(64, ge=2, description="kinds into which what was found is divided by how it looks")
    components: int = Field(64, ge=1, description="principal components of the features that are clustered")
    view_scale: Scale = Field((0.8, 1.0), description="share of the image's area that a view covers")
    jitter: float = Field(1.0, ge=0, le=1, description="probability of changed colours")
    mosaic: float = Field(1.0, ge=0, le=1, description="share of the steps with mosaics of four images")
    plain: float = Field(0.2, ge=0, le=1, description="share of the steps, at the end, without mosaics")


# Four images make one mosaic: the network sees a quarter of the batch.
PRESETS: dict[str, dict[str, Any]] = {"default": {"batch": 128}}


class Objects(Method):
    """Detection of what was found, with clusters for classes."""

    trains = "neck"
    head: ObjectHead

    def __init__(
        self, settings: Settings, run: PretrainSettings, student: nn.Module, widths: tuple[int, ...], head: ObjectHead
    ) -> None:
        super().__init__(settings, run, student, widths)
        self.head = head
        self._found: Found | None = None

    def take_objects(self, found: Found) -> None:
        """See `Method.take_objects`."""
        self._found = found

    def view_specs(self) -> list[ViewSpec]:
        """One view, as near to a detector's training as crops come: colours and shapes tell objects apart."""
        s = self.settings
        colours: dict[str, Any] = {
            "brightness": 0.4,
            "contrast": 0,
            "saturation": 0.7,
            "hue": 0.015,
            "gray": 0,
            "blur": 0,
        }
        return [ViewSpec("view", self.run.imgsz, s.view_scale, (0.9, 1.1), jitter=s.jitter, **colours)]

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The loss of the detector's own family: boxes, clusters, distribution of the box's sides."""
        images, owner, boxes, clusters = self.examples(views, progress)
        maps = self.student(images)
        parts = self.head(maps, owner, boxes / images.shape[-1], clusters)
        self._seen = (maps[-1].detach().float().mean((2, 3)), parts.detach(), len(boxes) / len(images))
        loss: Tensor = parts.sum()
        return loss

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images of a step and, of the objects on them, owner, boxes, cluster; decided by the seed and the step."""
        view = views[0]
        assert self._found is not None, "the objects have not been found"
        assert view.rows is not None
        assert view.sizes is not None
        s, size, device = self.settings, self.run.imgsz, view.images.device
        owner, shares, clusters = self._found.of(view.rows)
        boxes = shares * view.sizes.flip(1).float().repeat(1, 2)[owner]
        crop, flipped = view.boxes.cpu()[owner], view.flipped.cpu()[owner]
        moved, kept = clipped(to_view(boxes[:, None], crop, flipped, size)[:, 0], size)
        images, owner, moved, clusters = view.images, owner[kept], moved[kept], clusters[kept]
        random = torch.Generator().manual_seed(self.run.seed * 1_000_003 + progress.step + 700_000)
        lottery = float(torch.rand((), generator=random))
        if lottery >= s.mosaic or progress.step >= (1 - s.plain) * progress.steps:
            few = -(-len(view.images) // 4)  # as many as there are mosaics: steps of one size
            kept = owner < few
            images, owner, moved, clusters = images[:few], owner[kept], moved[kept], clusters[kept]
        else:
            images, owner, moved, clusters = mosaics(images, owner, moved, clusters, random)
        return images, owner.to(device), moved.to(device), clusters.to(device)

    def measures(self) -> dict[str, float]:
        """The parts of the loss, objects an image, and the spread of the student's pooled last map."""
        pooled, parts, number = self._seen
        names = ("loss_box", "loss_cluster", "loss_sides")
        return {
            **dict(zip(names, parts.tolist(), strict=True)),
            "objects_per_image": number,
            **metrics.spread_measures(pooled),
        }

    def handed_back(self, which: Literal["student", "teacher"]) -> dict[str, Tensor]:
        """Backbone, neck, and of the head all but the outputs for the clusters."""
        return {**super().handed_back(which), **self.head.handed_back()}
