"""SimCLR: two views of an image recognise each other among all other views of the batch.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020 (arXiv 2002.05709), on the
average-pooled last map of a backbone. Other images of the batch are the negatives, so larger batches are better ones.

On several devices the negatives are the images of all of them.

Batch normalization: there is no teacher; the student is in training mode, and each view is normalized by its own batch.
"""

from __future__ import annotations

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor, autocast
from torch import distributed as dist

from headstart.methods.base import Context, Method
from headstart.methods.schedules import Progress
from headstart.methods.side_by_side import pooled_of_each
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale
from headstart.views.spec import View, ViewSpec, pair_specs


class Settings(AdamWSettings):
    """Options of SimCLR."""

    view_scale: Scale = Field((0.2, 1.0), description="share of the image's area that a view covers")
    color: float = Field(1.5, ge=0, le=2, description="strength of the color changes: 0 none, 1 as DINO, 2 as SimCLR")
    hidden_dim: int = Field(512, ge=1, description="hidden width of the projection head")
    output_dim: int = Field(128, ge=2, description="width of the projection")
    temperature: float = Field(0.2, gt=0, description="temperature of the contrastive loss")


class SimCLR(Method):
    """SimCLR on the average-pooled last map of a backbone."""

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.head = SimCLRProjectionHead(self.widths[-1], settings.hidden_dim, settings.output_dim)
        self.criterion = NTXentLoss(settings.temperature, gather_distributed=dist.is_available())

    def view_specs(self) -> list[ViewSpec]:
        """Two views of one kind."""
        return pair_specs(self.context.imgsz, self.settings.view_scale, color=self.settings.color)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """Cross-entropy of finding the other view of the same image."""
        features = pooled_of_each(self.student, views)
        projected = [self.head(one).float() for one in features]
        self._seen = features[0].detach()
        with autocast(projected[0].device.type, enabled=False):
            loss: Tensor = self.criterion(*projected)
        return loss

    def measures(self) -> dict[str, float]:
        """Spread of the student's pooled features."""
        return metrics.spread_measures(self._seen)
