from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from headstart.errors import UserError
from headstart.images.decode import read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.loader import ImageLoader, PixelBatch, steps_for
from headstart.images.stream import Stream

COUNT = 23
BAD = {4: b"", 9: b"no image", 17: b"\xff\xd8\xff"}


def draw(folder: Path, count: int = COUNT, bad: dict[int, bytes] | None = None) -> ImageIndex:
    """`count` images of different sizes, each of one gray that tells its number."""
    for i in range(count):
        image = np.full((20 + i, 50 - i, 3), 10 * i, np.uint8)
        data = cv2.imencode(".png", image)[1].tobytes()
        (folder / f"{i:03d}.png").write_bytes((bad or {}).get(i, data))
    return find_images(folder)


@pytest.fixture
def good(tmp_path: Path) -> ImageIndex:
    return draw(tmp_path)


@pytest.fixture
def mixed(tmp_path: Path) -> ImageIndex:
    return draw(tmp_path, bad=BAD)


def load(index: ImageIndex, **options: object) -> list[PixelBatch]:
    settings = {"batch": 4, "max_area": None, "workers": 0, "seed": 1, "steps": 12} | options
    with ImageLoader(index, **settings) as loader:  # type: ignore[arg-type]
        batches = list(loader)
        assert len(batches) == len(loader)
    return batches


def same(a: PixelBatch, b: PixelBatch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "sizes", "indices"))


def indices(batches: list[PixelBatch]) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


