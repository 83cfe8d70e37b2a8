"""Line charts as inline SVG: real text, and colors that follow the page into its dark mode."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Matplotlib draws in these stand-ins; they become the CSS variables of the page.
INK, MUTED, LINE, ACCENT, ALARM = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", ALARM: "--alarm"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",
    "text.parse_math": False,  # a class may be called "$5"
    "font.size": 12,
    "axes.edgecolor": LINE,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.labelcolor": MUTED,
}
NICE = (1, 2, 2.5, 5, 10)
_POINTS = 360
"""Points of a drawn line at most, about one a pixel of the narrow chart."""


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    Attributes:
        key: Its id is ``chart-`` and this.
        title: What is drawn.
        unit: In which unit.
        note: What it shows, in a sentence or two.
        wide: SVG for wide windows; empty where there is nothing to draw.
        narrow: The same for a phone.
        full: Takes the full width of the page.
    """

    key: str
    title: str
    unit: str
    note: str
    wide: str = ""
    narrow: str = ""
    full: bool = False


@dataclass(frozen=True)
class Mark:
    """A horizontal line with its meaning written on it.

    Attributes:
        value: Where, in the unit of the chart.
        label: What it means.
        bad: ``"above"`` or ``"below"``: beyond it lies an alarm; ``""``: a line for orientation.
    """

    value: float
    label: str
    bad: str = ""


def thin(steps: Floats, values: Floats, limit: int = _POINTS) -> tuple[Floats, Floats]:
    """At most about `limit` points of a line, keeping the first, the last and every stretch's lowest and highest.

    Values that are not finite are kept as gaps: a stretch holding one shows one.
    """
    if len(steps) <= limit:
        return steps, values
    keep = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(len(steps)), max(1, limit // 3)):
        finite = stretch[np.isfinite(values[stretch])]
        if len(finite):
            keep |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
        if len(finite) < len(stretch):
            keep.add(int(stretch[~np.isfinite(values[stretch])][0]))
    chosen = sorted(keep)
    return steps[chosen], values[chosen]


def smooth(values: Floats) -> Floats:
    """Centered running mean over about a twentieth of the line, gaps left out; the line itself where it is short."""
    half = len(values) // 40
    if half < 1:
        return values
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    count = counts[high] - counts[low]
    mean = (sums[high] - sums[low]) / np.maximum(count, 1)
    return np.where((count > 0) & finite, mean, math.nan)


def number(value: float) -> str:
    """A value for people: three significant digits, thousands separated."""
    if not math.isfinite(value):
        return "not a number"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2g}"
    digits = f"{value:.3g}"
    return digits if "e" not in digits or abs(value) < 1e-5 else f"{value:.6f}".rstrip("0").rstrip(".")


def line_chart(
    name: str,
    steps: Floats,
    values: Floats,
    *,
    size: tuple[int, int],
    alt: str,
    marks: Sequence[Mark] = (),
    limits: tuple[float | None, float | None] = (None, None),
    smoothed: bool = False,
    percent: bool = False,
) -> str:
    """Draw `values` over `steps`.

    Args:
        name: Makes the ids within the page unique.
        steps: (N,), rising.
        values: (N,), gaps where not finite. At least one is finite.
        size: Width and height in CSS pixels at which the text has its natural size.
        alt: The chart in a sentence, for those who do not see it.
        marks: Lines to measure the values against.
        limits: Lower and upper end of the axis; None leaves it to the values.
        smoothed: Draw the running mean, over the values as a faint line.
        percent: Values are shares, 0..1.

    Returns:
        An ``<svg>`` element to put into an HTML page.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        axes = figure.add_axes((46 / size[0], 34 / size[1], 1 - 100 / size[0], 1 - 46 / size[1]))
        logged = values
        if smoothed and len(values) >= 40:
            axes.plot(*thin(steps, values), color=ACCENT, alpha=0.28, linewidth=1)
            values = smooth(values)
        shown = thin(steps, values)
        alone = np.isfinite(values).sum() < 3
        axes.plot(*shown, color=ACCENT, linewidth=2, marker="o" if alone else None, solid_joinstyle="round")
        _limit(axes, logged, limits, marks)
        _decorate(axes, steps, size, percent)
        for mark in marks:
            _draw_mark(axes, mark)
        _label_end(axes, values, percent)
        svg = saved(figure)
    return inline(svg, name, alt)


def _limit(axes: Any, values: Floats, limits: tuple[float | None, float | None], marks: Sequence[Mark]) -> None:
    finite = values[np.isfinite(values)]
    low = min([float(finite.min()), *(mark.value for mark in marks)]) if limits[0] is None else limits[0]
    high = float(finite.max()) if limits[1] is None else limits[1]
    high = max([high, *(mark.value * 1.04 for mark in marks)])
    usual = float(np.quantile(finite, 0.95))
    if limits[1] is None and usual > 0 and high > 20 * usual:
        # A single explosion would press everything else flat.
        high = 3 * usual
        axes.text(0.98, 0.97, f"peak {number(float(finite.max()))} ↑", transform=axes.transAxes, ha="right", va="top")
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - (pad if limits[0] is None else 0), high + (pad if limits[1] is None else 0))


def _decorate(axes: Any, steps: Floats, size: tuple[int, int], percent: bool) -> None:
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.margins(x=0.0 if len(steps) > 2 else 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6 if size[0] > 600 else 4, integer=True, steps=NICE))
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right] if len(steps) > 2 else steps.tolist()
    axes.set_xticks(ticks, [f"{'' if at else 'step '}{tick:,.0f}" for at, tick in enumerate(ticks)])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}" if percent else number(y)))


def _draw_mark(axes: Any, mark: Mark) -> None:
    color = ALARM if mark.bad else MUTED
    axes.axhline(mark.value, color=color, linewidth=1.25, dashes=(4, 3))
    bottom, top = axes.get_ylim()
    if mark.bad:
        far = top if mark.bad == "above" else bottom
        axes.axhspan(min(mark.value, far), max(mark.value, far), color=ALARM, alpha=0.09, linewidth=0)
    # The text stands on the side where there is room for it.
    above = (mark.value - bottom) / (top - bottom) < 0.5
    axes.annotate(
        mark.label,
        (1, mark.value),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 5 if above else -6),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=color,
    )


def _label_end(axes: Any, values: Floats, percent: bool) -> None:
    last = float(values[np.isfinite(values)][-1])
    bottom, top = axes.get_ylim()
    axes.annotate(
        f"{last:.1%}" if percent else number(last),
        (1, min(max(last, bottom), top)),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=ACCENT,
        weight="bold",
    )


def saved(figure: Figure) -> str:
    """What matplotlib writes of a figure."""
    data = io.StringIO()
    with warnings.catch_warnings():
        # The text is the browser's to draw: it has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return data.getvalue()


def inline(svg: str, name: str, alt: str) -> str:
    """What matplotlib writes, as a part of a page: no prologue, ids of its own, colors from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box
    return f'<svg {view_box[0]} role="img" aria-label="{escape(alt)}">' + svg[svg.index(">") + 1 :].strip()
