"""Images per second end to end: the tutorial's loop, LightlyTrain, stable-pretraining and headstart, in turn.

    python benchmarks/speed.py NAME=FOLDER [NAME=FOLDER ...] [--device cpu] [--batch 32] [--steps 24] [--rounds 3]
        [--first-epoch] [--lightly-train PYTHON] [--stable-pretraining PYTHON] [--make-environments FOLDER]

All get the same images (`--images` of each folder, copies where it has fewer), the same backbone (YOLO11n), the same
crops (2 x 224 and 6 x 96) and the same batch. Each turn is a process of its own. Rates are those of the steps after the
first `--warm-up`; waiting is what the training loop spends in the loader's `__next__` (in headstart's own metrics, for
it). What a loader has read ahead when the clock starts is counted as if it cost nothing: give `--steps` several times
what it holds (2 batches a worker, 4 for `tuned`).

`tutorial` is the loop as published. `tuned` is what a careful user makes of it by settings alone: threads that do not
spin while they wait, loader processes that stay and read further ahead, channels-last weights and images; `tuned-bf16`
computes the network in bf16, too. `--first-epoch` empties headstart's store before each turn: with as many images as a
turn takes, all are decoded in it.

Processor time is that of the process and its workers together: it says what a machine that has nothing else to do
would reach where the loop keeps all cores busy, and is disturbed less by what else runs. `ceiling` is headstart's step
on views that are made once. Memory is the peak of the process and its workers together (PSS, each shared page once,
mapped files included).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from speed_programs import PACKAGES, PROGRAMS

CONTESTANTS = (
    "tutorial", "tuned", "tuned-bf16", "lightly-train", "stable-pretraining", "headstart", "headstart-32", "ceiling"
)  # fmt: skip
BASELINES = ("tutorial", "tuned", "tuned-bf16", "lightly-train")
# What each gets beside what all get.
MORE: dict[str, dict[str, Any]] = {
    "tuned": {"tuned": True},
    "tuned-bf16": {"tuned": True, "half": True},
    "headstart-32": {"precision": "32"},
}
SUFFIXES = {".jpg", ".jpeg", ".png"}


class Memory(threading.Thread):
    """Looks at the memory of a process and its children until the process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self) -> None:
        while True:
            total = sum(map(_pss, _family(self.pid)))
            if not total:
                return
            self.peak = max(self.peak, total)
            time.sleep(1.0)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(other for child in children for other in _family(int(child)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def turn(name: str, python: str, arguments: dict[str, Any]) -> dict[str, float] | str:
    """One process of one contestant: its figures, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAMS[name])
        out, errors = Path(folder) / "out.txt", Path(folder) / "errors.txt"
        given = json.dumps({**arguments, "out": f"{folder}/run"})
        environment = {**os.environ, "YOLO_OFFLINE": "true", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
        if python != sys.executable:  # its environment alone
            environment.pop("PYTHONPATH", None)
        environment["OMP_NUM_THREADS"] = str(arguments["workers"])
        if arguments["more"].get("tuned"):
            environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin take the cores from the loader's workers
        with out.open("w") as stdout, errors.open("w") as stderr:
            command = [python, str(program), given]
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, cwd=folder)
            memory = Memory(process.pid)
            memory.start()
            try:
                process.wait(arguments["limit"])
            except subprocess.TimeoutExpired:
                process.kill()
                return f"not done after {arguments['limit']} s"
        lines = [line for line in out.read_text().splitlines() if line.startswith("RESULT ")]
        if not lines:
            said = (errors.read_text().strip() or out.read_text().strip() or "nothing said").splitlines()
            return said[-1][:160]
        return {**json.loads(lines[-1][7:]), "memory": memory.peak / 2**20}


def subset(folder: Path, number: int, target: Path) -> int:
    """Copy the first images of a folder, which all contestants get, again and again where it has fewer."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:number]
    for place in range(number if found else 0):
        path = found[place % len(found)]
        shutil.copy(path, target / f"{place:05d}{path.suffix.lower()}")
    return number if found else 0


def environments(arguments: argparse.Namespace) -> dict[str, str]:
    """The Python of each contestant; of those without one, why, said at once."""
    pythons = dict.fromkeys(CONTESTANTS, sys.executable)
    for name, packages in PACKAGES.items():
        given = getattr(arguments, name.replace("-", "_"))
        if given is None and arguments.make_environments:
            place = Path(arguments.make_environments) / name
            given = str(place / "bin" / "python")
            made = subprocess.run(["uv", "venv", "-q", str(place)], check=False).returncode == 0
            if (
                not made
                or subprocess.run(["uv", "pip", "install", "-q", "--python", given, *packages], check=False).returncode
            ):
                print(f"{name}: skipped, it could not be installed")
                given = ""
        elif given is None:
            print(f"{name}: skipped, no environment (--{name} PYTHON, or --make-environments FOLDER)")
        pythons[name] = given or ""
    return {name: python for name, python in pythons.items() if python and name in arguments.only}


def show(title: str, results: dict[str, list[dict[str, float]]]) -> None:
    """The table of one folder: medians with least and most, and ratios to each baseline, turn by turn."""
    print(f"\n{title}")
    bases = [base for base in BASELINES if results.get(base)]
    print(f"{'':>20} {'images/s':>20} {'cpu ms/image':>13} {'waiting':>8} {'memory MB':>10}", end="")
    print("".join(f" {'x ' + base:>18} {'by cpu':>7}" for base in bases))
    for name, rows in results.items():
        if not rows:
            continue
        rates = [row["rate"] for row in rows]
        cpu, wait, memory = (statistics.median(row[key] for row in rows) for key in ("cpu", "wait", "memory"))
        print(f"{name:>20} {f'{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f})':>20}", end="")
        print(f" {cpu:>13.1f} {wait:>8.0%} {memory:>10.0f}", end="")
        for base in bases:
            pairs = list(zip(rows, results[base], strict=False))
            ratios = [a["rate"] / b["rate"] for a, b in pairs]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(f" {spread:>18} {statistics.median(b['cpu'] / a['cpu'] for a, b in pairs):>7.2f}", end="")
        print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER with images")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, help="threads of the step, and workers; by default all cores")
    parser.add_argument("--first-epoch", action="store_true", help="an empty store for each turn: images are decoded")
    parser.add_argument("--limit", type=int, default=600, help="seconds for one turn")
    parser.add_argument("--lightly-train", metavar="PYTHON")
    parser.add_argument("--stable-pretraining", metavar="PYTHON")
    parser.add_argument("--make-environments", metavar="FOLDER", help="install what is missing here, with uv")
    parser.add_argument("--only", nargs="+", default=CONTESTANTS, choices=CONTESTANTS)
    arguments = parser.parse_args()
    pythons = environments(arguments)
    all_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = arguments.cores or all_cores
    for name, folder in (item.split("=", 1) for item in arguments.folders):
        with tempfile.TemporaryDirectory() as work:
            data = Path(work) / "images"
            data.mkdir()
            count = subset(Path(folder), arguments.images, data)
            if count < arguments.batch:
                print(f"{name}: skipped, {count} images in {folder}")
                continue
            results: dict[str, list[dict[str, float]]] = {contestant: [] for contestant in pythons}
            told = {key: getattr(arguments, key) for key in ("device", "batch", "steps", "warm_up", "limit")}
            told |= {"data": str(data), "cache": f"{work}/cache", "workers": cores}
            for _ in range(arguments.rounds):
                for contestant, python in list(pythons.items()):
                    if arguments.first_epoch:
                        shutil.rmtree(f"{work}/cache", ignore_errors=True)
                    found = turn(contestant, python, {**told, "more": MORE.get(contestant, {})})
                    if isinstance(found, str):
                        print(f"{contestant}: skipped, {found}", flush=True)
                        del pythons[contestant]
                    else:
                        results[contestant].append(found)
                        figures = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
                        print(f"{name}, {contestant}: {figures}", flush=True)
            title = f"{name}: {count} images, batch {arguments.batch}, {arguments.device}, {cores} cores"
            show(f"{title}, {arguments.steps + 1 - arguments.warm_up} steps a turn, {arguments.rounds} turns", results)


if __name__ == "__main__":
    main()
