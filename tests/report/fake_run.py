"""A run folder as a pretraining leaves it, made up: for the report's tests and for looking at the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from headstart.detectors.handback import Dropped, HandBack, PartCount
from headstart.run.folder import RunFolder

OPTIONS = {
    "data": "airfield/images",
    "model": "yolo11n.yaml",
    "method": "dino",
    "preset": "tutorial",
    "init": None,
    "epochs": None,
    "steps": None,
    "batch": 64,
    "imgsz": 224,
    "local_imgsz": 96,
    "workers": "auto",
    "device": "auto",
    "precision": "auto",
    "seed": 0,
    "lr": 0.001,
    "global_scale": [0.4, 1.0],
}


def lines(
    steps: int = 5000, every: int = 10, dim: int = 256, outputs: int = 2048, seed: int = 0
) -> list[dict[str, float]]:
    """A healthy run: the loss falls, the entropy leaves its maximum, the spread grows."""
    random = np.random.default_rng(seed)
    found = []
    for step in range(every, steps + 1, every):
        done = step / steps
        found.append(
            {
                "step": step,
                "epoch": round(step * 64 / 5948, 4),
                "lr": 1e-3 * 0.5 * (1 + math.cos(math.pi * done)),
                "loss": 2.6 + 5.0 * math.exp(-6 * done) + 0.12 * random.normal(),
                "teacher_entropy": 3.1 + 4.4 * math.exp(-9 * done) + 0.08 * random.normal(),
                "teacher_entropy_max": math.log(outputs),
                "feature_spread": (0.55 - 0.25 * math.exp(-7 * done) + 0.01 * random.normal()) / math.sqrt(dim),
                "spread_alarm": 0.3 / math.sqrt(dim),
                "ema": 1 - 0.004 * 0.5 * (1 + math.cos(math.pi * done)),
                "images_per_second": 612 + 18 * random.normal() - (220 if step < 100 else 0),
                "data_wait": max(0.0, 0.03 + 0.012 * random.normal()) + (0.25 if step < 50 else 0),
                "seconds": step * 64 / 600,
            }
        )
    return found


def write_lines(run: Path, found: list[dict[str, float]]) -> None:
    """The metrics in place of those that are there, as a run writes them."""
    (run / "metrics.jsonl").unlink(missing_ok=True)
    folder = RunFolder(run)
    for line in found:
        folder.metrics(line)
    folder.close()


def write_settings(run: Path, **changed: object) -> None:
    run.mkdir(parents=True, exist_ok=True)
    detector = {"name": "yolo11n", "task": "detect", "classes": 80, "backbone": {"stride": 32, "width": 256}}
    resolved = {
        "images": 5948,
        "steps": 5000,
        "epochs": 53.8,
        "workers": 8,
        "device": "cuda:0",
        "precision": "bf16-mixed",
        "detector": detector,
    }
    RunFolder(run).write_settings(OPTIONS | changed, resolved)


LOST = (
    Dropped("model.4.cv1.conv.weight", "backbone", trained=True, reason="is not in the trainer's EMA"),
    Dropped("model.9.cv2.bn.bias", "backbone", trained=True, reason="has other values in the trainer's model"),
    Dropped("model.23.cv3.0.2.bias", "head", trained=False, reason="has shape (2,) in the trainer's model, not (80,)"),
)


def write_hand_back(run: Path, dropped: tuple[Dropped, ...] = ()) -> None:
    """A backbone of 207 tensors, all of them pretrained; neck and head as they were."""
    lost = {part: sum(one.part == part for one in dropped) for part in ("backbone", "neck", "head")}
    sizes = {"backbone": (207, 207), "neck": (180, 0), "head": (112, 0)}
    parts = {part: PartCount(total, trained, total - lost[part]) for part, (total, trained) in sizes.items()}
    handback = HandBack(parts, dropped, places=("headstart.pt", "the trainer's model", "the trainer's EMA"))
    (run / "handback.json").write_text(json.dumps(handback.as_dict()), encoding="utf-8")
    (run / "headstart.pt").write_bytes(b"")


def write_run(run: Path) -> Path:
    """A finished, healthy run with a few unreadable files, without pictures."""
    write_settings(run)
    write_lines(run, lines())
    write_hand_back(run)
    folder = RunFolder(run)
    folder.skip(
        [("airfield/images/0031.jpg", "the file ends too early"), ("airfield/images/notes.png", "not an image")]
    )
    folder.close()
    return run


if __name__ == "__main__":
    import sys

    write_hand_back(write_run(Path(sys.argv[1])), LOST if "lost" in sys.argv else ())
