"""Pretraining variants at equal steps, each judged by one fixed short fine-tune; stopped and continued at will.

    python benchmarks/ablation.py data.yaml --out ablation [--minutes 5] [--only pyramid,dino]
        [--variants mine.yaml] [--weights coco.pt] [--seeds 0] [--steps 900] [--batch 32] [--imgsz 160]
        [--labels 0.05] [--validation 400] [--epochs 20] [--finetune-imgsz 224]

Everything comes from the `train` images of the dataset YAML; its `val` and `test` are never read. They are cut, in the
order of their names, into blocks of neighbours (frames of one recording are nearly alike): every sixth block is for
validation, the rest for pretraining (without labels) and, an even share of it, for fine-tuning.

One line a run goes to OUT/results.jsonl. A run that is there with the same settings is skipped; one that was stopped
in mid-pretraining goes on from its last checkpoint. Without --weights the variants that start from them are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from headstart.comparison.finetune import FinetuneSettings, finetune
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.pretraining import pretrain

BLOCK, EVERY = 25, 6
START = "start"  # a variant with this key alone is not pretrained: the file or "scratch" is the start

# Options beside data, model, seed and what is held equal. WEIGHTS stands for --weights.
VARIANTS: dict[str, dict[str, Any]] = {
    "scratch": {START: "scratch"},
    "coco": {START: "WEIGHTS"},
    "dino-tutorial": {"method": "dino", "preset": "tutorial"},
    "dino-default": {"method": "dino", "preset": "default"},
    "dino-lightlytrain": {"method": "dino", "preset": "lightlytrain"},
    "simclr": {"method": "simclr"},
    "byol": {"method": "byol"},
    "vicreg": {"method": "vicreg"},
    "densecl": {"method": "densecl"},
    "lejepa": {"method": "lejepa"},
    **{f"pyramid-{name}": {"method": "pyramid", "preset": name} for name in ("default", "easy", "contrast", "across")},
    "distill-coco": {"method": "distill", "teacher": "WEIGHTS"},
    "objects": {"method": "objects", "proposals": "WEIGHTS"},
    "coco+objects": {"method": "objects", "init": "WEIGHTS"},
    "coco+objects-256": {"method": "objects", "init": "WEIGHTS", "clusters": 256},
    "coco+dino": {"method": "dino", "preset": "default", "init": "WEIGHTS"},
    **{
        f"coco+pyramid-{preset}": {"method": "pyramid", "preset": preset, "init": "WEIGHTS"}
        for preset in ("default", "easy", "contrast", "across")
    },
    **{
        f"coco+pyramid-anchor{weight:g}": {"method": "pyramid", "init": "WEIGHTS", "anchor": weight}
        for weight in (0.1, 1.0)
    },
}  # fmt: skip


def main() -> int:
    arguments = parse()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    if not Path(arguments.data).is_file():
        print(f"skipped: {arguments.data} is not there; give an Ultralytics dataset YAML with labelled train images")
        return 0
    parts = split(arguments, out)
    done = {(line["name"], line["seed"], line["asked"]) for line in read(out / "results.jsonl")}
    deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    for name, options, seed in wanted(arguments):
        asked = json.dumps({**options, **held_equal(arguments)}, sort_keys=True)
        if (name, seed, asked) in done:
            continue
        left = deadline - time.monotonic() if deadline else None
        if left is not None and left <= 0:
            break
        # Other settings, another folder: an unfinished run of theirs is not gone on with.
        mark = hashlib.blake2b(asked.encode(), digest_size=4).hexdigest()
        line = run(name, options, seed, arguments, parts, left, out.resolve() / "runs" / f"{name}-{seed}-{mark}")
        if line is None:
            break
        with (out / "results.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**line, "asked": asked}) + "\n")
        print(f"{name:<24} seed {seed}  mAP50-95 {line['map50_95']:.4f}", flush=True)
    show(read(out / "results.jsonl"))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="an Ultralytics dataset YAML")
    parser.add_argument("--out", default="ablation")
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--weights", help="trained weights of the model, e.g. COCO's")
    parser.add_argument("--variants", help="a YAML file, name: options; in place of those listed in this file")
    parser.add_argument("--only", help="names of variants, with commas")
    parser.add_argument("--seeds", default="0", help="with commas")
    parser.add_argument("--minutes", type=float, help="stop after about so long; the next call goes on")
    parser.add_argument("--device", default="auto")
    for name, default in {"steps": 900, "batch": 32, "imgsz": 160, "epochs": 20, "finetune-imgsz": 224}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--validation", type=int, default=400, help="images that a fine-tune is judged on, about")
    parser.add_argument("--finetune-batch", type=int, default=16)
    parser.add_argument("--lr0", type=float, default=1e-3)
    parser.add_argument("--labels", type=float, default=0.05, help="share of the images that is fine-tuned on")
    return parser.parse_args()


def held_equal(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is the same for all variants, and makes results comparable."""
    names = (
        "model",
        "steps",
        "batch",
        "imgsz",
        "epochs",
        "finetune_imgsz",
        "finetune_batch",
        "lr0",
        "labels",
        "validation",
    )
    return {name: getattr(arguments, name) for name in names}


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], int]]:
    """(name, options, seed) of every run, seed by seed, so that a part of the table is already a comparison."""
    variants = yaml.safe_load(Path(arguments.variants).read_text()) if arguments.variants else VARIANTS
    chosen = arguments.only.split(",") if arguments.only else list(variants)
    unknown = [name for name in chosen if name not in variants]
    if unknown:
        raise SystemExit(f"no such variants: {', '.join(unknown)}; there are {', '.join(variants)}")
    for seed in map(int, arguments.seeds.split(",")):
        for name in chosen:
            options = dict(variants[name])
            if "WEIGHTS" in options.values() and not arguments.weights:
                continue
            yield name, {key: arguments.weights if one == "WEIGHTS" else one for key, one in options.items()}, seed


