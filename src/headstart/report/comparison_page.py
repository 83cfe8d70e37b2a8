"""``report.html`` of a comparison, from ``results.json`` and ``detections.json`` alone: one page that opens offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.comparison import remarks, wording
from headstart.comparison.checks import lacking_of
from headstart.comparison.records import Difference, Results
from headstart.comparison.results import read_results
from headstart.comparison.shown import Detections, ShownImage, read_detections
from headstart.comparison.start_records import StartFacts
from headstart.errors import UserError
from headstart.files import write_text
from headstart.report import comparison_charts
from headstart.report.pretraining_verdict import text_of
from headstart.report.rendering import environment
from headstart.run.display import NO_BREAK, duration

_HIDDEN = ("starts", "labels", "seeds", "data", "model", "report", "pictures", "out")
_TONES = {"better": "good", "worse": "bad", "inconclusive": "calm"}
_CHECK_TONES = {"passed": "good", "failed": "bad", "not known": "calm"}


def write_comparison_report(folder: str | Path, path: Path | None = None) -> Path:
    """Write the report of a comparison, by default as ``report.html`` into its folder, and return its path.

    Raises:
        UserError: There is no comparison, it is damaged, or the file cannot be written.
    """
    root = Path(folder)
    results, detections, damage = read_results(root), None, ""
    try:
        detections = read_detections(root)
    except UserError as error:  # pictures alone: the figures are shown without them
        damage = str(error)
    return _write(path or root / "report.html", "comparison.html.j2", page_content(results, detections, damage))


def write_side_by_side(folders: Sequence[str | Path], path: Path) -> Path:
    """Write one page that puts several comparisons side by side.

    Raises:
        UserError: One of them is no comparison, or the file cannot be written.
    """
    found = [(Path(folder), read_results(Path(folder))) for folder in folders]
    names = _names([(results.name, folder.resolve()) for folder, results in found])
    sides = [side(results, name, at) for at, (name, (_, results)) in enumerate(zip(names, found, strict=True))]
    return _write(path, "side_by_side.html.j2", {"sides": sides, "how": wording.HOW})


def _write(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    pages = environment()
    pages.filters["points"] = wording.points
    pages.filters["interval"] = wording.interval
    write_text(path, pages.get_template(template).render(content))
    return path


def _names(found: Sequence[tuple[str, Path]]) -> list[str]:
    """Names of comparisons on one page: of those that share one, the end of the path from which they differ."""
    often = Counter(name for name, _ in found)
    paths = {name: {path for other, path in found if other == name} for name in often}

    def own(name: str, path: Path) -> str:
        for length in range(1, len(path.parts) + 1):
            tail = path.parts[-length:]
            if sum(other.parts[-length:] == tail for other in paths[name]) == 1:
                return str(Path(*tail))
        return str(path)

    return [name if often[name] == 1 else own(name, path) for name, path in found]


def side(results: Results, name: str, at: int) -> dict[str, Any]:
    """One of several comparisons: its verdict, its table and its chart."""
    return {
        "name": name,
        "setup": setup(results),
        "tone": tone(results),
        "sentence": results.verdict,
        "legend": legend(results),
        "differences": [(one, *_verdict(results, one)) for one in results.differences],
        "chart": comparison_charts.budgets(results, f"side{at}", full=False),
    }


def page_content(results: Results, detections: Detections | None, damage: str = "") -> dict[str, Any]:
    """Everything that the template shows.

    Args:
        results: The comparison.
        detections: Its pictures; None without.
        damage: Why the pictures cannot be shown.
    """
    others = _sentences(results)
    return {
        "title": f"Does the start matter for {results.settings.model}?",
        "name": results.name,
        "setup": setup(results),
        "verdict": results.verdict,
        "tone": tone(results),
        "others": others,
        "remarks": [one for one in wording.remarks(results) if f"{one}." not in others],
        "costs": remarks.cost_rows(results),
        "cost_headers": remarks.COST_HEADERS,
        "cost_note": remarks.COST_NOTE,
        "checks": [(check, _CHECK_TONES[check.outcome]) for check in results.checks],
        "failed_checks": results.failed_checks,
        "trusted": results.trusted,
        "facts": facts(results),
        "legend": legend(results),
        "outcome": comparison_charts.outcome(results),
        "headers": wording.headers(results),
        "rows": wording.rows(results),
        "differences": [(one, *_verdict(results, one)) for one in results.differences],
        "markdown": wording.markdown(results),
        "how": wording.measured_when(results) + wording.HOW,
        "curves": comparison_charts.curves(results),
        "reached": _reached(results),
        "longer": _longer(results),
        "classes": comparison_charts.classes(results),
        "pictures": pictures(results, detections) if detections else [],
        "picture_damage": damage,
        "confidence": detections.least_confidence if detections else None,
        "detectors": _detectors(detections) if detections else "",
        "starts": [_start(start) for start in results.starts],
        "rates": _rates(results),
        "failed": _failed(results),
        "lists": results.lists,
        "settings": [(key, text_of(value)) for key, value in results.settings if key not in _HIDDEN],
        "versions": list(results.versions.items()),
        "command_line": results.command,
        "data": results.data,
    }


def setup(results: Results) -> str:
    """What was trained, in a line."""
    s = results.settings
    length = f"at least {s.steps:,} batches" if s.steps else f"{s.epochs or 100} epochs"
    return f"{s.model} on {Path(results.data.yaml).name}, {length} at {s.imgsz} px, batch {s.batch}, {s.optimizer}"


def tone(results: Results) -> tuple[str, str]:
    """Color and words for the verdict: of its start against the reference that it is measured against first."""
    if not results.trusted:
        return "bad", "Not to be trusted"
    about = wording.headline(results)
    # Not against the others, too: nearly every start is better than random weights.
    found = {one.map50_95.verdict for one in about if one.reference == about[0].reference}
    if "worse" in found:
        color, label = ("warn", "Mixed") if "better" in found else ("warn", "Worse in part")
        color, label = ("bad", "Worse") if found == {"worse"} else (color, label)
    elif "better" in found:
        color, label = "good", "Better" if found == {"better"} else "Better in part"
    else:
        color, label = "calm", "Inconclusive" if about else "Nothing compared"
    if results.failed_checks:
        return color if color == "bad" else "warn", f"{label}, not complete"
    return color, label


def _verdict(results: Results, one: Difference) -> tuple[str, str]:
    """Color and word of a difference; of figures that cannot be trusted there is no verdict."""
    verdict = one.map50_95.verdict
    return (_TONES[verdict], verdict) if results.trusted else ("calm", "not trusted")


def legend(results: Results) -> list[tuple[int, str, str]]:
    """(index, which gives color and mark, name, what it is) of every start."""
    words = {
        "scratch": "random weights",
        "coco": "COCO weights",
        "coco-backbone": "the backbone of the COCO weights",
        "scratch-longer": "random weights, trained for longer",
        "coco-longer": "COCO weights, trained for longer",
        "recipe": "made anew by a recipe",
        "checkpoint": "a checkpoint",
        "checkpoint-longer": "a checkpoint, trained for longer",
    }
    found = []
    for at, start in enumerate(results.starts):
        known = start.pretraining
        what = f"pretrained with {known.method}, from {Path(known.model).name}" if known else words[start.kind]
        what = f"{Path(start.weights).name}, given as {what}, which it is not" if start.foreign else what
        what = f"{what}: {start.recipe.method or 'the default method'}" if start.recipe else what
        what = f"{what}; as it is, without fine-tuning" if start.as_is else what
        found.append((at, start.name, what))
    return found


def _sentences(results: Results) -> list[str]:
    """Every start against every reference, with its intervals; the one that the verdict is about first.

    None where the figures cannot be trusted.
    """
    found: list[str] = []
    if not results.trusted:
        return found
    told = {one.start for one in wording.headline(results)}
    for name in sorted((start.name for start in results.starts), key=lambda name: name not in told):
        for reference in wording.references(results):
            pair = [one for one in wording.about(results, name) if one.reference == reference]
            if pair:
                found.append(f"{wording.pair_sentence(pair)}.")
    return found


def facts(results: Results) -> list[tuple[str, str, str]]:
    """Figures under the verdict: name, value, remark."""
    data = results.data
    done = [cell for cell in results.cells if cell.state == "done"]
    left = len(lacking_of(results)[0]) + sum(cell.kind != "main" and cell.state != "done" for cell in results.cells)
    sizes = ", ".join(f"{budget.images:,}" for budget in results.budgets)
    sizes_of = {cell.measured.parameters for cell in results.finished()}
    network = f"{min(sizes_of):,} weights each" if len(sizes_of) == 1 else ""
    return [
        ("Starts", str(len(results.starts)), network),
        ("Label budgets", str(len(results.budgets)), f"{sizes} of {data.train_images:,} images"),
        ("Seeds", str(len(results.settings.seeds)), f"on {data.test_images:,} test images"),
        ("Trainings", f"{len(done)}", f"{left} failed or missing" if left else "none failed"),
        ("Time", duration(sum(cell.measured.seconds for cell in done)), "of all trainings together"),
    ]


def _failed(results: Results) -> list[tuple[str, str]]:
    """Folder of what was not finished, and why: runs of recipes, then trainings."""
    recipes = {start.base: start.recipe for start in results.starts if start.recipe}.values()
    runs = [run for recipe in recipes for run in recipe.runs if run.state != "done"]
    cells = [cell for cell in results.cells if cell.state != "done"]
    found = [(run.folder, run.error) for run in runs] + [(cell.folder, cell.error) for cell in cells]
    return [(folder, why or "not begun") for folder, why in found]


def _reached(results: Results) -> list[tuple[str, str, str, str]]:
    """Budget, start, epochs seed by seed, and the middle one."""
    found = []
    for one in results.reached:
        each = ", ".join("never" if epochs is None else str(epochs) for epochs in one.epochs)
        middle = "never" if one.median is None else f"{one.median:g} of {one.of}"
        found.append((one.budget, one.start, each, middle))
    return found


def _longer(results: Results) -> str:
    """The longer scratch run in a sentence; empty where there was none."""
    run = next(iter(results.finished("longer")), None)
    if run is None:
        return ""
    same = [c for c in results.finished() if (c.budget, c.seed) == (run.budget, run.seed)]
    others = ", ".join(f"{cell.start} {cell.measured.map50_95:.3f}" for cell in same)
    usual = "".join(f" in place of {cell.epochs}" for cell in same if cell.start == run.start)
    return (
        f"Scratch with the steps that pretraining took: {run.epochs} epochs{usual} gave {run.measured.map50_95:.3f} "
        f"mAP50-95 at {remarks.labels(run.budget)}, seed {run.seed}{f'; there, {others}' if others else ''}. "
        "One run: a hint, not a measurement."
    )


def _start(start: StartFacts) -> dict[str, Any]:
    parts = [f"{name} {taken} of {total}" for name, (taken, total) in start.taken.items()]
    known = start.pretraining
    before = ""
    if known:
        told = [f"{known.method} from {Path(known.model).name}"]
        told += [f"{count:,} {what}" for count, what in ((known.images, "images"), (known.steps, "steps")) if count]
        spent = "time not known" if known.seconds is None else duration(known.seconds, gap=NO_BREAK)
        told.append(f"{spent} on {known.device or 'an unknown device'}")
        before = "; ".join(filter(None, [", ".join(told), remarks.carried(start)]))
    before = remarks.made(start) or remarks.longer(start) or before
    weights = Path(start.weights).name if start.weights else "drawn from the seed"
    return {"name": start.name, "weights": weights, "parts": ", ".join(parts), "before": before}


def _rates(results: Results) -> list[tuple[str, str, str, str]]:
    """Budget, start, the rate chosen, and the scores on the validation part."""
    found = []
    for one in results.rates:
        tried = [
            f"{rate}: {'failed' if score is None else f'{score:.3f}'}"
            for rate, score in one.validation_map50_95.items()
        ]
        found.append((one.budget, one.start, f"{one.lr:g}", ", ".join(tried)))
    return found


def pictures(results: Results, detections: Detections) -> list[dict[str, Any]]:
    """Each image with the boxes of its labels and of every start, in its own pixels."""
    return [
        {
            "at": at,
            "file": image.file,
            "width": image.width,
            "height": image.height,
            "source": f"data:image/jpeg;base64,{image.jpeg}",
            "panels": _panels(results, image),
        }
        for at, image in enumerate(detections.images)
    ]


def _detectors(detections: Detections) -> str:
    """Whose boxes these are."""
    if detections.seed is None:  # an older file
        return "the detectors of the largest budget and the first seed"
    return f"the detectors of {remarks.labels(detections.budget)}, seed {detections.seed},"


def _panels(results: Results, image: ShownImage) -> list[tuple[str, int, list[tuple[str, str, Any]]]]:
    """(name, index, for its color, boxes) of the labels and every start; a box is class, confidence, corners."""
    names, size = results.data.names, (image.width, image.height)

    def called(label: int) -> str:
        return names[label] if 0 <= label < len(names) else f"class {label}"

    truth = [(called(one.label), "", _box(one[1:], size)) for one in image.truth]
    panels = [("labels", -1, truth)]
    for number, start in enumerate(results.starts):
        if start.name in image.found:
            boxes = [
                (called(one.label), f"{one.confidence:.2f}", _box(one[2:], size)) for one in image.found[start.name]
            ]
            panels.append((start.name, number, boxes))
    return panels


def _box(corners: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x, y, width, height in pixels of the picture."""
    x0, y0, x1, y1 = corners
    width, height = size
    return round(x0 * width, 1), round(y0 * height, 1), round((x1 - x0) * width, 1), round((y1 - y0) * height, 1)
