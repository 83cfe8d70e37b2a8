"""The tutorial's claim as one command: pretrain, then one epoch from the result and one from COCO, side by side.

python run.py                                                  # Pascal VOC, which is on this machine (README.md)
python run.py --data my.yaml --images my/unlabelled            # any dataset
python run.py --data my.yaml --images my/unlabelled --coco yolo11n.pt --steps 500 --imgsz 224 --labels 10%
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import headstart
from headstart.comparison.dataset import read_dataset
from headstart.detectors.find import finetuner


def main() -> int:
    """Pretrain, or take what is there, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="VOC.yaml", help="dataset YAML, or the name of one that Ultralytics ships")
    parser.add_argument("--images", help="images to pretrain on (default: the dataset's train images, without labels)")
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--coco", help="COCO weights (default: downloaded by Ultralytics)")
    parser.add_argument("--steps", type=int, default=15_000, help="of pretraining")
    parser.add_argument("--labels", default="100%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/tutorial"))
    given = parser.parse_args()

    dataset = read_dataset(given.data, "val", finetuner(given.model))  # before the hours that follow
    checkpoint = given.out / "pretrain" / "headstart.pt"
    if not checkpoint.is_file():
        run = headstart.pretrain(
            data=given.images or str(dataset.yaml),
            model=f"{given.model}.yaml",
            method="dino",
            preset="tutorial",
            steps=given.steps,
            device=given.device,
            out=str(given.out / "pretrain"),
            overwrite=True,
        )
        if run.interrupted:
            return 130
    found = headstart.compare(
        data=str(dataset.yaml),
        model=given.model,
        starts=["scratch", f"coco={given.coco}" if given.coco else "coco", f"ssl={given.out / 'pretrain'}"],
        labels=given.labels,
        seeds=given.seeds,
        epochs=given.epochs,
        imgsz=given.imgsz,
        lr=0.001,
        longer=False,
        device=given.device,
        out=given.out / "compare",
    )
    return 130 if found.interrupted else int(bool(found.failed))


if __name__ == "__main__":
    sys.exit(main())
