"""A run folder as a pretraining leaves it, made up: for the report's tests and for looking at the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import yaml

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
VERSIONS = {"python": "3.11.9", "headstart": "0.1.0", "torch": "2.15.0", "ultralytics": "8.4.190", "lightly": "1.6.0"}


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
    text = "".join(json.dumps({k: v if math.isfinite(v) else None for k, v in line.items()}) + "\n" for line in found)
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_settings(run: Path, **changed: object) -> None:
    run.mkdir(parents=True, exist_ok=True)
    content = {
        "options": OPTIONS | changed,
        "resolved": {
            "images": 5948,
            "steps": 5000,
            "epochs": 53.8,
            "workers": 8,
            "device": "cuda:0",
            "precision": "bf16-mixed",
            "detector": {"name": "yolo11n", "task": "detect", "classes": 80, "backbone": {"stride": 32, "width": 256}},
        },
        "versions": VERSIONS,
        "git": {"commit": "4f1c2d9", "branch": "main", "changed": False},
        "command": "headstart pretrain data=airfield/images model=yolo11n.yaml",
        "started": "2025-11-24T10:15:00+00:00",
    }
    (run / "settings.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def write_hand_back(run: Path) -> None:
    parts = {
        "backbone": {"trained": 207, "total": 207},
        "neck": {"trained": 0, "total": 180},
        "head": {"trained": 0, "total": 112},
    }
    (run / "handback.json").write_text(json.dumps({"parts": parts, "dropped": []}), encoding="utf-8")
    (run / "headstart.pt").write_bytes(b"")


def write_run(run: Path) -> Path:
    """A finished, healthy run with a few unreadable files, without pictures."""
    write_settings(run)
    write_lines(run, lines())
    write_hand_back(run)
    skipped = "path,reason\nairfield/images/0031.jpg,the file ends too early\nairfield/images/notes.png,not an image\n"
    (run / "skipped.csv").write_text(skipped, encoding="utf-8")
    return run
