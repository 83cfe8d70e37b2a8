"""DenseCL: contrast between images, and between cells of the feature map that look alike in the two views.

Wang et al., "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", 2021 (arXiv 2011.09157), on a
backbone's last map. Negatives come from a queue of earlier batches, as in MoCo. The queue is part of the checkpoints.
On several devices all have the same queue, into which the projections of all go. The queue of the dense loss holds the
cells of the last images, as in lightly's example, where the authors' holds one pooled vector an image: at large sizes
these are few images.

Batch normalization: student and teacher both stay in training mode, so each view is normalized by its own batch (the
authors shuffle batches between GPUs). The teacher's weights are the moving average of the student's,
its running statistics come from its own passes over the second view.
"""

from __future__ import annotations

from typing import Any

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import DenseCLProjectionHead
from lightly.models.utils import select_most_similar
from pydantic import Field
from torch import Tensor
from torch import distributed as dist

from headstart.methods import schedules
from headstart.methods.base import Context, Method, frozen_copy, pooled, update_ema
from headstart.methods.schedules import Progress
from headstart.probes import metrics
from headstart.settings.method_options import AdamWSettings, Scale
from headstart.views.spec import View, ViewSpec, pair_specs


class Settings(AdamWSettings):
    """Options of DenseCL."""

    view_scale: Scale = Field((0.2, 1.0), description="share of the image's area that a view covers")
    color: float = Field(1.0, ge=0, le=2, description="strength of the color changes: 0 none, 1 as DINO, 2 as SimCLR")
    hidden_dim: int = Field(512, ge=1, description="hidden width of the projection heads")
    output_dim: int = Field(128, ge=2, description="width of the projections")
    temperature: float = Field(0.2, gt=0, description="temperature of the contrastive losses")
    queue: int = Field(4096, ge=2, description="projections of earlier batches that serve as negatives")
    dense: float = Field(0.5, ge=0, le=1, description="share of the loss between cells")
    ema_start: float = Field(0.99, ge=0, le=1, description="momentum of the teacher at the first step")
    ema_end: float = Field(1.0, ge=0, le=1, description="momentum of the teacher at the last step (cosine between)")


class DenseCL(Method):
    """DenseCL on the last map of a backbone."""

    exports = ("student", "teacher")

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.teacher = frozen_copy(self.student)
        sizes = (self.widths[-1], settings.hidden_dim, settings.output_dim)
        self.student_head, self.student_cells = DenseCLProjectionHead(*sizes), DenseCLProjectionHead(*sizes)
        self.teacher_head, self.teacher_cells = frozen_copy(self.student_head), frozen_copy(self.student_cells)
        # A queue shorter than a batch would hold none of the earlier ones.
        queue = (max(settings.queue, self.context.batch), settings.output_dim)
        given: dict[str, Any] = {"memory_bank_size": queue, "gather_distributed": dist.is_available()}
        self.whole, self.cells = (NTXentLoss(settings.temperature, **given) for _ in range(2))

    def view_specs(self) -> list[ViewSpec]:
        """Two views of one kind: the student's and the teacher's."""
        return pair_specs(self.context.imgsz, self.settings.view_scale, color=self.settings.color)

    def before_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        s = self.settings
        momentum = schedules.cosine(progress.step, progress.steps, s.ema_start, s.ema_end)
        pairs = [(self.student, self.teacher), (self.student_head, self.teacher_head)]
        update_ema([*pairs, (self.student_cells, self.teacher_cells)], momentum)

    def forward(self, views: list[View], progress: Progress) -> Tensor:
        """Contrast of the pooled features and of each cell with the cell of the other view most like it."""
        with torch.no_grad():
            there = self.teacher(views[1].images)
            target, target_cells = self.teacher_head(pooled(there)).float(), self.teacher_cells(_cells(there)).float()
        here = self.student(views[0].images)
        found, found_cells = self.student_head(pooled(here)).float(), self.student_cells(_cells(here)).float()
        self._seen = pooled(here).detach()
        with torch.autocast(found.device.type, enabled=False):
            # Which cells belong together is told by the backbone's features, not by the projections.
            match = select_most_similar(_cells(here).float(), _cells(there).float(), target_cells).flatten(0, 1)
            whole = self.whole(found, target)
            dense = self.cells(found_cells.flatten(0, 1), match)
            loss: Tensor = (1 - self.settings.dense) * whole + self.settings.dense * dense
        return loss

    def get_extra_state(self) -> dict[str, Any]:
        """The queues: lightly keeps them out of the state, and a resumed run would start with random negatives."""
        banks = [self.whole.memory_bank, self.cells.memory_bank]
        return {"banks": [bank.bank for bank in banks], "places": [bank.bank_ptr for bank in banks]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """See `get_extra_state`."""
        for loss, bank, place in zip((self.whole, self.cells), state["banks"], state["places"], strict=True):
            loss.memory_bank.bank, loss.memory_bank.bank_ptr = bank.clone(), place.clone()

    def measures(self) -> dict[str, float]:
        """Spread of the student's pooled features."""
        return metrics.spread_measures(self._seen)


def _cells(maps: list[Tensor]) -> Tensor:
    """The last map's cells, ``(B, h * w, C)``."""
    return maps[-1].flatten(2).transpose(1, 2)
