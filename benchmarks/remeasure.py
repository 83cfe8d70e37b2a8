"""The detectors that comparisons trained, measured on other images: more of them, where a part had to do for time.

    python benchmarks/remeasure.py runs/compare/a runs/compare/b --data whole.yaml

Each training's kept weights are measured on the ``val`` images of the dataset YAML, at the comparison's image size, and
kept in COMPARISON/remeasured.json: stopped, it goes on. Prints a table of the starts by label budget, and paired
differences to ``--against``, with 95 % t intervals as `headstart compare` has them. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from headstart.comparison.statistics import Paired, paired
from headstart.comparison.verdict import points


def main() -> int:
    given = arguments()
    missing = [
        path for path in (Path(given.data), *(one / "results.json" for one in given.comparisons)) if not path.is_file()
    ]
    if missing:
        print(f"skipped: {missing[0]} is not there; it takes folders of finished comparisons and a dataset YAML")
        return 0
    for folder in given.comparisons:
        print(f"\n{folder.name}: mAP50-95 on {given.data}\n")
        print("\n".join(table(remeasured(folder, given.data, given.device), given.against)))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="+", type=Path, help="out= folders of headstart compare")
    parser.add_argument("--data", required=True, help="an Ultralytics dataset YAML; its val images are measured on")
    parser.add_argument("--against", default="coco", help="the start that others are compared with")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def remeasured(folder: Path, data: str, device: str) -> list[dict[str, Any]]:
    """Of every finished training: start, budget, seed and the two scores."""
    results = json.loads((folder / "results.json").read_text())
    kept = folder / "remeasured.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    found = []
    for cell in results["cells"]:
        if cell["kind"] != "main" or cell["state"] != "done":
            continue
        mark = f"{data} {cell['start_sha256']} {cell['rows_sha256']}"
        if mark not in known:
            known[mark] = measured(folder / cell["folder"] / "weights" / "last.pt", data, results["settings"], device)
            kept.write_text(json.dumps(known, indent=1))
        found.append({**{key: cell[key] for key in ("start", "budget", "seed")}, **known[mark]})
    return found


def measured(weights: Path, data: str, settings: dict[str, Any], device: str) -> dict[str, float]:
    """Both scores of a checkpoint, by Ultralytics' own validator."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as scratch:
        metrics = YOLO(str(weights)).val(
            data=data, imgsz=settings["imgsz"], batch=32, device=device, workers=0, plots=False, verbose=False,
            project=scratch,
        )  # fmt: skip
    return {"map50_95": float(metrics.box.map), "map50": float(metrics.box.map50)}


def table(found: list[dict[str, Any]], against: str) -> list[str]:
    """Lines of Markdown."""
    scores: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for one in found:
        scores[one["budget"], one["start"]][one["seed"]] = one
    lines = [f"| labels | start | mAP50-95 | mAP50 | against {against}, points | seed by seed |", f"|{'---|' * 6}"]
    for (budget, start), of in scores.items():
        mine = interval(paired([one["map50_95"] for one in of.values()]))
        map50 = sum(one["map50"] for one in of.values()) / len(of)
        other = scores.get((budget, against), {})
        both = [seed for seed in of if seed in other and start != against]
        gaps = [of[seed]["map50_95"] - other[seed]["map50_95"] for seed in both]
        difference = ""
        if gaps:
            judged = paired(gaps)
            ends = "" if judged.t_low is None else f" [{points(judged.t_low)}, {points(judged.t_high)}]"
            difference = f"{points(judged.mean)}{ends}"
        each = ", ".join(points(gap) for gap in gaps)
        lines.append(f"| {budget} | {start} | {mine} ({len(of)}) | {map50:.3f} | {difference} | {each} |")
    return lines


def interval(scores: Paired) -> str:
    return f"{scores.mean:.3f}" + ("" if scores.t_high is None else f" ± {scores.t_high - scores.mean:.3f}")


if __name__ == "__main__":
    sys.exit(main())
