"""DINO: a student matches the output of its own moving average over crops of the same image.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021 (arXiv 2104.14294), on a detector's
backbone: its last map is average-pooled, and a projection head gives K scores. The cross-entropy between the teacher's
scores (centered, sharpened; global crops only) and the student's (all crops) is the loss, equation 3 of the paper.
On several devices the center, and the entropy that the guard sees, are those of the crops of all of them.

Batch normalization: student and teacher both stay in training mode, so each view is normalized by its own batch. The
teacher's weights are the moving average of the student's, its running statistics are not: they come from its own passes
over global crops. They do not enter the loss, and reach the user only with ``export=teacher``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from pydantic import Field
from torch import Tensor, nn

from headstart import ranks
from headstart.methods import schedules
from headstart.methods.base import Context, Method, by_size, frozen_copy, pooled, update_ema
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import pooled_of_each
from headstart.probes import metrics
from headstart.settings.method_options import MethodSettings, Scale
from headstart.views.spec import View, ViewSpec, dino_specs


class Settings(MethodSettings):
    """Options of DINO."""

    locals: int = Field(6, ge=0, description="local crops an image, beside the two global ones")
    global_scale: Scale = Field((0.4, 1.0), description="share of the image's area that a global crop covers")
    local_scale: Scale = Field((0.05, 0.4), description="share of the image's area that a local crop covers")
    crop_fallback: Literal["center", "anywhere"] = Field(
        "center", description="images too wide or tall for a crop: the crop in the center, or one anywhere in them"
    )
    hidden_dim: int = Field(512, ge=1, description="hidden width of the projection head")
    bottleneck_dim: int = Field(64, ge=1, description="width before the last layer of the projection head")
    output_dim: int = Field(2048, ge=2, description="scores of the projection head, K")
    student_temp: float = Field(0.1, gt=0, description="temperature of the student's scores")
    teacher_temp: float = Field(0.04, gt=0, description="temperature of the teacher's scores")
    warmup_teacher_temp: float = Field(0.04, gt=0, description="the teacher's temperature at the first step")
    warmup_teacher_temp_epochs: float = Field(5, ge=0, description="epochs from there to teacher_temp")
    center_momentum: float = Field(0.9, ge=0, lt=1, description="moving average of the teacher's center")
    ema_start: float = Field(0.996, ge=0, le=1, description="momentum of the teacher at the first step")
    ema_end: float = Field(1.0, ge=0, le=1, description="momentum of the teacher at the last step (cosine between)")
    merge_views: bool = Field(
        False, description="crops of one size in one pass: faster on GPUs; batch norm then sees all of them together"
    )
    freeze_last_layer: float = Field(1, ge=0, description="epochs in which the head's last layer is not trained")
    freeze_steps: int = Field(0, ge=0, description="steps in which it is not trained, where that is longer")
    freeze_share: float = Field(1.0, ge=0, le=1, description="share of all steps that both may take at most")
    guard: bool = Field(False, description="let the teacher's entropy steer its temperature away from collapse")


PRESETS: dict[str, dict[str, Any]] = {
    # The tutorial's recipe is what the fields above say; the name keeps it when the defaults move on.
    "tutorial": {},
    # Gentler crops, as SSLight (arXiv 2210.02808) found small networks to need.
    "default": {
        "optimizer": "adamw", "weight_decay": 0.01, "warmup": 0.05, "schedule": "cosine", "clip": 3.0,
        "global_scale": [0.3, 1.0], "local_scale": [0.05, 0.3], "local_imgsz": 128, "locals": 4,
        "ema_start": 0.99, "freeze_share": 0.05, "guard": True, "crop_fallback": "anywhere",
    },
    # What LightlyTrain does for a data set of up to 20,000 images; for more images it widens output_dim.
    "lightlytrain": {
        "optimizer": "sgd", "lr": 0.03, "lr_for": 256, "weight_decay": 1e-4, "warmup": 0.1, "schedule": "cosine",
        "clip": 3.0, "hidden_dim": 2048, "bottleneck_dim": 256, "output_dim": 1024, "teacher_temp": 0.02,
        "warmup_teacher_temp": 0.02, "ema_start": 0.99, "global_scale": [0.14, 1.0], "local_scale": [0.05, 0.14],
        "freeze_last_layer": 0, "freeze_steps": 1250, "crop_fallback": "anywhere",
    },
}  # fmt: skip


class DINO(Method):
    """DINO on the average-pooled last map of a backbone."""

    exports = ("student", "teacher")

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.teacher = frozen_copy(self.student)
        self.student_head, self.teacher_head = self._head(), self._head()  # a deepcopy of this head raises
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.teacher_head.requires_grad_(False)
        self._last_layer = tuple(self.student_head.get_submodule("last_layer").parameters())
        self.criterion = DINOLoss(
            output_dim=settings.output_dim,
            student_temp=settings.student_temp,
            center_momentum=settings.center_momentum,
        )
        self.guard = EntropyGuard(settings.output_dim) if settings.guard else None

    def _head(self) -> nn.Module:
        s = self.settings
        with warnings.catch_warnings():  # lightly builds it with torch's older weight norm, which torch remarks on
            warnings.simplefilter("ignore", FutureWarning)
            head: nn.Module = DINOProjectionHead(self.widths[-1], s.hidden_dim, s.bottleneck_dim, s.output_dim)
        return head

    def view_specs(self) -> list[ViewSpec]:
        """Two global crops, then the local ones, as ``lightly.transforms.DINOTransform`` draws them."""
        s = self.settings
        return dino_specs(
            imgsz=self.context.imgsz,
            local_imgsz=self.context.local_imgsz,
            locals=s.locals,
            scale=s.global_scale,
            local_scale=s.local_scale,
            fallback=s.crop_fallback,
        )

    def before_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        s = self.settings
        momentum = schedules.cosine(progress.step, progress.steps, s.ema_start, s.ema_end)
        update_ema([(self.student, self.teacher), (self.student_head, self.teacher_head)], momentum)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """Cross-entropy between the teacher's scores of global crops and the student's of all others."""
        temperature = self._temperature(progress)
        with torch.no_grad():
            teacher = [self.teacher_head(seen).float() for seen in self._pooled(self.teacher, views[:2])]
        features = self._pooled(self.student, views)
        student = [self.student_head(one).float() for one in features]
        with torch.autocast(teacher[0].device.type, enabled=False):
            self._seen = (torch.cat(teacher), self.criterion.center[0].clone(), temperature, features[0].detach())
            if self.guard:
                self.guard.watch(progress.step, (self._seen[0] - self._seen[1]) / temperature)
            loss: Tensor = self.criterion(teacher, student, teacher_temp=temperature)
        return loss

    def _pooled(self, trunk: nn.Module, views: list[View]) -> list[Tensor]:
        """Average-pooled last maps (B, C) of each view."""
        if self.settings.merge_views:
            return by_size(lambda images: pooled(trunk(images)), [view.images for view in views])
        return pooled_of_each(trunk, views)

    def _temperature(self, progress: Progress) -> float:
        s = self.settings
        done = min(1.0, progress.epoch / s.warmup_teacher_temp_epochs) if s.warmup_teacher_temp_epochs else 1.0
        factor = self.guard.factor if self.guard else 1.0
        return float(s.warmup_teacher_temp + (s.teacher_temp - s.warmup_teacher_temp) * done) * factor

    def measures(self) -> dict[str, float]:
        """Entropy of the teacher's answers and spread of the student's features, with their alarm lines."""
        scores, center, temperature, features = self._seen
        return {
            "teacher_entropy": float(metrics.teacher_entropy((scores - center) / temperature)),
            "teacher_entropy_max": math.log(self.settings.output_dim),
            "feature_spread": float(metrics.feature_spread(features)),
            "spread_alarm": metrics.spread_alarm(self.widths[-1]),
        }

    def after_backward(self, progress: Progress) -> None:
        """Leave the last layer as it is during the first epochs: it stabilises the start."""
        s = self.settings
        frozen = progress.epoch < s.freeze_last_layer or progress.step < s.freeze_steps
        if frozen and progress.step < s.freeze_share * progress.steps:
            for parameter in self._last_layer:
                parameter.grad = None


class EntropyGuard(nn.Module):
    """A factor on the teacher's temperature that keeps its entropy off both ways to collapse.

    Below a tenth of log K (nearly one answer) the temperature rises, above nine tenths (nearly uniform answers) it
    falls, by 2 % at a time and at most to a quarter or four times; in between it goes back to what was asked for.

    Args:
        outputs: K.

    Attributes:
        factor: The present factor, a plain number; part of the checkpoints.
    """

    EVERY = 10  # steps between two looks: reading a number makes the host wait for the device
    LOW, HIGH, STEP, MOST = 0.1, 0.9, 1.02, 4.0

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.factor, self._most = 1.0, math.log(outputs)

    def watch(self, step: int, logits: Tensor) -> None:
        """Look at the teacher's answers, (N, K) after centering and temperature, in all processes; adapt the factor."""
        if step % self.EVERY:
            return
        share = float(ranks.mean(metrics.teacher_entropy(logits))) / self._most
        if share < self.LOW:
            self.factor = min(self.MOST, self.factor * self.STEP)
        elif share > self.HIGH:
            self.factor = max(1 / self.MOST, self.factor / self.STEP)
        else:
            self.factor = max(1.0, self.factor / self.STEP) if self.factor > 1 else min(1.0, self.factor * self.STEP)

    def get_extra_state(self) -> dict[str, float]:
        """The factor."""
        return {"factor": self.factor}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """See `get_extra_state`."""
        self.factor = state["factor"]
