"""Draw the annotated pictures of docs/reports.md from real reports, with headless Chromium.

python tools/pictures.py PRETRAINING COMPARISON [SELFTRAIN]     # folders of runs with a report.html

Each picture is a part of a report, with numbers at what the page explains.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH, TALLEST = 900, 4000


class Picture(NamedTuple):
    """A part of a report.

    Attributes:
        name: Of the file.
        report: Which of the folders: 0, 1, 2.
        shown: Selectors of the parts of the page that stay.
        marks: Selectors of what gets the numbers 1, 2, ...
    """

    name: str
    report: int
    shown: Sequence[str]
    marks: Sequence[str]


PICTURES = [
    Picture("verdict", 0, ["header", "section:has(> #next)"], [".pill", ".facts", ".card .command", "table.parts"]),
    Picture("learning", 0, ["section:has(> #learning)"], ["figure:nth-of-type(1)", "figure:nth-of-type(2)"]),
    Picture("sees", 0, ["section:has(> #pictures)"], []),
    Picture(
        "compared",
        1,
        ["header", "section:has(> #outcome)"],
        [".pill", "#verdict", "figure:nth-of-type(2)", ".card:not(.chart)", ".scroll-x"],
    ),
    Picture("checks", 1, ["section:has(> #fair)"], []),
    Picture("labelled", 2, ["section:has(> #labels)"], ["table", "figure.picture", "details"]),
]

SCRIPT = """
<style>
  .badge { position: absolute; z-index: 9; width: 28px; height: 28px; border-radius: 50%; background: #b3261e;
           color: #fff; font: bold 16px/28px sans-serif; text-align: center; box-shadow: 0 0 0 3px #fff; }
  ::-webkit-scrollbar { display: none; }
</style>
<script>
  const shown = SHOWN, marks = MARKS;
  const kept = [...document.querySelectorAll("header, main > section, footer")]
    .filter(one => shown.some(selector => one.matches(selector)));
  for (const one of document.querySelectorAll("header, main > section, footer"))
    if (!kept.includes(one)) one.style.display = "none";
  marks.forEach((selector, place) => {
    const found = kept.map(one => one.querySelector(selector)).find(one => one);
    if (!found) throw new Error("nothing is " + selector);
    const box = found.getBoundingClientRect(), badge = document.createElement("div");
    badge.className = "badge"; badge.textContent = place + 1;
    badge.style.left = Math.max(2, box.left - 27) + "px"; badge.style.top = Math.max(2, box.top - 14) + "px";
    document.body.append(badge);
  });
</script>
"""


def draw(picture: Picture, report: Path) -> None:
    """Take the picture, cut off what is empty, and write it as WebP."""
    browser = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    script = SCRIPT.replace("SHOWN", json.dumps(picture.shown)).replace("MARKS", json.dumps(picture.marks))
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(report.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
        words += [f"--window-size={WIDTH},{TALLEST}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run([browser, *words], check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
        pixels = np.asarray(image)
        rows = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
        image = image.crop((0, max(0, rows[0] - 12), image.width, min(image.height, rows[-1] + 20)))
        DOCS.mkdir(exist_ok=True)
        image.save(DOCS / f"{picture.name}.webp", quality=80, method=6)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    for one in PICTURES:
        if one.report < len(folders):
            draw(one, folders[one.report] / "report.html")
