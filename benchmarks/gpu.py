"""Everything that waits for a GPU, in parts that each take under 8 minutes on an H100 with 16 cores.

    python benchmarks/gpu.py --data FOD/fod-a.yaml --images FOD/images/pool --full COCO/images --coco yolo11n.pt
    python benchmarks/gpu.py ... --only tests speed-small --minutes 9    # nothing is begun that would not fit
    python benchmarks/gpu.py --list                                      # parts, their time, and what is done
    python benchmarks/gpu.py --tiny --out runs/tiny                      # every part on the CPU, on drawn images

A part's outcome is OUT/parts/NAME.json, with device, versions and date; done with the same options, it is not done
again, and one that was stopped goes on. What a part needs and is not there skips it. At the end come the tables of all
parts that are done, as Markdown for docs/speed.md and EXPERIMENTS.md, which are in OUT/tables.md as well. The exit
status is 1 if a part failed. benchmarks/gpu.md says what a machine without a network needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_parts import HERE, MOST, PARTS, Part, StoppedError, said

FACTS = """
import json, platform, torch
from headstart.run.provenance import versions
there, name = torch.cuda.is_available(), platform.processor() or platform.machine()
print(json.dumps({"cuda": there, "device": torch.cuda.get_device_name() if there else name,
    "memory": torch.cuda.get_device_properties(0).total_memory / 2**20 if there else 0.0,
    "versions": {**versions(), "cuda": torch.version.cuda}}))
"""


def asked(given: argparse.Namespace, part: Part) -> dict[str, Any]:
    return {name: getattr(given, name) for name in part.asked}


def record(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """What is kept of a part."""
    path = given.out / "parts" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def done(given: argparse.Namespace, name: str) -> bool:
    found = record(given, name)
    return found.get("state") == "done" and found["asked"] == asked(given, PARTS[name])


def attempt(given: argparse.Namespace, name: str, facts: dict[str, Any], until: float) -> str:
    """Do a part and keep what came of it; its state."""
    part, folder, began = PARTS[name], given.out / name, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any] = {"part": name, "asked": asked(given, part), **facts}
    try:
        values, shown = part.work(given, folder.resolve(), until)
        outcome |= {"state": "failed" if values.get("failed") else "done", "values": values, "table": shown}
    except StoppedError as error:
        outcome |= {"state": "unfinished", "why": str(error)}
    except Exception:
        outcome |= {"state": "failed", "why": traceback.format_exc()[-3000:]}
    outcome |= {"seconds": time.monotonic() - began, "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}"}
    target = given.out / "parts" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.with_suffix(".part").write_text(json.dumps(outcome, indent=1))
    target.with_suffix(".part").replace(target)
    print(f"{name}: {outcome['state']} in {outcome['seconds']:.0f} s; {outcome.get('why', '')}", flush=True)
    return str(outcome["state"])


def tables(given: argparse.Namespace) -> Iterator[str]:
    """Markdown of all parts that have a table, in order."""
    for name in PARTS:
        if "table" in (found := record(given, name)):
            versions = ", ".join(f"{key} {value}" for key, value in found["versions"].items())
            yield f"### {name}\n\n{found['date'][:10]}, {found['device']}, {versions}.\n\n{found['table']}\n"


def draw(given: argparse.Namespace) -> None:
    """Images, labels and weights for --tiny."""
    from ultralytics import YOLO

    from headstart.jobs.scenes import draw_dataset

    there = given.out / "drawn"
    if not (there / "scenes.yaml").is_file():
        draw_dataset(there, unlabelled=8, train=16, val=6, imgsz=64)
        YOLO("yolo11n.yaml", verbose=False).save(there / "start.pt")
    given.data, given.images, given.coco = there / "scenes.yaml", there / "images" / "train", there / "start.pt"
    given.full = given.images
    given.device, given.number, given.batch, given.steps, given.rounds, given.recipe_steps = "cpu", 16, 4, 2, 1, 4
    given.cores, given.jobs = 1, 1


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="dataset YAML, its labels beside the images")
    parser.add_argument("--images", type=Path, help="folder of its unlabelled or labelled images, small ones")
    parser.add_argument("--full", type=Path, help="folder of full-size images")
    parser.add_argument("--coco", type=Path, help="COCO weights of the model, a .pt")
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--lightly-train", metavar="PYTHON", help="its Python; by default this one, if it is there")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, help="no part is begun that would end later, and none goes on")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--number", type=int, default=2048, help="images of the speed parts")
    parser.add_argument("--batch", type=int, default=64, help="of the speed parts")
    parser.add_argument("--steps", type=int, default=40, help="of the speed parts, after the first epoch, at least")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the speed parts")
    parser.add_argument("--cores", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--recipe", type=Path, default=HERE / "recipes" / "selftrain-1pc.yaml")
    parser.add_argument("--recipe-steps", type=int, default=2400)
    parser.add_argument("--labels", default="1%,5%")
    parser.add_argument("--seeds", default="[0]", help="of the evidence; more can be added later")
    parser.add_argument("--jobs", type=int, default=4, help="trainings of the evidence side by side")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="every part on the CPU, very small: to try the code")
    given = parser.parse_args(words)
    if given.lightly_train is None and importlib.util.find_spec("lightly_train"):
        given.lightly_train = sys.executable
    return given


def main(words: list[str] | None = None) -> int:
    given, began, states = arguments(words), time.monotonic(), []
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.tiny:
        draw(given)
    if given.list:
        for name, part in PARTS.items():
            print(f"{name:14} {part.minutes:3.0f} min  {record(given, name).get('state', '')}")
        return 0
    facts = said([sys.executable, "-c", FACTS], given.out / "facts.txt", began + 300)
    given.memory = facts["memory"]
    if given.device == "cuda" and not facts["cuda"]:
        print("skipped: there is no CUDA GPU here; --tiny tries every part on the CPU")
        return 0
    for name in given.only:
        part, passed = PARTS[name], (time.monotonic() - began) / 60
        lacking = [need for need in part.needs if getattr(given, need) is None or not getattr(given, need).exists()]
        if lacking:
            print(f"{name}: skipped, it needs {' and '.join(f'--{need}' for need in lacking)}")
        elif done(given, name):
            print(f"{name}: done before")
        elif given.minutes and not given.tiny and passed + part.minutes > given.minutes:
            print(
                f"{name}: not begun, it takes about {part.minutes:g} minutes and {given.minutes - passed:.1f} are left"
            )
        else:
            left = min(MOST, given.minutes - passed if given.minutes else MOST)
            try:
                states.append(attempt(given, name, facts, time.monotonic() + 60 * left))
            except KeyboardInterrupt:
                print(f"{name}: stopped; the same command goes on")
                return 130
    page = "\n".join(tables(given))
    (given.out / "tables.md").write_text(page, encoding="utf-8")
    print(f"\n{page}")
    return 1 if "failed" in states else 0


if __name__ == "__main__":
    sys.exit(main())
