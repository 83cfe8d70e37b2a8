"""A tiny installed package, made for a test: what importlib.metadata finds is a folder on sys.path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: Mapping[str, str], points: Mapping[str, Mapping[str, str]]
) -> None:
    """Put the package ``extras`` on sys.path, as pip would.

    Args:
        monkeypatch: Takes it off again.
        folder: Where it lies.
        files: Name of each module -> its text.
        points: Group of entry points -> name -> ``module:object``.
    """
    for name, text in files.items():
        (folder / name).write_text(text)
    info = folder / "extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in named.items()) for group, named in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
