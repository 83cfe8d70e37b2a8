"""Which cache of decoded images a run uses, and why: chosen by the size of what is to be kept."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from torch.utils.data import Dataset

from headstart import machine
from headstart.errors import UserError
from headstart.images import stores
from headstart.images.decode import DecodeError, Pixels, read_image
from headstart.images.index import ImageIndex
from headstart.images.index_cache import default_folder
from headstart.images.readers import DeviceReader, FileReader, Reader, StoreReader
from headstart.images.store import RESERVE, ImageStore, hold, store_folder, sweep_temporary
from headstart.images.workers import produced
from headstart.paths import expanded

Kind = Literal["auto", "ram", "disk", "device", "off"]
SHARED_MEMORY = Path("/dev/shm")
SAMPLES = 16
"""Images that are decoded to estimate the size of all."""
_PREFIX = "headstart-"
Progress = Callable[[int, int], None]  # images done, images in all


@dataclass
class Cache:
    """An open cache.

    Attributes:
        kind: ``ram``, ``disk``, ``device`` or ``off``.
        reader: Gives the pixels.
        why: What was chosen and why, in a sentence.
        store: Of ``ram`` and ``disk``.
        ended: What was in it at the end, in a sentence; empty where nothing is left.
    """

    kind: str
    reader: Reader
    why: str
    store: ImageStore | None = None
    ended: str = ""
    _held: list[BinaryIO] = field(default_factory=list, repr=False)

    def share(self) -> float | None:
        """Share of the images that are in it, in [0, 1]; None where it is not filled while the run trains."""
        return None if self.store is None else self.store.kept() / max(1, len(self.store))

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; one in memory is removed."""
        if self.store is not None:
            if not self.store.temporary:
                self.ended = f"cache: {self.store.kept()} images are kept in {self.store.folder}"
            self.store.close()
        for file in self._held:
            file.close()


@dataclass(frozen=True)
class Need:
    """What keeping all images takes.

    Attributes:
        total: Bytes of all images.
        missing: Bytes of those that are not kept yet.
        milliseconds: To decode one; 0 where it was not measured.
    """

    total: int
    missing: int
    milliseconds: float = 0.0


def open_cache(
    kind: Kind,
    index: ImageIndex,
    max_area: int | None,
    *,
    folder: Path | None = None,
    epochs: float = 2.0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
    processes: int = 1,
) -> Cache:
    """Open the cache that was asked for, or with ``auto`` the one that fits.

    Args:
        kind: ``disk`` is kept for later runs, ``ram`` lies in shared memory and ends with the run, ``device`` is read
            whole into the memory of the training device before the first step, ``off`` decodes every time.
        index: The images.
        max_area: The size that images are decoded to.
        folder: Where stores are kept; by default the user's cache folder.
        epochs: How often the run will read each image.
        device: The training device.
        workers: Processes that decode for ``device``.
        progress: Called while ``device`` is filled.
        processes: That train together on this machine, each with a cache; a store on the disk is of all of them.

    Raises:
        UserError: What was asked for does not fit, or cannot be written.
    """
    folder = expanded(folder or default_folder()).absolute()
    where = store_folder(folder, index, max_area)
    if kind == "off":
        return Cache("off", FileReader(index, max_area), "cache=off: images are decoded each time")
    store = _existing(where, index) if kind in ("auto", "disk") else None
    need = _need(index, max_area, store)
    if kind == "auto":
        kind, why = _choose(need, folder, store is not None, epochs, processes)
        if kind == "off":
            return Cache("off", FileReader(index, max_area), why)
    else:
        why = f"cache={kind}: {gigabytes(need.total)} of decoded images"
    if kind == "device":
        return _on_device(index, max_area, torch.device(device), need, workers, progress, why)
    return _in_memory(index, max_area, need, why) if kind == "ram" else _on_disk(index, max_area, where, need, why)


# -- what it takes ----------------------------------------------------------------------------------------------------


def _existing(where: Path, index: ImageIndex) -> ImageStore | None:
    """The store of an earlier run, if there is one that can be used."""
    if not where.is_dir():
        return None
    with suppress(OSError):
        return ImageStore(where, index)
    return None


def _need(index: ImageIndex, max_area: int | None, store: ImageStore | None) -> Need:
    kept = store.kept() if store else 0
    each = store.bytes_an_image if store else 0.0
    milliseconds = 0.0
    if not each:
        each, milliseconds = _sample(index, max_area)
        if store:
            store.note_bytes(each)
    total = int(each * len(index))
    return Need(total, int(each * (len(index) - kept)), milliseconds)


