"""The charts of a comparison's page, from the values of ``results.json``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from headstart.comparison import remarks, wording
from headstart.comparison.records import BudgetFacts, CellResult, ClassScore, LabelsWorth, Results
from headstart.comparison.reference import measured_against
from headstart.comparison.statistics import epochs_to_reach
from headstart.errors import enumerated
from headstart.report.charts import Chart
from headstart.report.series import Line, Row, Saving, lines_chart, rows_chart, savings_chart

NEARLY = 0.9
"""Share of the reference's last score from which a start is nearly as good."""
MANY = 24
"""Classes that are shown at most: those with the largest differences."""
_WIDE, _HALF, _PHONE = (1000, 340), (484, 290), (328, 250)


def _chart(
    key: str, title: str, unit: str, note: str, draw: Callable[[str, tuple[int, int]], str], full: bool
) -> Chart:
    """A chart in its two widths. Markup: it is ours and escapes its own strings."""
    wide, narrow = (Markup(draw(f"{key}-{size[0]}", size)) for size in (_WIDE if full else _HALF, _PHONE))
    return Chart(key, title, unit, note, wide, narrow, full)


def _index(results: Results) -> dict[str, int]:
    return {start.name: at for at, start in enumerate(results.starts)}


def budgets(results: Results, key: str, full: bool = True) -> Chart:
    """mAP50-95 against the label budget, a line a start."""
    sizes = {budget.name: budget.images for budget in results.budgets}
    lines = []
    for name, at in _index(results).items():
        group = [one for one in results.scores if one.start == name]
        scores = [one.map50_95 for one in group]
        low = [one.low for one in scores if one.low is not None]
        high = [one.high for one in scores if one.high is not None]
        if group:
            xs, whole = [sizes[one.budget] for one in group], len(low) == len(group)
            lines.append(Line(at, name, xs, [one.mean for one in scores], *((low, high) if whole else ())))
    title, unit = "Accuracy against labels", "mAP50-95, test images"
    if not lines:
        return Chart(key, title, unit, "No training is done yet.", full=full)
    ticks = [(size, f"{size:,}" if str(size) == name else f"{size:,} ({name})") for name, size in sizes.items()]
    short = [(size, name) for name, size in sizes.items()]
    most = [line for line in lines if line.xs[-1] == max(sizes.values())]
    highest = _highest(most, len(results.starts), "With the most labels" if len(sizes) > 1 else "With these labels")
    several = any(line.low for line in lines)
    note = (
        f"{'Mean over seeds, with its 95 % t interval,' if several else 'Score'} over the number of labelled images."
        + highest
    )
    if several:
        note += (
            " Intervals of two starts may overlap and their paired difference still be clear: what counts are the "
            "differences."
        )

    def draw(name: str, size: tuple[int, int]) -> str:
        return lines_chart(name, lines, size=size, alt=f"{title}. {note}", ticks=short if size == _PHONE else ticks)

    return _chart(key, title, unit, note, draw, full)


def _highest(lines: list[Line], starts: int, where: str) -> str:
    """Which start is highest in the end, as far as three digits tell; all of them where they are level.

    Of those that were trained there: one alone is not highest, and where some are missing, that is said.
    """
    ends = {line.label: f"{line.ys[-1]:.3f}" for line in lines}
    if len(ends) == 1 and starts > 1:
        return f" {where}, {', '.join(ends)} alone was trained, to {', '.join(ends.values())}."
    best = [name for name, end in ends.items() if end == max(ends.values())]
    if len(best) > 1 and len(best) == len(ends):
        return f" {where}, {'all' if len(ends) == starts else enumerated(best)} are at {ends[best[0]]}."
    verb = "is" if len(best) == 1 else "are"
    among = "" if len(ends) == starts else f" of the {len(ends)} that were trained there"
    return f" {where}, {enumerated(best)} {verb} highest{among}, at {ends[best[0]]}." if best else ""


