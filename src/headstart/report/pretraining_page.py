"""``report.html`` of a pretraining, from the files of its run folder alone: one page that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.files import write_text
from headstart.report.charts import Chart, Mark, line_chart, number
from headstart.report.pretraining_verdict import dropped, judge, parts_back, text_of
from headstart.report.probe_charts import probe_charts
from headstart.report.rendering import environment
from headstart.report.run_reader import FoundRun, find_run
from headstart.report.teacher_labels import teacher_labels
from headstart.run import clock
from headstart.run.display import duration
from headstart.run.health import PEAKED, SPREAD, UNIFORM

Floats = NDArray[np.float64]

_LOSS = "as the method computes it"
_WIDE, _HALF, _PHONE = (1000, 300), (484, 270), (328, 230)


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its file's content as a data URI, its size in pixels, what it shows."""

    key: str
    title: str
    note: str
    alt: str
    source: str
    width: int
    height: int


def write_report(run_dir: str | Path, path: Path | None = None) -> Path:
    """Write the report of a run, by default as ``report.html`` into its folder, and return its path.

    Every part is left out or explained where its file is missing or cut short: a report can be drawn of an
    interrupted run, and while one is running.

    Raises:
        UserError: There is no run in `run_dir`, or the file cannot be written.
    """
    run = find_run(Path(run_dir))
    page = environment().get_template("pretraining.html.j2").render(_content(run))
    path = path or run.path / "report.html"
    write_text(path, page)
    return path


def _content(run: FoundRun) -> dict[str, Any]:
    detector = run.option("detector")
    model = detector.get("name") if isinstance(detector, dict) else None
    name = model or Path(str(run.option("model", "Detector"))).stem
    return {
        "title": f"{name} pretrained with {run.option('method', 'headstart')}",
        "run_name": run.path.resolve().name,
        "started": str(run.settings.get("started", ""))[:16].replace("T", " "),
        "verdict": judge(run),
        "facts": facts(run),
        "parts": parts_back(run),
        "dropped": dropped(run),
        "learning": [_loss(run), *_health_charts(run), *probe_charts(run, _chart)],
        "speed": [_rate(run), _wait(run), *_schedules(run)],
        "pictures": pictures(run),
        "labels": teacher_labels(run),
        "labelled_pictures": labelled_pictures(run),
        "skipped": run.skipped,
        "noted": run.noted,
        "finished": run.finished,
        "settings": _settings(run),
        "versions": _flat(run.settings.get("versions")) + _flat({"git": run.settings.get("git")}),
        "command_line": str(run.settings.get("command") or ""),
    }