def _sample(index: ImageIndex, max_area: int | None) -> tuple[float, float]:
    """Mean bytes and milliseconds of decoding, over a few images spread over the index."""
    sizes: list[int] = []
    began = time.perf_counter()
    for row in range(0, len(index), max(1, len(index) // SAMPLES)):
        with suppress(DecodeError):
            sizes.append(read_image(index.path(row), max_area, None, index.channels).size)
    if not sizes:
        return 0.0, 0.0
    return sum(sizes) / len(sizes), (time.perf_counter() - began) * 1000 / len(sizes)


def _choose(need: Need, folder: Path, exists: bool, epochs: float, processes: int = 1) -> tuple[Kind, str]:
    """What ``auto`` becomes. A store that memory cannot hold is read from the disk at random, slower than decoding."""
    size, memory, disk = gigabytes(need.total), machine.memory(), _free(folder)
    if not need.total:
        return "off", "cache=auto -> off: none of the images that were tried can be read"
    if epochs < 2 and not exists:
        return "off", f"cache=auto -> off: at {epochs:.2g} epochs few images are read twice"
    if need.total > 0.8 * memory:
        why = f"{size} of decoded images do not fit into {gigabytes(memory)} of free memory"
        return "off", f"cache=auto -> off: {why} (cache=disk keeps them all the same)"
    if need.missing <= (disk - RESERVE) / 2:
        return "disk", f"cache=auto -> disk: {size} of decoded images, {gigabytes(disk)} free on the disk"
    if processes == 1 and need.total <= min(memory / 2, _free(SHARED_MEMORY) * 0.9):
        return "ram", f"cache=auto -> ram: {size} of decoded images, only {gigabytes(disk)} free on the disk"
    return "off", f"cache=auto -> off: {size} of decoded images, {gigabytes(disk)} free on the disk"


def _free(folder: Path) -> int:
    """Free bytes where `folder` is or will be; 0 where that cannot be told."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def gigabytes(number: float) -> str:
    """A size for people."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 / 10 else f"{number / 2**20:.1f} MiB"


# -- the kinds --------------------------------------------------------------------------------------------------------


def _on_disk(index: ImageIndex, max_area: int | None, where: Path, need: Need, why: str) -> Cache:
    free = _free(where) - RESERVE
    if need.missing > free:
        raise UserError(
            f"{gigabytes(need.missing)} of decoded images do not fit: {gigabytes(max(0, free))} are free in "
            f"{where.parent} beside a reserve of {gigabytes(RESERVE)}",
            where="cache",
            hint="name a folder with more room as cache_dir=, or use cache=off",
        )
    try:
        held = stores.use(where, index, max_area)
        store = ImageStore(where, index)
    except OSError as error:
        what = f"no store can be made in {where}: {error.strerror or error}"
        raise UserError(what, where="cache", hint="name another folder as cache_dir=, or use cache=off") from None
    if need.total:
        store.note_bytes(need.total / len(index))
    kept = store.kept()
    why += f", {kept} of {len(index)} images are there already in {where}" if kept else f", kept in {where}"
    number, size = stores.prune(where.parent, where)
    why += f"; {number} unused for {stores.UNUSED:g} days removed, {gigabytes(size)}" if number else ""
    return Cache("disk", StoreReader(index, max_area, store), why, store, _held=[held])


def _in_memory(index: ImageIndex, max_area: int | None, need: Need, why: str) -> Cache:
    if not SHARED_MEMORY.is_dir():
        what = f"this system has no {SHARED_MEMORY}, where workers could share memory"
        raise UserError(what, where="cache", hint="use cache=disk: the system keeps what it reads in memory too")
    sweep_temporary(SHARED_MEMORY, _PREFIX)
    room = min(_free(SHARED_MEMORY), machine.memory())
    if need.total > room * 0.9:
        what = f"{gigabytes(need.total)} of decoded images do not fit into {gigabytes(room)} of shared memory"
        raise UserError(what, where="cache", hint="use cache=disk or cache=off (docker: --shm-size sets its size)")
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=SHARED_MEMORY))
    held = hold(folder)
    try:
        store = ImageStore(folder, index, temporary=True)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        what = f"no store can be made in {SHARED_MEMORY}: {error.strerror or error}"
        raise UserError(what, where="cache", hint="use cache=disk or cache=off (docker: --shm-size)") from None
    return Cache("ram", StoreReader(index, max_area, store), why, store, _held=[held])


def _on_device(
    index: ImageIndex,
    max_area: int | None,
    device: torch.device,
    need: Need,
    workers: int,
    progress: Progress | None,
    why: str,
) -> Cache:
    room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.memory()
    if need.total > room / 2:
        raise UserError(
            f"{gigabytes(need.total)} of decoded images are more than half of the {gigabytes(room)} free on {device}",
            where="cache",
            hint="use cache=disk",
        )
    reader = DeviceReader(len(index), device, need.total)
    for row, found in enumerate(produced(_All(index, max_area), range(len(index)), workers)):
        if isinstance(found, UserError):
            raise found
        if found.pixels is None:
            reader.bad[row] = found.reason
        else:
            reader.keep(row, found.pixels)
            reader.notes += [(row, "; ".join(found.notes))] if found.notes else []
        if progress:
            progress(row + 1, len(index))
    return Cache("device", reader, f"{why} on {device}")


@dataclass
class _Read:
    """An image, or why there is none. Not a tuple, of which DataLoader would make tensors in shared memory."""

    pixels: Pixels | None = None
    notes: list[str] = field(default_factory=list)
    reason: str = ""


class _All(Dataset["_Read | UserError"]):
    """Every image once, in order."""

    def __init__(self, index: ImageIndex, max_area: int | None) -> None:
        self.index, self.max_area = index, max_area

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> _Read | UserError:
        notes: list[str] = []
        try:
            return _Read(read_image(self.index.path(row), self.max_area, notes, self.index.channels), notes)
        except DecodeError as error:
            return _Read(reason=error.reason)
        except UserError as error:
            return error
