"""Draw ``docs/pictures/evidence.svg``: the differences to COCO's weights that docs/evidence.md has, with intervals.

python tools/evidence_picture.py            # after docs/evidence.md has changed
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parent.parent / "docs" / "pictures" / "evidence.svg"


class Row(NamedTuple):
    """A paired difference in points of mAP50-95, with its 95 % t interval."""

    against: str
    labels: str
    start: str
    seeds: int
    mean: float
    low: float
    high: float


EQUAL, SHORT, MIDDLE = (
    "Against COCO trained for as many steps in all",
    "Against COCO after 200 steps of fine-tuning each",
    "Against COCO after 600 steps of fine-tuning each",
)
ROWS = [
    Row(EQUAL, "1 %", "selftrain + teacher", 6, 7.5, 6.6, 8.3),
    Row(EQUAL, "5 %", "selftrain + teacher", 6, 6.8, 4.4, 9.2),
    Row(EQUAL, "20 %", "selftrain + teacher", 6, 0.8, -0.1, 1.6),
    Row(SHORT, "1 %", "objects", 5, 4.7, 0.8, 8.7),
    Row(SHORT, "5 %", "objects", 6, 7.0, 4.3, 9.6),
    Row(SHORT, "20 %", "objects", 5, 6.1, 1.5, 10.8),
    Row(SHORT, "5 %", "objects + teacher", 6, 8.4, 4.8, 12.0),
    Row(SHORT, "1 %", "objects + teacher", 3, 6.6, -2.1, 15.4),
    Row(MIDDLE, "5 %", "objects", 3, 1.4, -4.0, 6.8),
    Row(MIDDLE, "5 %", "objects + teacher", 3, 2.0, -3.5, 7.5),
    Row(MIDDLE, "20 %", "objects + teacher", 3, 2.8, -6.3, 11.9),
]
SHOWN, INCONCLUSIVE, INK, QUIET = "#1f6f4a", "#8a6d1f", "#14171a", "#5b6166"
WIDTH, LEFT, RIGHT, TOP, STEP = 880, 350, 690, 76, 27
LEAST, MOST = -8, 16


def drawing() -> str:
    """The picture as SVG."""
    groups = list(dict.fromkeys(row.against for row in ROWS))
    bottom = TOP + STEP * (len(ROWS) + len(groups)) + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 44}" font-family="sans-serif" '
        'font-size="14" role="img">',
        "<title>Differences to COCO's weights in points of mAP50-95, with 95 % intervals</title>",
        f'<rect width="{WIDTH}" height="{bottom + 44}" fill="#ffffff"/>',
        text(20, 30, "Ahead of COCO for as many steps with few labels; without labels early on", INK, "bold", 17),
        text(20, 52, "FOD-A, yolo11n at 160 px. Points of mAP50-95, mean and 95 % interval over seeds", QUIET),
    ]
    parts += [axis(value, bottom) for value in (-5, 0, 5, 10)]
    y = TOP + 4
    for against in groups:
        parts.append(text(20, y + 14, against, INK, "bold"))
        y += STEP
        for row in (one for one in ROWS if one.against == against):
            parts.append(interval(row, y))
            y += STEP
    return "\n".join([*parts, "</svg>"]) + "\n"


def place(value: float) -> float:
    """Where a difference lies across the picture."""
    return round(LEFT + (value - LEAST) / (MOST - LEAST) * (RIGHT - LEFT), 1)


def axis(value: int, bottom: int) -> str:
    """A line for a difference, zero in black."""
    x, color = place(value), INK if value == 0 else "#d9dcdf"
    line = f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" stroke="{color}"/>'
    return line + text(
        x, bottom + 18, f"{value:+d}".replace("-", "−") if value else "0: as COCO's", QUIET, anchor="middle"
    )


def interval(row: Row, y: int) -> str:
    """A row: what it is, its interval, its figures."""
    color, middle = SHOWN if row.low > 0 else INCONCLUSIVE, y + 9
    start, end, mean = place(row.low), place(row.high), place(row.mean)
    said = f"{row.mean:+.1f} [{row.low:+.1f}, {row.high:+.1f}]".replace("-", "−")
    return (
        text(34, y + 14, f"{row.start}, {row.labels} labels, {row.seeds} seeds", INK)
        + f'<line x1="{start}" y1="{middle}" x2="{end}" y2="{middle}" stroke="{color}" stroke-width="3"/>'
        + f'<circle cx="{mean}" cy="{middle}" r="5.5" fill="{color}"/>'
        + text(RIGHT + 18, y + 14, said, color)
    )


def text(
    x: float, y: float, words: str, color: str, weight: str = "normal", size: int = 14, anchor: str = "start"
) -> str:
    """A line of text."""
    style = f'fill="{color}" font-weight="{weight}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{words}</text>'


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(drawing(), encoding="utf-8")
