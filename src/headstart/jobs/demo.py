"""The whole way on images that the program draws: pretrain, hand back, compare the start with random weights.

It needs nothing but the installation, and shows the path, not the gain: a minute of training says little of a method.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.text import Text

from headstart.aside import empty
from headstart.errors import UserError
from headstart.files import explained, in_use, write_text
from headstart.jobs.compare import Comparison, compare
from headstart.jobs.ending import Run
from headstart.jobs.pretrain import pretrain
from headstart.jobs.scenes import draw_dataset
from headstart.run.display import duration, make_console

MODEL = "yolo11n.yaml"
IMGSZ = 160
IMAGES = {"unlabelled": 1000, "train": 160, "val": 64}
EPOCHS = 12
STEPS = 60
NEXT = (
    "headstart pretrain data=my/images model=yolo11n.pt out=runs/mine",
    "yolo detect train cfg=runs/mine/finetune.yaml model=runs/mine/headstart.pt data=my.yaml",
    "headstart compare data=my.yaml starts=coco,coco-longer,mine=runs/mine",
)
LABELS = "labels=my.yaml"
"""What the first of these gets on top where some images have labels."""
NAME = "headstart-demo.txt"
"""Marks the folder as a demo's, which ``overwrite=true`` may replace."""


def demo(out: str | Path = "runs/demo", overwrite: bool = False) -> int:
    """Draw images, pretrain, fine-tune from scratch and from the pretrained start, say where the reports are.

    Args:
        out: A new or empty folder; it gets ``scenes`` (the images), ``pretrain`` and ``compare``.
        overwrite: Replace what an earlier demo left there.

    Returns:
        0 when all was done and every check held, 1 where a part of it failed, 130 when Ctrl-C ended it.

    Raises:
        UserError: There is something in `out`, or a part of the demo failed.
    """
    console, began = make_console(soft_wrap=True), time.monotonic()
    folder = _new(Path(out), overwrite)
    labelled = IMAGES["train"] + IMAGES["val"]
    console.print(f"1/3 drawing {sum(IMAGES.values())} images of scenes, {labelled} of them with labels")
    data = draw_dataset(folder / "scenes", **IMAGES, imgsz=IMGSZ)
    console.print(f"2/3 pretraining {MODEL} on the images without labels")
    run = _pretrain(folder)
    if not run.ok:
        return 130 if run.interrupted else 1
    console.print(f"3/3 fine-tuning {EPOCHS} epochs on {IMAGES['train']} labelled images, from each of two starts")
    done = _compare(folder, data, run)
    if done.interrupted:
        return 130
    for line in _ending(run, done, time.monotonic() - began):
        console.print(Text(line))
    return 0 if done.ok else 1


def _ending(run: Run, done: Comparison, seconds: float) -> list[str]:
    """The verdict, where the reports are, and the commands for images of one's own."""
    pretraining, *others = NEXT
    return [
        f"\ndone in {duration(seconds)}: it shows the path, not the gain (one seed, {STEPS} steps from random weights)",
        done.verdict,
        f"report: {done.report or 'not drawn'}",
        f"        {run.folder / 'report.html'} (the pretraining)",
        "\nOn images of your own, from trained weights:",
        f"  {pretraining}",
        f"  {pretraining} {LABELS}   (in its place, where some images have labels)",
        *(f"  {line}" for line in others),
    ]


def _new(folder: Path, overwrite: bool) -> Path:
    used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if used and not (folder / NAME).is_file():
        raise UserError("holds something that is not a demo", where=f"out={folder}", hint="choose a new folder")
    if used and not overwrite:
        hint = "overwrite=true replaces it, or choose another folder with out="
        raise UserError("there is a demo in this folder already", where=f"out={folder}", hint=hint)
    if used:
        if busy := next(filter(None, (in_use(folder / part) for part in ("pretrain", "compare"))), None):
            raise busy
        with explained(folder):
            empty(folder, NAME)
    write_text(folder / NAME, "Made by `headstart demo`; overwrite=true replaces the whole folder.\n")
    return folder


def _pretrain(folder: Path) -> Run:
    images = folder / "scenes" / "images"
    return pretrain(
        data=[str(images / "unlabelled"), str(images / "train")],
        model=MODEL,
        steps=STEPS,
        batch=32,
        imgsz=128,
        local_imgsz=64,
        cache="off",
        log_every=5,
        out=str(folder / "pretrain"),
    )


def _compare(folder: Path, data: Path, run: Run) -> Comparison:
    return compare(
        data=data,
        model=MODEL,
        starts=["scratch", f"headstart={run.folder}"],
        labels=["100%"],
        seeds=1,
        epochs=EPOCHS,
        imgsz=IMGSZ,
        batch=8,
        lr=0.002,
        longer="false",
        out=folder / "compare",
        # An update every batch (Ultralytics saves gradients up for 64 images) and no mosaic: the training is short.
        extra={"nbs": 8, "mosaic": 0.0, "warmup_epochs": 1.0},
    )
