"""Lists of images with a word on each, ``skipped.csv`` and ``noted.csv``: each once, whatever a kill has left."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import suppress
from pathlib import Path

from headstart.files import explained, no_link, write_atomically
from headstart.reading import looked_at

Rows = list[tuple[str, str]]
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}
"""Names that are no UTF-8 are written as they are on the disk."""


class Listing:
    """A CSV file of two columns, to which rows are added.

    Args:
        path: The file.
        column: Name of the second column; the first is ``path``.
        several: Whether more than one thing may be said of an image.

    Attributes:
        counts: Of how many images each thing is said.
    """

    def __init__(self, path: Path, column: str, *, several: bool = False) -> None:
        self.path, self.column, self.several = path, column, several
        self.counts: Counter[str] = Counter()
        self._known: set[int] = set()  # hashes: it may be every image of millions

    def __len__(self) -> int:
        return len(self._known)

    def read(self, *, mend: bool = False) -> None:
        """Remember what an earlier process has listed; rows that were cut short or damaged are none.

        Args:
            mend: Whether these are removed from the file, which no other process may write to then.

        Raises:
            UserError: The file is to be mended and cannot be written.
            RunError: Storage gave out: what it lists is not known.
        """
        try:
            with looked_at(self.path):
                text = self.path.read_bytes().decode(**_ENCODING)
        except ValueError:  # there is none
            return
        self.counts, self._known = Counter(), set()
        whole = self._text([("path", self.column), *self._new(self._whole(text))])
        if mend and whole != text:
            write_atomically(self.path, lambda temporary: temporary.write_bytes(whole.encode(**_ENCODING)))

    def add(self, rows: Rows) -> Rows:
        """Write the rows of images that are not listed yet, and return them.

        Raises:
            UserError: The file cannot be written.
        """
        new = self._new(rows)
        if not new:
            return []
        with explained(self.path):
            no_link(self.path)
        with explained(self.path), self.path.open("ab") as file:
            heading = [] if file.tell() else [("path", self.column)]
            file.write(self._text([*heading, *new]).encode(**_ENCODING))
        return new

    def _new(self, rows: Rows) -> Rows:
        """Those that are not known yet, and are from now on."""
        new: Rows = []
        for path, text in rows:
            key = hash((path, text)) if self.several else hash(path)
            if key not in self._known:
                self._known.add(key)
                self.counts[text] += 1
                new.append((path, text))
        return new

    def _whole(self, text: str) -> Rows:
        rows: list[list[str]] = []
        with suppress(csv.Error):  # what comes before is whole
            rows.extend(csv.reader(io.StringIO(text.replace("\0", ""), newline="")))
        if not text.endswith("\n"):
            rows = rows[:-1]
        return [(row[0], row[1]) for row in rows if len(row) == 2 and row != ["path", self.column]]

    @staticmethod
    def _text(rows: Rows) -> str:
        made = io.StringIO(newline="")
        csv.writer(made).writerows(rows)
        return made.getvalue()
