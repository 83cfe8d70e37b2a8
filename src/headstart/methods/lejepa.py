"""LeJEPA: views agree with the mean of the global ones while their projections stay an isotropic Gaussian.

Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025 (arXiv
2511.08544), on the average-pooled last map of a backbone. No teacher, no negatives, no stopped gradients.

The regularizer's statistic grows in proportion to the batch. Its weight here is meant for 128 images a step and is
scaled, so that it means the same at any batch. Its gradient fades where all projections are the same: once collapsed,
this loss does not bring features back.

On several devices the statistic is that of the images of all of them, in the same random directions.

Batch normalization: there is no teacher; the student is in training mode, and each view is normalized by its own batch.
"""

from __future__ import annotations

import torch
from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss
from lightly.models.modules.heads import LeJEPAProjectionHead
from pydantic import Field
from torch import Tensor
from torch import distributed as dist

from headstart import ranks
from headstart.methods.base import Context, Method
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import pooled_of_each
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale
from headstart.views.spec import View, ViewSpec, dino_specs

_BATCH = 128


class Settings(AdamWSettings):
    """Options of LeJEPA."""

    locals: int = Field(6, ge=0, description="local crops an image, beside the two global ones")
    global_scale: Scale = Field((0.3, 1.0), description="share of the image's area that a global crop covers")
    local_scale: Scale = Field((0.05, 0.3), description="share of the image's area that a local crop covers")
    hidden_dim: int = Field(512, ge=1, description="hidden width of the projection head")
    output_dim: int = Field(64, ge=2, description="width of the projection")
    regularize: float = Field(0.05, ge=0, le=1, description="weight of the regularizer at 128 images a step")
    slices: int = Field(1024, ge=1, description="random directions in which the distribution is tested")


class LeJEPA(Method):
    """LeJEPA on the average-pooled last map of a backbone."""

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.head = LeJEPAProjectionHead(self.widths[-1], settings.hidden_dim, settings.output_dim)
        self.gaussian = SIGReg(num_vectors=settings.slices, gather_distributed=dist.is_available())

    def view_specs(self) -> list[ViewSpec]:
        """Two global crops, then the local ones."""
        s, given = self.settings, self.context
        return dino_specs(given.imgsz, given.local_imgsz, s.locals, scale=s.global_scale, local_scale=s.local_scale)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """Distance of every view from the mean of the global ones, and of all of them from a Gaussian."""
        features = pooled_of_each(self.student, views)
        projected = torch.stack([self.head(one).float() for one in features])
        self._seen = features[0].detach()
        weight = self.settings.regularize
        with torch.autocast(projected.device.type, enabled=False):
            agreement = lejepa_invariance_loss(all_proj=projected, global_proj=projected[:2])
            shape = self.gaussian(projected) * (_BATCH / (projected.shape[1] * ranks.world()))
            self._parts = (agreement.detach(), shape.detach())
            loss: Tensor = weight * shape + (1 - weight) * agreement
        return loss

    def measures(self) -> dict[str, float]:
        """The two terms, and the spread of the student's pooled features."""
        agreement, shape = self._parts
        return {
            "loss_agreement": float(agreement),
            "loss_gaussian": float(shape),
            **metrics.spread_measures(self._seen),
        }
