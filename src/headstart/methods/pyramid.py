"""Pyramid: backbone and neck learn to see the same box in two views of an image alike.

After SoCo (Wei et al., "Aligning Pretraining for Detection via Object-Level Contrastive Learning", 2021, arXiv
2106.02637) on a detector's own pyramid: two crops that overlap, random boxes inside what they share, each box mapped
into both views and read by ROI-align from the level that its size asks for. The student's prediction of a box in one
view is compared with the teacher's projection of that box in the other (BYOL, Grill et al., 2020, arXiv 2006.07733).

Three things can make that task harder than recognising the image, which alone would solve it: the comparison cell by
cell inside the box (`dense`), boxes of the same and other images as negatives (`contrast`, MoCo v3, arXiv 2104.02057),
and a floor under the variance of a box's projection within its image (`variance`, VICReg's hinge, arXiv 2105.04906).

On several devices negatives, and with ``variance_over=batch`` the variance, are of the boxes of all of them.

Batch normalization: student and teacher both stay in training mode, as in `dino`: the teacher's weights are the moving
average of the student's, its running statistics come from its own passes over both views. In the heads a batch is all
boxes of both views, from every level.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightly.models.modules.heads import BYOLPredictionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from headstart import ranks
from headstart.methods import schedules
from headstart.methods.base import Context, Method, Needs, frozen_copy, update_ema
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import maps_of_each
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Ratio, Scale
from headstart.views.boxes import area, draw_boxes, meeting, to_view
from headstart.views.draws import Purpose, draws
from headstart.views.spec import View, ViewSpec, pair_specs


class Settings(AdamWSettings):
    """Options of the pyramid method."""

    view_scale: Scale = Field((0.25, 1.0), description="share of the image's area that each of the two views covers")
    overlap: float = Field(0.3, gt=0, le=0.75, description="least share of the smaller view that the other covers")
    color: float = Field(1.0, ge=0, le=2, description="strength of the color changes: 0 none, 1 as DINO")
    blur: float = Field(0.3, ge=0, le=1, description="probability of a blurred view")
    boxes: int = Field(8, ge=1, description="boxes an image that both views share")
    box_scale: Scale = Field((0.15, 0.9), description="side of a box as a share of the part that both views show")
    box_ratio: Ratio = Field((0.5, 2.0), description="width over height of a box")
    read_at: Literal["size", "all"] = Field(
        "size", description="levels at which the student reads a box: the one for its size, or every one"
    )
    cells: float = Field(3.0, gt=0, description="cells of its level's map that the side of a box should span")
    roi: int = Field(3, ge=1, description="points a side at which a box is read")
    hidden_dim: int = Field(512, ge=1, description="hidden width of projector and predictor")
    output_dim: int = Field(256, ge=2, description="width of a box's projection")
    dense: float = Field(0.5, ge=0, le=1, description="share of the comparison cell by cell, not box by box")
    contrast: float = Field(0.0, ge=0, description="weight of the contrastive loss between boxes; the cosine's is 1")
    temperature: float = Field(0.2, gt=0, description="temperature of the contrastive loss")
    variance: float = Field(0.5, ge=0, description="weight of the floor under the variance of the boxes")
    variance_over: Literal["image", "batch"] = Field("image", description="boxes that must differ from each other")
    ema_start: float = Field(0.99, ge=0, le=1, description="momentum of the teacher at the first step")
    ema_end: float = Field(1.0, ge=0, le=1, description="momentum of the teacher at the last step (cosine between)")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The task of the first trials: easy to solve, kept to compare with.
    "easy": {"view_scale": [0.4, 1.0], "dense": 0.0, "variance_over": "batch", "variance": 0.1},
    "contrast": {"contrast": 0.5},
    # Views that differ more in scale: a box is read from different levels more often.
    "across": {"view_scale": [0.1, 1.0]},
}


class Pyramid(Method):
    """Boxes that two views share, read from the pyramid."""

    needs = Needs(trains="neck")
    exports = ("student", "teacher")

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.teacher = frozen_copy(self.student)
        self.student_projector = Projector(self.widths, settings.hidden_dim, settings.output_dim)
        self.teacher_projector = frozen_copy(self.student_projector)
        self.predictor = BYOLPredictionHead(settings.output_dim, settings.hidden_dim, settings.output_dim)

    def view_specs(self) -> list[ViewSpec]:
        """Two crops of one size that overlap."""
        s = self.settings
        return pair_specs(self.context.imgsz, s.view_scale, color=s.color, blur=s.blur, overlap=s.overlap)

    def before_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        s = self.settings
        momentum = schedules.cosine(progress.step, progress.steps, s.ema_start, s.ema_end)
        update_ema([(self.student, self.teacher), (self.student_projector, self.teacher_projector)], momentum)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """One minus cosine between the student's prediction of a box and the teacher's projection in the other view."""
        s = self.settings
        boxes = [boxes.to(view.images.device) for boxes, view in zip(self.draw(views, progress), views, strict=True)]
        with torch.no_grad():
            target = self._project(self.teacher, self.teacher_projector, views, boxes, "size")
        found = self._project(self.student, self.student_projector, views, boxes, s.read_at)
        predicted = self.predictor(found)
        with torch.autocast(found.device.type, enabled=False):
            # (levels, 2 views, B, boxes, roi * roi, D); the teacher's views the other way round.
            shape = (-1, 2, len(views[0].images), s.boxes, s.roi**2, found.shape[-1])
            target = target.float().reshape(shape).flip(1)
            found, predicted = found.float().reshape(shape), predicted.float().reshape(shape)
            loss = self._compare(predicted, target)
            self._seen = (found.detach().mean(4), loss.detach())
            if s.variance:
                loss = loss + s.variance * floor_of_variance(found.mean(4), s.variance_over)
        return loss

    def draw(self, views: list[View], progress: Progress) -> list[Tensor]:
        """The boxes of a step in pixels of each view, float32 ``(B, boxes, 4)``: decided by the seed and the step."""
        s, size = self.settings, self.context.imgsz
        random = draws(self.context.seed, Purpose.REGIONS, progress.step, progress.part)
        crops = [view.boxes.cpu() for view in views]
        region = meeting(*crops)
        # Not smaller than a cell of the finest map in the view that shows it smaller.
        zoom = torch.stack([size / (crop[:, 2:] - crop[:, :2]) for crop in crops]).amin(0)
        # As many are drawn as all processes need together, so that each has others.
        region, least = (one.repeat(ranks.world(), 1) for one in (region, 8 / zoom))
        boxes = ranks.own(draw_boxes(region, s.boxes, s.box_scale, s.box_ratio, least, random))
        return [to_view(boxes, crop, view.flipped.cpu(), size) for crop, view in zip(crops, views, strict=True)]

    def _project(
        self, trunk: nn.Module, projector: nn.Module, views: list[View], boxes: list[Tensor], read_at: str
    ) -> Tensor:
        """Projections of every box and point: ``(levels * 2 * B * boxes * roi * roi, D)``, levels 1 where by size."""
        seen = maps_of_each(trunk, [view.images for view in views])
        read = [self._read(*one, read_at) for one in zip(seen, views, boxes, strict=True)]
        projected: Tensor = projector([torch.stack(level) for level in zip(*read, strict=True)], read_at)
        return projected

    def _read(self, maps: list[Tensor], view: View, boxes: Tensor, read_at: str) -> list[Tensor]:
        """What one view shows of its boxes, a level each: ``(B * boxes, roi * roi, C)``, zero where not read there.

        Points are in the order of the source image: mirrored views are turned back.
        """
        points = self.settings.roi
        owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1]).unsqueeze(1)
        rois = torch.cat([owner, boxes.flatten(0, 1)], 1)
        back = view.flipped.repeat_interleave(boxes.shape[1])
        place = self.level_of(boxes.flatten(0, 1), [view.images.shape[-1] / one.shape[-1] for one in maps])
        found = []
        for number, one in enumerate(maps):
            scale = one.shape[-1] / view.images.shape[-1]
            # In float32: half precision has no ROI-align on every device, and boxes need their digits.
            read = roi_align(one.float(), rois, points, spatial_scale=scale, sampling_ratio=2, aligned=True)
            read = torch.where(back[:, None, None, None], read.flip(-1), read).flatten(2).transpose(1, 2)
            wanted = (place == number) if read_at == "size" else torch.ones_like(place, dtype=torch.bool)
            found.append(read * wanted[:, None, None])
        return found

    def level_of(self, boxes: Tensor, strides: list[float]) -> Tensor:
        """Index int64 ``(N,)`` of the level on which a box ``(N, 4)`` in view pixels spans nearest to `cells` cells."""
        side = area(boxes).clamp_min(1e-6).sqrt()
        cells = side.unsqueeze(1) / torch.tensor(strides, device=boxes.device)
        nearest: Tensor = (cells / self.settings.cells).log().abs().argmin(1)
        return nearest

    def _compare(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Box by box and cell by cell, cosine and, where asked for, contrast."""
        s = self.settings
        whole = _distance(predicted.mean(4), target.mean(4))
        loss = whole if not s.dense else (1 - s.dense) * whole + s.dense * _distance(predicted, target)
        if s.contrast:
            loss = loss + s.contrast * contrast(predicted.mean(4), target.mean(4), s.temperature)
        return loss

    def measures(self) -> dict[str, float]:
        """Spread of the student's projections of boxes, over the batch and within an image."""
        projected, agreement = self._seen
        return {
            "box_loss": float(agreement),
            **metrics.spread_measures(projected.flatten(0, -2)),
            "image_spread": float(spread(projected, "image").mean() / math.sqrt(projected.shape[-1])),
        }


