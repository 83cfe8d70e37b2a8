"""The parts of `gpu.py`: what is measured, and its table."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speed
import yaml

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
MOST = 8.0
"""Minutes after which a part is stopped."""
# What the device multiplies and copies at most: medians of ten.
LIMIT = """
import json, statistics, sys, time, torch
device, side, megabytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
wait = torch.cuda.synchronize if device != "cpu" else lambda: None
def seconds(work):
    times = []
    for number in range(13):
        wait(); began = time.perf_counter(); work(); wait(); times.append(time.perf_counter() - began)
    return statistics.median(times[3:])
found = {}
for name, kind in (("32", torch.float32), ("bf16", torch.bfloat16)):
    one = torch.randn(side, side, device=device, dtype=kind)
    found[name] = 2 * side**3 / seconds(lambda: one @ one) / 1e12
block = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=device)
other = torch.empty_like(block)
found["copy"] = 2 * block.numel() / seconds(lambda: other.copy_(block)) / 1e12
print(json.dumps(found))
"""
# One run whose batch is found by trial, and what it took.
AUTO = """
import json, sys, time, torch, yaml, headstart
given = json.loads(sys.argv[1])
headstart.pretrain(**given, batch="auto", report=False, probe_every=0, log_every=1, overwrite=True)
kept = yaml.safe_load(open(given["out"] + "/settings.yaml"))
lines = [json.loads(line) for line in open(given["out"] + "/metrics.jsonl")]
half, trial = lines[len(lines) // 2 :], kept["resolved"]["batch_trial"]
batch = kept["options"]["batch"]
took = half[-1]["seconds"] - half[0]["seconds"]
print(json.dumps({"batch": batch, "why": trial["why"], "room": trial["room"] / 2**20,
    "rate": (len(half) - 1) * batch / took if took else 0.0,
    "peak": torch.cuda.max_memory_reserved() / 2**20 if given["device"] != "cpu" else 0.0}))
"""


class StoppedError(Exception):
    """A part ran out of its time; what it did is kept."""


@dataclass(frozen=True)
class Part:
    """What is measured in one go.

    Attributes:
        minutes: What it should take; of one that goes on another time, the least that is of use.
        needs: Options without which it is skipped.
        asked: Options of the command on which its outcome depends.
        work: Takes options, folder and the time at which to stop; gives values and a table in Markdown. May raise
            `StoppedError`.
    """

    minutes: float
    needs: tuple[str, ...]
    asked: tuple[str, ...]
    work: Callable[[argparse.Namespace, Path, float], tuple[dict[str, Any], str]]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def child(command: list[str], log: Path, until: float) -> int:
    """Run a command to its end; at the time to stop it gets Ctrl-C, and half a minute to keep what it did.

    Raises:
        StoppedError: It was stopped.
    """
    environment = {**os.environ, "YOLO_OFFLINE": "true", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    with log.open("w") as stream:
        errors = log.with_suffix(".err").open("w")
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=errors,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
            # A shell has what it starts in the background ignore Ctrl-C, and what that starts inherits it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            return process.wait(max(1.0, until - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if isinstance(error, KeyboardInterrupt):
                raise
            raise StoppedError(f"stopped in its midst; see {log}") from None


def said(command: list[str], log: Path, until: float) -> dict[str, Any]:
    """The JSON of a program's last line."""
    if child(command, log, until):
        raise RuntimeError(log.with_suffix(".err").read_text()[-1500:])
    found: dict[str, Any] = json.loads(log.read_text().strip().splitlines()[-1])
    return found


# -- parts ------------------------------------------------------------------------------------------------------------


def tests(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
    """All tests that are marked `cuda`, and on a CPU a few of those that share their code."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [str(path) for path in found if "mark.cuda" in path.read_text(encoding="utf-8")]
    chosen = ["-m", "cuda"] if given.device == "cuda" else ["-k", "cpu and (mosaics or labels_as)"]
    command = [sys.executable, "-m", "pytest", "-n", "0", *chosen, f"--junitxml={folder / 'tests.xml'}", *files]
    status = child(command, folder / "log.txt", until)
    if status not in (0, 1):
        raise RuntimeError((folder / "log.txt").read_text()[-1500:] + (folder / "log.err").read_text()[-500:])
    cases = list(ElementTree.parse(folder / "tests.xml").iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    values: dict[str, Any] = {"tests": len(cases), "failed": {}, "skipped": len(skipped)}
    for case in failed:
        what = next(part for part in case if part.tag in ("failure", "error"))
        values["failed"][f"{case.get('classname')}::{case.get('name')}"] = str(what.get("message"))[:300]
    passed = len(cases) - len(failed) - len(skipped)
    lines = [
        table(
            ["tests", "passed", "failed", "skipped"],
            [[str(len(cases)), str(passed), str(len(failed)), str(len(skipped))]],
        )
    ]
    lines += [f"\n- failed: `{name}`: {why.splitlines()[0] if why else ''}" for name, why in values["failed"].items()]
    return values, "\n".join(lines)


def limit(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
    """What the device could do at most, by the count of docs/speed.md: 4.2 GFLOP and 0.33 GB (float32) an image."""
    sizes = ["256", "4"] if given.tiny else ["8192", "4096"]
    found = said([sys.executable, "-c", LIMIT, given.device, *sizes], folder / "log.txt", until)
    rows = []
    for name, gigabytes in (("32", 0.33), ("bf16", 0.165)):
        sums, memory = found[name] * 1000 / 4.2, found["copy"] * 1000 / gigabytes
        rows.append([name, f"{found[name]:.3g}", f"{found['copy']:.3g}", f"{sums:,.0f}", f"{memory:,.0f}"])
        found[f"most-{name}"] = min(sums, memory)
    return found, table(["precision", "TFLOP/s", "TB/s", "images/s by arithmetic", "images/s by memory"], rows)


Turns = dict[str, tuple[str, dict[str, Any]]]
"""What is shown -> the contestant of `speed`, and more options of a run of headstart."""
LATER: Turns = {name: (name, {}) for name in ("tutorial", "lightly-train", "headstart", "ceiling")}
FIRST: Turns = {name: (name, {}) for name in ("tutorial", "headstart")}
OPTIONS: Turns = {
    "auto": ("headstart", {}),
    "precision=32": ("headstart", {"precision": "32"}),
    "precision=16": ("headstart", {"precision": "16"}),
    "precision=bf16": ("headstart", {"precision": "bf16"}),
    "channels_last=false": ("headstart", {"channels_last": False}),
    "cache=device": ("headstart", {"cache": "device"}),
    "cache=ram": ("headstart", {"cache": "ram"}),
    "merge_views=true": ("headstart", {"merge_views": True}),
}
COMPILED: Turns = {"auto": ("headstart", {}), "compile=true": ("headstart", {"compile": True})}


def speeds(source: str, turns: Turns, first: bool = False) -> Callable[..., tuple[dict[str, Any], str]]:
    """A part: turns of contestants on the images of an option; in their first epoch, when nothing is stored yet."""

    def work(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
        if given.tiny:  # to compile takes minutes on a CPU
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
        images = folder / "images"
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir(parents=True)
        count = speed.subset(getattr(given, source), given.number, images)
        batch = min(given.batch, count // 2)
        epoch = count // batch
        warm_up = 1 if first else epoch
        steps = epoch - 1 if first else max(2 * epoch, epoch + given.steps)
        told = {"device": given.device, "batch": batch, "steps": steps, "warm_up": warm_up, "limit": int(60 * MOST)}
        told |= {"data": str(images.resolve()), "workers": given.cores}
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in turns}
        why: dict[str, str] = {}
        for number, name in ((number, name) for number in range(given.rounds) for name in turns):
            contestant, more = turns[name]
            python = given.lightly_train if contestant == "lightly-train" else sys.executable
            cache = folder / (f"cache-{number}-{name}" if first else "cache")
            arguments = {**told, "cache": str(cache.resolve()), "more": more}
            found = kept(
                folder / "turns.jsonl", f"{number} {name} {json.dumps(told)}", until, python, contestant, arguments
            )
            if first:
                shutil.rmtree(cache, ignore_errors=True)
            if isinstance(found, str):
                why[name] = found
            else:
                rows[name].append(found)
        shutil.rmtree(images)
        if not any(rows.values()):
            raise RuntimeError(str(why))
        when = "the first epoch" if first else "after the first epoch"
        title = f"{count} images, batch {batch}, {when}, {given.rounds} turns\n\n"
        return {"rows": rows, "not measured": why}, title + speed_table(rows, why, given.memory)

    return work


def kept(
    file: Path, mark: str, until: float, python: str | None, contestant: str, arguments: Any
) -> dict[str, float] | str:
    """A turn's figures, or why there are none; those of a turn that was made before are taken from a file."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if known := next((line for line in lines if line["turn"] == mark), None):
        found: dict[str, float] | str = known["found"]
        return found
    if not python:
        return "not installed (--lightly-train PYTHON)"
    if time.monotonic() > until:
        raise StoppedError(f"stopped after {len(lines)} turns")
    if str(ROOT / "src") not in os.environ.get("PYTHONPATH", ""):
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    found = speed.turn(contestant, python, {**arguments, "limit": max(30, int(until - time.monotonic()) + 60)})
    if not isinstance(found, str):  # why there are none may be mended by the next time
        with file.open("a") as stream:
            stream.write(json.dumps({"turn": mark, "found": found}) + "\n")
    return found


def speed_table(rows: dict[str, list[dict[str, float]]], why: dict[str, str], memory: float) -> str:
    def ratio(name: str, other: str) -> str:
        found = [one["rate"] / two["rate"] for one, two in zip(rows[name], rows.get(other, []), strict=False)]
        return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})" if found else ""

    head = ["", "images/s", "processor ms an image", "waiting", "memory MB", "GPU MB", "of the GPU's memory"]
    bases = [name for name in ("tutorial", "lightly-train", "ceiling", "auto") if rows.get(name)]
    lines = []
    for name, found in rows.items():
        if not found:
            lines.append([name, why.get(name, "not measured"), *[""] * (len(head) + len(bases) - 2)])
            continue
        rates = [one["rate"] for one in found]
        cpu, wait, host, gpu = (
            statistics.median(one[key] for one in found) for key in ("cpu", "wait", "memory", "graphics")
        )
        cells = [f"{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f})", f"{cpu:.2f}", f"{wait:.0%}"]
        cells += [f"{host:,.0f}", f"{gpu:,.0f}", f"{gpu / memory:.1%}" if memory else ""]
        lines.append([name, *cells, *(ratio(name, base) for base in bases)])
    return table([*head, *(f"x {base}" for base in bases)], lines)


