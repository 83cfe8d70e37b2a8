from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from headstart import machine
from headstart.errors import UserError
from headstart.images import cache as caches
from headstart.images import store as stores
from headstart.images.cache import open_cache
from headstart.images.catalog import Stamp
from headstart.images.decode import read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.loader import ImageLoader
from headstart.images.readers import StoreReader
from headstart.images.store import ImageStore, store_folder

AREA = 5000
GIB = 2**30


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """12 images of noise, no two of one size, one of them unreadable."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        picture = random.integers(0, 256, (50 + 3 * number, 90 - 2 * number, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), picture)
    (folder / "05.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def batches(folder: Path, parent: Path, kind: str = "disk", workers: int = 0, steps: int = 9) -> list[torch.Tensor]:
    """What a run sees, in one list; and every slot is checked on the way."""
    index = find_images(folder)
    with (
        open_cache(kind, index, AREA, folder=parent, epochs=9) as cache,  # type: ignore[arg-type]
        ImageLoader(index, batch=4, max_area=AREA, workers=workers, seed=3, steps=steps, reader=cache.reader) as loader,
    ):
        seen = [[batch.pixels, batch.sizes, batch.indices] for batch in loader]
    return [tensor for three in seen for tensor in three]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def opened(folder: Path, parent: Path) -> tuple[ImageIndex, ImageStore]:
    index = find_images(folder)
    return index, ImageStore(store_folder(parent, index, AREA), index)


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on in this process."""
    decoded: list[str] = []

    def read(path: str, max_area: int | None = None, notes: list[str] | None = None, channels: int = 3) -> np.ndarray:
        decoded.append(Path(path).name)
        return read_image(path, max_area, notes, channels)

    monkeypatch.setattr("headstart.images.readers.read_image", read)
    return decoded


@pytest.mark.parametrize("kind", ["disk", "ram", "device", "auto"])
@pytest.mark.parametrize("workers", [0, 2])
def test_any_cache_gives_the_same_batches(images: Path, tmp_path: Path, kind: str, workers: int) -> None:
    if kind == "device" and workers:
        pytest.skip("the device is read by the main process")
    plain = batches(images, tmp_path, "off")
    assert same(plain, batches(images, tmp_path, kind, workers))
    assert same(plain, batches(images, tmp_path, kind, workers))  # now from the store, where it stays


def test_the_second_run_decodes_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = batches(images, tmp_path, workers=2)
    decoded = count_decoding(monkeypatch)
    assert same(first, batches(images, tmp_path))
    assert set(decoded) <= {"05.jpg"}
    store = opened(images, tmp_path)[1]
    assert store.kept() == 11
    before = {path.name: path.stat().st_mtime_ns for path in store.folder.glob("*.pixels")}
    batches(images, tmp_path)
    assert before == {path.name: path.stat().st_mtime_ns for path in store.folder.glob("*.pixels")}


def test_bad_files_are_reported_as_without_a_store(images: Path, tmp_path: Path) -> None:
    index = find_images(images)
    told = []
    for kind in ("off", "disk", "disk", "device"):
        with open_cache(kind, index, AREA, folder=tmp_path, epochs=9) as cache:  # type: ignore[arg-type]
            loader = ImageLoader(index, batch=4, max_area=AREA, workers=0, seed=3, steps=6, reader=cache.reader)
            told.append([entry for batch in loader for entry in batch.skipped])
    assert told[0] == [(str(images / "05.jpg"), "truncated JPEG file: its header ends too early")]
    assert all(entries == told[0] for entries in told)