def facts(run: FoundRun) -> list[tuple[str, str, str]]:
    """Figures under the verdict: name, value, remark."""
    steps, loss = run.column("step"), _ends(run.column("loss"))
    planned = run.option("steps")
    rate, batch = _finite(run.column("images_per_second")), run.option("batch")
    done = int(steps[-1]) if len(steps) else 0
    seen = f"{done * batch:,} images seen" if isinstance(batch, int) and done else ""
    of = f"of {planned:,} planned" if isinstance(planned, int) and planned != done else seen
    facts = [
        ("Steps", f"{done:,}", of),
        (
            "Time",
            duration(run.seconds) if run.seconds else "–",
            f"{number(np.median(rate))} images/s" if len(rate) else "",
        ),
        ("Loss", number(loss[1]) if loss else "–", f"from {number(loss[0])}" if loss else "not logged"),
    ]
    spread, line = _finite(run.column("feature_spread")), _finite(run.column("spread_alarm"))
    if len(spread) and len(line):
        facts.append(("Feature spread", f"{spread[-1] * SPREAD / line[-1]:.0%}", f"of ideal, alarm at {SPREAD:.0%}"))
    remark = "unreadable" if run.skipped.count else "of those that were read" if run.finished else "so far"
    facts.append(("Skipped files", f"{run.skipped.count:,}", remark))
    return facts


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _ends(values: Floats) -> tuple[float, float] | None:
    """Median of the first and of the last twentieth of a line."""
    finite = _finite(values)
    few = max(1, len(finite) // 20)
    return (float(np.median(finite[:few])), float(np.median(finite[-few:]))) if len(finite) else None


# -- charts -----------------------------------------------------------------------------------------------------------


def _chart(run: FoundRun, key: str, title: str, unit: str, note: str, column: str, **options: Any) -> Chart:
    """The chart of a column of the metrics, in its two widths."""
    full = bool(options.pop("full", False))
    steps, values = run.column("step"), run.column(column)
    if not len(_finite(values)):
        return Chart(
            key, title, unit, "Nothing was logged." if len(steps) else "No step has been logged yet.", full=full
        )
    # Markup: the chart is ours and escapes its own strings.
    wide, narrow = (
        Markup(line_chart(f"{key}-{size[0]}", steps, values, size=size, alt=f"{title}. {note}", **options))
        for size in (_WIDE if full else _HALF, _PHONE)
    )
    return Chart(key, title, unit, note, wide, narrow, full)


def _loss(run: FoundRun) -> Chart:
    loss = run.column("loss")
    ends, bad = _ends(loss), np.flatnonzero(~np.isfinite(loss))
    note = ""
    if ends:
        first, last = ends
        if len(_finite(loss)) == 1:
            note = f"Logged once: {number(first)}."
        elif number(first) == number(last):
            note = f"It began and ended at {number(first)}."
        else:
            note = f"It {'fell' if last < first else 'rose'} from {number(first)} to {number(last)}."
        if len(_finite(loss)) >= 40:
            note = f"{note[:-1]} (medians of the first and last twentieth)."
    if len(bad):
        began = run.column("step")[bad[0]]
        note += f" Not a number at {len(bad):,} of {len(loss):,} logged steps, first at step {began:,.0f}."
    if len(_finite(loss)) >= 40:
        note += " Faint: as logged; strong: running mean."
    chart = _chart(run, "loss", "Loss", _LOSS, note.strip(), "loss", full=True, smoothed=True)
    return chart if chart.wide or not len(bad) else Chart("loss", "Loss", _LOSS, note.strip(), full=True)


def _health_charts(run: FoundRun) -> list[Chart]:
    """Teacher entropy, where there is one, and feature spread, each against its alarm lines."""
    most, line = _finite(run.column("teacher_entropy_max")), _finite(run.column("spread_alarm"))
    entropy, spread = _finite(run.column("teacher_entropy")), _finite(run.column("feature_spread"))
    note, options = "", {}
    if len(entropy) and len(most):
        top = float(most[-1])
        note = (
            f"Ended at {number(entropy[-1])} of at most log K = {top:.2f}. Near the top the teacher says the same of "
            "every image, near 0 it has one answer left; between the lines it tells images apart."
        )
        marks = [
            Mark(UNIFORM * top, f"alarm above {UNIFORM * top:.2f}: uniform answers", "above"),
            Mark(PEAKED * top, f"alarm below {PEAKED * top:.2f}: one answer for all", "below"),
        ]
        options = {"marks": marks, "limits": (0.0, top * 1.08)}
    charts = [_chart(run, "entropy", "Teacher entropy", "nats", note, "teacher_entropy", **options)]
    if len(spread) and not len(entropy):  # of a method whose teacher gives no scores, or that has none
        charts = []
    note, options = "", {}
    if len(spread) and len(line):
        alarm, ideal = float(line[-1]), float(line[-1]) / SPREAD
        note = (
            f"Ended at {number(spread[-1])}, {spread[-1] / ideal:.0%} of the ideal. It is how far the features of "
            "different images lie apart; at 0 they are all the same."
        )
        marks = [
            Mark(ideal, f"ideal 1/√D = {number(ideal)}"),
            Mark(alarm, f"alarm below {number(alarm)}: features alike", "below"),
        ]
        options = {"marks": marks, "limits": (0.0, max(ideal, float(spread.max())) * 1.15)}
    unit = "standard deviation of normalized features"
    return [*charts, _chart(run, "spread", "Feature spread", unit, note, "feature_spread", **options)]


def _rate(run: FoundRun) -> Chart:
    rate = _finite(run.column("images_per_second"))
    note = f"Median {number(float(np.median(rate)))}." if len(rate) else ""
    if len(rate) >= 20:
        first, last = _ends(rate) or (0.0, 0.0)
        note = f"{note[:-1]}; {number(first)} at first, {number(last)} in the end."
    limits = (0.0, float(np.quantile(rate, 0.99)) * 1.15 if len(rate) else None)
    return _chart(run, "rate", "Speed", "images/s", note, "images_per_second", limits=limits, smoothed=True)


def _wait(run: FoundRun) -> Chart:
    wait = _finite(run.column("data_wait"))
    note = ""
    if len(wait):
        share = float(wait.mean())
        note = f"{share:.1%} of the time went into waiting for images, the rest into computing. "
        parts = {part: _finite(run.column(f"time_{part}")) for part in ("views", "step", "other")}
        if all(len(values) for values in parts.values()):
            shares = {"wait": share, **{part: float(values.mean()) for part, values in parts.items()}}
            facts = {name: run.option(name) for name in ("cache", "workers", "device", "precision")}
            said = (clock.sentence(shares), clock.advice(shares, facts))
            note = " ".join(f"{one[0].upper()}{one[1:]}." for one in said if one)
        elif share > clock.MUCH:
            note += "More workers would make this faster."
        else:
            note += "Reading images is not what limits this run."
    limits = (0.0, min(1.0, max(0.1, float(wait.max()) * 1.15)) if len(wait) else 1.0)
    return _chart(
        run,
        "wait",
        "Waiting for images",
        "share of the time",
        note,
        "data_wait",
        limits=limits,
        smoothed=True,
        percent=True,
    )


def _schedules(run: FoundRun) -> list[Chart]:
    rate, ema = _finite(run.column("lr")), _finite(run.column("ema"))
    note = f"Highest {number(float(rate.max()))}, at the end {number(float(rate[-1]))}." if len(rate) else ""
    limits = (0.0, float(rate.max()) * 1.15 if len(rate) else None)
    charts = [_chart(run, "lr", "Learning rate", "", note, "lr", limits=limits, full=not len(ema))]
    if len(ema):
        note = (
            f"The teacher keeps this share of itself at each step: {number(float(ema[0]))} to {number(float(ema[-1]))}."
        )
        charts.append(_chart(run, "ema", "Teacher momentum", "EMA", note, "ema"))
    return charts


# -- pictures and tables ----------------------------------------------------------------------------------------------


def pictures(run: FoundRun, widest: int | None = None) -> list[Picture]:
    """The sheets that the end of training drew, with what they show; those that are not there are left out.

    Args:
        run: The run.
        widest: Pixels that they are made smaller to, where they are wider.
    """
    probe = run.probe
    views = probe.get("views")
    count = f"{len(views)} " if isinstance(views, list) else ""
    images, nearest, any_two = (probe.get(name) for name in ("images", "cosine_nearest", "cosine_any_two"))
    neighbours = (
        "Each row: an image, then the five whose features are most like its own, with their cosine (1 = the same)."
    )
    if isinstance(nearest, float) and isinstance(any_two, float):
        neighbours += f" Over {images} images: {nearest:.3f} to the nearest, {any_two:.3f} between any two."
    cells = (probe.get("components") or {}).get("cells") if isinstance(probe.get("components"), dict) else None
    grid = f", {cells[0]} × {cells[1]} cells" if isinstance(cells, list) and len(cells) == 2 else ""
    teacher = run.option("teacher")
    seen_by = f" to {teacher}" if teacher else ""
    wanted = [
        (
            "clusters",
            "What was found, and how it was divided",
            "Objects that a trained detector found on the images, without labels. Each row is a cluster, made by how "
            f"they look{seen_by}: from the largest to the smallest, with its number of objects. Boxes and clusters are "
            "what was learnt. Rows need not be your classes; boxes should hold things, not ground.",
            "Sheet of objects that were found, a row for each cluster",
        ),
        (
            "examples",
            "What the detector is trained on",
            "Images as a step makes them, with the objects to be found; four colors stand for all clusters.",
            "Sheet of training images with outlined objects",
        ),
        (
            "views",
            "What the network is shown",
            "Each row: an image, outlined the crops taken of it, then the views made of them.",
            f"Sheet of source images and their {count}augmented views",
        ),
        ("neighbours", "Nearest neighbours", neighbours, "Sheet of query images and their five nearest neighbours"),
        (
            "components",
            "What the feature map separates",
            f"Each image beside its last feature map{grid}: the three strongest directions of the features as red, "
            "green and blue, shared by all images. The same color means a similar feature.",
            "Sheet of images, each beside the principal components of its feature map in color",
        ),
    ]
    return _drawn(run, wanted, widest)


def labelled_pictures(run: FoundRun, widest: int | None = None) -> list[Picture]:
    """The sheets of images with the teacher's labels; see `pictures`."""
    colors = "Four colors tell classes apart; a box in gray, with a question mark, is left open. Numbers are scores."
    wanted = [
        (
            "sure",
            "The surest labels",
            f"The images with the surest labels, the classes taking turns. {colors}",
            "Sheet of images with the surest labels of each class",
        ),
        (
            "least-sure",
            "The least sure labels",
            "The images with labels that only just count, the classes taking turns. Where many of these are wrong, a "
            "higher keep= leaves them open.",
            "Sheet of images with the least sure labels of each class",
        ),
        (
            "open",
            "What is left open",
            "The images with most boxes that are left open. Objects of your classes among them are those that it does "
            "not know yet: a few of these images, labelled by hand, say what no other image does.",
            "Sheet of images with most boxes that are left open",
        ),
    ]
    return _drawn(run, wanted, widest)


def _drawn(run: FoundRun, wanted: Sequence[tuple[str, str, str, str]], widest: int | None) -> list[Picture]:
    """Those of the pictures (key, title, note, alt) that are there."""
    found = []
    for key, title, note, alt in wanted:
        names = (key, "kinds") if key == "clusters" else (key,)  # runs of version 0.1 called clusters kinds
        files = [path for path in (run.path / "assets" / f"{name}.png" for name in names) if path.is_file()]
        embedded = _embed(files[0], widest) if files else None
        if embedded:
            found.append(Picture(key, title, note, alt, *embedded))
    return found


def _embed(path: Path, widest: int | None) -> tuple[str, int, int] | None:
    """A picture as data URI, in WebP where that is smaller, and its size; None where it is missing or broken."""
    from PIL import PngImagePlugin, features
    from PIL.Image import Image

    try:
        data, kind = path.read_bytes(), "png"
        # Not Image.open: once Ultralytics is imported, that has pip install something for a broken file.
        picture: Image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError):
        return None
    if widest and picture.width > widest:
        picture = picture.convert("RGB").resize((widest, round(picture.height * widest / picture.width)))
        written = io.BytesIO()
        picture.save(written, "PNG")
        data = written.getvalue()
    if features.check("webp"):
        smaller = io.BytesIO()
        picture.save(smaller, "WEBP", quality=88)
        if smaller.tell() < len(data):
            data, kind = smaller.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", picture.width, picture.height


def _settings(run: FoundRun) -> list[tuple[str, str, str]]:
    """(name, value, what was asked for where that differs) of every option and resolved fact."""
    options = run.settings.get("options")
    resolved = run.settings.get("resolved")
    asked = dict(_flat(options))
    became = dict(_flat(resolved))
    rows = []
    for name in dict.fromkeys([*asked, *became]):
        value = became.get(name, asked.get(name, ""))
        before = asked.get(name, value)
        rows.append((name, value, before if before not in (value, "none") else ""))
    return rows


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: ``detector.task``, ``detect``."""
    if isinstance(values, dict):
        return [row for key, value in values.items() for row in _flat(value, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        return [row for at, value in enumerate(values) for row in _flat(value, f"{prefix}[{at}]")]
    return [(prefix, text_of(values))] if prefix else []
