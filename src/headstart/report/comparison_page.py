"""``report.html`` of a comparison, from ``results.json`` and ``detections.json`` alone: one page that opens offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from headstart.comparison import wording
from headstart.comparison.detections import FILE
from headstart.comparison.results import read_results
from headstart.files import write_text
from headstart.report import comparison_charts
from headstart.report.series import COLOURS
from headstart.report.verdict import duration, text_of

Record = Mapping[str, Any]

_HIDDEN = ("starts", "labels", "seeds", "data", "model", "report", "pictures", "out")


def write_comparison_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a comparison's folder and return its path.

    Raises:
        UserError: There is no comparison, or the file cannot be written.
    """
    root = Path(folder)
    content = page_content(read_results(root), _detections(root))
    return _write(root / "report.html", "comparison.html.j2", content)


def write_side_by_side(folders: Sequence[str | Path], path: Path) -> Path:
    """Write one page that puts several comparisons side by side.

    Raises:
        UserError: One of them is no comparison, or the file cannot be written.
    """
    found = [(Path(folder), read_results(Path(folder))) for folder in folders]
    sides = [side(results, folder, at) for at, (folder, results) in enumerate(found)]
    return _write(path, "side_by_side.html.j2", {"sides": sides, "how": wording.HOW})


def _write(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["points"] = wording.points
    pages.filters["duration"] = duration
    write_text(path, pages.get_template(template).render(content))
    return path


def side(results: Record, folder: Path, at: int) -> dict[str, Any]:
    """One of several comparisons: its verdict, its table and its chart."""
    return {
        "name": str(results["name"]),
        "folder": folder.resolve().name,
        "model": results["settings"]["model"],
        "data": Path(results["data"]["yaml"]).name,
        "setup": setup(results),
        "tone": tone(results),
        "sentence": results["verdict"],
        "legend": legend(results),
        "differences": [_difference(one) for one in results["differences"]],
        "chart": comparison_charts.budgets(results, f"side{at}", full=False),
    }


def page_content(results: Record, detections: Record) -> dict[str, Any]:
    """Everything that the template shows."""
    cells = results["cells"]
    return {
        "title": f"Does the start matter for {results['settings']['model']}?",
        "name": results["name"],
        "setup": setup(results),
        "verdict": results["verdict"],
        "tone": tone(results),
        "others": _sentences(results),
        "few": wording.few_objects(results),
        "faults": results["faults"],
        "facts": _facts(results),
        "legend": legend(results),
        "outcome": [comparison_charts.budgets(results, "budgets"), comparison_charts.differences(results)],
        "headers": wording.headers(results),
        "rows": wording.rows(results),
        "differences": [_difference(one) for one in results["differences"]],
        "markdown": wording.markdown(results),
        "how": wording.HOW,
        "curves": comparison_charts.curves(results),
        "reached": _reached(results),
        "longer": _longer(results),
        "classes": comparison_charts.classes(results),
        "pictures": _pictures(results, detections),
        "confidence": detections.get("least_confidence"),
        "starts": [_start(results, start) for start in results["starts"]],
        "rates": _rates(results),
        "failed": [cell for cell in cells if cell["state"] != "done"],
        "lists": results["lists"],
        "settings": [(key, text_of(value)) for key, value in results["settings"].items() if key not in _HIDDEN],
        "versions": [(key, text_of(value)) for key, value in results["versions"].items()],
        "command_line": results["command"],
        "data": results["data"],
    }


def setup(results: Record) -> str:
    """What was trained, in a line."""
    s, data = results["settings"], results["data"]
    length = f"{s['steps']} steps" if s["steps"] else f"{s['epochs'] or 100} epochs"
    return (
        f"{s['model']} on {Path(data['yaml']).name}, {length} at {s['imgsz']} px, batch {s['batch']}, {s['optimizer']}"
    )


def tone(results: Record) -> tuple[str, str]:
    """Colour and words for the verdict."""
    if results["faults"]:
        return "bad", "Not to be trusted"
    found = {one["map50_95"]["verdict"] for one in wording.headline(results)}
    if found == {"helped"} or found == {"helped", "cannot tell"}:
        return "good", "Helped" if found == {"helped"} else "Helped in part"
    if "hurt" in found:
        return ("warn", "Mixed") if "helped" in found else ("bad", "Hurt")
    return "calm", "Cannot tell"


def legend(results: Record) -> list[tuple[int, str, str]]:
    """(index of the colour, name, what it is) of every start."""
    words = {
        "scratch": "random weights",
        "coco": "COCO weights",
        "coco-backbone": "the backbone of the COCO weights",
        "checkpoint": "a checkpoint",
    }
    found = []
    for at, start in enumerate(results["starts"]):
        known = start["pretraining"]
        what = f"pretrained with {known['method']}, from {Path(known['model']).name}" if known else words[start["kind"]]
        found.append((at % COLOURS, start["name"], what))
    return found


def _sentences(results: Record) -> list[str]:
    """Every start against every reference, with its intervals; the one that the verdict is about first."""
    found: list[str] = []
    told = {one["start"] for one in wording.headline(results)}
    for name in sorted((start["name"] for start in results["starts"]), key=lambda name: name not in told):
        for reference in wording.references(results):
            pair = [one for one in wording.about(results, name) if one["reference"] == reference]
            if pair:
                found.append(f"{wording.pair_sentence(pair)}.")
    return found


def _facts(results: Record) -> list[tuple[str, str, str]]:
    """Figures under the verdict: name, value, remark."""
    cells, data = results["cells"], results["data"]
    done = [cell for cell in cells if cell["state"] == "done"]
    left = len(cells) - len(done)
    sizes = ", ".join(f"{budget['images']:,}" for budget in results["budgets"])
    seconds = sum(cell["seconds"] for cell in done)
    many = len(results["starts"])
    return [
        ("Starts", str(many), "in one and the same network"),
        ("Label budgets", str(len(results["budgets"])), f"{sizes} of {data['train_images']:,} images"),
        ("Seeds", str(len(results["settings"]["seeds"])), f"on {data['test_images']:,} test images"),
        ("Trainings", f"{len(done)}", f"{left} failed or missing" if left else "none failed"),
        ("Time", duration(seconds), "of all trainings together"),
    ]


def _difference(one: Record) -> dict[str, Any]:
    values = one["map50_95"]
    tones = {"helped": "good", "hurt": "bad", "cannot tell": "calm"}
    return {**one, "points": values, "tone": tones[values["verdict"]]}


def _reached(results: Record) -> list[tuple[str, str, str, str]]:
    """Budget, start, epochs seed by seed, and the middle one."""
    found = []
    for one in results["reached"]:
        each = ", ".join("never" if epochs is None else str(epochs) for epochs in one["epochs"])
        middle = "never" if one["median"] is None else f"{one['median']:g} of {one['of']}"
        found.append((one["budget"], one["start"], each, middle))
    return found


def _longer(results: Record) -> str:
    """The longer scratch run in a sentence; empty where there was none."""
    run = next((cell for cell in results["cells"] if cell["kind"] == "longer" and cell["state"] == "done"), None)
    if run is None:
        return ""
    same = [c for c in results["cells"] if c["kind"] == "main" and c["state"] == "done" and _beside(c, run)]
    others = ", ".join(f"{cell['start']} {cell['map50_95']:.3f}" for cell in same)
    return (
        f"Scratch with the time that pretraining took: {run['epochs']} epochs in place of {same[0]['epochs']} gave "
        f"{run['map50_95']:.3f} mAP50-95 with {wording.labels(run['budget'])}, seed {run['seed']}; there, {others}. "
        "One run: a hint, not a measurement."
    )


def _beside(cell: Record, other: Record) -> bool:
    return (cell["budget"], cell["seed"]) == (other["budget"], other["seed"])


def _start(results: Record, start: Record) -> dict[str, Any]:
    parts = [f"{name} {taken} of {total}" for name, (taken, total) in start["taken"].items()]
    known = start["pretraining"]
    before = ""
    if known:
        parts_before = [f"{known['method']} from {Path(known['model']).name}"]
        parts_before += [f"{known[key]:,} {key}" for key in ("images", "steps") if known[key]]
        parts_before.append(f"{duration(known['seconds'])} on {known['device'] or 'an unknown device'}")
        before = ", ".join(parts_before)
    weights = Path(start["weights"]).name if start["weights"] else "drawn from the seed"
    return {"name": start["name"], "weights": weights, "parts": ", ".join(parts), "before": before} | {
        "leak": start["leak"],
        "sha256": start["sha256"],
    }


def _rates(results: Record) -> list[tuple[str, str, str, str]]:
    """Budget, start, the rate chosen, and the scores on the validation part."""
    return [
        (
            one["budget"],
            one["start"],
            f"{one['lr']:g}",
            ", ".join(
                f"{rate}: {'failed' if score is None else f'{score:.3f}'}"
                for rate, score in one["validation_map50_95"].items()
            ),
        )
        for one in results["rates"]
    ]


def _detections(root: Path) -> Record:
    try:
        found = json.loads((root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pictures(results: Record, detections: Record) -> list[dict[str, Any]]:
    """Each image with the boxes of its labels and of every start, in its own pixels."""
    names = results["data"]["names"]
    found = []
    for at, image in enumerate(detections.get("images", [])):
        size = (image["width"], image["height"])
        panels = [("labels", -1, [(names[one[0]], "", *_box(one[1:], size)) for one in image["truth"]])]
        for number, start in enumerate(results["starts"]):
            if start["name"] in image["found"]:
                boxes = [
                    (names[int(one[0])], f"{one[1]:.2f}", *_box(one[2:], size)) for one in image["found"][start["name"]]
                ]
                panels.append((start["name"], number % COLOURS, boxes))
        picture = Markup(f"data:image/jpeg;base64,{image['jpeg']}")
        found.append({"at": at, "file": image["file"], "width": size[0], "height": size[1], "source": picture})
        found[-1]["panels"] = panels
    return found


def _box(corners: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x, y, width, height in pixels of the picture."""
    x0, y0, x1, y1 = corners
    width, height = size
    return round(x0 * width, 1), round(y0 * height, 1), round((x1 - x0) * width, 1), round((y1 - y0) * height, 1)
