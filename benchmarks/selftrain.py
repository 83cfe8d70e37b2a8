"""Variants of selftrain, on a validation part of a pool of frames; test images are never looked at.

python benchmarks/selftrain.py --pool FOD/images/pool --yaml FOD/fod-a.yaml --coco yolo11n.pt labels mixed rounds2
python benchmarks/selftrain.py ... --minutes 60    # stops by then; the same command goes on

Frames are named by number, and a recording ends where the numbers jump. Of each recording the first three quarters are
learnt from, the last fifth (every second frame) is validated on, and what lies between is left out, as pool and test of
FOD-A are divided. --learn 0.6 --validate 0.65 --every 1 validates on 2,136 frames in place of 649, and tells smaller
differences. A variant is a pretraining; its headstart.pt is validated as it is, by Ultralytics.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import yaml

import headstart
from headstart.comparison.label_lists import stratified_order
from headstart.errors import UserError
from headstart.images.labels import label_path, read_labels

BOTH: dict[str, Any] = {"keep": 0.4, "unsure": 0.05}
VARIANTS: dict[str, dict[str, Any]] = {
    "labels": {"burn_in": 1, "settle": 0, "held_out": 0},
    "labels-longer": {"burn_in": 1, "settle": 0, "held_out": 0, "times": 2},
    "all-labels": {"burn_in": 1, "settle": 0, "held_out": 0, "labels": "all"},
    "mixed": {**BOTH, "times": 2, "burn_in": 0.5, "settle": 0},
    "mixed-half": {**BOTH, "times": 2, "burn_in": 0.5, "settle": 0, "labelled": 0.5},
    "mixed-settle": {**BOTH, "times": 2, "burn_in": 0.5, "settle": 0.15},
    "rounds2": {**BOTH, "times": 3, "burn_in": 0.34, "settle": 0, "rounds": 2},
}
OF_ALL = ("pool", "coco", "share", "learn", "validate", "every", "steps", "imgsz", "set")  # that all variants share
GAP = 4  # between the numbers of two frames of one recording


def split(given: argparse.Namespace, names: Any) -> None:
    """Write the lists and their dataset YAMLs."""
    pool, out = given.pool, given.out
    files = sorted(pool.iterdir(), key=lambda path: path.name)
    if not files:
        raise SystemExit(f"no frames in {pool}: unpack the data set first")
    recordings: list[list[Path]] = [[]]
    for before, path in zip([files[0], *files], files, strict=False):
        if int(path.stem) - int(before.stem) > GAP:
            recordings.append([])
        recordings[-1].append(path)
    learn = [str(path) for one in recordings for path in one[: int(given.learn * len(one))]]
    validate = [str(path) for one in recordings for path in one[int(given.validate * len(one)) :][:: given.every]]
    order = stratified_order({path: read_labels(label_path(path)).classes for path in learn}, given.seed)
    few = sorted(order[: round(given.share * len(files))])
    out.mkdir(parents=True, exist_ok=True)
    for name, listed in {"learn": learn, "val": validate, "few": few}.items():
        (out / f"{name}.txt").write_text("".join(f"{path}\n" for path in listed))
    for name, train in {"few": "few.txt", "all": "learn.txt"}.items():
        content = {"path": str(out.resolve()), "train": train, "val": "val.txt", "names": names}
        (out / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def of_other_options(given: argparse.Namespace) -> None:
    """Stop where a folder holds variants of other lists or options: they would be taken for these."""
    asked = json.dumps({name: getattr(given, name) for name in OF_ALL}, default=str)
    kept = given.out / "options.json"
    if kept.is_file() and kept.read_text() != asked:
        raise SystemExit(f"{given.out} holds variants of other options, {kept.read_text()}: give another --out")
    given.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(asked)


def option(text: str) -> tuple[str, Any]:
    """Name and value of an option of the method."""
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def made(given: argparse.Namespace, name: str) -> Path | None:
    """The checkpoint of a variant; None where it was stopped."""
    options: dict[str, Any] = dict(VARIANTS[name])
    folder: Path = given.out / name
    steps = given.steps * options.pop("times", 1)
    if (folder / "headstart.pt").is_file():
        return folder / "headstart.pt"
    labels: Path = given.out / f"{options.pop('labels', 'few')}.yaml"
    common = {"imgsz": given.imgsz, "report": False, "cache": "ram", "save_every": 200, "probe_every": 0}
    run = headstart.pretrain(
        data=str(given.out / "learn.txt"),
        labels=str(labels),
        model=str(given.coco),
        method="selftrain",
        steps=steps,
        seed=given.seed,
        out=str(folder),
        channels_last=True,
        resume=any(folder.glob("checkpoints/step-*.pt")),
        **common,
        **{"teacher": None, **options, **dict(given.set)},  # whatever this machine has
    )
    return run.checkpoint


def measured(weights: Path, data: Path, imgsz: int) -> dict[str, float]:
    """mAP on the validation part."""
    from ultralytics import YOLO

    found = YOLO(str(weights)).val(data=str(data), imgsz=imgsz, batch=32, plots=False, verbose=False, workers=0)
    return {"map50_95": round(float(found.box.map), 4), "map50": round(float(found.box.map50), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", nargs="*", default=list(VARIANTS), metavar="variant", help=", ".join(VARIANTS))
    parser.add_argument("--pool", type=Path, required=True, help="folder of frames, labels beside it")
    parser.add_argument("--yaml", type=Path, required=True, help="dataset YAML of the classes")
    parser.add_argument("--coco", type=Path, required=True, help="weights to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/selftrain"))
    parser.add_argument("--share", type=float, default=0.05, help="labelled frames, as a share of the pool")
    parser.add_argument("--steps", type=int, default=1200, help="of one part of a variant")
    parser.add_argument("--learn", type=float, default=0.75, help="share of a recording, from its start, to learn from")
    parser.add_argument("--validate", type=float, default=0.8, help="share of it after which frames are validated on")
    parser.add_argument("--every", type=int, default=2, help="of these one in so many")
    parser.add_argument(
        "--set", type=option, action="append", default=[], metavar="OPTION=VALUE", help="of every variant"
    )
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="no variant is begun after this time")
    given = parser.parse_args()
    if not (given.pool.is_dir() and given.yaml.is_file() and given.coco.is_file()):
        raise SystemExit("skipped: pool, YAML or weights are not there")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    given.out = given.out / f"seed{given.seed}"
    of_other_options(given)
    split(given, yaml.safe_load(given.yaml.read_text())["names"])
    began = time.monotonic()
    for name in given.variant:
        if given.minutes and time.monotonic() - began > 60 * given.minutes:
            break
        try:
            weights = made(given, name)
        except UserError as error:
            raise SystemExit(str(error)) from error
        if weights is None:
            break
        line = {"variant": name, "seed": given.seed, **measured(weights, given.out / "few.yaml", given.imgsz)}
        with (given.out / "results.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(line)


if __name__ == "__main__":
    main()