class Projector(nn.Module):
    """A linear layer for each level, then what BYOL's projector has after its own: batch norm, ReLU, linear."""

    def __init__(self, widths: tuple[int, ...], hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(width, hidden_dim, bias=False) for width in widths)
        self.layers = nn.Sequential(nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim))

    def forward(self, levels: list[Tensor], read_at: str) -> Tensor:
        """Features of each level, ``(2, B * boxes, points, C)`` -> projections ``(levels or 1 * the rest, D)``."""
        entered = [layer(one) for layer, one in zip(self.enter, levels, strict=True)]
        # A box that is not read at a level is zero there, and the layers have no bias: the sum is its own level's.
        joined = torch.stack(entered) if read_at == "all" else torch.stack(entered).sum(0)
        projected: Tensor = self.layers(joined.flatten(0, -2))
        return projected


def _distance(predicted: Tensor, target: Tensor) -> Tensor:
    return (1 - functional.cosine_similarity(predicted, target.expand_as(predicted), dim=-1)).mean()


def contrast(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """MoCo v3's loss: the teacher's projection of the same box among those of all boxes of its view, in all processes.

    Args:
        predicted: ``(levels, 2, B, boxes, D)``.
        target: ``(1, 2, B, boxes, D)``.
        temperature: Of the cosines.
    """
    losses = []
    for level in functional.normalize(predicted, dim=-1).flatten(2, 3):
        for mine, theirs in zip(level, functional.normalize(target[0], dim=-1).flatten(1, 2), strict=True):
            same = ranks.rank() * len(mine) + torch.arange(len(mine), device=mine.device)
            losses.append(functional.cross_entropy(mine @ ranks.gather(theirs).T / temperature, same))
    return 2 * temperature * torch.stack(losses).mean()


def spread(projected: Tensor, over: str) -> Tensor:
    """Standard deviation of the directions of boxes, ``(..., D)``, times sqrt(D): 1 where they fill the sphere evenly.

    Args:
        projected: ``(levels, 2, B, boxes, D)``.
        over: ``image``: of the boxes of one image around their mean; ``batch``: of all boxes of a view, in
            all processes.
    """
    direction = functional.normalize(projected, dim=-1) * math.sqrt(projected.shape[-1])
    if over == "batch":
        direction = ranks.gather(direction.flatten(2, 3).movedim(2, 0)).movedim(0, 2)
    # One box alone has no spread; the small number keeps the root's slope finite where all boxes are the same.
    return (direction.var(dim=-2, correction=1 if direction.shape[-2] > 1 else 0) + 1e-4).sqrt()


def floor_of_variance(projected: Tensor, over: str) -> Tensor:
    """VICReg's hinge, max(0, 1 - standard deviation), on `spread`."""
    return functional.relu(1 - spread(projected, over)).mean()
