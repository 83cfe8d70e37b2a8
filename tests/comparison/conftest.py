"""Of several tests of comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("weights") / "w.pt"
    YOLO("yolo11n.yaml").save(path)
    return path
