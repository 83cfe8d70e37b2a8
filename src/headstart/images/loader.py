"""Batches of pixels, in an order that depends on the seed and the step alone.

The images of a run are an endless stream: one random permutation of the index after the other, one an epoch. Step s
takes the s-th `batch` of them and rank r its share of that, whatever was loaded before; so a resumed run goes on with
exactly the images that it would have seen.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import cycle
from math import ceil

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headstart.errors import UserError
from headstart.images.decode import DecodeError, Pixels
from headstart.images.index import ImageIndex
from headstart.images.readers import FileReader, Reader


def steps_for(epochs: float, images: int, batch: int) -> int:
    """Steps in which `epochs` times `images` images are seen, `batch` of them a step; the last batch is full too."""
    return ceil(round(epochs * images / batch, 6))  # rounded: 0.1 epochs of 30 images are 3, not 3.0000000000000004


@dataclass
class PixelBatch:
    """Decoded images of different sizes.

    Attributes:
        pixels: uint8 (B, 3, H, W), RGB; each image in the upper left, zeros to the right of it and below. Its strides
            are those of ``torch.channels_last``: as images are decoded, and as they are resized fastest.
        sizes: int64 (B, 2), height and width of each image.
        indices: int64 (B,), position of each image in the index.
        skipped: (path, reason) of the files that turned out unreadable on the way to this batch, each once a run.
    """

    pixels: Tensor
    sizes: Tensor
    indices: Tensor
    skipped: list[tuple[str, str]]

    def to(self, device: torch.device | str) -> PixelBatch:
        """The batch with its pixels on `device`; from pinned memory the copy overlaps with what the device is doing.

        Sizes and indices stay: crops are drawn from them on the CPU, and a GPU would have to be waited for.
        """
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))

    def pin_memory(self) -> PixelBatch:
        """The batch with its pixels in page-locked memory."""
        return replace(self, pixels=self.pixels.pin_memory())


class ImageLoader:
    """Iterates over the `PixelBatch` of each step from `start_step` to `steps`.

    An unreadable image is replaced by a later one of the stream, so that batches keep their size, and is reported.

    Args:
        index: The images.
        batch: Images a step, over all ranks; a multiple of `world`.
        max_area: Larger images are scaled down to this many pixels; None keeps them.
        workers: Processes that decode; 0 decodes in this one.
        seed: Of the order.
        start_step: First step to load.
        steps: Step to stop before.
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
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        reader: Reader | None = None,
        stream: Stream | None = None,
    ) -> None:
        if batch % world:
            raise UserError(f"{batch} images cannot be shared by {world} processes", where="batch")
        self.workers = workers
        self._steps = range(start_step, steps)
        self._pin = pin
        self._batches = _Batches(
            index, stream or Stream(len(index), batch, seed, rank, world), reader or FileReader(index, max_area)
        )
        self._running: Generator[PixelBatch, None, None] | None = None
        self._reported: set[str] = set()

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

    def __iter__(self) -> Iterator[PixelBatch]:
        self.close()
        self._running = self._iterate()
        return self._running

    def _iterate(self) -> Generator[PixelBatch, None, None]:
        loader: DataLoader[PixelBatch | UserError] = DataLoader(
            self._batches,
            batch_size=None,  # a sample of ours is a whole batch
            sampler=self._steps,
            num_workers=self.workers,
            pin_memory=self._pin,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # its own: a draw from the global one would set a resumed run apart
        )
        with _interrupts_held():
            batches = iter(loader)
        try:
            while (batch := _next(batches)) is not None:
                yield replace(batch, skipped=self._unreported(batch.skipped))
        finally:
            end = getattr(batches, "_shutdown_workers", None)  # or they would go on until the garbage is collected
            if end is not None:
                with suppress(RuntimeError):  # raised by the signal of a worker that was killed: `_next` tells that
                    end()

    def _unreported(self, skipped: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Every worker finds a bad file for itself: the first report counts."""
        new = [(path, reason) for path, reason in skipped if path not in self._reported]
        self._reported.update(path for path, _ in new)
        return new


def _next(batches: Iterator[PixelBatch | UserError]) -> PixelBatch | None:
    try:
        batch = next(batches, None)
    except (RuntimeError, EOFError, ConnectionError) as error:  # the last two: it died while handing a batch over
        ended = isinstance(error, (EOFError, ConnectionError)) or "DataLoader worker (pid" in str(error)
        if not ended or str(error).startswith("Caught "):  # an error in our own code, told with its worker's trace
            raise
        hint = "too little memory, or too little shared memory (docker: --shm-size)? Try fewer workers, or workers=0"
        raise UserError(
            f"a loader process was ended by the system ({error or 'in mid-batch'})", where="workers", hint=hint
        ) from None
    if isinstance(batch, UserError):
        raise batch
    return batch


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C while workers start: they inherit that, else one interrupted before its set-up would end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where `start_worker` alone has to do
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(_: int) -> None:
    """What each worker does first: one thread, and no ear for Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which saves and then ends us
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


# ---------------------------------------------------------------------------------------------------------------------
# The order
# ---------------------------------------------------------------------------------------------------------------------


class Stream:
    """The endless order of images; `rows` is a pure function of the arguments, without memory of earlier calls.

    Args:
        images: Number of images in the index.
        batch: Images a step over all ranks.
        seed: Any integer.
        rank: Whose share.
        world: Number of shares.
    """

    def __init__(self, images: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.images, self.batch, self.seed, self.rank, self.world = images, batch, seed, rank, world
        self._order: tuple[int, npt.NDArray[np.uint32]] | None = None

    def rows(self, step: int) -> list[int]:
        """Positions in the index of this rank's images of `step`."""
        share = self.batch // self.world
        first = step * self.batch + self.rank * share
        return [self._at(position) for position in range(first, first + share)]

    def spares(self, step: int) -> Iterator[int]:
        """What may replace unreadable images of `step`: the stream from the next step on, until all have come by."""
        first = (step + 1) * self.batch + self.rank * (self.batch // self.world)
        return (self._at(position) for position in range(first, first + 2 * self.images))

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.images)
        if self._order is None or self._order[0] != epoch:
            # Sorting raw bits, not Generator.permutation: NumPy keeps only the bits the same in all its versions.
            bits = np.random.PCG64(np.random.SeedSequence([self.seed % 2**64, epoch])).random_raw(self.images)
            self._order = (epoch, np.argsort(bits, kind="stable").astype(np.uint32))  # half the memory of every worker
        return int(self._order[1][place])


class _Batches(Dataset["PixelBatch | UserError"]):
    """The batch of a step, decoded wherever it is asked for.

    An error is returned, not raised: DataLoader would rewrite a raised one as a worker's stack trace.
    """

    def __init__(self, index: ImageIndex, stream: Stream, reader: Reader) -> None:
        self.index, self.stream, self.reader = index, stream, reader
        self._bad: dict[int, str] = {}

    def __getitem__(self, step: int) -> PixelBatch | UserError:
        before = len(self._bad)
        rows = self.stream.rows(step)
        images = [self._read(row) for row in rows]
        if not self._replace(step, rows, images):
            return self._nothing_readable()
        skipped = [(self.index.path(row), reason) for row, reason in list(self._bad.items())[before:]]
        return _collate([image for image in images if image is not None], rows, skipped)

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
        used, spares = set(rows), self.stream.spares(step)
        while gaps:
            row = next((row for row in spares if row not in used), None)
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


def _collate(images: list[Pixels | Tensor], rows: list[int], skipped: list[tuple[str, str]]) -> PixelBatch:
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    first = images[0]
    device = first.device if isinstance(first, Tensor) else None
    fill = torch.empty if len(set(sizes)) == 1 else torch.zeros
    pixels = fill(len(images), height, width, 3, dtype=torch.uint8, device=device)
    if device is None:  # numpy copies what a store has mapped for reading only, of which torch would warn
        target = pixels.numpy()
        for place, image in enumerate(images):
            target[place, : image.shape[0], : image.shape[1]] = image
    else:
        for place, image in enumerate(images):
            pixels[place, : image.shape[0], : image.shape[1]] = torch.as_tensor(image)
    batch = pixels.permute(0, 3, 1, 2)
    return PixelBatch(batch, torch.tensor(sizes, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64), skipped)