def test_files_added_changed_and_removed(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches(images, tmp_path)
    cv2.imwrite(str(images / "02.jpg"), np.full((40, 44, 3), 200, np.uint8))
    cv2.imwrite(str(images / "00a.jpg"), np.full((41, 44, 3), 90, np.uint8))  # all later rows move
    (images / "09.jpg").unlink()
    (images / "05.jpg").unlink()
    plain = batches(images, tmp_path, "off")
    decoded = count_decoding(monkeypatch)
    assert same(plain, batches(images, tmp_path))
    assert sorted(decoded) == ["00a.jpg", "02.jpg"]
    index, store = opened(images, tmp_path)
    assert store.kept() == len(index) == 11
    assert len(list(store.folder.glob("*.table"))) == 1


def test_space_of_files_that_are_gone_is_given_back(images: Path, tmp_path: Path) -> None:
    batches(images, tmp_path)
    store = opened(images, tmp_path)[1]
    (segment,) = store.folder.glob("*.pixels")
    for number in range(9):
        (images / f"{number:02d}.jpg").unlink()
    batches(images, tmp_path)
    assert not segment.exists()
    assert same(batches(images, tmp_path, "off"), batches(images, tmp_path))


def test_a_segment_that_is_written_to_is_left_alone(images: Path, tmp_path: Path) -> None:
    index, writing = opened(images, tmp_path)
    path = index.path(0)
    writing.put(0, path, os.stat(path), read_image(path, AREA))  # noqa: PTH116
    other = opened(images, tmp_path)[1]
    writing._table[64 : 64 + 64 * len(index)] = b"\0" * 64 * len(index)  # as if its slots were still to come
    other.close()
    assert len(list(writing.folder.glob("*.pixels"))) == 1
    writing.close()
    assert not list(writing.folder.glob("*.pixels"))


@pytest.mark.parametrize("damage", ["zeros", "cut", "gone", "slot", "table", "empty table"])
def test_damage_reads_as_not_there(images: Path, tmp_path: Path, damage: str) -> None:
    plain = batches(images, tmp_path)
    folder = opened(images, tmp_path)[1].folder
    segment, table = next(folder.glob("*.pixels")), next(folder.glob("*.table"))
    size = segment.stat().st_size
    with segment.open("r+b") as pixels, table.open("r+b") as slots:
        if damage == "zeros":  # pages that a power cut took
            pixels.seek(size // 3)
            pixels.write(bytes(size // 3))
        elif damage == "cut":
            pixels.truncate(size // 2)
        elif damage == "slot":  # torn: the first half of each slot of another image
            slots.seek(64)
            content = slots.read()
            slots.seek(64)
            slots.write(b"".join(content[at + 64 : at + 96] + content[at + 32 : at + 64] for at in range(0, 640, 64)))
        elif damage == "table":
            slots.truncate(100)
        elif damage == "empty table":
            slots.truncate(0)
    if damage == "gone":
        segment.unlink()
    assert same(plain, batches(images, tmp_path))
    assert same(plain, batches(images, tmp_path, workers=2))
    assert opened(images, tmp_path)[1].kept() == 11


def _fill(folder: Path, parent: Path) -> None:
    batches(folder, parent)


def test_two_runs_at_once(images: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fill, args=(images, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert opened(images, tmp_path)[1].kept() == 11
    assert same(batches(images, tmp_path, "off"), batches(images, tmp_path))


def test_a_store_survives_pickling(images: Path, tmp_path: Path) -> None:
    index, store = opened(images, tmp_path)
    reader = pickle.loads(pickle.dumps(StoreReader(index, AREA, store)))
    pixels = reader.read(3)
    info = os.stat(index.path(3))  # noqa: PTH116
    found = store.get(3, info)
    assert found is not None
    assert np.array_equal(found, pixels)
    assert np.array_equal(found, read_image(index.path(3), AREA))
    assert store.get(4, info) is None


def test_a_table_that_another_run_replaced(images: Path, tmp_path: Path) -> None:
    index, store = opened(images, tmp_path)
    pickled = pickle.dumps(StoreReader(index, AREA, store))
    shutil.rmtree(store.folder)
    assert np.array_equal(pickle.loads(pickled).read(0), read_image(index.path(0), AREA))
    assert np.array_equal(StoreReader(index, AREA, store).read(0), read_image(index.path(0), AREA))


def test_a_disk_that_fills_up(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, store = opened(images, tmp_path)
    reader = StoreReader(index, AREA, store)
    reader.read(0)
    monkeypatch.setattr(stores, "_LOOK_EVERY", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=stores.RESERVE + 100))
    assert np.array_equal(reader.read(1), read_image(index.path(1), AREA))
    assert store.full
    assert store.kept() == 1


def choice(monkeypatch: pytest.MonkeyPatch, disk: float, memory: float, epochs: float = 9.0) -> str:
    """What auto becomes for 10 GiB of images, with so many GiB free."""
    free = {Path("/dev/shm"): 100 * GIB, Path("/store"): int(disk * GIB)}
    monkeypatch.setattr(caches, "_free", free.__getitem__)
    monkeypatch.setattr(machine, "memory", lambda: int(memory * GIB))
    return caches._choose(caches.Need(10 * GIB, 10 * GIB), Path("/store"), False, epochs)[0]


def test_auto_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice(monkeypatch, disk=100, memory=100) == "disk"
    assert choice(monkeypatch, disk=15, memory=100) == "ram"
    assert choice(monkeypatch, disk=15, memory=15) == "off"  # half of the memory is left for the training
    assert choice(monkeypatch, disk=100, memory=12) == "off"  # would be read from the disk at random
    assert choice(monkeypatch, disk=100, memory=100, epochs=1) == "off"


@pytest.mark.parametrize(("kind", "words"), [("disk", "do not fit"), ("ram", "shared memory"), ("device", "half")])
def test_what_was_asked_for_must_fit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    monkeypatch.setattr(caches, "_free", lambda folder: 1000)
    monkeypatch.setattr(machine, "memory", lambda: 1000)
    with pytest.raises(UserError, match=f"cache: .*{words}"):
        open_cache(kind, find_images(images), AREA, folder=tmp_path)  # type: ignore[arg-type]


def test_memory_is_given_back(images: Path, tmp_path: Path) -> None:
    index = find_images(images)
    with open_cache("ram", index, AREA, folder=tmp_path) as cache:
        cache.reader.read(0)
        assert cache.store is not None
        kept = cache.store.folder
        with open_cache("ram", index, AREA, folder=tmp_path):  # must not sweep away what is in use
            assert cache.store.kept() == 1
    assert not kept.exists()
    left = Path("/dev/shm/headstart-left-by-a-kill")
    left.mkdir(exist_ok=True)
    (left / "lock").touch()
    open_cache("ram", index, AREA, folder=tmp_path).close()
    assert not left.exists()


NOTE = "12 bits in 16: scaled by 12 bits, of which Ultralytics sees the high byte"


@pytest.fixture
def deep(images: Path) -> Path:
    """Two of the images are of 12 bits in 16."""
    for number in (1, 4):
        (images / f"{number:02d}.jpg").unlink()
        picture = np.arange(4096, dtype=np.uint16).reshape(64, 64)
        cv2.imwrite(str(images / f"{number:02d}.png"), picture)
    return images


def noted(folder: Path, parent: Path, kind: str = "disk", workers: int = 0) -> list[tuple[str, str]]:
    """What is noted of images in two epochs and more."""
    index = find_images(folder)
    with (
        open_cache(kind, index, AREA, folder=parent, epochs=9) as cache,  # type: ignore[arg-type]
        ImageLoader(index, batch=4, max_area=AREA, workers=workers, seed=3, steps=9, reader=cache.reader) as loader,
    ):
        return sorted((Path(path).name, note) for batch in loader for path, note in batch.notes)


@pytest.mark.parametrize(("kind", "workers"), [("disk", 0), ("disk", 2), ("ram", 0), ("device", 0), ("off", 0)])
def test_what_is_noted_of_images_is_noted_from_any_cache(deep: Path, tmp_path: Path, kind: str, workers: int) -> None:
    """Before, a second run said nothing of images that came from the store of the first."""
    for _ in range(2):
        assert noted(deep, tmp_path, kind, workers) == [("01.png", NOTE), ("04.png", NOTE)]


def test_a_note_that_is_lost_costs_a_decoding(deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = batches(deep, tmp_path)
    store = opened(deep, tmp_path)[1]
    (file,) = store.folder.glob("*.note")
    assert file.read_text() == NOTE
    file.unlink()
    decoded = count_decoding(monkeypatch)
    assert same(first, batches(deep, tmp_path))
    assert [name for name in decoded if name != "05.jpg"] in (["01.png"], ["04.png"]), "it is there again for both"
    assert noted(deep, tmp_path) == [("01.png", NOTE), ("04.png", NOTE)]
    assert not list(store.folder.glob(".*.tmp"))


def test_what_is_removed_is_not_said_to_be_there(tmp_path: Path) -> None:
    """6 of 10 files change: the segment with all is less than half used then, and is given back."""
    index = ImageIndex([f"/d/{number}.jpg" for number in range(10)])
    pixels = np.zeros((32, 32, 3), np.uint8)

    def stamp(time: int) -> Stamp:
        return Stamp(1, time)

    for time, rows in ((1, range(10)), (2, range(6))):
        store = ImageStore(tmp_path / "store", index)
        for row in rows:
            store.put(row, index.path(row), stamp(time), pixels)
        store.close()
    store = ImageStore(tmp_path / "store", index)
    there = sum(store.get(row, stamp(2 if row < 6 else 1)) is not None for row in range(10))
    assert there == 6
    assert store.kept() == sum(map(store.has, range(10))) == 6


def test_processes_that_begin_at_once_take_over_what_is_kept(tmp_path: Path) -> None:
    """Each made a table of its own before, of which the second took over nothing and replaced the first."""
    paths = [f"/d/{number:07d}.jpg" for number in range(20_000)]
    index = ImageIndex(paths)
    store, pixels = ImageStore(tmp_path / "store", index), np.zeros((8, 8, 3), np.uint8)
    for row in range(50):
        store.put(row, index.path(row), Stamp(1, 1), pixels)
    store.close()
    more = ImageIndex([*paths, "/d/new.jpg"])
    context = multiprocessing.get_context("fork")
    begin, counts = context.Barrier(3), context.Queue()

    def one() -> None:
        begin.wait()
        opened = ImageStore(tmp_path / "store", more)
        begin.wait()
        counts.put(opened.kept())
        opened.close()

    each = [context.Process(target=one) for _ in range(3)]
    for process in each:
        process.start()
    assert [counts.get(timeout=60) for _ in each] == [50, 50, 50]
    for process in each:
        process.join(60)
    found = ImageStore(tmp_path / "store", more)
    assert sum(found.get(row, Stamp(1, 1)) is not None for row in range(50)) == 50
