"""Which model a name or file means, found without importing torch or torchvision."""

from __future__ import annotations

import ast
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from headstart.detectors.find import split_name
from headstart.errors import UserError, did_you_mean

FAMILY = "torchvision"
SUFFIXES = (".pt", ".pth")
MARK = f'{{"family": "{FAMILY}"'
"""How the record in a state dict of ours begins: torch keeps it as it is among the pickled names of the tensors."""


@cache
def known_names() -> tuple[str, ...]:
    """Every model that the installed torchvision registers among its detectors, read from its source."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return ()
    found: set[str] = set()
    for path in (Path(spec.origin).parent / "models" / "detection").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_registers(one) for one in node.decorator_list):
                found.add(node.name)
    return tuple(sorted(found))


def _registers(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "register_model"


def bare(model: str) -> str:
    """The name as torchvision has it: without the family."""
    family, name = split_name(model)
    return name if family == FAMILY else model


def check_name(model: str) -> UserError | None:
    """What is wrong with a model's name; None where nothing is found without building it."""
    name = bare(model)
    if name in known_names():
        return None
    hint = did_you_mean(name, known_names()) or f"one of {', '.join(known_names())}"
    return UserError(f"torchvision has no detector called {name!r}", where="model", hint=hint)


def is_ours(path: Path) -> bool:
    """Whether a file is a state dict that headstart wrote of a torchvision model."""
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return pickled is not None and MARK.encode() in archive.read(pickled)
    except (OSError, zipfile.BadZipFile):
        return False
