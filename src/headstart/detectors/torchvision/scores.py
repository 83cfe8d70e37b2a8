"""mAP on the test images, by torchmetrics with pycocotools: COCO's own arithmetic."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.detectors.scores import ClassScore
from headstart.errors import UserError
from headstart.images.class_names import told_apart


class Scores(NamedTuple):
    """Box mAP50-95 and mAP50 in [0, 1], and those of every class that the test images show."""

    map50_95: float
    map50: float
    classes: list[ClassScore]


def score(pairs: Iterable[tuple[dict[str, Tensor], dict[str, Tensor]]], names: Sequence[str]) -> Scores:
    """Score what was found against the labels.

    Args:
        pairs: Per image what was found (``boxes``, ``scores``, ``labels``) and what is there (``boxes``, ``labels``);
            boxes ``(N, 4)`` as corners in pixels.
        names: Of the classes, the background first; those of one name are `told_apart`.

    Raises:
        UserError: The images show no object.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(extended_summary=True, backend="pycocotools")
    objects: Counter[int] = Counter()
    for found, there in pairs:
        metric.update([_on_cpu(found)], [_on_cpu(there)])
        objects.update(there["labels"].tolist())
    if not objects:
        raise UserError("the test images show no object: nothing can be measured", where="data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more than 100 detections in an image: COCO's figures are of the best 100
        content: Any = metric.compute()
    # (10 overlaps, 101 recalls, classes, 4 areas, 3 numbers of detections); -1 where a class has no object.
    precision = content["precision"][:, :, :, 0, -1]
    seen = content["classes"].reshape(-1).tolist()
    called = ("", *told_apart([str(name) for name in names[1:]]))  # without the background: numbers are the user's
    classes = []
    for place, label in enumerate(seen):
        if objects[label]:
            overall, at_50 = precision[:, :, place].mean(), precision[0, :, place].mean()
            row = (round(float(overall), 5), round(float(at_50), 5), objects[label])
            classes.append(ClassScore(called[label], *row))
    return Scores(float(content["map"]), float(content["map_50"]), classes)


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).detach().cpu() for name, value in values.items()}
