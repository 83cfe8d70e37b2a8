"""Distill: backbone and neck learn to predict the feature maps of a trained network, on images without labels.

Every level of the pyramid is projected to the teacher's width by a 1 x 1 convolution and compared with the teacher's
map of the nearest stride, resampled to the level's cells and standardized channel by channel: what all cells have in
common would otherwise make any two of them alike (after Wei et al., "Contrastive Learning Rivals Masked Image Modeling
in Fine-tuning via Feature Distillation", 2022, arXiv 2205.14141). Three comparisons, each with a weight: one minus
cosine; smooth L1; and the alignment of the cells' similarities (centered kernel alignment, Kornblith et al., 2019,
arXiv 1905.00414, as lightly has it for patches), which needs no projection.

On several devices features are standardized over the cells of all of them.

Batch normalization: the student is in training mode. The teacher never changes: it stays in evaluation mode with the
statistics it came with. It is not kept in the run's checkpoints: a resumed run loads it again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightly.loss import PatchKernelAlignmentLoss
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from headstart import ranks
from headstart.methods.base import Context, Method, Needs
from headstart.methods.schedules import Progress
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale, TeacherOptions
from headstart.teachers.base import Teacher
from headstart.views.spec import View, ViewSpec


class Settings(AdamWSettings, TeacherOptions):
    """Options of distillation."""

    teacher: Any = Field(description="who is learnt from: a YOLO's .pt, the name of a timm model, or a torch module")
    view_scale: Scale = Field((0.3, 1.0), description="share of the image's area that the view covers")
    jitter: float = Field(0.5, ge=0, le=1, description="probability of changed colors, which both networks see")
    cosine: float = Field(1.0, ge=0, description="weight of one minus cosine between the features of a cell")
    smooth_l1: float = Field(0.5, ge=0, description="weight of smooth L1 between standardized features")
    cka: float = Field(0.5, ge=0, description="weight of one minus the alignment of the cells' similarities (CKA)")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "cosine": {"smooth_l1": 0.0, "cka": 0.0},
    "cka": {"cosine": 0.0, "smooth_l1": 0.0, "cka": 1.0},
}


class Distill(Method):
    """The student's pyramid predicts a teacher's maps."""

    needs = Needs(trains="neck", teacher=True)

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        teacher = context.teacher
        assert teacher is not None, "distill needs a teacher"
        self._teacher = (teacher,)  # in a tuple: not among the parameters, nor in the checkpoints
        self._sources = self._match(teacher)
        self.projections = nn.ModuleList(
            nn.Conv2d(width, teacher.widths[source], 1) if settings.cosine or settings.smooth_l1 else nn.Identity()
            for width, source in zip(self.widths, self._sources, strict=True)
        )
        self.alignment = PatchKernelAlignmentLoss()

    def _match(self, teacher: Teacher) -> list[int]:
        """For each level the teacher's map whose stride is nearest, the deepest of several."""
        was_training, size = self.student.training, 256
        with torch.no_grad():
            maps = self.student.eval()(next(self.student.parameters()).new_zeros(1, 3, size, size))
        self.student.train(was_training)
        gaps = [[abs(math.log(size / one.shape[-1] / stride)) for stride in teacher.strides] for one in maps]
        return [max(at for at, gap in enumerate(level) if gap <= min(level) + 1e-6) for level in gaps]

    def view_specs(self) -> list[ViewSpec]:
        """One view, with gentle colors: the teacher has to know what it sees."""
        s = self.settings
        return [ViewSpec("view", self.context.imgsz, s.view_scale, jitter=s.jitter, gray=0.0, blur=0.1)]

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """The weighted comparisons, averaged over the levels."""
        images = views[0].images
        with torch.no_grad():
            taught = self._teacher[0].to(images.device)(images)
        maps = self.student(images)
        projected = [layer(one) for layer, one in zip(self.projections, maps, strict=True)]
        with torch.autocast(images.device.type, enabled=False):
            losses = []
            for one, own, source in zip(projected, maps, self._sources, strict=True):
                target = standardized(resampled(taught[source].float(), one.shape[-2:]))
                losses.append(self._compare(one.float(), own.float(), target))
            each = torch.stack(losses)
            self._seen = (maps[-1].detach().float().mean(dim=(2, 3)), each.detach().mean(0))
            weights = torch.tensor([self.settings.cosine, self.settings.smooth_l1, self.settings.cka])
            return (each.mean(0) * weights.to(each.device)).sum()

    def _compare(self, projected: Tensor, own: Tensor, target: Tensor) -> Tensor:
        """The three comparisons of a level, ``(3,)``; those without weight are 0."""
        s, nothing = self.settings, projected.new_zeros(())
        cosine = (1 - functional.cosine_similarity(projected, target, dim=1)).mean() if s.cosine else nothing
        smooth = functional.smooth_l1_loss(projected, target) if s.smooth_l1 else nothing
        aligned = self.alignment(*as_wide(own, target)) if s.cka else nothing
        return torch.stack([cosine, smooth, aligned])

    def measures(self) -> dict[str, float]:
        """The comparisons, and the spread of the student's pooled last map."""
        pooled, (cosine, smooth, aligned) = self._seen
        s = self.settings
        found = {"loss_cosine": cosine} if s.cosine else {}
        found |= {"loss_smooth_l1": smooth} if s.smooth_l1 else {}
        found |= {"loss_cka": aligned} if s.cka else {}
        return {
            **{name: float(value) for name, value in found.items()},
            **metrics.spread_measures(pooled),
        }


def as_wide(own: Tensor, target: Tensor) -> list[Tensor]:
    """The directions of the cells of two maps, ``(B, h * w, C)``, the narrower one filled up with zeros.

    Zeros change no similarity between cells; lightly's loss wants both of one width.
    """
    cells = [functional.normalize(one.flatten(2).transpose(1, 2), dim=2) for one in (own, target)]
    width = max(one.shape[2] for one in cells)
    return [functional.pad(one, (0, width - one.shape[2])) for one in cells]


def resampled(target: Tensor, size: torch.Size) -> Tensor:
    """A map on another grid of the same picture, smoothed where it becomes coarser."""
    if target.shape[-2:] == size:
        return target
    return functional.interpolate(target, size, mode="bilinear", antialias=True, align_corners=False)


def standardized(target: Tensor) -> Tensor:
    """Features with mean 0 and standard deviation 1 in each channel, over the cells of the batch.

    Channels that hardly vary stay small: their noise is nothing to learn.

    Args:
        target: ``(B, C, h, w)``, without gradients; the batch is that of all processes.
    """
    dims, cells = (0, 2, 3), target.numel() / target.shape[1]
    own, std = target.mean(dims, keepdim=True), target.std(dims, keepdim=True)
    mean = ranks.mean(own)
    if ranks.world() > 1:  # squares around the mean of all: those around a process's own, and its way from it
        squares = ranks.total((cells - 1) * std.square() + cells * (own - mean).square())
        std = (squares / (ranks.world() * cells - 1)).sqrt()
    return (target - mean) / std.maximum(0.01 * std.mean()).clamp_min(1e-6)
