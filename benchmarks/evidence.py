"""Does pretraining help, and against what? The controlled comparison on FOD-A, in parts that can be stopped.

python benchmarks/evidence.py --data FOD/fod-a.yaml --images FOD/images/pool --coco yolo11n.pt
python benchmarks/evidence.py ... --minutes 30      # stops by then; the same command goes on
python benchmarks/evidence.py ... --page docs/evidence.md table

Starts: scratch, coco, coco-backbone, dino (the tutorial's recipe from random weights), coco+dino (the same, continued
from the COCO weights), coco+objects (the objects method, likewise), objects (the same from random weights: the COCO
detector says where objects are), distill (from random weights, the COCO weights as teacher). With --teacher NAME, a
timm model: coco+objects-teacher and objects-teacher (the teacher tells kinds of objects apart), coco+distill. With
--lightly-train PYTHON, an interpreter that has lightly-train, ultralytics and timm, LightlyTrain's methods as it runs
them by default: coco+lightly-dino, lightly-dino, lightly-distill (teacher: the COCO weights), and with --teacher
coco+lightly-distill. Parts: these, compare, table; all of them when none is named. What a part has done is kept in
--out, and not done again; starts, labels and seeds can be added later.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

import headstart
from headstart.comparison import wording
from headstart.comparison.dataset import read_dataset
from headstart.comparison.results import read_results
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.run.display import duration

COCO, TEACHER = "COCO", "TEACHER"  # stand for --coco and --teacher
PRETRAINED: dict[str, dict[str, Any]] = {
    "dino": {"method": "dino", "preset": "tutorial"},
    "coco+dino": {"method": "dino", "preset": "tutorial", "init": COCO},
    "coco+objects": {"method": "objects", "init": COCO},
    "objects": {"method": "objects", "proposals": COCO, "lr": 0.002},
    "distill": {"method": "distill", "teacher": COCO},
    "coco+objects-teacher": {"method": "objects", "init": COCO, "teacher": TEACHER},
    "objects-teacher": {"method": "objects", "proposals": COCO, "teacher": TEACHER, "lr": 0.002},
    "coco+distill": {"method": "distill", "init": COCO, "teacher": TEACHER},
}
# LightlyTrain finds weights by name in the folder it runs in.
LIGHTLY: dict[str, dict[str, Any]] = {
    "coco+lightly-dino": {"method": "dino", "model": "ultralytics/{model}.pt"},
    "lightly-dino": {"method": "dino", "model": "ultralytics/{model}.yaml"},
    "lightly-distill": {
        "method": "distillation",
        "model": "ultralytics/{model}.yaml",
        "method_args": {"teacher": "ultralytics/{model}.pt"},
    },
    "coco+lightly-distill": {
        "method": "distillation",
        "model": "ultralytics/{model}.pt",
        "method_args": {"teacher": TEACHER},
    },
}
# Of networks with a convolution behind their last map (EfficientNet), LightlyTrain 0.18 takes its width for the map's,
# and ends with an error.
LIGHTLY_PROGRAM = """
import json, sys, time
import lightly_train
if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    if options.get("method_args", {}).get("teacher", "").startswith("timm/"):
        from lightly_train._models.timm.timm import TIMMModelWrapper
        TIMMModelWrapper.feature_dim = lambda self: self._model.feature_info[-1]["num_chs"]
    began = time.time()
    lightly_train.pretrain(**options)
    json.dump({"seconds": time.time() - began, "version": lightly_train.__version__}, open("done.json", "w"))
