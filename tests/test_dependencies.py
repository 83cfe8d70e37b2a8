"""What is imported is declared, with bounds on both sides; what tests the bounds is there."""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "lightning_fabric": "pytorch-lightning",
    "mlflow": "mlflow-skinny",
    "pydantic_core": "pydantic",  # which asks for the one version that fits
}
NO_MAJOR_VERSIONS = {"fsspec", "packaging", "pillow"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    pytest.importorskip("tomllib")
    spec = importlib.util.spec_from_loader("matrix", SourceFileLoader("matrix", str(ROOT / ".ci" / "matrix")))
    assert spec is not None
    assert spec.loader is not None
    module, written = importlib.util.module_from_spec(spec), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # .ci is no place for it
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = written
    return module


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"headstart"}


def test_what_is_imported_is_declared(project: dict[str, Any], matrix: ModuleType) -> None:
    optional = {"pi_heif", "IPython"}  # imported where a user has it
    assert {DISTRIBUTIONS.get(name, name) for name in imported() - optional} <= set(matrix.direct())


def test_every_dependency_has_a_lower_and_an_upper_bound(project: dict[str, Any]) -> None:
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    lines = [line for some in lists for line in some]
    lines = [line.split(";")[0] for line in lines]
    assert [line for line in lines if ">=" not in line] == []
    assert {line.split(">")[0] for line in lines if "<" not in line} == NO_MAJOR_VERSIONS


def test_the_core_of_the_tests_is_there(project: dict[str, Any]) -> None:
    for name in project["tool"]["matrix"]["core"]:
        path, *rest = name.split("::")
        assert (ROOT / path).exists(), name
        for function in rest:
            assert f"def {function.split('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), name


def result(**facts: Any) -> dict[str, Any]:
    fixed = {"date": "2026-11-28", "bounds": "b", "failures": [], "passed": 3, "failed": 0, "skipped": 1}
    return {**fixed, "versions": {"python": "3.10.1", "torch": "2.6.0"}, **facts}


def test_the_table_has_a_column_for_each_result(matrix: ModuleType) -> None:
    failed = result(failures=["tests.a.test_b: no"], failed=1, versions={})
    rows = matrix.table({"3.13 newest": failed, "3.10 lowest": result()}).splitlines()
    assert rows[0] == "|  | 3.10 lowest | 3.13 newest |"
    assert "| torch | 2.6.0 |  |" in rows
    assert rows[-5:] == [
        "| **passed** | 3 | 3 |",
        "| **failed** | 0 | 1 |",
        "| **skipped** | 1 | 1 |",
        "| works | yes | **no** |",
        "| date | 2026-11-28 | 2026-11-28 |",
    ]


def test_a_result_holds_while_it_passed_within_the_present_bounds(matrix: ModuleType) -> None:
    bounds = matrix.bounds("3.12")
    assert matrix.holds(result(bounds=bounds), "3.12")
    assert not matrix.holds(result(bounds="of before"), "3.12")
    assert not matrix.holds(result(bounds=bounds, failures=["not installed: no wheel"], passed=0), "3.12")
    assert not matrix.holds(result(bounds=bounds, passed=0), "3.12")
    assert not matrix.holds(None, "3.12")


def test_a_bound_for_one_python_leaves_the_results_of_the_others(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {python: matrix.bounds(python) for python in ("3.12", "3.13")}
    lists = {"dependencies": ["a>=1", "b>=3 ; python_version >= '3.13'"], "optional-dependencies": {"c": ["d>=1"]}}
    monkeypatch.setattr(matrix, "PROJECT", {"project": lists, "tool": {"matrix": {"core": ["tests"]}}})
    first = {python: matrix.bounds(python) for python in ("3.9", "3.12", "3.13", "3.14")}
    assert first["3.12"] not in before.values()
    assert first["3.9"] == first["3.12"] != first["3.13"] == first["3.14"]
    lists["optional-dependencies"]["c"].append("d>=2 ; python_version < '3.13'")
    assert matrix.bounds("3.13") == first["3.13"]
    assert matrix.bounds("3.12") != first["3.12"]
    lists["dependencies"].append("e>=1 ; sys_platform == 'darwin'")  # said of something else: it counts for all
    assert matrix.bounds("3.13") != first["3.13"]


def test_a_failing_combination_gives_exit_status_1(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcomes = {"lowest": result(), "newest": result(failures=["tests.a.test_b: no"], failed=1)}
    done = []

    def run(python: str, resolution: str, workers: str) -> dict[str, Any]:
        done.append(f"{python} {resolution}")
        return {**outcomes[resolution], "bounds": matrix.bounds(python)}

    (page := tmp_path / "page.md").write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    monkeypatch.setattr(matrix, "run", run)
    monkeypatch.setattr(matrix, "PAGE", page)
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "matrix.json")

    def status(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["matrix", *words])
        found: int = matrix.main()
        return found

    assert status("3.10", "lowest") == 0
    assert status("3.10") == 1
    assert status("3.10") == 1  # what passed is kept, what failed is tried again
    assert status("3.10", "lowest", "--again") == 0
    assert done == ["3.10 lowest", "3.10 newest", "3.10 newest", "3.10 lowest"]
    assert page.read_text().startswith(f"before\n{matrix.BEGIN}\n|  | 3.10 lowest | 3.10 newest |\n")
    assert page.read_text().endswith(f"{matrix.END}\nafter\n")
