"""Lists of images: text files with a path a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from headstart.errors import UserError
from headstart.images.braces import named_by
from headstart.images.frames import file_of
from headstart.images.members import is_address, is_shard_name

LOOKED_AT = 16
"""Names of a list that are looked for, to tell where they begin."""


def base_of(folder: Path, names: Sequence[str]) -> Path:
    """Where a list's plain relative names begin: beside it, or, as Ultralytics has it, in the working folder."""
    plain = (name for name in names if not name.startswith("./") and not os.path.isabs(name) and not is_address(name))  # noqa: PTH117
    some = list(islice(map(_file_of, plain), LOOKED_AT))  # the first may be gone
    beside = any((folder / name).exists() for name in some)
    return Path.cwd() if not beside and any(Path(name).exists() for name in some) else folder


def _file_of(name: str) -> str:
    """The file that a line leads to: of a frame or a member its video or shard, of braces the first that they name."""
    return file_of(named_by(name)[0] if is_shard_name(name) else name)


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
