"""Charts of the probes that a run made of its features on fixed images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from headstart.report.charts import Mark, number
from headstart.report.run_reader import Floats, FoundRun
from headstart.run.health import FORGOTTEN, RANK

Chart = TypeVar("Chart")


def probe_charts(run: FoundRun, chart: Callable[..., Chart]) -> list[Chart]:
    """A chart for each measure that the run's probes made; none for a run without probes."""
    wanted: list[tuple[str, str, str, str, float | None]] = [
        ("rankme", "Dimensions in use", "RankMe", "More is not better between methods; a fall is a warning.", RANK),
        ("knn", "Labelled boxes told apart", "kNN", "Share of boxes whose nearest are of their class.", None),
        ("dse", "Dense structure", "DSE", "Separation of the map's cells and the dimensions they use.", None),
    ]
    charts = []
    for name, title, unit, note, share in wanted:
        values = run.column(f"probe_{name}")
        seen = np.isfinite(values)
        if not seen.any():
            continue
        start = run.column(f"probe_{name}_start")[seen]
        options: dict[str, Any] = {"marks": _marks(start, share)}
        options["percent"] = name == "knn"
        text = f"Ended at {number(float(values[seen][-1]))}. {note}"
        charts.append(chart(_Probes(run, seen), f"probe-{name}", title, unit, text, f"probe_{name}", **options))
    return charts


def _marks(start: Floats, share: float | None) -> list[Mark]:
    """Where the measure was before the first step, and the line below which it is an alarm."""
    if not len(start) or not np.isfinite(start[-1]):
        return []
    first = float(start[-1])
    line = share * first if share else first - FORGOTTEN
    return [Mark(first, f"before the first step: {number(first)}"), Mark(line, f"alarm below {number(line)}", "below")]


class _Probes:
    """The run's columns at the steps that were probed: the others have no value to draw."""

    def __init__(self, run: FoundRun, seen: Floats) -> None:
        self.run, self.seen = run, seen

    def column(self, name: str) -> Floats:
        found: Floats = self.run.column(name)[self.seen]
        return found
