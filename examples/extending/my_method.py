"""Rotation: which of four ways up was the image turned? (Gidaris et al., 2018, arXiv 1803.07728)"""

import torch
from pydantic import Field
from torch import nn

from headstart.methods.base import Method, pooled
from headstart.probes.metrics import spread_measures
from headstart.settings import AdamWSettings
from headstart.views.spec import ViewSpec


class Settings(AdamWSettings):
    """Options: each is also one on the command line."""

    hidden: int = Field(256, ge=1, description="hidden width of the classifier")


PRESETS = {"default": {}, "small": {"hidden": 32}}


class Rotation(Method):
    def __init__(self, settings, context):
        super().__init__(settings, context)  # sets self.settings, context, student, widths
        width = self.widths[-1]
        self.head = nn.Sequential(nn.Linear(width, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, 4))

    def view_specs(self):
        return [ViewSpec("view", self.context.imgsz, (0.5, 1.0))]

    def forward(self, views, progress):
        images = views[0].images  # float (B, 3, S, S) in [0, 1]; views[0].boxes says where from
        turns = torch.arange(len(images), device=images.device) % 4
        turned = torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)])
        features = pooled(self.student(turned))
        self.seen = features.detach()
        return nn.functional.cross_entropy(self.head(features).float(), turns)

    def measures(self):  # optional; these names are watched for collapse
        return spread_measures(self.seen)
