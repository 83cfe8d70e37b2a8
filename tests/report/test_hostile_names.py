"""A stranger's folder: whatever its strings hold, the page has the elements and attributes of one with plain names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fake_comparison
import fake_run
import pytest
import yaml
from test_pretraining_page import Page

from headstart.comparison.results import read_results
from headstart.report import write_report, write_side_by_side

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;&#60;\u2028]]>--><!-- ${x} {{ 7*7 }} \x07"
)
PLAIN = "x" * len(HOSTILE)
# Values of fields that hold one of a few words, and names that mean something: the same charts must be drawn.
WORDS = {
    *("scratch", "coco", "checkpoint", "main", "longer", "done", "passed", "failed", "not known"),
    *("better", "worse", "inconclusive"),
}
MAPPINGS = ("taken", "found", "validation_map50_95", "versions", "sha256", "extra")


def filled(value: Any, word: str, field: str = "") -> Any:
    """`value` with `word` behind every string, and every key, that a stranger may choose."""
    if isinstance(value, dict):
        chosen = field in MAPPINGS
        return {
            key + word if chosen and key not in WORDS else key: filled(one, word, key) for key, one in value.items()
        }
    if isinstance(value, list):
        return [filled(one, word, field) for one in value]
    return value + word if isinstance(value, str) and value not in WORDS and field != "jpeg" else value


def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """Every element with the names of its attributes, in order."""
    return [(tag, tuple(sorted(found))) for tag, found in page.elements]


def comparison(folder: Path, word: str) -> Path:
    starts = ["scratch", "coco", "dino"]
    broken = fake_comparison.cell("dino", "5%", 2, kind="longer", state="failed", figures=None, error="no memory")
    cells = [*fake_comparison.every_cell(starts, [0, 1, 2]), broken]
    fake_comparison.write_comparison(folder, starts=starts, cells=cells)
    for name in ("results.json", "detections.json"):
        content = filled(json.loads((folder / name).read_text()), word)
        if "settings" in content:
            content["settings"][f"option{word}"] = f"value{word}"
        (folder / name).write_text(json.dumps(content))
    return folder


def test_a_comparison(tmp_path: Path) -> None:
    pages = {}
    for name, word in {"plain": PLAIN, "hostile": HOSTILE}.items():
        folder = comparison(tmp_path / name, word)
        pages[name] = Page(write_report(folder))
        both = write_side_by_side([folder, folder], tmp_path / f"{name}.html")
        assert "<img" not in both.read_text()
        if name == "hostile":
            assert read_results(folder).starts[2].name == f"dino{HOSTILE}"
    assert shape(pages["hostile"]) == shape(pages["plain"])
    assert pages["hostile"].count("script") == 1
    assert "{{ 7*7 }}" in pages["hostile"].text, "shown as it is, not worked out"
    assert len(pages["hostile"].links) == len(pages["plain"].links)
    assert all(link.startswith(("#", "data:image/")) for link in pages["hostile"].links)


def test_pictures_that_are_no_jpeg_in_base64_are_left_out(tmp_path: Path) -> None:
    folder = comparison(tmp_path, "")
    content = json.loads((folder / "detections.json").read_text())
    content["images"][1]["jpeg"] = 'AAAA" onload="alert(1)'
    (folder / "detections.json").write_text(json.dumps(content))
    page = Page(write_report(folder))
    assert "onload" not in page.html
    assert "The pictures are left out." in page.text
    assert "detections.json: is damaged: images.1.jpeg: String should match pattern" in page.text
    assert page.count("image") == 0


def test_a_class_that_has_no_name(tmp_path: Path) -> None:
    folder = comparison(tmp_path, "")
    content = json.loads((folder / "detections.json").read_text())
    content["images"][0]["truth"][0][0] = 900
    (folder / "detections.json").write_text(json.dumps(content))
    assert "class 900" in Page(write_report(folder)).text


@pytest.mark.parametrize("name", ["$\\frac{1}$", "a\nb", "名前", "$x$ and $y", "_^{"])
def test_class_and_start_names_are_no_formulas(tmp_path: Path, name: str) -> None:
    folder = comparison(tmp_path, "")
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace('"bolt"', json.dumps(name)).replace('"dino"', json.dumps(name)))
    assert "<svg" in write_report(folder).read_text()


def test_a_pretraining(tmp_path: Path) -> None:
    pages = {}
    for name, word in {"plain": PLAIN, "hostile": HOSTILE}.items():
        run = fake_run.write_run(tmp_path / name)
        fake_run.write_hand_back(run, fake_run.LOST)
        settings = filled(yaml.safe_load((run / "settings.yaml").read_text()), word)
        (run / "settings.yaml").write_text(yaml.safe_dump(settings))
        handback = json.loads((run / "handback.json").read_text())
        for one in handback["dropped"]:
            one |= {"name": one["name"] + word, "reason": one["reason"] + word}
        (run / "handback.json").write_text(json.dumps(handback))
        event = {"step": 7, "kind": "alarm", "message": f"it fell{word}"}
        (run / "events.jsonl").write_text(json.dumps(event) + "\n")
        (run / "skipped.csv").write_text(f'path,reason\n"a{word.replace(chr(34), "")}",b\n')
        pages[name] = Page(write_report(run))
    assert shape(pages["hostile"]) == shape(pages["plain"])
    assert re.search(r"it fell</script><script>", pages["hostile"].text), "shown as it is"
