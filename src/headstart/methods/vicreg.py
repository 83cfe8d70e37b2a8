"""VICReg: two views agree while every output keeps its variance and no two outputs say the same.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization", 2022 (arXiv 2105.04906), on the average-pooled
last map of a backbone.

On several devices variances and covariances are those of the images of all of them.

Batch normalization: there is no teacher; the student is in training mode, and each view is normalized by its own batch.
"""

from __future__ import annotations

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from pydantic import Field
from torch import Tensor, autocast

from headstart import ranks
from headstart.methods.base import Context, Method
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import pooled_of_each
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale
from headstart.views.spec import View, ViewSpec, pair_specs


class Settings(AdamWSettings):
    """Options of VICReg."""

    view_scale: Scale = Field((0.2, 1.0), description="share of the image's area that a view covers")
    color: float = Field(1.0, ge=0, le=2, description="strength of the color changes: 0 none, 1 as DINO, 2 as SimCLR")
    hidden_dim: int = Field(1024, ge=1, description="hidden width of the expander")
    output_dim: int = Field(1024, ge=2, description="width of the embedding")
    invariance: float = Field(25.0, ge=0, description="weight of the distance between the two views")
    variance: float = Field(25.0, ge=0, description="weight of the floor under the variance of each output")
    covariance: float = Field(1.0, ge=0, description="weight of the covariances between outputs")


class VICReg(Method):
    """VICReg on the average-pooled last map of a backbone."""

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.head = VICRegProjectionHead(self.widths[-1], settings.hidden_dim, settings.output_dim)
        self.criterion = VICRegLoss(settings.invariance, settings.variance, settings.covariance)

    def view_specs(self) -> list[ViewSpec]:
        """Two views of one kind."""
        return pair_specs(self.context.imgsz, self.settings.view_scale, color=self.settings.color)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """Invariance, variance and covariance of the embeddings of the two views."""
        features = pooled_of_each(self.student, views)
        embedded = [self.head(one).float() for one in features]
        self._seen = features[0].detach()
        with autocast(embedded[0].device.type, enabled=False):
            loss: Tensor = self.criterion(*(ranks.gather(one) for one in embedded))
        return loss

    def measures(self) -> dict[str, float]:
        """Spread of the student's pooled features."""
        return metrics.spread_measures(self._seen)
