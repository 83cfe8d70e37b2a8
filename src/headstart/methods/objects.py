"""Objects: the whole detector learns to find objects and to tell them apart, by boxes and clusters for labels.

A trained detector (the COCO weights of the run's own start, or another) finds objects on the unlabelled images: its
boxes count, its classes do not. What is in the boxes is clustered by how it looks (`headstart.pseudolabels.cluster`) to
that detector's backbone, or to a stronger network that knows more things, `teacher=`. Boxes and cluster numbers then
serve as labels, and the detector is trained on them with the loss of its own family: backbone, neck and head together,
on mosaics as in the training that follows. After DeepCluster (Caron et al., 2018, arXiv 1807.05520), whose images are
boxes here, and pretraining of whole detectors on boxes without classes (AlignDet, Li et al., 2023, arXiv 2307.11077).
Objects are found and clustered once, before the first step.

The last layer of the class branches has an output a cluster while it trains; it stays out of the checkpoint.

On several devices a mosaic is made of images of any of them, and the loss is that of the objects on all of them.

Batch normalization: the student is in training mode. No teacher is used while it trains.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from headstart import ranks
from headstart.methods.base import Context, Export, Method, Needs
from headstart.methods.schedules import Progress
from headstart.probes import metrics
from headstart.pseudolabels.sizes import ZOOM
from headstart.settings.method_options import DetectionSettings, ProposalOptions
from headstart.views.draws import Purpose, draws
from headstart.views.mosaic import boxes_in_view, detection_view, mosaics, shown, unmixed
from headstart.views.spec import View, ViewSpec


class Settings(DetectionSettings, ProposalOptions):
    """Options of the objects method."""

    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises")


# Four images make one mosaic: the network sees a quarter of the batch.
PRESETS: dict[str, dict[str, Any]] = {"default": {"batch": 128}}


class Objects(Method):
    """Detection of what was found, with clusters for classes."""

    needs = Needs(trains="all", pseudolabels=True)

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        assert context.head is not None, "objects trains the head"
        assert context.pseudolabels is not None, "the objects have not been found"
        self.head = context.head
        self._found = context.pseudolabels
        self._zoom = ZOOM if settings.zoom is None else settings.zoom

    def view_specs(self) -> list[ViewSpec]:
        """One view, as near to a detector's training as crops come: colors and shapes tell objects apart."""
        s = self.settings
        spec = detection_view(self.context.imgsz, s.view_scale, letterbox=s.letterbox, jitter=s.jitter, flip=s.flip)
        return [spec]

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The loss of the detector's own family: boxes, clusters, distribution of the box's sides."""
        images, owner, boxes, labels = self._seen_of(views, progress)
        self.head.advance(progress.step / max(1, progress.steps))
        maps = self.student(images)
        parts = self.head(maps, owner, boxes / images.shape[-1], labels)
        self._seen = (maps[-1].detach().float().mean((2, 3)), parts.detach(), len(boxes) / len(images))
        loss: Tensor = parts.sum()
        return loss

    def examples(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images of a step and, of the objects on them, owner, boxes, label; decided by the seed and the step."""
        with ranks.alone():  # a report asks for them in the first process
            return self._seen_of(views, progress)

    def _seen_of(self, views: list[View], progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        view = views[0]
        assert view.rows is not None
        s, device = self.settings, view.images.device
        owner, shares, labels = self._found.of(view.rows)
        moved, kept = boxes_in_view(view, owner, shares, labels)
        seen = view.images, owner[kept], moved[kept], labels[kept]
        random = draws(self.context.seed, Purpose.MOSAIC_OR_NOT, progress.step)
        uniform = float(torch.rand((), generator=random))
        if uniform >= s.mosaic or progress.step >= (1 - s.close_mosaic) * progress.steps:
            seen = unmixed(*seen)
        else:
            if progress.part:  # whether there are mosaics is one for the step, how they are made is not
                random = draws(self.context.seed, Purpose.MOSAIC_OR_NOT, progress.step, progress.part)
            seen = mosaics(*seen, random, (1 - self._zoom, 1 + self._zoom))
        images, owner, moved, labels = seen
        return images, owner.to(device), moved.to(device), labels.to(device)

    def shown(self, batch: int) -> int:
        """A quarter of the batch: four images make one mosaic, and steps without mosaics are as large."""
        return shown(batch)

    def measures(self) -> dict[str, float]:
        """The parts of the loss, objects an image, and the spread of the student's pooled last map."""
        pooled, parts, number = self._seen
        names = ("loss_box", "loss_cluster", "loss_sides")
        return {
            **dict(zip(names, parts.tolist(), strict=True)),
            "objects_per_image": number,
            **metrics.spread_measures(pooled),
        }

    def handed_back(self, which: Export) -> dict[str, Tensor]:
        """Backbone, neck, and of the head all but the outputs for the clusters."""
        return {**super().handed_back(which), **self.head.handed_back()}
