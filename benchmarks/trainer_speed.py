"""What a step costs beside one of Ultralytics' trainer: `selftrain` and `objects`, at its size and batch.

    python benchmarks/trainer_speed.py --data FOD/fod-a.yaml --images FOD/images/pool --model yolo11n.pt [--rounds 3]

All three show a network `--batch` pictures a step, mosaics of four images each, and update all of it. Each is run with
`--steps` and with three times as many, a process of its own and one thread each; the difference of the two in processor
time, which other work on the machine disturbs least, is that of the steps alone: start, search, labelling and hand-back
cancel. The clock's times stand beside it, and count with `--device cuda`, where the processor waits: there every one of
them runs in the mixed precision that it runs in by default. Turns alternate; median, least and most are printed, with
the ratios of turns. The first `--number` images are used, all of them with their labels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

KINDS = ("ultralytics", "objects", "selftrain")


def work(kind: str, steps: int, given: argparse.Namespace, out: Path) -> None:
    """One training of so many steps, from the trained weights."""
    if kind == "ultralytics":
        _ultralytics(steps, given, out)
        return
    import headstart

    data, images = _subset(given, out)
    options: dict[str, Any] = {"burn_in": 0.25, "rounds": 1, "held_out": 0.0, "labels": str(data), "teacher": None}
    headstart.pretrain(
        data=str(images),
        model=given.model,
        method=kind,
        steps=steps,
        batch=4 * given.batch,
        imgsz=given.imgsz,
        mosaic=1.0,
        close_mosaic=0.0,
        workers=given.workers,
        device=given.device,
        cache="ram",
        report=False,
        probe_every=0,
        save_every=10**6,
        out=str(out),
        **(options if kind == "selftrain" else {}),
    )


def _subset(given: argparse.Namespace, out: Path) -> tuple[Path, Path]:
    """A dataset YAML of some of the images, and the list of these."""
    images = sorted(str(path.resolve()) for path in given.images.iterdir())[: given.number + 1]
    listed, other, data = (out.resolve().with_suffix(end) for end in (".txt", ".val.txt", ".yaml"))
    listed.write_text("\n".join(images[:-1]))
    other.write_text(images[-1])  # nothing is measured on it; what is learnt from must not be a test image
    names = yaml.safe_load(Path(given.data).read_text())["names"]
    data.write_text(yaml.safe_dump({"train": str(listed), "val": str(other), "names": names}))
    return data, listed


def _ultralytics(steps: int, given: argparse.Namespace, out: Path) -> None:
    from ultralytics import YOLO

    done = 0

    def stop(trainer: Any) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise _EnoughError

    yolo = YOLO(given.model)
    yolo.add_callback("on_train_batch_end", stop)
    settings: dict[str, Any] = {
        "epochs": 1000,
        "close_mosaic": 0,
        "amp": given.device != "cpu",
        "val": False,
        "plots": False,
    }
    try:
        yolo.train(
            data=str(_subset(given, out)[0]),
            imgsz=given.imgsz,
            batch=given.batch,
            nbs=given.batch,
            workers=given.workers,
            device=given.device if given.device == "cpu" else 0,
            cache="ram",
            project=str(out),
            **settings,
        )
    except _EnoughError:
        return


class _EnoughError(Exception):
    """All steps are done."""


def seconds(kind: str, steps: int, given: argparse.Namespace) -> tuple[float, float]:
    """Processor time and time by the clock of a training in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", kind, str(steps), str(Path(folder) / "run")]
        quiet = {"OMP_NUM_THREADS": "1", "YOLO_VERBOSE": "false", "YOLO_OFFLINE": "true"}
        ended = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{kind} failed:\n{ended.stderr[-2000:]}")
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    return found["processor"], found["clock"]


def turn(kind: str, given: argparse.Namespace) -> tuple[float, float]:
    """Milliseconds a step: of the processor, and by the clock."""
    short, long = seconds(kind, given.steps, given), seconds(kind, 3 * given.steps, given)
    processor, clock = (1000 * (b - a) / (2 * given.steps) for a, b in zip(short, long, strict=True))
    return processor, clock


def show(turns: dict[str, list[tuple[float, float]]], device: str) -> None:
    by = 0 if device == "cpu" else 1
    what = "processor" if device == "cpu" else "clock"
    print(f"| | processor ms a step | clock ms a step | Ultralytics' / its, {what} |\n|---|---|---|---|")
    for kind, found in turns.items():
        columns = [[one[at] for one in found] for at in (0, 1)]
        ratios = [theirs[by] / own[by] for theirs, own in zip(turns["ultralytics"], found, strict=True)]
        cells = [f"{statistics.median(c):.0f} ({min(c):.0f}-{max(c):.0f})" for c in columns]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"| {kind} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="dataset YAML that has the classes")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, their labels beside it")
    parser.add_argument("--model", required=True, help="trained weights, a .pt")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step, each a mosaic")
    parser.add_argument("--number", type=int, default=400, help="images")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=0, help="processes that read images, of all three")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (Path(given.data).is_file() and given.images.is_dir() and Path(given.model).is_file()):
        raise SystemExit("skipped: data, images or weights are not there")
    if given.one:
        kind, steps, out = given.one
        began = time.perf_counter()
        work(kind, int(steps), given, Path(out))
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        processor = sum(one.ru_utime + one.ru_stime for one in used)
        print("\n" + json.dumps({"processor": processor, "clock": time.perf_counter() - began}))
        return
    turns: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for number in range(given.rounds):
        for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
            turns[kind].append(turn(kind, given))
            print(f"turn {number + 1}, {kind}: {turns[kind][-1][0]:.0f} ms", file=sys.stderr)
    show(turns, given.device)


if __name__ == "__main__":
    main()
