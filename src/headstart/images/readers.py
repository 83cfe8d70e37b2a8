"""Where the pixels of an image come from: its file, a store of decoded images, or the memory of the training device.

Whatever the source, they are the same pixels, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from headstart.images import shards
from headstart.images.decode import DecodeError, Pixels, read_image
from headstart.images.index import ImageIndex
from headstart.images.members import is_address
from headstart.images.store import ImageStore


class Reader(Protocol):
    """Gives pixels by the position in an index. Copied or pickled into every worker.

    Attributes:
        notes: What was done to read an image, beyond decoding: its position, and words. Cleared by who takes them.
    """

    notes: list[tuple[int, str]]

    def ahead(self, rows: Sequence[int]) -> None:
        """Get ready what is read in a moment; does nothing where that is no quicker."""
        ...

    def read(self, row: int) -> Pixels | Tensor:
        """Image `row`: uint8 (H, W, C), RGB where C is 3; not to be written to.

        Raises:
            DecodeError: It cannot be read.
        """
        ...


class FileReader:
    """Decodes the file each time."""

    def __init__(self, index: ImageIndex, max_area: int | None) -> None:
        self.index, self.max_area = index, max_area
        self.notes: list[tuple[int, str]] = []
        self._far = any(map(is_address, index.shards))

    def ahead(self, rows: Sequence[int]) -> None:
        """Fetch what lies at addresses, all at once."""
        if self._far:
            shards.fetch_ahead([self.index.path(row) for row in rows])

    def read(self, row: int) -> Pixels:
        """Decode image `row`."""
        pixels, note = self._decoded(row)
        self.notes += [(row, note)] if note else []
        return pixels

    def _decoded(self, row: int) -> tuple[Pixels, str]:
        """The pixels, and what was done to them in words."""
        notes: list[str] = []
        pixels = read_image(self.index.path(row), self.max_area, notes, self.index.channels)
        return pixels, "; ".join(notes)


class StoreReader(FileReader):
    """Looks into a store first, and keeps there what it has to decode."""

    def __init__(self, index: ImageIndex, max_area: int | None, store: ImageStore) -> None:
        super().__init__(index, max_area)
        self.store = store

    def ahead(self, rows: Sequence[int]) -> None:
        """Fetch what lies at addresses and is not in the store."""
        if self._far:
            super().ahead([row for row in rows if not self.store.has(row)])

    def read(self, row: int) -> Pixels:
        """Image `row` from the store, or decoded."""
        path = self.index.path(row)
        try:
            # Before decoding: if the file changes meanwhile, its time does not fit the slot, and it is decoded again.
            info = shards.stamp_of(path)
        except (OSError, ValueError, DecodeError):
            return super().read(row)  # which says what is wrong
        pixels, note = self.store.get(row, info), self.store.note(row)
        if pixels is None:
            pixels, note = self._decoded(row)
            self.store.put(row, path, info, pixels, note)
        self.notes += [(row, note)] if note else []
        return pixels


class DeviceReader:
    """All images in the memory of a device, read once before training.

    Args:
        images: Number of images.
        device: Where to keep them.
        capacity: Bytes to set aside at once; more is taken in blocks of a tenth of it.
    """

    def __init__(self, images: int, device: torch.device, capacity: int) -> None:
        self.device, self.block = device, max(capacity, 2**20)
        self.channels = 3
        self.bad: dict[int, str] = {}
        self.notes: list[tuple[int, str]] = []
        self._places: list[tuple[int, int, int, int] | None] = [None] * images
        self._blocks: list[Tensor] = []
        self._end = 0

    def keep(self, row: int, pixels: Pixels) -> None:
        """Copy the pixels of image `row` to the device."""
        if not self._blocks or self._end + pixels.size > len(self._blocks[-1]):
            size = max(pixels.size, self.block if not self._blocks else self.block // 10)
            self._blocks.append(torch.empty(size, dtype=torch.uint8, device=self.device))
            self._end = 0
        height, width, self.channels = pixels.shape
        flat = torch.from_numpy(pixels.reshape(-1).copy())
        self._blocks[-1][self._end : self._end + pixels.size].copy_(flat)
        self._places[row] = (len(self._blocks) - 1, self._end, height, width)
        self._end += pixels.size

    def ahead(self, rows: Sequence[int]) -> None:
        """All of them are there."""

    def read(self, row: int) -> Tensor:
        """Image `row` on the device."""
        place = self._places[row]
        if place is None:
            raise DecodeError(self.bad.get(row, "not read"))
        block, start, height, width = place
        values = self._blocks[block][start : start + height * width * self.channels]
        return values.view(height, width, self.channels)
