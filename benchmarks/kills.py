"""Is a pretraining that is killed at any moment, and gone on with, the one that was never killed? Bit by bit.

A small run is started as a process of its own and ended by SIGKILL at a random moment, after which the same command
with ``resume=true`` goes on; it may be killed again. Then every tensor of ``headstart.pt`` is compared with that of an
uninterrupted run. Moments are drawn over the whole life of a run, and counted by what it was doing. Ctrl-C stops, and
prints what is known; exit status 1 where a run was refused or ended with other weights.

    python benchmarks/kills.py --kills 20 --methods dino objects --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from ultralytics import YOLO

from headstart.detectors.tensors import same_bits
from headstart.jobs.scenes import draw_scenes

STEPS, IMAGES, AGAIN = 12, 48, 0.3
PHASES = (
    # What is in the folder, the last first: the phase that a run with it is in.
    ("report.html", "done"), ("finetune.yaml", "report"), ("handback.json", "report"), ("unverified.pt", "hand-back"),
    (f"checkpoints/step-{STEPS:08d}.pt", "hand-back"), (".step-*.tmp", "save"), ("metrics.jsonl", "steps"),
    ("pseudolabels.pt", "store and first step"), ("settings.yaml", "search, budget, store"), (".lock", "beginning"),
)  # fmt: skip


def arguments(method: str, data: Path, out: Path, weights: Path) -> list[str]:
    """The command, as a list of words."""
    options = {
        "data": data, "out": out, "method": method, "steps": STEPS, "batch": 8, "imgsz": 64, "save_every": 2,
        "log_every": 1, "workers": 1, "device": "cpu", "precision": "32", "cache": "disk",
        "cache_dir": out.parent / f"{out.name}-cache", "model": "yolo11n.yaml", "seed": 0,
    }  # fmt: skip
    options |= {"init": weights, "clusters": 4} if method == "objects" else {}
    return [sys.executable, "-m", "headstart", "pretrain", *(f"{key}={value}" for key, value in options.items())]


def phase_of(out: Path) -> str:
    """What a run that is killed now was doing, from what is in its folder."""
    if (out / "checkpoints").is_dir() and any((out / "checkpoints").glob(".step-*.tmp")):
        return "save"
    return next((phase for name, phase in PHASES if (out / name).exists()), "before its folder")


def run(command: list[str], seconds: float | None, log: Path) -> int | None:
    """The exit status of `command`; None of one that was killed after so many seconds, with its loader processes."""
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same tensors."""
    states = [YOLO(str(path / "headstart.pt")).model.state_dict() for path in (one, other)]
    return states[0].keys() == states[1].keys() and all(same_bits(states[0][key], states[1][key]) for key in states[0])


class Table:
    """Kills and faults by phase."""

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def print(self) -> None:
        """One line a phase."""
        print(f"\n{'phase':<24}{'kills':>6}{'faults':>8}")
        for phase in [*dict.fromkeys([name for _, name in reversed(PHASES)]), "before its folder"]:
            if self.kills[phase]:
                print(f"{phase:<24}{self.kills[phase]:>6}{self.faults[phase]:>8}")


def killed_and_gone_on(command: list[str], out: Path, whole: Path, seconds: float, table: Table, log: Path) -> None:
    """One run, killed once or more, and compared with the whole one."""
    phases = []
    status = run(command, random.uniform(0, seconds), log)
    while status is None:
        phases.append(phase_of(out))
        table.kills[phases[-1]] += 1
        # A run that was killed before it had a folder is begun, not gone on with.
        begun = (out / "settings.yaml").exists() or any(out.glob("checkpoints/step-*.pt"))
        follows = [*command, "resume=true"] if begun else [*command, "overwrite=true"]
        status = run(follows, random.uniform(0, seconds) if random.random() < AGAIN else None, log)
    good = status == 0 and same(whole, out)
    if not good:
        print(f"FAULT: killed while {', '.join(phases)}; exit status {status}; see {log} and {out}")
    for phase in phases if not good else []:
        table.faults[phase] += 1


def kill_all(method: str, kills: int, folder: Path, table: Table) -> None:
    """Kill runs of one method until there were so many kills."""
    weights = folder / "start.pt"
    if not weights.exists():
        torch.manual_seed(3)
        YOLO("yolo11n.yaml", verbose=False).save(weights)
    data, whole = folder / "images", folder / f"{method}-whole"
    began = time.monotonic()
    if run(arguments(method, data, whole, weights), None, folder / f"{method}-whole.log") != 0:
        sys.exit(f"the uninterrupted run of {method} failed: see {folder / f'{method}-whole.log'}")
    seconds = time.monotonic() - began
    print(f"{method}: an uninterrupted run takes {seconds:.0f} s", flush=True)
    before = table.kills.total()
    while (done := table.kills.total() - before) < kills:
        out = folder / f"{method}-{done}"
        faults = table.faults.total()
        killed_and_gone_on(arguments(method, data, out, weights), out, whole, seconds, table, out.with_suffix(".log"))
        if table.faults.total() == faults:
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(out.parent / f"{out.name}-cache", ignore_errors=True)
        print(f"{method}: {table.kills.total() - before} of {kills} kills", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each method")
    parser.add_argument("--methods", nargs="+", default=["dino", "objects"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where runs with a fault stay; by default a temporary one")
    given = parser.parse_args()
    random.seed(given.seed)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    draw(folder / "images")
    table = Table()
    try:
        for method in given.methods:
            kill_all(method, given.kills, folder, table)
    except KeyboardInterrupt:
        print("stopped")
    table.print()
    if not table.faults and not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if table.faults else 0


def draw(folder: Path) -> None:
    """The images."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(draw_scenes("unlabelled", IMAGES, imgsz=96)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), scene.image)


if __name__ == "__main__":
    sys.exit(main())
