"""What Ultralytics' data sets hold once they have read images and labels: what they rejected is told in a log alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.detectors.used import Used, count


def used(trainer: Any) -> Used | None:
    """Counts of a trainer that is set up; None where its data sets are not built as they are known to be."""
    try:
        parts = [
            count(_objects(label) for label in loader.dataset.labels)
            for loader in (trainer.train_loader, trainer.test_loader)
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Used(*parts)


def _objects(label: Mapping[str, Any]) -> int:
    """Boxes with an area within the image: of others nothing is learnt."""
    boxes = np.asarray(label["bboxes"], dtype=np.float64).reshape(-1, 4)
    center, size = boxes[:, :2], boxes[:, 2:]
    low, high = (center - size / 2).clip(min=0), (center + size / 2).clip(max=1)
    return int((high > low).all(axis=1).sum())
