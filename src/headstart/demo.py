"""The whole way on images that the program draws: pretrain, hand back, fine-tune with and without.

It needs nothing but the installation, and shows the path, not the gain: minutes of training say little of a method.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headstart.comparison.finetune import FinetuneResult, FinetuneSettings, finetune
from headstart.errors import UserError
from headstart.files import write_text
from headstart.pretraining import pretrain
from headstart.progress import duration
from headstart.scenes import draw_dataset

MODEL = "yolo11n.yaml"
IMGSZ = 160
IMAGES = {"unlabelled": 1000, "train": 160, "val": 64}
EPOCHS = 12
NAME = "headstart-demo.json"
"""Marks the folder as a demo's, which ``overwrite=true`` may replace."""


def demo(out: str | Path = "runs/demo", overwrite: bool = False) -> int:
    """Draw images, pretrain, fine-tune from scratch and from the pretrained start, say where the report is.

    Args:
        out: A new or empty folder; it gets ``scenes`` (the images), ``pretrain`` and ``finetune``.
        overwrite: Replace what an earlier demo left there.

    Returns:
        0 when all was done, 130 when Ctrl-C ended the pretraining.

    Raises:
        UserError: There is something in `out`, or a part of the demo failed.
    """
    folder, console, began = _new(Path(out), overwrite), Console(highlight=False, soft_wrap=True), time.monotonic()
    console.print(
        f"1/3 drawing {sum(IMAGES.values())} images of scenes, {IMAGES['train'] + IMAGES['val']} of them labelled"
    )
    data = draw_dataset(folder / "scenes", **IMAGES, imgsz=IMGSZ)
    console.print(f"2/3 pretraining {MODEL} on {IMAGES['unlabelled']} images without labels")
    images = folder / "scenes" / "images"
    run = pretrain(
        data=[str(images / "unlabelled"), str(images / "train")],
        model=MODEL,
        device="cpu",
        steps=60,
        batch=32,
        imgsz=128,
        local_imgsz=64,
        log_every=5,
        out=str(folder / "pretrain"),
    )
    if run.checkpoint is None:
        return 130
    console.print(f"3/3 fine-tuning on {IMAGES['train']} labelled images, {EPOCHS} epochs from each start")
    results = {}
    for name, start in {"scratch": MODEL, "headstart": str(run.checkpoint)}.items():
        results[name] = _finetune(name, start, data, folder)
        console.print(f"    {name}: mAP50 {results[name].map50:.3f} after {duration(results[name].seconds)}")
    _conclude(console, folder, results, time.monotonic() - began)
    return 0


def _new(folder: Path, overwrite: bool) -> Path:
    used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if used and not (folder / NAME).is_file():
        raise UserError("holds something that is not a demo", where=f"out={folder}", hint="choose a new folder")
    if used and not overwrite:
        hint = "overwrite=true replaces it, or choose another folder with out="
        raise UserError("there is a demo in this folder already", where=f"out={folder}", hint=hint)
    if used:
        shutil.rmtree(folder)
    write_text(folder / NAME, "{}\n")
    return folder


def _finetune(name: str, start: str, data: Path, folder: Path) -> FinetuneResult:
    settings = FinetuneSettings(
        data=data,
        start=start,
        out=folder / "finetune",
        name=name,
        epochs=EPOCHS,
        imgsz=IMGSZ,
        batch=8,
        optimizer="AdamW",
        lr0=0.002,
        device="cpu",
        workers=0,
        # An update every batch (Ultralytics saves gradients up for 64 images) and no mosaic: the training is short.
        extra={"nbs": 8, "mosaic": 0.0, "warmup_epochs": 1.0},
    )
    return finetune(settings)


def _conclude(console: Console, folder: Path, results: dict[str, FinetuneResult], seconds: float) -> None:
    table = Table("start", "mAP50", "mAP50-95", "time", "tensors that arrived")
    for name, result in results.items():
        arrived = f"{result.arrival.model} of {result.arrival.tensors}" if result.arrival.tensors else "random weights"
        table.add_row(name, f"{result.map50:.3f}", f"{result.map50_95:.3f}", duration(result.seconds), arrived)
    console.print(table)
    figures = {name: {"map50": one.map50, "map50_95": one.map50_95} for name, one in results.items()}
    write_text(folder / NAME, json.dumps({"seconds": round(seconds, 1), "results": figures}, indent=1) + "\n")
    console.print(f"done in {duration(seconds)}: one seed and a minute of pretraining show the path, not the gain")
    console.print(f"report:  {folder / 'pretrain' / 'report.html'}")
    console.print(f"next:    headstart pretrain data=YOUR/IMAGES model={MODEL}")