"""
PARTS = (*PRETRAINED, *LIGHTLY, "compare", "table")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, required=True, help="dataset YAML")
    parser.add_argument("--images", type=Path, required=True, help="folder of unlabelled images to pretrain on")
    parser.add_argument("--coco", type=Path, required=True, help="COCO weights of the model")
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--pretrain-steps", type=int, default=2000)
    parser.add_argument("--pretrain-budget", help="time of each pretraining, such as 30m, in place of the steps")
    parser.add_argument("--pretrain-batch", type=int, default=64)
    parser.add_argument("--pretrain-imgsz", type=int, default=224)
    parser.add_argument("--lightly-train", metavar="PYTHON", help="interpreter with lightly-train and ultralytics")
    parser.add_argument("--teacher", metavar="NAME", help="timm model, for the starts that learn from one")
    parser.add_argument("--teacher-weights", type=Path, help="its state dict, where timm's own cannot be downloaded")
    parser.add_argument("--lightly-epochs", type=int, default=1, help="of LightlyTrain, as long as the others take")
    parser.add_argument("--labels", default="1%,5%,20%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, help="least batches of every fine-tuning, in place of the epochs")
    parser.add_argument("--nbs", type=int, help="images from which Ultralytics makes an update; by default its own 64")
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--lr", default="[0.001]", help="one rate, or a list to choose from")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", default="auto")
    parser.add_argument("--test-every", type=int, default=1, help="measure on every so-many-th test image")
    parser.add_argument("--starts", help="default: scratch,coco,coco-backbone and all that can be made")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    parser.add_argument("--page", type=Path, help="write the table, with what it was measured with, into this page")
    return parser.parse_args()


def pretrained_in(folder: Path, **options: Any) -> bool:
    """Pretrain in a folder, go on there, or take what is done; False where it was stopped."""
    if (folder / "headstart.pt").is_file():
        return True
    if any(folder.glob("checkpoints/step-*.pt")):
        return not headstart.pretrain(resume=True, out=str(folder)).interrupted
    return not headstart.pretrain(**options, save_every=200, out=str(folder), overwrite=True).interrupted


def filled(given: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a variant with files for the words that stand for them."""
    stands_for = {COCO: str(given.coco), TEACHER: given.teacher}
    more = {"teacher_weights": str(given.teacher_weights)} if given.teacher_weights else {}
    made = {key: stands_for.get(value, value) if isinstance(value, str) else value for key, value in options.items()}
    return made | (more if TEACHER in options.values() else {})


def pretrained(given: argparse.Namespace, name: str) -> bool:
    """Pretrain a start of ours; False where it was stopped."""
    options = filled(given, PRETRAINED[name])
    length = {"budget": given.pretrain_budget} if given.pretrain_budget else {"steps": given.pretrain_steps}
    return pretrained_in(
        given.out / name,
        data=str(given.images),
        model=f"{given.model}.yaml",
        **options,
        **length,
        batch=given.pretrain_batch,
        imgsz=given.pretrain_imgsz,
        device=given.device,
    )


