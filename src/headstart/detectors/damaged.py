"""Weights that were damaged since they were written, by the checksums that ``torch.save`` gives each part of a file.

Torch looks at none of them: one flipped bit is read as another weight, and what starts from it, or is measured on it,
is another network.
"""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

from headstart.detectors.handback import shorten
from headstart.errors import UserError


def refuse_damaged(path: str | Path, where: str) -> None:
    """Refuse a file of torch whose bytes are not those that were written; one that is no zip file is not looked at.

    Args:
        path: The file.
        where: The option that names it.

    Raises:
        UserError: Parts of it are damaged; names them.
    """
    found = _damaged(path)
    if found is None:
        return
    bad, parts = found
    # A file that was written without checksums has none that fit: torch.serialization.set_crc32_options(False).
    if not bad or len(bad) == parts:
        return
    run = Path(path).parent
    hint = "bring back a copy of it, or get it anew"
    if Path(path).name == "headstart.pt" and (run / "settings.yaml").is_file():
        hint = f"headstart pretrain resume=true out={shlex.quote(str(run))} writes it anew from that run's checkpoint"
    what = f"{path} is damaged: the checksums of {len(bad)} of its {parts} parts differ ({shorten(bad)})"
    raise UserError(what, where=where, hint=hint)


def _damaged(path: str | Path) -> tuple[list[str], int] | None:
    """Names of the parts whose checksums differ, and the number of all that are not empty; None of no zip file."""
    try:
        with zipfile.ZipFile(path) as file:
            parts = [part for part in file.infolist() if part.file_size]
            return [part.filename.partition("/")[2] for part in parts if not _whole(file, part)], len(parts)
    except Exception:  # none, or one whose table of contents is damaged: whoever opens it says what it is
        return None


def _whole(file: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with file.open(part) as stream:
            while stream.read(2**20):
                pass
    except Exception:  # zipfile.BadZipFile of a wrong checksum; of a damaged head whatever that provokes
        return False
    return True
