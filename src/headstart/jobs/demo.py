"""The whole way on images that the program draws: a few labels, many images, and the proof that these helped.

It needs nothing but the installation. Four hundred signs of eight kinds, ten of them labelled; a detector that knows
other things, trained first, stands in for COCO's weights. `selftrain` with ``teacher=hog`` makes a start from all of
them, anew for each of four lists of labels, and the comparison sets it against that detector, fine-tuned on the same
ten labels for as many steps in all.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import yaml
from rich.text import Text

from headstart.aside import empty
from headstart.errors import UserError
from headstart.files import explained, in_use, write_text
from headstart.jobs.compare import Comparison, compare
from headstart.jobs.ending import Run
from headstart.jobs.pretrain import pretrain
from headstart.jobs.scenes import SIGNS, THINGS, draw_dataset
from headstart.run.display import duration, make_console

MODEL = """# YOLO11n of two scales in place of three: what is drawn is never small.
nc: 8
scales: {n: [0.50, 0.25, 1024]}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 2, C3k2, [256, False, 0.25]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 2, C3k2, [512, False, 0.25]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 2, C3k2, [512, True]]
  - [-1, 1, SPPF, [512, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 2, C3k2, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 7], 1, Concat, [1]]
  - [-1, 2, C3k2, [512, True]]
  - [[10, 13], 1, Detect, [nc]]
"""
IMGSZ = 64
SIGN_IMAGES = {"unlabelled": 0, "train": 400, "val": 120}
THING_IMAGES = {"unlabelled": 0, "train": 1500, "val": 60}
LABELLED = 10
SEEDS = 4
STEPS = 280
FINETUNING = 20
"""Steps, on top of those."""
_SHARED: dict[str, Any] = {
    "method": "selftrain",
    "imgsz": IMGSZ,
    "settle": 0.0,
    "held_out": 0.0,
    "precision": "32",
    "cache": "ram",
    "workers": 0,
    "probe_every": 0,
}
FIRST = {
    **_SHARED,
    "steps": 550,
    "batch": 64,
    "lr": 0.002,
    "burn_in": 1.0,
    "close_mosaic": 1.0,
    "zoom": 0.0,
    "average": False,
    "jitter": 0.0,
    "view_scale": [1.0, 1.0],
}
"""Of the detector that knows other things: labels alone, no mosaics, images as they are."""
RECIPE = {
    **_SHARED,
    "steps": STEPS,
    "batch": 32,
    "lr": 0.002,
    "burn_in": 0.35,
    "labelled": 0.25,
    "close_mosaic": 0.5,
    "teacher": "hog",
}
LABELS = "labels=my.yaml teacher=tf_efficientnet_lite0"
NEXT = (
    f"headstart pretrain data=my/images model=yolo11n.pt {LABELS} out=runs/mine",
    "yolo detect train cfg=runs/mine/finetune.yaml model=runs/mine/headstart.pt data=my.yaml",
    "headstart compare data=my.yaml model=yolo11n starts=coco,coco-longer,mine=runs/mine/settings.yaml,mine-as-is",
)
NAME = "headstart-demo.txt"
"""Marks the folder as a demo's, which ``overwrite=true`` may replace."""


def demo(out: str | Path = "runs/demo", overwrite: bool = False, seed: int = 0) -> int:
    """Draw images, train a first detector, compare a start from ten labels and 400 images with it, show the reports.

    Args:
        out: A new or empty folder; it gets ``signs`` and ``things`` (the images), ``first`` and ``compare``.
        overwrite: Replace what an earlier demo left there.
        seed: Of the drawn images: another one draws others of the same kind.

    Returns:
        0 when all was done and every check held, 1 where a part of it failed, 130 when Ctrl-C ended it.

    Raises:
        UserError: There is something in `out`, or a part of the demo failed.
    """
    console, began = make_console(soft_wrap=True), time.monotonic()
    folder = _new(Path(out), overwrite)
    pool = SIGN_IMAGES["train"]
    console.print(f"1/3 drawing {pool} images of signs to learn from and {SIGN_IMAGES['val']} to test on")
    with explained(folder):
        signs = draw_dataset(folder / "signs", **SIGN_IMAGES, imgsz=IMGSZ, seed=seed, kind=SIGNS)
        things = draw_dataset(folder / "things", **THING_IMAGES, imgsz=IMGSZ, seed=seed + 1_000_003, kind=THINGS)
    write_text(folder / "small.yaml", MODEL)
    console.print("2/3 training a small detector on other things: it stands in for COCO's weights")
    first = _first(folder, things)
    if not first.ok:
        return 130 if first.interrupted else 1
    console.print(
        f"3/3 comparing, with {LABELLED} of the {pool} images labelled, {SEEDS} times others: that detector, "
        "fine-tuned, and headstart's start from all images"
    )
    done = _compare(folder, signs, first)
    if done.interrupted:
        return 130
    for line in _ending(done, time.monotonic() - began):
        console.print(Text(line))
    return 0 if done.ok else 1


def _ending(done: Comparison, seconds: float) -> list[str]:
    """The verdict, where the report is, and the commands for images of one's own."""
    return [
        f"\ndone in {duration(seconds)}, on drawn images: yours will differ",
        done.verdict,
        f"report: {done.report or 'not drawn'}",
        "\nOn images of your own, some of them labelled, from COCO's weights:",
        *(f"  {line}" for line in NEXT),
    ]


def _new(folder: Path, overwrite: bool) -> Path:
    used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if used and not (folder / NAME).is_file():
        raise UserError("holds something that is not a demo", where=f"out={folder}", hint="choose a new folder")
    if used and not overwrite:
        hint = "overwrite=true replaces it, or choose another folder with out="
        raise UserError("there is a demo in this folder already", where=f"out={folder}", hint=hint)
    if used:
        if busy := next(filter(None, (in_use(folder / part) for part in ("first", "compare"))), None):
            raise busy
        with explained(folder):
            empty(folder, NAME)
    write_text(folder / NAME, "Made by `headstart demo`; overwrite=true replaces the whole folder.\n")
    return folder


def _first(folder: Path, data: Path) -> Run:
    return pretrain(
        data=str(data.parent / "images" / "train"),
        labels=str(data),
        model=str(folder / "small.yaml"),
        out=str(folder / "first"),
        **FIRST,
    )


def _compare(folder: Path, data: Path, first: Run) -> Comparison:
    known = folder / "things.pt"
    shutil.copyfile(first.folder / "headstart.pt", known)
    recipe = folder / "recipe.yaml"
    write_text(recipe, yaml.safe_dump({**RECIPE, "init": str(known.resolve())}, sort_keys=False))
    return compare(
        data=data,
        model=str(folder / "small.yaml"),
        starts=[f"things-longer={known}", "headstart-as-is", f"headstart={recipe}"],
        reference="things-longer",
        labels=[str(LABELLED)],
        seeds=SEEDS,
        steps=FINETUNING,
        imgsz=IMGSZ,
        batch=8,
        lr=0.002,
        start_lr={"headstart": 0.0002},
        longer="false",
        out=folder / "compare",
        # An update every batch (Ultralytics saves gradients up for 64 images), and mosaics half of the time.
        extra={"nbs": 8, "mosaic": 0.5, "close_mosaic": 4, "warmup_epochs": 1.0, "warmup_bias_lr": 0.0},
    )
