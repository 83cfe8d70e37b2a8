"""Self-supervised pretraining of YOLO detectors on your own images, and the proof of whether it helped.

import headstart
run = headstart.pretrain(data="my/images", model="yolo11n.yaml", epochs=100)
YOLO(run.checkpoint).train(data="my.yaml")
headstart.compare(data="my.yaml", starts=["scratch", "coco", f"ssl={run.folder}"])
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from headstart.errors import UserError

if TYPE_CHECKING:
    from headstart import callbacks
    from headstart.detectors.ultralytics import load_into
    from headstart.jobs.compare import Comparison, compare
    from headstart.jobs.ending import Run
    from headstart.jobs.pretrain import pretrain
    from headstart.jobs.probe import probe

__all__ = ["Comparison", "Run", "UserError", "callbacks", "compare", "load_into", "pretrain", "probe"]

# OpenMP's threads wait for each other by spinning. Where anything else runs on the cores, a loader process say, the
# one waited for is not running, and a step takes several times as long (EXPERIMENTS.md). Torch reads it when loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Imported when first used: torch and Ultralytics take seconds, a misspelt option should not.
_HOMES = {"pretrain": "jobs.pretrain", "Run": "jobs.ending", "probe": "jobs.probe"}
_HOMES |= {"compare": "jobs.compare", "Comparison": "jobs.compare", "load_into": "detectors.ultralytics"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "callbacks":
        return importlib.import_module("headstart.callbacks")
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headstart.{_HOMES[name]}"), name)