def split(arguments: argparse.Namespace, out: Path) -> dict[str, Path]:
    """Lists of images for pretraining and validation; those for fine-tuning depend on the seed."""
    paths = find_images(str(Path(arguments.data).resolve())).paths()
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    validation = [path for block in blocks[EVERY - 1 :: EVERY] for path in block]
    kept = sorted(set(paths) - set(validation))
    validation = validation[:: max(1, len(validation) // arguments.validation)]  # validating costs time in every epoch
    lists = {"pretrain": kept, "validation": validation}
    for name, found in lists.items():
        (out / f"{name}.txt").write_text("".join(f"{path}\n" for path in found))
    return {name: (out / f"{name}.txt").resolve() for name in lists}


def dataset(arguments: argparse.Namespace, seed: int, parts: dict[str, Path]) -> Path:
    """The dataset YAML of a seed: an even share of the pretraining images, and the validation images."""
    out = Path(arguments.out).resolve()
    images = parts["pretrain"].read_text().splitlines()
    step = 1 / arguments.labels
    number = int(len(images) * arguments.labels)
    chosen = [images[int(step * (place + (seed * 0.37) % 1)) % len(images)] for place in range(number)]
    (out / f"labelled-{seed}.txt").write_text("".join(f"{path}\n" for path in chosen))
    names = yaml.safe_load(Path(arguments.data).read_text())["names"]
    path = out / f"data-{seed}.yaml"
    content = {"train": str(out / f"labelled-{seed}.txt"), "val": str(parts["validation"]), "names": names}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(
    name: str,
    options: dict[str, Any],
    seed: int,
    arguments: argparse.Namespace,
    parts: dict[str, Path],
    left: float | None,
    folder: Path,
) -> dict[str, Any] | None:
    """Pretrain and fine-tune once; None where time ran out on the way."""
    start, found = arguments.model, {}
    timer = threading.Timer(left, os.kill, (os.getpid(), signal.SIGINT)) if left else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        if START not in options:
            trained = pretrained(options, seed, arguments, parts, folder / "pretrain")
            if trained is None:
                return None
            start, found = trained
        elif options[START] != "scratch":
            start = options[START]
        result = finetune(
            FinetuneSettings(
                data=dataset(arguments, seed, parts), start=start, out=folder, name="finetune", epochs=arguments.epochs,
                imgsz=arguments.finetune_imgsz, batch=arguments.finetune_batch, lr0=arguments.lr0, seed=seed,
                device="" if arguments.device == "auto" else arguments.device,
            )
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    finally:
        if timer:
            timer.cancel()
    scores = {"map50_95": result.map50_95, "map50": result.map50, "finetune_seconds": result.seconds}
    shutil.rmtree(folder / "finetune" / "weights", ignore_errors=True)
    finished = time.strftime("%Y-%m-%d %H:%M")
    return {"name": name, "seed": seed, **scores, **found, "options": options, "finished": finished}


def pretrained(
    options: dict[str, Any], seed: int, arguments: argparse.Namespace, parts: dict[str, Path], folder: Path
) -> tuple[str, dict[str, Any]] | None:
    """The checkpoint of a pretraining, new, continued or already there, with its last measures."""
    common = {"data": str(parts["pretrain"]), "model": arguments.model, "seed": seed, "steps": arguments.steps}
    common |= {"batch": arguments.batch, "imgsz": arguments.imgsz, "device": arguments.device, "report": False}
    if "local_imgsz" not in options:
        common["local_imgsz"] = max(32, arguments.imgsz * 3 // 7 // 32 * 32)
    try:
        ended = pretrain(out=str(folder), resume=True)
    except UserError:  # nothing to go on with
        ended = pretrain(**{**common, **options}, out=str(folder), overwrite=folder.exists())
    if ended.checkpoint is None:
        return None
    lines = read(folder / "metrics.jsonl")
    last = {key: value for line in lines for key, value in line.items()}
    probes = {key: value for key, value in last.items() if key.startswith("probe") or key == "anchor_drift"}
    clock = [*(line["seconds"] for line in lines), 0]
    seconds = sum(now for now, after in pairwise(clock) if after < now)  # of each part, if resumed
    return str(ended.checkpoint), {"loss": last["loss"], "pretrain_seconds": round(seconds, 1), **probes}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def show(lines: list[dict[str, Any]]) -> None:
    """Mean mAP50-95 over the seeds, the best first, and the seconds that pretraining took."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line)
    mean = {name: statistics.mean(line["map50_95"] for line in found) for name, found in by_name.items()}
    print(f"\n{'variant':<26}{'seeds':>6}{'mAP50-95':>10}{'pretraining':>13}")
    for name in sorted(mean, key=lambda name: -mean[name]):
        seconds = statistics.mean(line.get("pretrain_seconds", 0) for line in by_name[name])
        print(f"{name:<26}{len(by_name[name]):>6}{mean[name]:>10.4f}{seconds:>11.0f} s")


if __name__ == "__main__":
    sys.exit(main())
