"""Loader processes that are killed, signalled or cannot hand over; batches of extreme shapes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from headstart import machine
from headstart.errors import RunError
from headstart.images import decode
from headstart.images.index import ImageIndex, find_images
from headstart.images.loader import ImageLoader, PixelBatch
from headstart.images.workers import _is_torchs, produced


def draw(folder: Path, shapes: list[tuple[int, int]]) -> ImageIndex:
    random = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        cv2.imwrite(str(folder / f"{number:03d}.png"), random.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return find_images(folder)


@pytest.fixture
def good(tmp_path: Path) -> ImageIndex:
    return draw(tmp_path, [(20 + i, 50 - i) for i in range(12)])


def loader(index: ImageIndex, **options: object) -> ImageLoader:
    return ImageLoader(index, **{"batch": 2, "max_area": None, "workers": 1, "seed": 0, "steps": 40, **options})  # type: ignore[arg-type]


def children() -> list[int]:
    return [child.pid for child in torch.multiprocessing.active_children()]  # type: ignore[misc]


def same(a: PixelBatch, b: PixelBatch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "sizes", "indices"))


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_told_at_the_next_batch_and_never_in_mid_step(good: ImageIndex) -> None:
    with loader(good, steps=10_000) as batches:
        running = iter(batches)
        next(running)
        os.kill(children()[0], signal.SIGKILL)
        for _ in range(10):  # a step: the signal of the death arrives within
            time.sleep(0.02)
        with pytest.raises(
            RunError, match=r"workers: a loader process was ended by the system \(SIGKILL: memory"
        ) as told:
            for _ in running:
                pass
    assert "workers=0" in str(told.value)
    assert "--shm-size" in str(told.value)
    assert not children()


@pytest.fixture
def on_deaths() -> Iterator[None]:
    """Whatever is called when a process ends is put back, and torch's word that it has set its own."""
    before, said = signal.getsignal(signal.SIGCHLD), signal_handling._SIGCHLD_handler_set
    signal_handling._SIGCHLD_handler_set = False
    yield
    signal.signal(signal.SIGCHLD, before)
    signal_handling._SIGCHLD_handler_set = said


@pytest.mark.parametrize("torchs_within", [False, True])
@pytest.mark.usefixtures("on_deaths")
def test_what_the_user_does_when_a_process_ends_is_done_again(torchs_within: bool) -> None:
    """Also where a loader of the user's has put torch's handler around it, and where one is made later."""
    ended: list[int] = []
    signal.signal(signal.SIGCHLD, lambda number, _: ended.append(number))
    if torchs_within:
        assert list(DataLoader(range(2), num_workers=1, multiprocessing_context="fork"))
    before = signal.getsignal(signal.SIGCHLD)
    assert _is_torchs(before) is torchs_within
    items = produced(Numbers(), [1, 2], 1)
    assert next(items) == 1
    assert signal.getsignal(signal.SIGCHLD) is (signal.SIG_DFL if torchs_within else before), "torch would raise in it"
    assert list(items) == [2]
    assert signal.getsignal(signal.SIGCHLD) is before
    ended.clear()
    subprocess.run(["true"], check=True)
    assert ended == [signal.SIGCHLD]
    if not torchs_within:
        loader = iter(DataLoader(range(2), num_workers=1, multiprocessing_context="fork"))
        assert _is_torchs(signal.getsignal(signal.SIGCHLD)), "a loader of the user's has it"
        assert len(list(loader)) == 2


class Numbers(Dataset[int]):
    """Each its own place."""

    def __getitem__(self, place: int) -> int:
        return place


def test_workers_leave_sigterm_to_the_main_process(good: ImageIndex) -> None:
    """Systemd and docker send it to all processes of a group."""
    with loader(good) as batches:
        running = iter(batches)
        next(running)
        for pid in children():
            os.kill(pid, signal.SIGTERM)
        assert len(list(running)) == 39
    assert not children()


def test_what_cannot_be_handed_over_ends_the_run_in_place_of_a_wait_for_ever(good: ImageIndex, monkeypatch) -> None:
    monkeypatch.setattr(PixelBatch, "shared", lambda self: lambda: None)  # cannot be pickled
    with (
        loader(good) as batches,
        pytest.raises(RunError, match="could not hand over what it read: shared memory is full"),
    ):
        list(batches)


