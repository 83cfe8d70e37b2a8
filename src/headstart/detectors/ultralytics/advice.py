"""Ultralytics' settings with which a start does best, each with what it rests on: measured trainings.

Those of docs/evidence.md, and for a start that detects the user's classes already those of EXPERIMENTS.md, Selftrain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from headstart.detectors.base import Advised

BATCH, STEPS = 16, 600
"""Of the longer of the measured trainings."""
FLIP = 0.5
"""Chance with which Ultralytics mirrors an image, left to right."""
FEW_STEPS = 100
"""Of the training of a start that detects already, which sees whole images."""


def settings(
    imgsz: int, labelled: int, *, measured: bool, detects: bool = False, flip: float | None = None
) -> Mapping[str, Advised]:
    """The settings of a training from a start that was pretrained at `imgsz`, on so many `labelled` images.

    Args:
        imgsz: Side of the images, pixels.
        labelled: Number of images.
        measured: Whether such a detector was trained so; the figures are those of ``task=detect``.
        detects: Whether the start detects the user's classes already: it needs little more, and at a low rate.
        flip: Chance with which the pretraining mirrored its views, None where that is no option of it.
    """
    if detects:
        steps, source = FEW_STEPS, "EXPERIMENTS.md (one seed)"
        length = "it detects already: try it as it is; FOD-A: 16 epochs were worse than 6"
        rate, other = 0.0001, "0.001 cost 2 points of mAP50-95"
    else:
        steps, source = STEPS, "docs/evidence.md"
        length = "200 to 600 steps; the lead over COCO's weights is largest at 200"
        rate, other = 0.001, "other rates were not compared there"
    seen = f"measured, {source}" if measured else f"measured for task=detect alone, {source}"
    batches = math.ceil(labelled / BATCH)
    epochs = max(1, round(steps / batches))
    size = f"{seen} (160)" if imgsz == 160 and measured else "not measured (160 was)"
    if detects:
        whole = (
            "images whole, as it is shown them later; measured, EXPERIMENTS.md (A last part on whole images): DeepPCB, "
            "three seeds, 13 epochs with Ultralytics' defaults cost 5 to 11 points, these gained; FOD-A: no difference"
        )
        augmentation = {name: Advised(0.0, whole) for name in ("mosaic", "scale", "translate")}
    else:
        closed = f"Ultralytics' 10 last epochs, a third of a shorter training. {seen}: 10; others not measured"
        augmentation = {"close_mosaic": Advised(min(10, max(1, epochs // 3)), closed)}
    if flip is not None and flip != FLIP:
        mirrored = f"flip={flip:g} of the pretraining; the default of {FLIP} mirrors half of the images. Not measured"
        augmentation |= {"fliplr": Advised(flip, mirrored)}
    return {
        "epochs": Advised(
            epochs,
            f"{steps:,} steps of {BATCH} for {labelled:,} labelled images, {batches:,} an epoch, the last with what is "
            f"left: write {steps:,} / (yours / {BATCH}, rounded up). {seen}: {length}",
        ),
        "batch": Advised(BATCH, seen),
        "nbs": Advised(BATCH, f"as batch, so that every batch is an update, and not every 64 images. {seen}"),
        "imgsz": Advised(math.ceil(imgsz / 32) * 32, f"as in the pretraining: raise it for small objects. {size}"),
        "optimizer": Advised("AdamW", f"auto changes optimizer and rate with the number of labels. {seen}"),
        "lr0": Advised(rate, f"{seen}; {other}"),
        "lrf": Advised(0.01, f"Ultralytics' default. {seen}; others not measured"),
        "warmup_epochs": Advised(
            min(3.0, epochs / 4), f"Ultralytics' 3, a quarter of a shorter training. {seen}: 3; others not measured"
        ),
        "warmup_bias_lr": Advised(
            0.0, f"the default of 0.1 is for SGD: with AdamW it undoes what a good start brought. {seen}"
        ),
        **augmentation,
    }
