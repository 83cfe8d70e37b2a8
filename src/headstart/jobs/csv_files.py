"""CSV files that jobs leave beside what they write."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headstart.files import write_atomically


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV, atomically."""

    def write(temporary: Path) -> None:
        # Undecodable file names are written as they are on the disk.
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            lines = csv.writer(stream)
            lines.writerow(head)
            lines.writerows(rows)

    write_atomically(path, write)
