"""``results.json`` and ``detections.json``: what is written is read, older formats are understood, damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_comparison
import pytest

from headstart.comparison.records import Results
from headstart.comparison.results import read_results, write_results
from headstart.comparison.shown import read_detections
from headstart.errors import UserError

# Written by version 0.1: three starts, two rates, two budgets, two seeds; one training failed. Its trainings are made
# up, its data, lists, starts and files are real.
FORMAT_1 = Path(__file__).parent / "fixtures" / "results-format-1.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("whole")
    longer = fake_comparison.cell("scratch", "20%", 0, epochs=60, kind="longer")
    failed = fake_comparison.cell("coco", "1%", 0, state="failed", figures=None, error="out of memory")
    starts = ["scratch", "coco", "dino"]
    cells = [*fake_comparison.every_cell(starts, [0, 1])[2:], failed, longer]
    return folder, fake_comparison.write_comparison(folder, starts=starts, seeds=[0, 1], cells=cells)


def test_what_is_written_is_read(whole: tuple[Path, Results]) -> None:
    folder, content = whole
    assert read_results(folder) == content
    assert read_results(folder / "results.json") == content
    found = read_detections(folder)
    assert found == fake_comparison.detections(["scratch", "coco", "dino"])


def test_the_file_is_the_one_that_is_documented(whole: tuple[Path, Results]) -> None:
    content = json.loads((whole[0] / "results.json").read_text())
    assert content["format"] == 2
    page = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text()
    listed = page[page.index("## results.json") :]
    keys = {
        *content,
        *content["cells"][0],
        *content["cells"][0]["figures"],
        *content["starts"][0],
        *content["checks"][0],
    }
    keys |= {*content["data"], *content["differences"][0]["map50_95"], *content["reached"][0], *content["scores"][0]}
    assert [key for key in sorted(keys) if f"`{key}`" not in listed] == []
    assert content["cells"][0]["figures"]["curve"][0] == [1, 3.1, *content["cells"][0]["figures"]["curve"][0][2:]]


def test_a_file_of_format_1_is_read_as_format_2() -> None:
    old, new = json.loads(FORMAT_1.read_text()), read_results(FORMAT_1)
    assert new.format == 2
    assert [start.name for start in new.starts] == ["scratch", "coco", "ssl"]
    assert [(c.kind, c.start, c.budget, c.seed, c.state) for c in new.cells] == [
        (c["kind"], c["start"], c["budget"], c["seed"], c["state"]) for c in old["cells"]
    ]
    for mine, theirs in zip(new.scores, old["scores"], strict=True):
        assert mine.map50_95.mean == theirs["map50_95"]["mean"]
    renamed = {"helped": "better", "hurt": "worse", "cannot tell": "inconclusive"}
    for mine, theirs in zip(new.differences, old["differences"], strict=True):
        assert (mine.start, mine.reference, mine.budget) == (theirs["start"], theirs["reference"], theirs["budget"])
        values = theirs["map50_95"]
        assert (list(mine.map50_95.differences), mine.map50_95.t_low) == (values["differences"], values["t_low"])
        assert mine.map50_95.verdict == renamed[values["verdict"]]
    outcomes = {check.key: check.outcome for check in new.checks}
    assert outcomes["complete"] == "failed", "a training failed"
    assert outcomes["settings"] == "not known", "format 1 does not say"
    assert outcomes["lists"] == outcomes["arrived"] == outcomes["seeds"] == outcomes["test leak"] == "passed"
    assert "helped" not in new.verdict
    assert "1 of 12 trainings failed or are missing: coco at 50%, seed 1" in new.verdict


def test_format_1_counted_the_images_that_were_left(tmp_path: Path) -> None:
    """Of pretraining images that were deleted it said that none of the others is a test image: that is not known."""
    (tmp_path / "results.json").write_text(FORMAT_1.read_text())
    whole = read_results(tmp_path).starts[2]
    assert whole.leak is not None
    assert whole.pretraining is not None
    assert whole.leak.words == f"none of {whole.pretraining.images} pretraining images is a test image"
    assert whole.leak.outcome == "passed"
    damaged(tmp_path, lambda content: content["starts"][2]["pretraining"].update(images=7))
    part = read_results(tmp_path).starts[2].leak
    assert part is not None
    assert part.outcome == "not known"


def damaged(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "results.json") -> Path:
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["cells"][3].update(seed="one"), "cells.3.seed: Input should be a valid integer"),
        (lambda c: c["cells"][0].update(state="finished"), "cells.0.state: Input should be 'done', 'failed'"),
        (lambda c: c["cells"][0].update(figures=None), "cells.0: Value error, a training that is done lacks figures"),
        (lambda c: c["cells"][0]["figures"].update(curve=[]), "cells.0.figures.curve: Tuple should have at least 1"),
        (lambda c: c["differences"][0]["map50_95"].update(verdict="helped"), "differences.0.map50_95.verdict: Input"),
        (lambda c: c.pop("starts"), "starts: Field required"),
        (lambda c: c.update(starts={}), "starts: Input should be a valid"),
        (lambda c: c["settings"].pop("imgsz"), "settings.imgsz: Field required"),
        (lambda c: c.update(more=1), "more: Extra inputs are not permitted"),
        (lambda c: c["data"].update(names="ring"), "data.names: Input should be a valid"),
        (lambda c: c["starts"][0].update(kind="mine"), "starts.0.kind: Input should be 'scratch'"),
    ],
)
def test_damage_is_named_with_file_and_field(tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    fake_comparison.write_comparison(tmp_path, starts=["scratch", "coco"])
    path = damaged(tmp_path, change)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path)
    assert caught.value.where == str(path)
    assert said in caught.value.what
    assert "writes it again" in (caught.value.hint or "")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut(tmp_path: Path, share: float) -> None:
    fake_comparison.write_comparison(tmp_path, starts=["scratch", "coco"])
    path = tmp_path / "results.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="is cut or damaged"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"[" * 100_000, b'{"format": 2, "name": NaN}', b'{"format": "\\ud800"}']
)
def test_bytes_that_are_no_results(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(UserError, match=r"results\.json: (is cut or damaged|is damaged|has no format number)"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 3}', "is of format 3; this version reads formats 1 and 2\n  -> pip install --upgrade headstart"),
        ('{"format": 0}', "is of format 0; this version reads formats 1 and 2\n  -> run the comparison again"),
        ('{"format": true}', "has no format number"),
        ('{"cells": []}', "has no format number"),
        ("[]", "has no format number"),
        ('{"format": 1}', "is damaged: lacks 'data'"),
        ('{"format": 1, "data": 5}', "is damaged"),
    ],
)
def test_formats_that_are_not_known(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path)
    assert said in str(caught.value)


def test_damage_in_a_file_of_format_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(FORMAT_1.read_text())
    damaged(tmp_path, lambda content: content["cells"][0].update(seed="one"))
    with pytest.raises(UserError, match=r"cells\.0\.seed: Input should be a valid integer"):
        read_results(tmp_path)


def test_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no results\.json"):
        read_results(tmp_path)


def test_damaged_detections(whole: tuple[Path, Results], tmp_path: Path) -> None:
    assert read_detections(tmp_path) is None
    write_results(tmp_path, whole[1])
    (tmp_path / "detections.json").write_text((whole[0] / "detections.json").read_text())
    damaged(tmp_path, lambda content: content["images"][0]["truth"][0].pop(), "detections.json")
    with pytest.raises(UserError, match=r"detections\.json: is damaged:\s+images\.0\.truth\.0"):
        read_detections(tmp_path)


def test_detections_of_format_1_had_no_number(whole: tuple[Path, Results], tmp_path: Path) -> None:
    (tmp_path / "detections.json").write_text((whole[0] / "detections.json").read_text())
    damaged(tmp_path, lambda content: content.pop("format"), "detections.json")
    assert read_detections(tmp_path) == read_detections(whole[0])
