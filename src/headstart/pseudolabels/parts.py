"""What a search has found so far, in parts: each is written to the folder of the run once it is finished.

A search may take hours. One that is killed goes on after its last finished part, and finds what it would have found:
which images a batch holds is told by its number alone. Nor does memory grow with the number of images: features, which
are nearly all of it, are read from the parts where they are needed.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.files import check_seal, seal, write_atomically
from headstart.reading import looked_at

SECONDS = 30.0
"""Of a search after which what was found is a part: no more than that is searched again after a kill."""
BYTES = 64 * 2**20
"""Of features after which it is one in any case: no more than that lies in memory."""
_NAME = re.compile(r"part-\d{6}\.pt")


class Objects(NamedTuple):
    """Objects of some images, as tensors on the CPU.

    Attributes:
        rows: int64 ``(M,)``: the image of each.
        boxes: float32 ``(M, 4)``: x0, y0, x1, y1 as shares of the image's width and height.
        scores: float32 ``(M,)``: of the detector that found them.
        features: float16 ``(M, C)``: how they look.
    """

    rows: Tensor
    boxes: Tensor
    scores: Tensor
    features: Tensor

    @classmethod
    def joined(cls, several: list[Objects]) -> Objects:
        """All of them, in their order; those of images without objects have features ``(0,)``."""
        return cls(*(torch.cat(one) for one in zip(*several, strict=True)))

    def on(self, rows: Tensor) -> Objects:
        """Those on some of the images, int64 ``(N,)``."""
        here = torch.isin(self.rows, rows)
        return Objects(*(one[here] for one in self))


class Parts:
    """What was found, and how far the search is; what an earlier search has left in `folder` is gone on with.

    Attributes:
        batches: How many are done: the number of the next one.
        images: How many these held, repeated ones included.
        damaged: A sentence on a part that cannot be used, and so is searched again with all after it; mostly empty.

    Args:
        folder: Where parts are written; None keeps all in memory.
        written: Called once a part is.
    """

    def __init__(self, folder: Path | None = None, written: Callable[[], None] = lambda: None) -> None:
        self.folder, self.damaged = folder, ""
        self.batches = self.images = 0
        self._written = written
        self._before = 0.0
        self._finished: list[Objects] = []
        self._open: list[Objects] = []
        self._looked: list[Tensor] = []
        self._new: list[Tensor] = []
        if folder is not None and folder.is_dir():
            self._take_over(folder)
        self._began = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """That the search has taken, in all processes."""
        return self._before + time.monotonic() - self._began

    def looked(self) -> Tensor:
        """int64 ``(N,)``: rows of the images that were looked at."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *self._looked, *self._new])

    def add(self, objects: Objects | None, new: Tensor, images: int) -> None:
        """Take what was found on a batch.

        Args:
            objects: Those on its new images; None where it has none of these.
            new: int64 ``(N,)``: rows of its images that had not been looked at.
            images: All of its images.

        Raises:
            UserError: A part cannot be written.
        """
        self.batches += 1
        self.images += images
        self._new.append(new)
        if objects is not None:
            self._open.append(objects)
        size = sum(one.features.nbytes for one in self._open)
        if self.folder is not None and (size >= BYTES or time.monotonic() - self._last >= SECONDS):
            self.finish()

    def finish(self) -> None:
        """Make a part of what is none yet.

        Raises:
            UserError: It cannot be written.
        """
        if self.folder is None or not self._new:
            return
        found = Objects.joined(self._open)._asdict() if self._open else {}
        progress = {"batches": self.batches, "images": self.images, "seconds": self.seconds}
        content = {**found, "looked": torch.cat(self._new), **progress}

        def write(temporary: Path) -> None:
            torch.save(content, temporary)
            seal(temporary)

        path = self.folder / f"part-{len(self._looked):06d}.pt"
        write_atomically(path, write)
        self._open, self._new = [], []
        self._keep(_read(path))
        self._last = time.monotonic()
        self._written()

    def found(self) -> list[Objects]:
        """All objects, part by part; the features of finished parts lie on the disk until they are used."""
        return [*self._finished, *self._open]

    def remove(self) -> None:
        """Remove the parts: the search is over, and what came out is kept elsewhere."""
        self._finished.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _take_over(self, folder: Path) -> None:
        """Use the parts from the first to the last that is whole; the others are removed.

        Raises:
            RunError: Storage or memory gave out; all are kept.
        """
        names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
        for number, name in enumerate(names):
            try:
                with looked_at(folder / name):
                    if name != f"part-{number:06d}.pt":
                        raise ValueError("the one before is missing")
                    check_seal(folder / name)
                    content = _read(folder / name)
                    progress = int(content["batches"]), int(content["images"]), float(content["seconds"])
                    self._keep(content)
            except ValueError as error:
                self.damaged = f"{name} is damaged, what it held is searched again: {error}"
                for late in names[number:]:
                    with suppress(OSError):
                        (folder / late).unlink()
                return
            self.batches, self.images, self._before = progress

    def _keep(self, content: dict[str, Any]) -> None:
        objects = Objects(*(content[name] for name in Objects._fields)) if "rows" in content else None
        self._looked.append(content["looked"].clone())
        if objects is not None:  # the features stay where they are; the rest is small, and is used at once
            rows, boxes, scores = (one.clone() for one in objects[:3])
            self._finished.append(Objects(rows, boxes, scores, objects.features))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content
