"""Imports go down only; nothing that the command line needs imports torch."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import headstart

SOURCE = Path(headstart.__file__).parent

# From the bottom to the top; a module imports from layers below its own, or from its own folder. A module may stand in
# a layer of its own, below that of its folder: a contract that others work with.
LAYERS = [
    ["errors", "aside"],
    ["paths", "reading"],
    ["files", "machine", "plugins", "ranks", "trust"],
    ["launch"],
    ["settings"],
    ["run"],
    ["images", "views", "pseudolabels.base"],
    ["detectors"],
    ["teachers"],
    ["probes"],
    ["pseudolabels"],
    ["methods"],
    ["training"],
    ["comparison"],
    ["report", "doctor", "embedding"],
    ["export"],
    ["jobs"],
    ["cli", "callbacks"],
    ["__main__"],
]


def layer(module: str) -> int:
    parts = module.split(".")[1:]
    for length in (2, 1):
        for number, names in enumerate(LAYERS):
            if ".".join(parts[:length]) in names:
                return number
    raise AssertionError(f"{module} is in no layer: give it one")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("headstart"):
            if (SOURCE.parent / node.module.replace(".", "/")).is_dir():  # a package: what is imported is in it
                found |= {f"{node.module}.{name.name}" for name in node.names}
            else:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("headstart.")}
    return found


def test_imports_go_down_only() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(("headstart", *path.relative_to(SOURCE).with_suffix("").parts))
        if module == "headstart.__init__" or module.endswith(".__init__"):
            continue
        for other in imports(path):
            same_package = module.split(".")[1] == other.split(".")[1] and len(other.split(".")) > 2
            if not same_package and layer(other) >= layer(module):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_methods_never_import_detectors() -> None:
    for path in (SOURCE / "methods").glob("*.py"):
        assert not any("detector" in name for name in imports(path))


def test_a_comparison_knows_no_family_of_detectors() -> None:
    for path in (SOURCE / "comparison").glob("*.py"):
        known = {"find", "finetuner", "handback", "tensors"}
        found = {name for name in imports(path) if name.startswith("headstart.detectors.")}
        assert {name.split(".")[2] for name in found} <= known, path
        assert "import ultralytics" not in path.read_text()
        assert "from ultralytics" not in path.read_text()


def test_files_stay_small() -> None:
    long = {str(p.relative_to(SOURCE)): n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_consoles_are_made_in_one_place() -> None:
    """So that brackets in the names of files are never read as rich's markup."""
    makers = {path.name for path in SOURCE.rglob("*.py") if re.search(r"Console\(", path.read_text(encoding="utf-8"))}
    assert makers == {"display.py"}
