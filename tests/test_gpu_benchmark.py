"""The benchmark for a GPU: what is done is kept, what was stopped goes on, and every part runs on a CPU, very small."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FACTS = {"cuda": True, "device": "A GPU", "memory": 1000.0, "versions": {"torch": "2"}}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in ("gpu", "gpu_parts", "speed"):
        sys.modules.pop(name, None)


@pytest.fixture
def parts(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that are over in a moment, and the names of those that were begun."""
    begun: list[str] = []

    def part(name: str, minutes: float, needs: tuple[str, ...] = (), error: Exception | None = None) -> Any:
        def work(given: Namespace, folder: Path, until: float) -> tuple[dict[str, Any], str]:
            begun.append(name)
            if error and begun.count(name) == 1:
                raise error
            return {"figure": 1}, f"| table of {name} |"

        return gpu.Part(minutes, needs, ("device", "rounds"), work)

    stopped = gpu.StoppedError("after 2 turns")
    known = {"quick": part("quick", 1), "stops": part("stops", 1, error=stopped), "long": part("long", 30)}
    known |= {"fails": part("fails", 1, error=ValueError("no such weights")), "lacks": part("lacks", 1, ("data",))}
    monkeypatch.setattr(gpu, "PARTS", known)
    monkeypatch.setattr(gpu, "said", lambda *rest: FACTS)
    return begun


def test_what_is_done_is_kept_and_the_rest_goes_on(
    gpu: Any, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path), "--minutes", "10"]
    assert gpu.main(words) == 1
    assert parts == ["quick", "stops", "fails"]
    first = capsys.readouterr().out
    assert "long: not begun, it takes about 30 minutes and 10.0 are left" in first
    assert "lacks: skipped, it needs --data" in first
    assert "stops: unfinished in 0 s; after 2 turns" in first
    kept = {name: json.loads((tmp_path / "parts" / f"{name}.json").read_text()) for name in ("quick", "stops", "fails")}
    assert [one["state"] for one in kept.values()] == ["done", "unfinished", "failed"]
    assert "no such weights" in kept["fails"]["why"]
    assert (kept["quick"]["device"], kept["quick"]["versions"], kept["quick"]["values"]) == (
        "A GPU",
        {"torch": "2"},
        {"figure": 1},
    )
    assert "table of stops" not in first

    assert gpu.main(words) == 0
    assert parts == ["quick", "stops", "fails", "stops", "fails"]
    second = capsys.readouterr().out
    assert "quick: done before" in second
    page = (tmp_path / "tables.md").read_text()
    assert "A GPU, torch 2." in page
    assert [name for name in ("quick", "stops", "fails") if f"table of {name}" in page] == ["quick", "stops", "fails"]
    assert page in second

    assert gpu.main([*words, "--rounds", "9", "--only", "quick"]) == 0
    assert parts[-1] == "quick", "with other options it is another measurement"


def test_without_a_gpu_nothing_is_done(
    gpu: Any, parts: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(gpu, "said", lambda *rest: {**FACTS, "cuda": False})
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert not parts
    assert "skipped: there is no CUDA GPU here" in capsys.readouterr().out


def test_a_child_that_takes_too_long_is_stopped(gpu: Any, tmp_path: Path) -> None:
    import time

    import gpu_parts  # type: ignore[import-not-found]

    began = time.monotonic()
    code = "import time\nprint('begun', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept')"
    with pytest.raises(gpu.StoppedError, match="in its midst"):
        gpu_parts.child([sys.executable, "-c", code], tmp_path / "log.txt", began + 1.5)
    assert time.monotonic() - began < 20
    assert (tmp_path / "log.txt").read_text() == "begun\nkept\n"


def test_ratios_and_shares_by_hand(gpu: Any) -> None:
    """100 and 120 images/s against 10 and 10: 10 and 12 times, 11 in the median; 250 of 1,000 MB."""
    import gpu_parts

    more = {"cpu": 5.0, "wait": 0.25, "memory": 2000.0}
    rows = {
        "tutorial": [{"rate": 10.0, "graphics": 100.0, **more}] * 2,
        "lightly-train": [],
        "headstart": [{"rate": rate, "graphics": 250.0, **more} for rate in (100.0, 120.0)],
    }
    lines = gpu_parts.speed_table(rows, {"lightly-train": "not installed"}, 1000.0).splitlines()
    assert lines[3] == "| lightly-train | not installed |  |  |  |  |  |  |"
    assert lines[4] == "| headstart | 110.0 (100.0-120.0) | 5.00 | 25% | 2,000 | 250 | 25.0% | 11.00 (10.00-12.00) |"


def test_what_the_machine_does_at_most(gpu: Any, tmp_path: Path) -> None:
    assert gpu.main(["--tiny", "--out", str(tmp_path), "--only", "limit"]) == 0
    found = json.loads((tmp_path / "parts" / "limit.json").read_text())
    by_sums, by_memory = found["values"]["32"] * 1000 / 4.2, found["values"]["copy"] * 1000 / 0.33
    assert found["values"]["most-32"] == pytest.approx(min(by_sums, by_memory))
    assert found["versions"]["torch"]


@pytest.mark.slow
def test_every_part(gpu: Any, tmp_path: Path) -> None:
    assert gpu.main(["--tiny", "--out", str(tmp_path)]) == 0
    states = {name: json.loads((tmp_path / "parts" / f"{name}.json").read_text())["state"] for name in gpu.PARTS}
    assert states == dict.fromkeys(gpu.PARTS, "done")
