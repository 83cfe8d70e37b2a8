"""Of several tests of comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest

from small import small_yaml


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's, as far as a test is concerned, of a network that is built in a moment: `small_yaml` is its model."""
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("weights") / "w.pt"
    YOLO(small_yaml()).save(path)
    return path
