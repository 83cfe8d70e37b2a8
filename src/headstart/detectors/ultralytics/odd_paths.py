"""Paths that Ultralytics does not take as they are: it leaves out apostrophes, spaces at the ends, what follows a ?."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

# Of these names Ultralytics makes another one, and reads or fetches that.
_RENAMED = re.compile(r"yolov(5[nsmlx]6?|3(-tiny|-spp)?)\.pt", re.IGNORECASE)


def is_plain(path: str) -> bool:
    """Whether Ultralytics takes the path of a checkpoint as it is."""
    return path == path.strip().replace("'", "") and "?" not in unquote(path) and not _RENAMED.search(path)


def taking_files(tasks: ModuleType, downloads: ModuleType) -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """What to put in place of Ultralytics' functions, as ``(module, name, function)``: a checkpoint that is there is
    taken, whatever its path; for all else they do what they do.

    Args:
        tasks: ``ultralytics.nn.tasks``, which reads checkpoints.
        downloads: ``ultralytics.utils.downloads``, which finds or fetches them.
    """
    fetch, check = downloads.attempt_download_asset, tasks.check_suffix

    def found(file: str | Path, *given: Any, **more: Any) -> str:
        return str(file) if Path(file).is_file() else fetch(file, *given, **more)

    def checked(file: Any = "", suffix: Any = ".pt", **more: Any) -> None:
        if not (isinstance(file, (str, Path)) and Path(file).suffix == suffix and Path(file).is_file()):
            check(file, suffix, **more)

    return [(downloads, "attempt_download_asset", found), (tasks, "check_suffix", checked)]