def batches(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
    """`batch=auto` at the sizes of real runs, and whether a run with what it finds ends."""
    size, steps = (64, 4) if given.tiny else (640, 20)
    trained = {"model": str(given.coco.resolve()), "imgsz": size}
    cases: dict[str, dict[str, Any]] = {
        "dino": {"model": "yolo11n.yaml", "imgsz": 64 if given.tiny else 224},
        "objects": trained,
        "selftrain": {**trained, "labels": str(given.data.resolve()), "held_out": 0.0, "teacher": None},
    }
    found = {}
    for name, more in cases.items():
        out = folder / name
        options = {"data": str(given.images.resolve()), "method": name, "steps": steps, "device": given.device, **more}
        command = [sys.executable, "-c", AUTO, json.dumps({**options, "out": str(out.resolve())})]
        found[name] = said(command, folder / f"{name}.txt", until)
        shutil.rmtree(out)
    rows = [
        [name, str(one["batch"]), f"{one['rate']:.0f}", f"{one['peak']:,.0f}", f"{one['room']:,.0f}", one["why"]]
        for name, one in found.items()
    ]
    return found, table(["method", "batch", "images/s", "GPU MB", "MB that it might take", "why"], rows)


def trainer(imgsz: int) -> Callable[..., tuple[dict[str, Any], str]]:
    def work(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
        paths = ["--data", str(given.data), "--images", str(given.images), "--model", str(given.coco.resolve())]
        size = ["--imgsz", "64", "--steps", "2", "--batch", "2", "--number", "16", "--rounds", "1"]
        if not given.tiny:
            size = ["--imgsz", str(imgsz), "--steps", "40", "--rounds", "1", "--workers", str(min(8, given.cores))]
        command = [sys.executable, str(HERE / "trainer_speed.py"), *paths, "--device", given.device, *size]
        if child(command, folder / "log.txt", until):
            raise RuntimeError((folder / "log.err").read_text()[-1500:])
        return {}, (folder / "log.txt").read_text().strip()

    return work


def evidence(imgsz: int) -> Callable[..., tuple[dict[str, Any], str]]:
    def work(given: argparse.Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
        from headstart.comparison import wording
        from headstart.comparison.results import read_results

        recipe = yaml.safe_load(given.recipe.read_text())
        for name in ("workers", "cache", "channels_last"):  # what was chosen for a CPU
            recipe.pop(name, None)
        recipe["teacher"] = None  # it would have to be fetched
        recipe |= (
            {"imgsz": imgsz, "steps": given.recipe_steps} if not given.tiny else {"imgsz": 64, "steps": 4, "batch": 8}
        )
        made, side, labels = (
            folder / "selftrain.yaml",
            (64 if given.tiny else imgsz),
            ("50%,100%" if given.tiny else given.labels),
        )
        made.write_text(yaml.safe_dump(recipe))
        options = {"data": given.data, "model": given.model, "labels": labels, "seeds": given.seeds, "imgsz": side}
        options |= {
            "starts": f"coco={given.coco.resolve()},coco-longer,selftrain={made}",
            "steps": 2 if given.tiny else 100,
        }
        options |= {"batch": 16, "nbs": 16, "lr": 0.001, "start_lr": '{"selftrain": 0.0001}', "warmup_bias_lr": 0}
        options |= {"longer": "false", "unlabelled": given.images, "device": given.device, "jobs": given.jobs}
        options |= {"out": folder / "compare", "pictures": 0}
        words = [f"{name}={value}" for name, value in options.items()]
        status = child([sys.executable, "-m", "headstart", "compare", *words], folder / "log.txt", until)
        if status:
            raise RuntimeError((folder / "log.err").read_text()[-1500:] + (folder / "log.txt").read_text()[-500:])
        return {"options": words}, wording.markdown(read_results(folder / "compare"))

    return work


FEW, KNOWN = ("device", "tiny"), ("data", "images", "coco")
RATES = (*FEW, "number", "batch", "rounds")
PARTS = {
    "tests": Part(6, (), FEW, tests),
    "limit": Part(1, (), FEW, limit),
    "speed-small": Part(7, ("images",), RATES, speeds("images", LATER)),
    "speed-full": Part(7, ("full",), RATES, speeds("full", LATER)),
    "first-small": Part(4, ("images",), RATES, speeds("images", FIRST, first=True)),
    "first-full": Part(4, ("full",), RATES, speeds("full", FIRST, first=True)),
    "options": Part(7, ("images",), RATES, speeds("images", OPTIONS)),
    "compile": Part(6, ("images",), RATES, speeds("images", COMPILED)),
    "batch": Part(5, KNOWN, FEW, batches),
    "trainer-320": Part(5, KNOWN, FEW, trainer(320)),
    "trainer-640": Part(6, KNOWN, FEW, trainer(640)),
    "evidence-320": Part(4, KNOWN, (*FEW, "labels", "seeds", "recipe_steps"), evidence(320)),
    "evidence-640": Part(4, KNOWN, (*FEW, "labels", "seeds", "recipe_steps"), evidence(640)),
}