def test_a_batch_holds_the_pixels_of_its_images(good: ImageIndex) -> None:
    for batch in load(good):
        assert (batch.pixels.dtype, batch.sizes.dtype, batch.indices.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert batch.pixels.shape[2:] == tuple(batch.sizes.amax(0))
        for pixels, (height, width), i in zip(batch.pixels, batch.sizes.tolist(), batch.indices.tolist(), strict=True):
            expected = torch.from_numpy(read_image(good.path(i))).permute(2, 0, 1)
            assert (height, width) == (20 + i, 50 - i)
            assert torch.equal(pixels[:, :height, :width], expected)
            assert pixels.sum() == expected.sum()  # zeros around it


def test_each_epoch_is_another_permutation(good: ImageIndex) -> None:
    order = indices(load(good, batch=3, steps=3 * COUNT // 3))
    epochs = [order[i : i + COUNT] for i in (0, COUNT, 2 * COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order != indices(load(good, batch=3, steps=COUNT, seed=2))
    assert order == indices(load(good, batch=23, steps=3))  # the stream does not depend on how it is cut


def test_batch_larger_than_the_index(tmp_path: Path) -> None:
    index = draw(tmp_path, 3)
    assert Counter(indices(load(index, batch=8, steps=3))) == {0: 8, 1: 8, 2: 8}


def test_order_is_the_same_on_every_machine() -> None:
    """Recorded from the first version, not derived: a change would break the resuming of every run made before."""
    assert Stream(8, 8, seed=0).rows(0) == [3, 2, 1, 6, 0, 7, 4, 5]
    assert Stream(8, 4, seed=-1).rows(7) == Stream(8, 8, seed=-1).rows(3)[4:]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_same_batches(mixed: ImageIndex, workers: int) -> None:
    whole = load(mixed, steps=14)
    for start in (0, 1, 5, 13, 14):
        rest = load(mixed, steps=14, start_step=start, workers=workers)
        assert len(rest) == 14 - start
        assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_workers_change_nothing(mixed: ImageIndex) -> None:
    alone, together = load(mixed), load(mixed, workers=2)
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert [batch.skipped for batch in alone] == [batch.skipped for batch in together]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_replaced_and_reported_once(mixed: ImageIndex, workers: int) -> None:
    batches = load(mixed, batch=5, steps=20, workers=workers)
    assert all(len(batch.indices) == 5 for batch in batches)
    assert not set(indices(batches)) & set(BAD)
    assert all(len(set(batch.indices.tolist())) == 5 for batch in batches if batch.skipped)
    reported = [entry for batch in batches for entry in batch.skipped]
    assert sorted(reported) == [
        (mixed.path(4), "empty file"),
        (mixed.path(9), "not an image"),
        (mixed.path(17), "truncated JPEG file: its header ends too early"),
    ]


def test_replacement_is_the_next_readable_of_the_stream(mixed: ImageIndex) -> None:
    stream = Stream(COUNT, 6, seed=1)
    for step, batch in enumerate(load(mixed, batch=6, steps=15)):
        rows = stream.rows(step)
        later = iter([i for s in range(step + 1, step + 9) for i in stream.rows(s) if i not in BAD and i not in rows])
        expected: list[int] = []
        for row in rows:
            expected.append(row if row not in BAD else next(i for i in later if i not in expected))
        assert batch.indices.tolist() == expected


def test_ranks_share_the_stream(good: ImageIndex) -> None:
    whole = load(good, batch=6)
    shares = [load(good, batch=6, rank=rank, world=3) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [share[step].indices.tolist() for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert [i for part in parts for i in part] == batch.indices.tolist()


def test_ranks_with_bad_files(mixed: ImageIndex) -> None:
    clean = Stream(COUNT, 6, seed=1)
    for rank in range(2):
        for step, batch in enumerate(load(mixed, batch=6, rank=rank, world=2, steps=8)):
            rows = clean.rows(step)[3 * rank : 3 * rank + 3]
            got = batch.indices.tolist()
            assert not set(got) & set(BAD)
            assert all(a == b for a, b in zip(rows, got, strict=True) if a not in BAD)


def test_batch_that_cannot_be_shared(good: ImageIndex) -> None:
    with pytest.raises(UserError, match="batch: 5 images cannot be shared by 2 processes"):
        ImageLoader(good, batch=5, max_area=None, workers=0, seed=0, steps=1, world=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_readable_image_is_enough(tmp_path: Path, workers: int) -> None:
    index = draw(tmp_path, 12, {i: b"" for i in range(12) if i != 7})
    batches = load(index, batch=4, steps=5, workers=workers)
    assert set(indices(batches)) == {7}
    assert len(indices(batches)) == 20
    assert sum(len(batch.skipped) for batch in batches) == 11


@pytest.mark.parametrize("workers", [0, 2])
def test_no_readable_image_is_a_user_error(tmp_path: Path, workers: int) -> None:
    index = draw(tmp_path, 6, {i: b"" if i else b"text" for i in range(6)})
    with pytest.raises(UserError) as caught:
        load(index, workers=workers)
    assert type(caught.value) is UserError
    lines = str(caught.value).splitlines()
    assert lines[0] == "data: none of the 6 images can be read; 5 of them: empty file"
    assert lines[1].startswith(f"  -> look at {tmp_path}/00")
    assert len(lines) == 2  # no stack trace of a worker


@pytest.mark.parametrize("workers", [0, 2])
def test_ten_thousand_bad_files_are_told_quickly(tmp_path: Path, workers: int) -> None:
    index = ImageIndex([f"{tmp_path}/{i:05d}.jpg" for i in range(10_000)])
    began = time.perf_counter()
    with pytest.raises(UserError, match="none of the 10000 images can be read; 10000 of them: no such file"):
        load(index, workers=workers)
    assert time.perf_counter() - began < 20


def test_max_area(good: ImageIndex) -> None:
    assert all((batch.sizes.prod(1) <= 500).all() for batch in load(good, max_area=500))


def test_leaving_early_ends_the_workers(good: ImageIndex) -> None:
    with ImageLoader(good, batch=2, max_area=None, workers=2, seed=0, steps=1000) as loader:
        next(iter(loader))
        workers = torch.multiprocessing.active_children()
        assert len(workers) >= 2
    assert not any(worker.is_alive() for worker in workers)


def test_workers_leave_ctrl_c_to_the_main_process(good: ImageIndex) -> None:
    import signal

    with ImageLoader(good, batch=2, max_area=None, workers=2, seed=0, steps=40) as loader:
        batches = iter(loader)
        next(batches)
        for worker in torch.multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGINT)  # type: ignore[arg-type]
        assert len(list(batches)) == 39


def test_a_killed_worker_is_a_user_error(good: ImageIndex) -> None:
    import signal

    with ImageLoader(good, batch=2, max_area=None, workers=1, seed=0, steps=10_000) as loader:
        batches = iter(loader)
        next(batches)
        os.kill(torch.multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="workers: a loader process was ended by the system"):
            for _ in batches:
                pass


def test_the_global_random_state_is_left_alone(good: ImageIndex) -> None:
    before = torch.get_rng_state()
    load(good, steps=2)
    load(good, steps=2, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_to_keeps_everything(good: ImageIndex) -> None:
    batch = load(good, steps=1)[0]
    assert same(batch.to("cpu"), batch)
    assert batch.to("meta").pixels.device.type == "meta"


@pytest.mark.parametrize(
    ("epochs", "images", "batch", "steps"),
    [(1, 10, 5, 2), (1, 11, 5, 3), (2, 11, 5, 5), (0.1, 30, 1, 3), (0.5, 3, 8, 1), (100, 5948, 64, 9294)],
)
def test_steps_for(epochs: float, images: int, batch: int, steps: int) -> None:
    assert steps_for(epochs, images, batch) == steps
