"""Lists of images: text files with a path a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from headstart.errors import UserError


def base_of(folder: Path, names: Sequence[str]) -> Path:
    """Where a list's plain relative names begin: beside it, or, as Ultralytics has it, in the working folder."""
    name = next((name for name in names if not name.startswith("./") and not os.path.isabs(name)), None)  # noqa: PTH117
    return Path.cwd() if name and not (folder / name).exists() and Path(name).exists() else folder


def text_of(file: Path) -> str:
    """The text of a list with ``\\n`` line ends: UTF-8 (other bytes kept, as in file names), or UTF-16 by its mark."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", where="data") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", errors="replace")
    else:
        text = data.decode("utf-8-sig", errors="surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")
