"""What is kept of Ultralytics' validation, class by class, from its own figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ultralytics.utils.metrics import DetMetrics

from headstart.detectors.ultralytics.class_scores import class_scores


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Each with its own score: the first is always found, the third never; the second has no object."""
    metrics = DetMetrics({0: "bolt", 1: "nut", 2: "bolt"})
    metrics.update_stats(
        {
            "tp": np.ones((2, 10), bool),
            "conf": np.array([0.9, 0.8]),
            "pred_cls": np.array([0, 0]),
            "target_cls": np.array([0, 0, 2]),
            "target_img": np.array([0, 2]),
            "im_name": "1.jpg",
        }
    )
    metrics.process(save_dir=tmp_path, plot=False)
    found = [(one.name, round(one.map50_95, 2), one.objects) for one in class_scores(metrics)]
    assert found == [("bolt (0)", 0.99, 2), ("bolt (2)", 0.0, 1)]  # Ultralytics' own AP of all found is 0.995
