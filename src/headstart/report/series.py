"""Charts of a comparison as inline SVG: a line a start, and rows of intervals. Colors and marks go with the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from headstart.report.charts import INK, LINE, MUTED, NICE, STYLE, inline, number, saved

COLORS = 8
"""Starts that have a color of their own (``--s0`` ... in the page); those after them have other marks and dashes."""
_STAND_INS = tuple(f"#0102{at:02x}" for at in range(10, 10 + COLORS))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))


def shape_of(index: int) -> int:
    """Which mark a start has: of those with one color each another."""
    return (index + index // COLORS) % len(MARKERS)


def _dash_of(index: int) -> Any:
    """Likewise its dashes, for a learning curve has no marks; the last four colors are whole lines first."""
    first = index % COLORS if index % COLORS < len(_DASHES) else 0
    return _DASHES[(first + index // COLORS) % len(_DASHES)]


@dataclass(frozen=True)
class Line:
    """A start's values over an axis.

    Attributes:
        index: Which start: its color, mark and dashes.
        label: Its name.
        xs: Rising.
        ys: As many.
        low: Lower ends of the intervals; empty without.
        high: Upper ends.
        single: Lines of single seeds, drawn faintly.
    """

    index: int
    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    single: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Row:
    """One row of an interval chart: what it is, the mean, its interval where it has one, single values."""

    label: str
    index: int
    mean: float
    low: float | None = None
    high: float | None = None
    single: Sequence[float] = ()


def lines_chart(
    name: str,
    lines: Sequence[Line],
    *,
    size: tuple[int, int],
    alt: str,
    ticks: Sequence[tuple[float, str]] = (),
    level: float | None = None,
) -> str:
    """Draw a line for every start.

    Args:
        name: Makes the ids within the page unique.
        lines: At least one with a value.
        size: Width and height in CSS pixels.
        alt: The chart in a sentence.
        ticks: Places and labels of the horizontal axis, which is logarithmic then; without: epochs.
        level: A horizontal line for orientation.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        axes = figure.add_axes((44 / size[0], 34 / size[1], 1 - 60 / size[0], 1 - 46 / size[1]))
        shift = len(lines) / 2 - 0.5
        for at, line in enumerate(lines):
            # Where intervals would hide each other, the starts stand a little apart.
            xs = [x * 1.018 ** (at - shift) for x in line.xs] if ticks else list(line.xs)
            _draw(axes, line, xs, bool(ticks))
        _frame(axes, ticks, size)
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1.25, dashes=(4, 3))
        return _colored(figure, name, alt)


def _draw(axes: Any, line: Line, xs: list[float], marked: bool) -> None:
    color, marker = _STAND_INS[line.index % COLORS], MARKERS[shape_of(line.index)]
    for ys in line.single:
        axes.plot(xs[: len(ys)], ys, color=color, alpha=0.25, linewidth=1)
    if line.low:
        reach = [
            [y - low for y, low in zip(line.ys, line.low, strict=True)],
            [high - y for y, high in zip(line.ys, line.high, strict=True)],
        ]
        axes.errorbar(xs, line.ys, yerr=reach, fmt="none", ecolor=color, elinewidth=1.5, capsize=4, capthick=1.5)
    style = {"linestyle": _dash_of(line.index), "linewidth": 2, "markersize": 7}
    few = marked or len(xs) < 3
    axes.plot(xs, line.ys, color=color, marker=marker if few else None, solid_joinstyle="round", **style)


def _frame(axes: Any, ticks: Sequence[tuple[float, str]], size: tuple[int, int]) -> None:
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(0.0, bottom), top + 0.04 * (top - min(0.0, bottom)))  # or the highest mark is cut
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    if ticks:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
        places = [at for at, _ in ticks]
        axes.set_xlim(min(places) * 0.75, max(places) * 1.33)
    else:
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(6 if size[0] > 600 else 4, integer=True, steps=NICE))
        left, right = axes.get_xlim()
        shown = sorted({round(tick) for tick in axes.get_xticks() if max(left, 1) <= tick <= right}) or [1]
        axes.set_xticks(shown, [f"{'' if at else 'epoch '}{tick:,.0f}" for at, tick in enumerate(shown)])
        axes.set_xlim(left, right)


def rows_chart(name: str, rows: Sequence[Row], *, width: int, labels: int, alt: str) -> str:
    """Draw differences, one a row, with their intervals around a line at zero.

    Args:
        name: Makes the ids within the page unique.
        rows: From the top; in points. A label may have two lines.
        width: In CSS pixels.
        labels: Width of the column of names.
        alt: The chart in a sentence.
    """
    height = (38 if any("\n" in row.label for row in rows) else 24) * len(rows) + 44
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((labels / width, 30 / height, 1 - (labels + 14) / width, 1 - 40 / height))
        axes.axvline(0, color=INK, linewidth=1.25)
        for at, row in enumerate(rows):
            color, marker = _STAND_INS[row.index % COLORS], MARKERS[shape_of(row.index)]
            for value in row.single:
                axes.plot([value], [at], marker="|", markersize=9, color=color, alpha=0.55)
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [at, at], color=color, linewidth=2, solid_capstyle="butt")
            axes.plot([row.mean], [at], marker=marker, markersize=8, color=color)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="x", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.xaxis.set_major_locator(MaxNLocator(7 if width > 600 else 4, steps=NICE))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g}".replace("-", "−") if x else "0"))
        return _colored(figure, name, alt)


@dataclass(frozen=True)
class Saving:
    """One row of a chart of labels: those that a start has, those that count as many, and their interval.

    Attributes:
        label: What it is.
        index: Which start.
        own: Labelled images of the start.
        needed: Labelled images that another needs for the same.
        beyond: Whether it needs more than that.
        interval: Of `needed`; None without.
    """

    label: str
    index: int
    own: float
    needed: float
    beyond: bool
    interval: tuple[float, float] | None


def savings_chart(name: str, rows: Sequence[Saving], ticks: Sequence[int], *, width: int, labels: int, alt: str) -> str:
    """Draw labels against labels, one start and budget a row, over a logarithmic axis.

    Args:
        name: Makes the ids within the page unique.
        rows: From the top.
        ticks: Label budgets, in images.
        width: In CSS pixels.
        labels: Width of the column of names.
        alt: The chart in a sentence.
    """
    height = 28 * len(rows) + 44
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((labels / width, 30 / height, 1 - (labels + 24) / width, 1 - 40 / height))
        axes.set_xscale("log")
        for at, row in enumerate(rows):
            _draw_saving(axes, at, row)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="x", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(ticks), [f"{tick:,}" for tick in ticks])
        axes.set_xlim(min(ticks) * 0.8, max(ticks) * 1.25)
        return _colored(figure, name, alt)


def _draw_saving(axes: Any, at: int, row: Saving) -> None:
    color, marker = _STAND_INS[row.index % COLORS], ">" if row.beyond else MARKERS[shape_of(row.index)]
    axes.plot([row.own, row.needed], [at, at], color=MUTED, linewidth=1, dashes=(2, 2))
    if row.interval:
        axes.plot(row.interval, [at, at], color=color, linewidth=2, solid_capstyle="butt")
    axes.plot([row.own], [at], marker="o", markersize=10, color=MUTED, markerfacecolor="none")
    axes.plot([row.needed], [at], marker=marker, markersize=8, color=color)


def _colored(figure: Figure, name: str, alt: str) -> str:
    svg = inline(saved(figure), name, alt)
    for at, stand_in in enumerate(_STAND_INS):
        svg = svg.replace(stand_in, f"var(--s{at})")
    return svg
