"""Files that run code when they are opened as Python opens them: each makes a folder, by which it is found out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO

from small import SMALL


class Payload:
    """An object whose pickle makes the folder `mark` as it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class OwnLayer(torch.nn.Module):
    """Harmless, but of nobody's package."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def model_yaml(folder: Path, more: str = "") -> Path:
    """A detector of a few layers, which is built in a moment."""
    path = folder / "small.yaml"
    path.write_text(more + SMALL)
    return path


def checkpoint(folder: Path, **more: Any) -> Path:
    """A checkpoint as Ultralytics writes it, with something beside or in place of its network."""
    live = YOLO(str(model_yaml(folder)))
    path = folder / "given.pt"
    torch.save({"model": live.model, "train_args": {}, "epoch": -1, **more}, path)
    return path


def with_own_layer(folder: Path) -> Path:
    live = YOLO(str(model_yaml(folder)))
    live.model.model[1].act = OwnLayer()
    path = folder / "own.pt"
    torch.save({"model": live.model, "train_args": {}}, path)
    return path


def with_activation(folder: Path, word: str) -> Path:
    """A checkpoint of known layers, whose YAML has a word that is evaluated when the model is built anew."""
    live = YOLO(str(model_yaml(folder)))
    live.model.yaml["activation"] = word
    path = folder / "word.pt"
    torch.save({"model": live.model, "train_args": {}}, path)
    return path


def label_cache(folder: Path, mark: Path) -> Path:
    """What Ultralytics would read instead of the labels in ``labels``."""
    path = folder / "labels.cache"
    with path.open("wb") as stream:
        np.save(stream, np.array({"results": Payload(mark)}, dtype=object), allow_pickle=True)
    return path


def script(mark: Path) -> str:
    """An expression that makes the folder `mark`, and is no less an activation."""
    return f"__import__('os').mkdir({str(mark)!r}) or torch.nn.SiLU()"
