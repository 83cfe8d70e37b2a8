from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

if os.environ.get("PYTEST_XDIST_WORKER"):  # tests side by side share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import headstart  # noqa: F401 - before torch, for what it sets there

gc.set_threshold(10_000)  # at Python's 700 a tenth of the suite's time goes into it
os.environ.setdefault("YOLO_OFFLINE", "true")  # Ultralytics looks for updates and fonts otherwise
os.environ["HF_HUB_OFFLINE"] = "1"  # what a machine has downloaded, or can, is not to change what a test sees
os.environ["HF_HUB_CACHE"] = os.devnull
# What cuBLAS adds has one order then: without it a test of what is repeated exactly on a GPU would fail now and then.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_CACHE = tempfile.TemporaryDirectory()
os.environ["HEADSTART_CACHE"] = _CACHE.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, and there is none here"))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 small JPEGs with colored rectangles on noise, 80 to 120 pixels wide and high."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(24):
        height, width = random.integers(80, 120, 2)
        image = random.integers(0, 80, (height, width, 3), dtype=np.uint8)
        for _ in range(4):
            x, y = random.integers(0, 70, 2).tolist()
            cv2.rectangle(image, (x, y), (x + 25, y + 20), random.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), image)
    return folder


@pytest.fixture
def repeatable() -> Iterator[None]:
    """Sums of one order and float32 in full: what differs between two runs on a GPU then is headstart's doing."""
    import torch

    kept = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True, warn_only=True)  # some operations have no other way
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = kept
