"""Shards for the tests, written by Python's own tarfile and zipfile."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np


def picture(number: int, wide: int = 40, high: int = 30) -> bytes:
    """A PNG of noise of its own."""
    image = np.random.default_rng(number).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def pixels(data: bytes) -> np.ndarray:
    """What a file shows, RGB."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def tar(path: Path, members: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as file:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            file.addfile(about, io.BytesIO(data))
    return path


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "a") as file:
        for name, data in members.items():
            file.writestr(name, data, method)
    return path
