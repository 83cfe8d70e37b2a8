"""Batches of pixels, in an order that depends on the seed and the step alone (`headstart.images.stream`)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle
from math import ceil, isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from headstart import machine
from headstart.errors import RunError, UserError
from headstart.images import workers as processes
from headstart.images.decode import DecodeError, Pixels
from headstart.images.index import ImageIndex
from headstart.images.readers import FileReader, Reader
from headstart.images.resize import within_side
from headstart.images.stream import Stream

PADDING = 8
"""Pixels that an image may take in a batch, padding and all, of the largest image that the loader allows."""
_UNBOUNDED = 2**20  # pixels of the largest image, where the loader allows any


def steps_for(epochs: float, images: int, batch: int) -> int:
    """Steps in which `epochs` times `images` images are seen, `batch` of them a step; the last batch is full too."""
    return ceil(round(epochs * images / batch, 6))  # rounded: 0.1 epochs of 30 images are 3, not 3.0000000000000004


@dataclass
class PixelBatch:
    """Decoded images of different sizes.

    Attributes:
        pixels: uint8 (B, C, H, W), RGB where C is 3; each image in the upper left, zeros to the right of it and below.
            Its strides are those of ``torch.channels_last``: as images are decoded, and as they are resized fastest.
        sizes: int64 (B, 2), height and width of each image.
        indices: int64 (B,), position of each image in the index.
        skipped: (path, reason) of the files that turned out unreadable on the way to this batch, each once a run.
        notes: (path, what was done) of those that were read in a way worth knowing, each once a run.
    """

    pixels: Tensor
    sizes: Tensor
    indices: Tensor
    skipped: list[tuple[str, str]]
    notes: list[tuple[str, str]] = field(default_factory=list)

    def to(self, device: torch.device | str) -> PixelBatch:
        """The batch with its pixels on `device`; from pinned memory the copy overlaps with what the device is doing.

        Sizes and indices stay: crops are drawn from them on the CPU, and a GPU would have to be waited for.
        """
        return replace(self, pixels=machine.sent(self.pixels, torch.device(device)))

    def pin_memory(self) -> PixelBatch:
        """The batch with its pixels in page-locked memory."""
        return replace(self, pixels=self.pixels.pin_memory())

    def shared(self) -> PixelBatch | Parcel:
        """The batch as a loader process hands it over: in shared memory, or where that is full as bytes in a pipe."""
        if processes.fits_shared_memory(self.pixels.numel()):
            try:
                for tensor in (self.pixels, self.sizes, self.indices):
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
                return self
            except (RuntimeError, OSError):  # another process was faster
                pass
        pixels = self.pixels.permute(0, 2, 3, 1).numpy()
        return Parcel(pixels, self.sizes.numpy(), self.indices.numpy(), self.skipped, self.notes)


@dataclass
class Parcel:
    """A `PixelBatch` without tensors, which travels through a pipe."""

    pixels: Pixels
    sizes: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    skipped: list[tuple[str, str]]
    notes: list[tuple[str, str]]

    def opened(self) -> PixelBatch:
        """The batch."""
        pixels, sizes, indices = map(torch.from_numpy, (self.pixels, self.sizes, self.indices))
        return PixelBatch(pixels.permute(0, 3, 1, 2), sizes, indices, self.skipped, self.notes)

    def pin_memory(self) -> PixelBatch:
        """The batch with its pixels in page-locked memory."""
        return self.opened().pin_memory()


class ImageLoader:
    """Iterates over the `PixelBatch` of each step from `start_step` to `steps`.

    An unreadable image is replaced by a later one of the stream, so that batches keep their size, and is reported.
    Where the shapes of a batch would pad it to more than `PADDING` times what its images may have, the longest are
    scaled down.

    Attributes:
        workers: Processes that decode.
        note: What is worth knowing of how they hand over, in a sentence; mostly empty.

    Args:
        index: The images.
        batch: Images a step, over all ranks; a multiple of `world`.
        max_area: Larger images are scaled down to this many pixels; None keeps them.
        workers: Processes that decode; 0 decodes in this one.
        seed: Of the order.
        start_step: First step to load.
        steps: Step to stop before.
        every: From each step that is loaded to the next: of several processes each may load other ones.
        rank: This process among the `world` that share each step.
        world: Number of such processes.
        pin: Whether batches come in page-locked memory (for copies to a GPU).
        reader: Where pixels come from; by default the files.
        stream: The order; by default one of all images, from the seed.

    Raises:
        UserError: While iterating, if no image of the index can be read, or if the system ends a worker.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        batch: int,
        max_area: int | None,
        workers: int,
        seed: int,
        start_step: int = 0,
        steps: int,
        every: int = 1,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        reader: Reader | None = None,
        stream: Stream | None = None,
    ) -> None:
        if batch % world:
            raise UserError(f"{batch} images cannot be shared by {world} processes", where="batch")
        self.workers = workers
        self._steps = range(start_step, steps, every)
        self._pin = pin
        stream = stream or Stream(len(index), batch, seed, rank, world, index.far())
        area = max_area or _UNBOUNDED
        self._batches = _Batches(index, stream, reader or FileReader(index, max_area), area)
        self.note = _hand_over_note(workers, batch // world * area * index.channels)
        self._running: Generator[PixelBatch, None, None] | None = None
        self._reported: set[str] = set()
        self._noted: set[str] = set()

    def __len__(self) -> int:
        return len(self._steps)

    def __enter__(self) -> ImageLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers of an iteration that was left before its last step."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def begin_at(self, step: int) -> None:
        """Have the next iteration begin at another step, as where the order of the images has changed."""
        self._steps = range(step, self._steps.stop, self._steps.step)

    def __iter__(self) -> Iterator[PixelBatch]:
        self.close()
        self._running = self._iterate()
        return self._running

    def _iterate(self) -> Generator[PixelBatch, None, None]:
        for item in processes.produced(self._batches, self._steps, self.workers, pin=self._pin):
            if isinstance(item, UserError):
                raise item
            batch = item.opened() if isinstance(item, Parcel) else item
            yield replace(batch, skipped=_new(batch.skipped, self._reported), notes=_new(batch.notes, self._noted))


def _new(items: list[tuple[str, str]], known: set[str]) -> list[tuple[str, str]]:
    """Every worker finds a file for itself: what the first says of it counts."""
    new = [(path, text) for path, text in items if path not in known]
    known.update(path for path, _ in new)
    return new


def _hand_over_note(workers: int, size: int) -> str:
    """What is said where batches of `size` bytes, as many as are under way, do not fit shared memory."""
    free, needed = machine.shared_memory(), size * (processes.AHEAD * workers + 1)
    if not workers or free is None or free >= needed:
        return ""
    return (
        f"/dev/shm has {free / 2**20:.0f} MiB free, {workers} loader processes may need {needed / 2**20:.0f}: what "
        "does not fit goes through pipes, somewhat slower (docker: --shm-size; or fewer workers)"
    )


class _Batches(Dataset["PixelBatch | Parcel | UserError"]):
    """The batch of a step, decoded wherever it is asked for.

    An error is returned, not raised: DataLoader would rewrite a raised one as a worker's stack trace.
    """

    def __init__(self, index: ImageIndex, stream: Stream, reader: Reader, area: int) -> None:
        self.index, self.stream, self.reader, self.area = index, stream, reader, area
        self._bad: dict[int, str] = {}
        self._noted: set[int] = set()

    def __getitem__(self, step: int) -> PixelBatch | Parcel | UserError:
        before = len(self._bad)
        rows = self.stream.rows(step)
        try:
            self.reader.ahead([row for row in rows if row not in self._bad])
            images = [self._read(row) for row in rows]
            if not self._replace(step, rows, images):
                return self._nothing_readable()
            skipped = [(self.index.path(row), reason) for row, reason in list(self._bad.items())[before:]]
            batch = _collate([image for image in images if image is not None], rows, skipped, self._notes(), self.area)
        except UserError as error:  # storage that fails
            return error
        except MemoryError:
            what = f"there is not enough memory for a batch of {len(rows)} images"
            return RunError(what, where="batch", hint="use a smaller batch, or fewer workers")
        return batch.shared() if get_worker_info() is not None and batch.pixels.device.type == "cpu" else batch

    def _notes(self) -> list[tuple[str, str]]:
        new = {row: note for row, note in self.reader.notes if row not in self._noted}
        self.reader.notes.clear()
        self._noted.update(new)
        return [(self.index.path(row), note) for row, note in new.items()]

    def _read(self, row: int) -> Pixels | Tensor | None:
        if row in self._bad:
            return None
        try:
            return self.reader.read(row)
        except DecodeError as error:
            self._bad[row] = error.reason
            return None

    def _replace(self, step: int, rows: list[int], images: list[Pixels | Tensor | None]) -> bool:
        """Fill the gaps of `images`, and say in `rows` with what; False if no image can be read at all."""
        gaps = [slot for slot, image in enumerate(images) if image is None]
        if not gaps:
            return True
        good = [slot for slot, image in enumerate(images) if image is not None]
        used, spares = set(rows), dict[int, Iterator[int]]()
        while gaps:
            kind = self.stream.kind(step, gaps[0])
            of_kind = spares.setdefault(kind, self.stream.spares(step, kind))
            row = next((row for row in of_kind if row not in used), None)
            if row is None:
                break
            used.add(row)
            image = self._read(row)
            if image is not None:
                good.append(gaps[0])
                rows[gaps[0]], images[gaps.pop(0)] = row, image
        if not good:
            return False
        for gap, slot in zip(gaps, cycle(good), strict=False):  # fewer readable images than the batch has places
            rows[gap], images[gap] = rows[slot], images[slot]
        return True

    def _nothing_readable(self) -> UserError:
        counts: dict[str, int] = {}
        for reason in self._bad.values():
            counts[reason] = counts.get(reason, 0) + 1
        reason, count = max(counts.items(), key=lambda item: item[1])
        row = next(row for row, known in self._bad.items() if known == reason)
        what = f"none of the {len(self.index)} images can be read; {count} of them: {reason}"
        return UserError(what, where="data", hint=f"look at {self.index.path(row)}, for one")


def _collate(
    images: list[Pixels | Tensor],
    rows: list[int],
    skipped: list[tuple[str, str]],
    notes: list[tuple[str, str]],
    area: int,
) -> PixelBatch:
    """One tensor of all images; of none of them are more than `area` pixels, as a rule."""
    images = _bounded(images, PADDING * max(area, *(image.shape[0] * image.shape[1] for image in images)))
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    first = images[0]
    device = first.device if isinstance(first, Tensor) else None
    fill = torch.empty if len(set(sizes)) == 1 else torch.zeros
    pixels = fill(len(images), height, width, first.shape[2], dtype=torch.uint8, device=device)
    if device is None:  # numpy copies what a store has mapped for reading only, of which torch would warn
        target = pixels.numpy()
        for place, image in enumerate(images):
            target[place, : image.shape[0], : image.shape[1]] = image
    else:
        for place, image in enumerate(images):
            pixels[place, : image.shape[0], : image.shape[1]] = torch.as_tensor(image)
    batch = pixels.permute(0, 3, 1, 2)
    where = torch.tensor(sizes, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)
    return PixelBatch(batch, *where, skipped, notes)


def _bounded(images: list[Pixels | Tensor], most: int) -> list[Pixels | Tensor]:
    """The images as they are; where padding would take more than `most` pixels each, with no side above its root.

    Very wide images and very tall ones in one batch: a line of 100,000 pixels and a column of as many take 30 GB each.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    if height * width <= most:
        return images
    return [within_side(image, isqrt(most)) for image in images]
