"""Nothing of a folder is changed, and nothing is added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """All that lies below: mode, time of change in nanoseconds, and content."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in [folder, *folder.rglob("*")]
    }


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that may be read alone in the meantime."""
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    try:
        for path in modes:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Fail where anything below `folder` is not as it was; the folder may be read alone in the meantime."""
    with read_only(folder):
        before = snapshot(folder)
        yield
        assert snapshot(folder) == before


def own_settings(config: Path, datasets: Path) -> Path:
    """Ultralytics' settings file as a user may have it, in the folder that YOLO_CONFIG_DIR would name.

    Args:
        config: The folder.
        datasets: Where the user keeps data sets; the folders of weights and of runs, beside it, do not exist.
    """
    from ultralytics.utils import SETTINGS

    own = {"weights_dir": str(datasets.parent / "weights"), "runs_dir": str(datasets.parent / "runs"), "wandb": True}
    path = config / "Ultralytics" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**SETTINGS.defaults, **own, "datasets_dir": str(datasets)}, indent=7) + "\n\n")
    return path
