"""A run or a comparison in a notebook: what it came to, its figures and main pictures, and where its report is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headstart.comparison import wording
from headstart.comparison.records import Results
from headstart.comparison.shown import Detections, read_detections
from headstart.errors import UserError
from headstart.report import comparison_charts, comparison_page, pretraining_page
from headstart.report.charts import Chart
from headstart.report.pretraining_verdict import judge
from headstart.report.rendering import environment
from headstart.report.run_reader import FoundRun, find_run

_MAIN = ("sure", "open", "clusters", "examples", "neighbours", "components", "views")
"""Sheets of a run, those that say the most first."""
_SHEETS, _PHOTOS, _ALARMS = 2, 2, 3
_WIDEST = 820
"""Pixels: a notebook holds a copy of each picture."""


def run_card(folder: str | Path) -> str:
    """The card of a pretraining, from the files of its folder, as HTML that can be put into any page.

    Raises:
        UserError: There is no run.
    """
    run = find_run(Path(folder))
    verdict = judge(run)
    content = {
        "kind": "pretraining",
        "title": run.path.resolve().name,
        "tone": verdict.tone,
        "label": verdict.label,
        "sentences": verdict.sentences,
        "alarms": [f"Step {step:,}: {sentence}" for step, sentence in verdict.alarms[:_ALARMS]],
        "facts": pretraining_page.facts(run),
        "pictures": _pictures(run),
    }
    return _rendered(content, run.path / "report.html")


def comparison_card(folder: str | Path, results: Results) -> str:
    """The card of a comparison, likewise; its pictures are read from its folder.

    Args:
        folder: Of the comparison.
        results: What its ``results.json`` holds.
    """
    root = Path(folder)
    tone, label = comparison_page.tone(results)
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]  # two cards in one notebook share no ids
    shown = _detections(root)
    content = {
        "kind": "comparison",
        "title": f"{results.name} · {comparison_page.setup(results)}",
        "tone": tone,
        "label": label,
        "sentences": [results.verdict],
        "remarks": [f"{one}." for one in wording.remarks(results)],
        "alarms": [f"{check.claim}: failed. {check.evidence}." for check in results.failed_checks[:_ALARMS]],
        "facts": comparison_page.facts(results),
        "legend": comparison_page.legend(results),
        "headers": wording.headers(results),
        "rows": wording.rows(results),
        "charts": _charts(results, key),
        "photos": comparison_page.pictures(results, shown)[:_PHOTOS] if shown else [],
        "key": f"{key}-",
    }
    return _rendered(content, root / "report.html")


def _pictures(run: FoundRun) -> list[pretraining_page.Picture]:
    found = [*pretraining_page.labelled_pictures(run, _WIDEST), *pretraining_page.pictures(run, _WIDEST)]
    main = [one for one in found if one.key in _MAIN]
    return sorted(main, key=lambda one: _MAIN.index(one.key))[:_SHEETS]


def _charts(results: Results, key: str) -> list[Chart]:
    """Of one budget the table says all."""
    chart = comparison_charts.budgets(results, f"card{key}", full=False) if len(results.budgets) > 1 else None
    return [chart] if chart and chart.wide else []


def _detections(folder: Path) -> Detections | None:
    try:
        return read_detections(folder)
    except UserError:  # pictures alone: the report says why they are missing
        return None


def _rendered(content: Mapping[str, Any], report: Path) -> str:
    there = {"report": str(report), "link": _link(report)} if report.is_file() else {}
    return environment().get_template("card.html.j2").render(**content, **there)


def _link(report: Path) -> str:
    """From the folder of the notebook: Jupyter serves what lies below it; "" for what does not."""
    try:
        relative = report.resolve().relative_to(Path.cwd().resolve())
    except ValueError:
        return ""
    return f"./{quote(os.fsencode(relative.as_posix()))}"
