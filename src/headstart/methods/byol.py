"""BYOL: the student predicts, from one view, what its own moving average says of the other; no negatives.

Grill et al., "Bootstrap Your Own Latent", 2020 (arXiv 2006.07733), on the average-pooled last map of a backbone.

Batch normalization: student and teacher both stay in training mode, so each view is normalized by its own batch. The
teacher's weights are the moving average of the student's, its running statistics come from its own passes.
"""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from pydantic import Field
from torch import Tensor

from headstart.methods import schedules
from headstart.methods.base import Context, Method, frozen_copy, update_ema
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import pooled_of_each
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale
from headstart.views.spec import View, ViewSpec, pair_specs


class Settings(AdamWSettings):
    """Options of BYOL."""

    view_scale: Scale = Field((0.2, 1.0), description="share of the image's area that a view covers")
    color: float = Field(1.0, ge=0, le=2, description="strength of the color changes: 0 none, 1 as DINO, 2 as SimCLR")
    hidden_dim: int = Field(1024, ge=1, description="hidden width of projector and predictor")
    output_dim: int = Field(256, ge=2, description="width of the projection")
    ema_start: float = Field(0.99, ge=0, le=1, description="momentum of the teacher at the first step")
    ema_end: float = Field(1.0, ge=0, le=1, description="momentum of the teacher at the last step (cosine between)")


class BYOL(Method):
    """BYOL on the average-pooled last map of a backbone."""

    exports = ("student", "teacher")

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.teacher = frozen_copy(self.student)
        self.student_head = BYOLProjectionHead(self.widths[-1], settings.hidden_dim, settings.output_dim)
        self.teacher_head = frozen_copy(self.student_head)
        self.predictor = BYOLPredictionHead(settings.output_dim, settings.hidden_dim, settings.output_dim)
        self.criterion = NegativeCosineSimilarity()

    def view_specs(self) -> list[ViewSpec]:
        """Two views of one kind."""
        return pair_specs(self.context.imgsz, self.settings.view_scale, color=self.settings.color)

    def before_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        s = self.settings
        momentum = schedules.cosine(progress.step, progress.steps, s.ema_start, s.ema_end)
        update_ema([(self.student, self.teacher), (self.student_head, self.teacher_head)], momentum)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """One minus cosine between prediction and the teacher's projection of the other view, from 0 to 2."""
        with torch.no_grad():
            targets = [self.teacher_head(one).float() for one in pooled_of_each(self.teacher, views)]
        features = pooled_of_each(self.student, views)
        predicted = [self.predictor(self.student_head(one)).float() for one in features]
        self._seen = features[0].detach()
        with torch.autocast(targets[0].device.type, enabled=False):
            agreement = self.criterion(predicted[0], targets[1]) + self.criterion(predicted[1], targets[0])
            loss: Tensor = 1 + agreement / 2
        return loss

    def measures(self) -> dict[str, float]:
        """Spread of the student's pooled features."""
        return metrics.spread_measures(self._seen)