def lightly_pretrained(given: argparse.Namespace, name: str) -> bool:
    """Pretrain with LightlyTrain, by its defaults but for length and batch; it cannot be stopped and continued."""
    folder = (given.out / name).resolve()
    if (folder / "done.json").is_file():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(given.coco, folder / f"{given.model}.pt")
    text = json.dumps(LIGHTLY[name]).replace("{model}", given.model)
    learnt = json.loads(text.replace(TEACHER, f"timm/{given.teacher}"))
    if given.teacher_weights and TEACHER in text:
        learnt["method_args"]["teacher_weights"] = str(given.teacher_weights.resolve())
    options = {"out": "out", "data": str(given.images.resolve()), "epochs": given.lightly_epochs, "devices": 1}
    options |= {"batch_size": given.pretrain_batch, "accelerator": "cpu" if given.device == "cpu" else "auto"}
    environment = {**os.environ, "YOLO_OFFLINE": "true", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
    environment.pop("PYTHONPATH", None)
    with (folder / "log.txt").open("w") as log:
        command = [given.lightly_train, "-c", LIGHTLY_PROGRAM, json.dumps({**options, **learnt})]
        began = time.monotonic()
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    if ended.returncode:
        print(f"{name}: LightlyTrain ended with {ended.returncode}, see {folder / 'log.txt'}", file=sys.stderr)
        return False
    print(f"{name}: {duration(time.monotonic() - began)}")
    return True


def made(given: argparse.Namespace) -> list[str]:
    """Starts that are pretrained for the comparison, in order."""
    return [name for name in possible(given) if name in given.starts.split(",")]


def possible(given: argparse.Namespace) -> list[str]:
    """Starts that can be pretrained with what was given."""
    known = {**PRETRAINED, **(LIGHTLY if given.lightly_train else {})}
    return [name for name, options in known.items() if given.teacher or TEACHER not in json.dumps(options)]


def thinned(given: argparse.Namespace) -> Path:
    """The dataset with every n-th test image alone; the dataset itself where all are wanted."""
    if given.test_every == 1:
        return Path(given.data)
    dataset = read_dataset(given.data, "val", finetuner(given.model))
    test, train = given.out / "test.txt", given.out / "train.txt"
    given.out.mkdir(parents=True, exist_ok=True)
    test.write_text("".join(f"{image}\n" for image in dataset.test[:: given.test_every]))
    train.write_text("".join(f"{image}\n" for image in dataset.pool))
    path = given.out / Path(given.data).name
    content = {"train": str(train.resolve()), "val": str(test.resolve()), "names": dict(enumerate(dataset.names))}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Path(path)


def compared(given: argparse.Namespace) -> bool:
    """Run the comparison, or go on; False where it was stopped or a training failed."""
    paths = {"coco": f"coco={given.coco}"} | {name: f"{name}={given.out / name}" for name in PRETRAINED}
    exported = "out/exported_models/exported_last.pt"
    paths |= {name: f"{name}={given.out / name / exported}" for name in LIGHTLY}
    found = headstart.compare(
        data=thinned(given),
        model=given.model,
        starts=[paths.get(name, name) for name in given.starts.split(",")],
        labels=given.labels,
        seeds=given.seeds,
        **({"steps": given.steps} if given.steps else {"epochs": given.epochs}),
        **({"nbs": given.nbs} if given.nbs else {}),
        imgsz=given.imgsz,
        lr=yaml.safe_load(given.lr),
        device=given.device,
        jobs=given.jobs if given.jobs == "auto" else int(given.jobs),
        out=given.out / "compare",
    )
    return not found.interrupted and not found.failed


def page(given: argparse.Namespace) -> str:
    """The table as a page, with what it was measured with."""
    results = read_results(given.out / "compare")
    settings, data, versions = results.settings, results.data, results.versions
    length = f"{settings.epochs} epochs" if settings.epochs else f"at least {settings.steps} steps"
    rates, seeds = ([f"{one:g}" for one in found] for found in (settings.lr, settings.seeds))
    lines = ["# Evidence", "", wording.markdown(results), "## How it was measured", ""]
    lines += [
        f"- {data.train_images:,} labelled images to cut the budgets from, {data.test_images:,} test images.",
        f"- {settings.model}, {length} at {settings.imgsz} px, batch {settings.batch}, "
        f"{settings.optimizer}, rates {', '.join(rates)}, seeds {', '.join(seeds)}.",
        f"- ultralytics {versions['ultralytics']}, torch {versions['torch']}, Python {versions['python']}; "
        f"{results.side_by_side}.",
    ]
    for start in results.starts:
        if known := start.pretraining:
            length = f"{known.images or 0:,} images, {known.steps or 0:,} steps in {duration(known.seconds or 0.0)}"
            lines.append(
                f"- {start.name}: {known.method} from {Path(known.model).name}, {length} on {known.device}; "
                f"{start.leak.words if start.leak else 'leaks not known'}."
            )
    for name in (start.name for start in results.starts if start.name in LIGHTLY):
        made = json.loads((given.out / name / "done.json").read_text())
        lines.append(f"- {name}: LightlyTrain {made['version']}, {duration(made['seconds'])}.")
    lines += [
        f"- Scratch with the time of the pretraining ({one.epochs} epochs, {one.budget}, seed {one.seed}): "
        f"mAP50-95 {one.measured.map50_95:.3f}."
        for one in results.finished("longer")
    ]
    outcomes = Counter(check.outcome for check in results.checks)
    told = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("passed", "failed", "not known"))
    lines += ["", f"Made by `python benchmarks/evidence.py`; its checks: {told}.", ""]
    return "\n".join(lines)


def main() -> int:
    given = arguments()
    unknown = set(given.part) - set(PARTS)
    missing = [path for path in (given.data, given.images, given.coco) if not path.exists()]
    if unknown or missing:
        print(f"skipped: {(unknown and f'no part {unknown}') or f'{missing[0]} is not there'}")
        return 2 if unknown else 0
    if given.minutes:
        timer = threading.Timer(60 * given.minutes, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
    given.starts = given.starts or ",".join(["scratch", "coco", "coco-backbone", *possible(given)])
    wanted = given.part or PARTS
    try:
        for name in made(given):
            if name in wanted and not (lightly_pretrained if name in LIGHTLY else pretrained)(given, name):
                return 130
        if "compare" in wanted and not compared(given):
            return 1
        if "table" in wanted:
            text = page(given)
            print(text)
            if given.page:
                given.page.write_text(text, encoding="utf-8")
    except UserError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
