"""Which pretraining is best? Methods and options side by side at equal time or steps, one fixed fine-tuning for all.

    python benchmarks/ablation.py my.yaml --coco coco.pt --budget 3m        # or --steps 900
    python benchmarks/ablation.py my.yaml ... --only coco+dino,coco+objects --seeds 3
    python benchmarks/ablation.py my.yaml ... --teacher tf_efficientnet_lite0 --teacher-weights lite0.pt
    python benchmarks/ablation.py my.yaml ... --variants mine.yaml    # name: options; COCO and TEACHER: those given
    python benchmarks/ablation.py my.yaml ... --minutes 5                   # stops by then; the same command goes on

Everything comes from the `train` images of the dataset YAML; its `val` and `test` are never read, so that what is
chosen here can be measured there. The images are cut, in the order of their names, into blocks of neighbours (frames of
one recording are nearly alike): every sixth block is for validation, the rest for pretraining (without labels) and for
fine-tuning. The comparison is `headstart compare`'s, with its report, in OUT/compare. A variant whose options have
changed is made anew, beside the old one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import yaml
from evidence import COCO, TEACHER, filled, pretrained_in

import headstart
from headstart.errors import UserError
from headstart.images.index import find_images

BLOCK, EVERY = 25, 6
LOSSES = ("simclr", "byol", "vicreg", "densecl", "lejepa")
DINOS = ("tutorial", "default", "lightlytrain")
PYRAMIDS = ("default", "easy", "contrast", "across")

# Options beside data, model, seed and what is held equal. Distilling the weights into themselves would teach nothing.
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"dino-{preset}": {"method": "dino", "preset": preset} for preset in DINOS},
    **{name: {"method": name} for name in LOSSES},
    **{f"pyramid-{preset}": {"method": "pyramid", "preset": preset} for preset in PYRAMIDS},
    "distill": {"method": "distill", "teacher": COCO},
    "objects": {"method": "objects", "proposals": COCO, "lr": 0.002},
    **{f"coco+dino-{preset}": {"method": "dino", "preset": preset, "init": COCO} for preset in DINOS},
    **{f"coco+{name}": {"method": name, "init": COCO} for name in LOSSES},
    **{f"coco+pyramid-{preset}": {"method": "pyramid", "preset": preset, "init": COCO} for preset in PYRAMIDS},
    "coco+pyramid-anchor": {"method": "pyramid", "init": COCO, "anchor": 0.1},
    "coco+distill": {"method": "distill", "init": COCO, "teacher": TEACHER},
    "coco+objects": {"method": "objects", "init": COCO},
    "coco+objects-teacher": {"method": "objects", "init": COCO, "teacher": TEACHER},
    "coco+objects-256": {"method": "objects", "init": COCO, "clusters": 256},
}


def main() -> int:
    given = arguments()
    if not (Path(given.data).is_file() and given.coco.is_file()):
        missing = given.coco if Path(given.data).is_file() else given.data
        print(f"skipped: {missing} is not there; it takes a dataset YAML with labelled train images and COCO weights")
        return 0
    variants = yaml.safe_load(given.variants.read_text()) if given.variants else VARIANTS
    able = [name for name, options in variants.items() if given.teacher or TEACHER not in options.values()]
    chosen = given.only.split(",") if given.only else able
    if unknown := [name for name in chosen if name not in variants]:
        raise SystemExit(f"no such variants: {', '.join(unknown)}; there are {', '.join(variants)}")
    if unable := [name for name in chosen if name not in able]:
        raise SystemExit(f"give --teacher for {', '.join(unable)}")
    if given.minutes:
        timer = threading.Timer(60 * given.minutes, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
    data, images = parts(given)
    starts = ["scratch", f"coco={given.coco}"]
    try:
        for name in chosen:
            folder = pretrained(given, name, filled(given, variants[name]), images)
            if folder is None:
                return 130
            starts.append(f"{name}={folder}")
        found = headstart.compare(
            data=data, model=Path(given.model).stem, starts=starts, labels=given.labels, seeds=given.seeds,
            steps=given.finetune_steps, imgsz=given.finetune_imgsz, batch=16, lr=given.lr, longer=False,
            extra={"nbs": 16}, device=given.device, out=given.out / "compare",
        )  # fmt: skip
    except UserError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 130 if found.interrupted else int(bool(found.failed))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="an Ultralytics dataset YAML")
    parser.add_argument("--coco", type=Path, required=True, help="trained weights of the model")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--variants", type=Path, help="a YAML file, name: options; in place of those of this file")
    parser.add_argument("--only", help="names of variants, with commas")
    parser.add_argument("--steps", type=int, default=900, help="of each pretraining")
    parser.add_argument("--budget", help="time of each pretraining, such as 3m, in place of the steps")
    parser.add_argument(
        "--batch",
        type=int,
        help="images that the network is shown a step of pretraining; by default what the method wants",
    )
    parser.add_argument("--teacher", help="timm model or YOLO .pt for the variants with a teacher")
    parser.add_argument("--teacher-weights", type=Path, help="file with the weights of a timm teacher")
    parser.add_argument("--imgsz", type=int, default=160, help="of pretraining, pixels")
    parser.add_argument("--labels", default="5%")
    parser.add_argument("--seeds", type=int, default=1, help="of the fine-tuning; pretraining has seed 0")
    parser.add_argument("--finetune-steps", type=int, default=200)
    parser.add_argument("--finetune-imgsz", type=int, default=160)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the fine-tuning")
    parser.add_argument("--validation", type=int, default=400, help="images that a fine-tuning is judged on, about")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    return parser.parse_args()


def parts(given: argparse.Namespace) -> tuple[Path, Path]:
    """The dataset YAML of the fine-tunings, and the list of images to pretrain on, which are its labelled ones."""
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    paths = find_images(str(Path(given.data).resolve())).paths()
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    validation = [path for block in blocks[EVERY - 1 :: EVERY] for path in block]
    kept = sorted(set(paths) - set(validation))
    validation = validation[:: max(1, len(validation) // given.validation)]
    for name, found in {"pretrain": kept, "validation": validation}.items():
        (out / f"{name}.txt").write_text("".join(f"{path}\n" for path in found))
    names = yaml.safe_load(Path(given.data).read_text())["names"]
    content = {"train": str(out / "pretrain.txt"), "val": str(out / "validation.txt"), "names": names}
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return out / "data.yaml", out / "pretrain.txt"


def pretrained(given: argparse.Namespace, name: str, options: dict[str, Any], images: Path) -> Path | None:
    """The folder of a pretraining that is new, goes on, or was done before; None where it was stopped."""
    asked: dict[str, Any] = {"data": str(images), "model": given.model, "imgsz": given.imgsz, "device": given.device}
    asked["local_imgsz"] = max(32, given.imgsz * 3 // 7 // 32 * 32)  # as 96 is to 224
    asked |= {"budget": given.budget} if given.budget else {"steps": given.steps}
    # Four images make one that the network of `objects` sees.
    asked |= {"batch": given.batch * (4 if options["method"] == "objects" else 1)} if given.batch else {}
    mark = hashlib.blake2b(json.dumps({**asked, **options}, sort_keys=True).encode(), digest_size=4).hexdigest()
    folder: Path = given.out / "runs" / f"{name}-{mark}"
    return folder if pretrained_in(folder, **{**asked, **options}, report=False) else None


if __name__ == "__main__":
    sys.exit(main())