def differences(results: Results) -> Chart:
    """Every paired difference with its interval."""
    title, unit = "Differences", "points of mAP50-95, paired by seed"
    index = _index(results)
    rows, short = [], []
    for one in results.differences:
        values = one.map50_95
        ends = [None if end is None else 100 * end for end in (values.t_low, values.t_high)]
        each = [100 * value for value in values.differences]
        label = f"{one.budget}: {one.start} − {one.reference}"
        row = Row(label, index[one.start], 100 * values.mean, ends[0], ends[1], each)
        rows.append(row)
        short.append(Row(_two_lines(label), *_rest(row)))
    if not rows:
        return Chart("differences", title, unit, "Nothing can be compared yet.", full=True)
    note = (
        "Right of zero: better than the start after the minus sign. Mark: mean over seeds; bar: its 95 % t interval; "
        "strokes: single seeds. A bar that crosses zero is inconclusive."
    )

    def draw(name: str, size: tuple[int, int]) -> str:
        phone = size == _PHONE
        fitting = [replace(row, label=_two_lines(row.label, 40)) for row in rows]
        shown, labels = (short, 176) if phone else (fitting, 300)
        return rows_chart(name, shown, width=size[0], labels=labels, alt=f"{title}. {note}")

    return _chart("differences", title, unit, note, draw, full=True)


def outcome(results: Results) -> list[Chart]:
    """The charts of the outcome; the labels that a start saves where there is more than one budget to tell."""
    saved = labels_saved(results) if results.trusted else None
    return [budgets(results, "budgets"), differences(results), *([saved] if saved else [])]


def labels_saved(results: Results) -> Chart | None:
    """Labels that a start has, and those with which the reference does as well; None where that is not known."""
    found = results.labels_worth
    if not found:
        return None
    index, reference = _index(results), found[0].reference
    least, most = _span([one.least for one in found]), _span([one.most for one in found])
    rows = [
        Saving(f"{o.budget}: {o.start}", index[o.start], o.images, o.needed or o.most, not o.needed, _ends(o))
        for o in found
    ]
    title = f"Labels for which {reference} does as well"
    note = (
        f"Ring: labelled images of the start; mark: those with which {reference} comes to the same mAP50-95, read off "
        f"its own curve; bar: 95 % interval, a bootstrap over seeds. An arrow: more than the {most} that {reference} "
        f"was trained with; a mark at {least}: these or fewer."
    )
    sizes = [budget.images for budget in results.budgets]

    def draw(name: str, size: tuple[int, int]) -> str:
        phone = size == _PHONE
        shown = [replace(row, label=_short(row.label, 18 if phone else 30)) for row in rows]
        return savings_chart(name, shown, sizes, width=size[0], labels=140 if phone else 220, alt=f"{title}. {note}")

    return _chart("labels-saved", title, "labelled images", note, draw, full=True)


