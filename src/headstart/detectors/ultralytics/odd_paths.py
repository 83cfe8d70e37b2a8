"""Paths that Ultralytics does not take as they are: it leaves apostrophes out, and spaces at the ends.

A file that lies at such a path is read through a link with a plain name, and called by its own name afterwards.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Of these names Ultralytics makes another one, and reads or fetches that.
_RENAMED = re.compile(r"yolov(5[nsmlx]6?|3(-tiny|-spp)?)\.pt", re.IGNORECASE)


def is_plain(path: str) -> bool:
    """Whether Ultralytics takes a path as it is."""
    return path == path.strip().replace("'", "") and not _RENAMED.search(path)


@contextmanager
def plain_path(path: str) -> Iterator[str]:
    """A path at which Ultralytics finds the file at `path`, as long as this lasts; names that are no file stay."""
    if is_plain(path) or not Path(path).is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        name = Path(path)
        link = Path(folder) / f"_{re.sub(r'[^A-Za-z0-9-]', '_', name.stem)}{name.suffix}"
        try:
            link.symlink_to(name.resolve())
        except OSError:  # Windows lets few make links
            shutil.copyfile(name, link)
        yield str(link)


def call_by(live: Any, path: str) -> None:
    """Have an Ultralytics object say that it was read from `path`."""
    live.ckpt_path = live.model_name = live.overrides["model"] = path
    live.model.pt_path = path