def test_processes_that_cannot_be_started_are_told(good: ImageIndex, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.data.DataLoader._get_iterator", refuse)
    with pytest.raises(RunError, match="workers: loader processes cannot be started: No space left on device"):
        list(produced(torch.utils.data.TensorDataset(torch.zeros(2)), [0, 1], 1))


@pytest.mark.parametrize("how", ["full", "lost the race"])
def test_without_shared_memory_batches_go_through_pipes(good: ImageIndex, monkeypatch, how: str) -> None:
    expected = list(loader(good, workers=0))
    assert not loader(good, workers=0).note
    if how == "full":
        monkeypatch.setattr(machine, "shared_memory", lambda: 2**20)
        assert loader(good).note.startswith("/dev/shm has 1 MiB free, 1 loader processes may need 18")
    else:

        def refuse(self: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

        monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with loader(good) as batches:
        found = list(batches)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert found[0].pixels.is_contiguous(memory_format=torch.channels_last)
    assert not any(batch.pixels.is_shared() for batch in found)


@pytest.mark.parametrize("workers", [0, 1])
def test_storage_that_fails_stops_the_run(good: ImageIndex, monkeypatch, workers: int) -> None:
    def fail(path: str, read: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(decode, "_bytes", fail)
    monkeypatch.setattr(decode, "WAITS", (0.0, 0.01))
    with loader(good, workers=workers) as batches, pytest.raises(RunError, match="Input/output error, 3 times in"):
        list(batches)


def test_a_file_that_vanished_is_skipped_and_listed(good: ImageIndex) -> None:
    with loader(good, workers=0, steps=12) as batches:
        running = iter(batches)
        next(running)
        Path(good.path(3)).unlink()
        skipped = [entry for batch in running for entry in batch.skipped]
    assert skipped == [(good.path(3), "no such file")]


def test_what_was_done_to_read_an_image_is_told_once(tmp_path: Path) -> None:
    deep = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((64, 64), np.uint8))
    for workers in (0, 2):
        with loader(find_images(tmp_path), workers=workers, steps=6) as batches:
            notes = [entry for batch in batches for entry in batch.notes]
        assert [Path(path).name for path, _ in notes] == ["a.png"]
        assert notes[0][1].startswith("12 bits in 16")


# -- memory -----------------------------------------------------------------------------------------------------------


def greatest_growth(work) -> int:
    """Bytes of address space, used or not, that `work` adds at most; measured in a process of its own."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as pipe:
            answer = pipe.read()
        os.waitpid(pid, 0)
        return int(answer)
    try:
        torch.set_num_threads(1)  # threads of OpenMP do not come through a fork: it would wait for them
        before = _virtual("VmSize")
        work()
        os.write(write, str(_virtual("VmPeak") - before).encode())
    finally:
        os._exit(0)


def _virtual(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells the memory of a process")
def test_memory_is_bounded_for_any_mix_of_shapes(tmp_path: Path) -> None:
    """Padded to the greatest height times the greatest width, these two would take 30 GB each."""
    index = draw(tmp_path, [(1, 100_000), (100_000, 1)])

    def work() -> None:
        (batch,) = loader(index, workers=0, steps=1, max_area=2**18)
        assert batch.pixels[0, 0].numel() <= 8 * 2**18

    assert greatest_growth(work) < 2**27


def test_ordinary_mixes_of_shapes_keep_every_pixel(tmp_path: Path) -> None:
    """4:1 and 1:4 at the largest area, and a strip of 20:1."""
    index = draw(tmp_path, [(100, 400), (400, 100), (200, 200), (20, 400)])
    (batch,) = loader(index, workers=0, batch=4, steps=1, max_area=40_000)
    assert batch.pixels.shape == (4, 3, 400, 400)
    for pixels, (height, width), row in zip(batch.pixels, batch.sizes.tolist(), batch.indices.tolist(), strict=True):
        expected = torch.from_numpy(decode.read_image(index.path(row)).copy()).permute(2, 0, 1)
        assert torch.equal(pixels[:, :height, :width], expected)


def test_the_longest_are_scaled_down_aspect_kept(tmp_path: Path) -> None:
    index = draw(tmp_path, [(4, 4000), (4000, 4), (100, 100)])
    (batch,) = loader(index, workers=0, batch=3, steps=1, max_area=20_000)
    # 8 x 20,000 pixels each: sides of 400 at most.
    assert sorted(batch.sizes.tolist()) == [[1, 400], [100, 100], [400, 1]]
    assert batch.pixels.shape[2:] == (400, 400)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_a_script_needs_no_main_guard(good: ImageIndex, tmp_path: Path) -> None:
    """From Python 3.14 on processes are not forked on Linux unless that is asked for: the script would run again."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing
multiprocessing.set_start_method("forkserver", force=True)
from headstart.images.index import find_images
from headstart.images.loader import ImageLoader
with ImageLoader(find_images({str(tmp_path)!r}), batch=2, max_area=None, workers=2, seed=0, steps=5) as loader:
    print(len(list(loader)))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