def _span(numbers: Sequence[int]) -> str:
    """Starts that lack trainings are read off other budgets."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _ends(one: LabelsWorth) -> tuple[float, float] | None:
    """The interval, ends beyond the largest budget drawn at it."""
    if one.interval is None:
        return None
    low, high = one.interval
    return one.most if low is None else low, one.most if high is None else high


def _rest(row: Row) -> tuple[Any, ...]:
    return (row.index, row.mean, row.low, row.high, row.single)


def _short(text: str, most: int) -> str:
    """`text` in so many characters: what its middle held is left out, for names often differ at their end."""
    tail = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"


def _two_lines(label: str, most: int = 24) -> str:
    """A difference in a narrow column: where it does not fit a line, what is subtracted stands on the second."""
    if len(label) <= most:
        return label
    first, _, second = label.partition(" − ")
    return f"{_short(first, most)}\n{_short(f'− {second}', most)}"


def curves(results: Results) -> list[Chart]:
    """Learning curves, a chart a budget: the mean of the seeds, faintly the seeds."""
    found, reference = [], next(iter(measured_against(results)[::-1]), "coco")
    for at, budget in enumerate(results.budgets):
        lines, longest = [], max((cell.epochs for cell in results.finished() if cell.budget == budget.name), default=0)
        for name, index in _index(results).items():
            each = [[point.map50_95 for point in cell.measured.curve] for cell in results.of(name, budget.name)]
            if each and not any(cell.epochs for cell in results.of(name, budget.name)):
                ends = [(one[0], one[0]) for one in each]  # what is measured as it is stays as it is
                mean = [sum(one[0] for one in each) / len(each)] * 2
                lines.append(Line(index, name, [0, max(1, longest)], mean, single=ends if len(each) > 1 else []))
            elif each:
                length = min(len(one) for one in each)
                mean = [sum(one[epoch] for one in each) / len(each) for epoch in range(length)]
                single = each if len(each) > 1 else []
                lines.append(Line(index, name, list(range(1, length + 1)), mean, single=single))
        if lines:
            found.append(_curve(f"curve-{at}", budget, lines, reference))
    return found


def _curve(key: str, budget: BudgetFacts, lines: list[Line], reference: str) -> Chart:
    scratch = next((line for line in lines if line.label == "scratch"), None)
    level = scratch.ys[-1] if scratch else None
    ends = ", ".join(f"{line.label} {line.ys[-1]:.3f}" for line in lines)
    title, note = (
        f"{remarks.labels(budget.name)}",
        f"In the end: {ends}.{_sooner(lines, reference)}{' Dashed level: where scratch ends.' if scratch else ''}",
    )

    def draw(name: str, size: tuple[int, int]) -> str:
        return lines_chart(name, lines, size=size, alt=f"Learning curves with {title}. {note}", level=level)

    return _chart(key, title[0].upper() + title[1:], f"{budget.images:,} images", note, draw, full=False)


def _sooner(lines: list[Line], reference: str) -> str:
    """When each start is nearly as good as the reference in the end; nothing without it or another beside scratch."""
    first = next((line for line in lines if line.label == reference), None)
    others = [line for line in lines if line.label not in (reference, "scratch") and line.xs[0]]
    if first is None or not first.xs[0] or not others or first.ys[-1] <= 0:
        return ""
    after = [(line.label, epochs_to_reach(line.ys, NEARLY * first.ys[-1])) for line in (first, *others)]
    listed = ", ".join(f"{label} {'never' if epoch is None else epoch}" for label, epoch in after)
    return f" Epoch at which {NEARLY:.0%} of where {reference} ends is reached: {listed}."


def classes(results: Results) -> list[Chart]:
    """Differences class by class, with the most labels, of the start that the verdict is about."""
    about = wording.headline(results)
    found = []
    for at, reference in enumerate(dict.fromkeys(one.reference for one in about)):
        budget = [one.budget for one in about if one.reference == reference][-1]
        start = about[0].start
        rows = _class_rows(results, start, reference, budget)
        if not rows:
            continue
        left = len(rows) - MANY
        rows = sorted(sorted(rows, key=lambda row: -abs(row.mean))[:MANY], key=lambda row: -row.mean)
        note = f"Mean over seeds; strokes: single seeds. With {remarks.labels(budget)}."
        note += f" The {left} classes that differ least are left out." if left > 0 else ""
        note += " A class with few objects among the test images moves far by chance alone."
        title = f"{start} − {reference}"
        found.append(_class_chart(f"classes-{at}", title, rows, note))
    return found


def _class_chart(key: str, title: str, rows: list[Row], note: str) -> Chart:
    def draw(name: str, size: tuple[int, int]) -> str:
        shown = [Row(_short(row.label, 20), *_rest(row)) for row in rows]
        return rows_chart(name, shown, width=size[0], labels=150, alt=f"By class: {title}. {note}")

    return _chart(key, title, "points of mAP50-95, by class (objects)", note, draw, full=False)


def _class_rows(results: Results, start: str, reference: str, budget: str) -> list[Row]:
    ours, theirs = ({cell.seed: _by_class(cell) for cell in results.of(name, budget)} for name in (start, reference))
    rows = []
    seeds = sorted(set(ours) & set(theirs))
    for name, first in ours[seeds[0]].items() if seeds else ():
        pairs = [(ours[seed].get(name), theirs[seed].get(name)) for seed in seeds]
        each = [100 * (one.map50_95 - other.map50_95) for one, other in pairs if one and other]
        if each:
            label = f"{name} ({first.objects})"
            rows.append(Row(label, _index(results)[start], sum(each) / len(each), single=each))
    return rows


def _by_class(cell: CellResult) -> dict[str, ClassScore]:
    return {one.name: one for one in cell.measured.class_scores}
