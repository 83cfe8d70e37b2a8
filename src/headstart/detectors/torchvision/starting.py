"""A state dict to start a training from: the user's classes, and as much of other weights as is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.detectors.base import refuse_not_finite
from headstart.detectors.finetuner import Built, StartSettings
from headstart.detectors.handback import shorten
from headstart.detectors.tensors import built
from headstart.detectors.torchvision import models, names
from headstart.detectors.torchvision.models import BACKGROUND, Record
from headstart.errors import UserError


def build_start(settings: StartSettings, path: Path) -> Built:
    """See `headstart.detectors.finetuner.Finetuner.build_start`.

    Every start has batch norms that are trained. torchvision freezes those of a model that it loads published weights
    into: starts with and without them would be different networks.
    """
    name, own_names = names.bare(settings.model), [BACKGROUND, *settings.names]
    weights, parts = settings.weights, settings.parts
    state: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}
    same, foreign = False, ""
    if weights is not None:
        published = weights == f"{names.FAMILY}:{name}:coco"
        state, record = (models.published_state(name), None) if published else models.read_state(weights, "starts")
        refuse_not_finite(state, weights, where="starts")
        theirs = models.published_names(name) if published else record.names if record else None
        # A state dict of somebody else's has no names: where its shapes fit, the classes are taken to be the same.
        same = theirs is None or list(theirs) == own_names
        foreign = "" if published else _foreign(name, state, record)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if weights is None:
            module = models.build(name, len(own_names))
        else:
            module, taken = models.fitted(
                name, len(own_names), state, source=weights, where="starts", same_names=same, parts=parts
            )
    _refuse_more_than_boxes(name, module)
    info = {"seed": settings.seed, "weights": weights, "parts": list(parts)}
    scratch = weights is None or (record is not None and record.from_scratch)
    record = Record(name, own_names, random=weights is None, from_scratch=scratch, info=info)
    models.write_state(path, module, record)
    return replace(built(module, taken, models.part_of), foreign=foreign, classified=same)


def _foreign(name: str, state: Mapping[str, Tensor], record: Record | None) -> str:
    """Why a file's weights are not of COCO, in words; "" where nothing in it tells that."""
    classes = len(models.published_names(name))
    if record is not None and len(record.names) != classes:
        return f"it has {len(record.names) - 1} classes ({shorten(record.names[1:])})"
    if record is not None:
        return "headstart wrote it"
    shapes = models.build(name, classes, empty=True).state_dict()
    if any(key in shapes and shapes[key].shape != tensor.shape for key, tensor in state.items()):
        return f"it is not for {classes - 1} classes, as COCO's is"
    return ""


def _refuse_more_than_boxes(name: str, module: Any) -> None:
    """Masks and keypoints need other labels than boxes."""
    heads = getattr(module, "roi_heads", None)
    for what in ("mask", "keypoint"):
        if heads is not None and getattr(heads, f"has_{what}")():
            hint = "compare with fasterrcnn_resnet50_fpn, whose backbone and pyramid are the same"
            raise UserError(f"{name} learns {what}s, and only boxes can be compared", where="model", hint=hint)
