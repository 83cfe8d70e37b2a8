"""The detectors that comparisons trained, measured on other images: more of them, where a part had to do for time.

    python benchmarks/remeasure.py runs/compare/a runs/compare/b --data whole.yaml

Each training's kept weights are measured on the ``val`` images of the dataset YAML, at the comparison's image size, and
kept in COMPARISON/remeasured.json: stopped, it goes on. Prints the table of `headstart compare` for those images, and
the differences seed by seed. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from headstart.comparison import wording
from headstart.comparison.records import AskedSettings, Results
from headstart.comparison.reference import references_of
from headstart.comparison.results import compare_all, read_results, scores


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
        print("\n".join(table(remeasured(folder, given.data, given.device))))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="+", type=Path, help="out= folders of headstart compare")
    parser.add_argument("--data", required=True, help="an Ultralytics dataset YAML; its val images are measured on")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def remeasured(folder: Path, data: str, device: str) -> Results:
    """The folder's results with scores and differences on the other images."""
    results = read_results(folder)
    kept = folder / "remeasured.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    done = []
    for cell in results.finished():
        mark = f"{data} {cell.start_sha256} {cell.measured.rows_sha256}"
        if mark not in known:
            known[mark] = measured(folder / cell.folder / "weights" / "last.pt", data, results.settings, device)
            kept.write_text(json.dumps(known, indent=1))
        done.append(cell.model_copy(update={"figures": cell.measured.model_copy(update=known[mark])}))
    names, budgets = ([one.name for one in found] for found in (results.starts, results.budgets))
    found = compare_all(done, names, budgets, references_of(results))
    made = {"scores": tuple(scores(done, names, budgets)), "differences": tuple(found)}
    return results.model_copy(update=made)


def measured(weights: Path, data: str, settings: AskedSettings, device: str) -> dict[str, float]:
    """Both scores of a checkpoint, by Ultralytics' own validator."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as scratch:
        metrics = YOLO(str(weights)).val(
            data=data, imgsz=settings.imgsz, batch=32, device=device, workers=0, plots=False, verbose=False,
            project=scratch,
        )  # fmt: skip
    return {"map50_95": float(metrics.box.map), "map50": float(metrics.box.map50)}


def table(results: Results) -> list[str]:
    """Lines of Markdown: the table of `headstart compare`, and the differences seed by seed."""
    head = wording.headers(results)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in wording.rows(results)]
    for one in results.differences:
        each = ", ".join(wording.points(value) for value in one.map50_95.differences)
        lines.append(f"\n{one.budget}: {one.start} against {one.reference}, seed by seed: {each}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
