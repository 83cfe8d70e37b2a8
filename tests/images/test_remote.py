"""Shards at addresses: read in parts, with retries, in an order that suits them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

import packs
from headstart.errors import RunError, UserError
from headstart.images import catalog, index_cache, remote
from headstart.images.cache import open_cache
from headstart.images.decode import DecodeError, read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import label_path, read_labels
from headstart.images.loader import ImageLoader
from headstart.images.members import split
from headstart.images.readers import FileReader
from headstart.images.stream import WINDOW, Stream


class Server(ThreadingHTTPServer):
    """Serves files in parts.

    `fails` answers so many requests with 503, `cuts` so many with half of their bytes; `silent` leaves so many without
    an answer, until it is closed.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.fails = self.cuts = self.silent = 0
        self.closing = threading.Event()
        self.ranges = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass  # a connection that the other side has left


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        name, data = self.path.lstrip("/"), self.server.files.get(self.path.lstrip("/"))
        self.server.asked.append((name, self.headers.get("Range", "") if body else "HEAD"))
        if self.server.silent:
            self.server.silent -= 1
            self.server.closing.wait(30)
            return
        if body and span and self.server.fails:
            self.server.fails -= 1
            self.send_error(503)
            return
        if data is None:
            self.send_error(404)
            return
        part = data
        if span and self.server.ranges:
            part = data[int(span[1]) : int(span[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hash(data)}"')
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            half = span is not None and self.server.cuts > 0
            self.server.cuts -= half
            self.wfile.write(part[: len(part) // 2] if half else part)


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.closing.set()
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    for module, name, value in ((catalog, "_known", {}), (catalog, "_folders", []), (remote, "_stamps", {})):
        monkeypatch.setattr(module, name, value)
    remote._failing.answered()
    fsspec.filesystem("memory").store.clear()


def start_anew() -> None:
    """As another process would begin."""
    catalog._known.clear()
    remote._stamps.clear()


def shard(tmp_path: Path, numbers: range, name: str = "a.tar") -> bytes:
    members = {f"{n:03d}.png": packs.picture(n) for n in numbers}
    return (packs.zipped if name.endswith(".zip") else packs.tar)(tmp_path / name, members).read_bytes()


def test_a_server_is_asked_for_parts(server: Server, tmp_path: Path) -> None:
    server.files = {"s/0.tar": shard(tmp_path, range(4)), "s/1.zip": shard(tmp_path, range(4, 6), "b.zip")}
    index = find_images([f"{server.address}/s/0.tar", f"{server.address}/s/1.zip"], keep=tmp_path)
    assert [split(path).name for path in index] == [f"{n:03d}.png" for n in range(6)]  # type: ignore[union-attr]
    for number, path in enumerate(index):
        assert np.array_equal(read_image(path), packs.pixels(packs.picture(number)))
    assert all(how for name, how in server.asked if not name.endswith(".index"))  # nothing was asked for whole
    server.asked.clear()
    start_anew()
    again = find_images([f"{server.address}/s/0.tar", f"{server.address}/s/1.zip"], keep=tmp_path)
    assert list(again) == list(index)
    assert {how for _, how in server.asked} == {"HEAD"}  # the tables are kept
    server.files["s/0.tar"] = shard(tmp_path, range(7, 9), "c.tar")
    start_anew()
    assert len(find_images(f"{server.address}/s/{{0..0}}.tar", keep=tmp_path)) == 2  # changed: by its ETag


def test_what_fails_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.files = {"0.tar": shard(tmp_path, range(4))}
    index = find_images(f"{server.address}/0.tar")
    server.fails = 2
    assert np.array_equal(read_image(index.path(1)), packs.pixels(packs.picture(1)))
    server.cuts = 2
    assert np.array_equal(read_image(index.path(2)), packs.pixels(packs.picture(2)))
    server.fails = 3
    with pytest.raises(DecodeError, match=r"cannot be fetched: 503.*, 3 times in 0 seconds"):
        read_image(index.path(3))
    read_image(index.path(3))
    server.fails = 10**6
    for _ in range(remote.LOST - 1):
        with pytest.raises(DecodeError):
            read_image(index.path(0))
    with pytest.raises(RunError, match="8 parts of shards in a row: cannot be fetched"):
        read_image(index.path(0))


def impatient(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, *, answer: float, patience: float
) -> ImageIndex:
    """Four images at an address, of which nothing more than this is waited for."""
    server.files = {"0.tar": shard(folder, range(4))}
    index = find_images(f"{server.address}/0.tar")
    monkeypatch.setattr(remote, "ANSWER", answer)
    monkeypatch.setattr(remote, "PATIENCE", patience)
    return index


def test_storage_that_hangs_is_asked_again_and_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes requests and does not answer: nothing waits for the minutes that libraries do."""
    index = impatient(server, tmp_path, monkeypatch, answer=0.2, patience=1.0)
    server.silent = 1
    assert np.array_equal(read_image(index.path(1)), packs.pixels(packs.picture(1)))
    server.silent = 10**6
    began = time.monotonic()
    monkeypatch.setattr(remote, "WAITS", (0.0,) * 9)
    with pytest.raises(RunError, match=r"nothing was answered for 1 seconds, last of all: no answer in 0 seconds"):
        read_image(index.path(2))
    assert time.monotonic() - began < 10
    server.silent = 0
    monkeypatch.setattr(remote, "ANSWER", 30.0)
    assert np.array_equal(read_image(index.path(2)), packs.pixels(packs.picture(2)))


def test_a_batch_that_is_not_answered_counts_as_well(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = impatient(server, tmp_path, monkeypatch, answer=0.3, patience=0.5)
    server.silent = 10**6
    with (
        pytest.raises(RunError, match="nothing was answered"),
        ImageLoader(index, batch=4, max_area=900, workers=0, seed=0, steps=1) as loader,
    ):
        next(iter(loader))


def test_images_that_cannot_be_fetched_are_listed(server: Server, tmp_path: Path) -> None:
    server.files = {"0.tar": shard(tmp_path, range(4)), "1.tar": shard(tmp_path, range(4, 8), "b.tar")}
    index = find_images(f"{server.address}/{{0..2}}.tar")
    assert index.skipped == [(f"{server.address}/2.tar", "no such file")]
    del server.files["1.tar"]
    for workers in (0, 1):
        with ImageLoader(index, batch=4, max_area=900, workers=workers, seed=0, steps=2) as loader:
            skipped = dict(entry for batch in loader for entry in batch.skipped)
        assert skipped
        assert set(skipped) <= {f"{server.address}/1.tar/{n:03d}.png" for n in range(4, 8)}
        assert set(skipped.values()) == {"no such file"}


def test_a_server_without_parts_is_refused(server: Server, tmp_path: Path) -> None:
    server.files = {"0.tar": shard(tmp_path, range(40))}
    server.ranges = False
    with pytest.raises(UserError, match="the server sends whole files, not parts"):
        find_images(f"{server.address}/0.tar")


def batches(data: object, workers: int, parent: Path, kind: str = "off", first: int = 0) -> list[torch.Tensor]:
    index = find_images(data)  # type: ignore[arg-type]
    with (
        open_cache(kind, index, 900, folder=parent, epochs=9) as cache,  # type: ignore[arg-type]
        ImageLoader(
            index, batch=4, max_area=900, workers=workers, seed=3, start_step=first, steps=6, reader=cache.reader
        ) as loader,
    ):
        assert index.far() is not None
        return [batch.pixels.clone() for batch in loader]


def test_batches_are_fetched_side_by_side_and_a_run_goes_on_exactly(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        server.files[f"{number}.tar"] = shard(tmp_path, range(4 * number, 4 * number + 4), f"{number}.tar")
    data = f"{server.address}/{{0..2}}.tar"
    whole = batches(data, 0, tmp_path)
    for workers, kind in ((1, "off"), (0, "disk"), (0, "disk")):
        server.asked.clear()
        found = batches(data, workers, tmp_path, kind)
        assert all(torch.equal(one, two) for one, two in zip(whole, found, strict=True))
    assert not [how for _, how in server.asked if how.startswith("bytes")]  # all are in the store by now
    monkeypatch.setattr(remote, "part", lambda *_: pytest.fail("one image was asked for by itself"))
    rest = batches(data, 0, tmp_path, first=4)
    assert all(torch.equal(one, two) for one, two in zip(whole[4:], rest, strict=True))


def test_shards_come_in_a_random_order_and_a_few_are_mixed() -> None:
    shards = np.repeat(np.arange(1, 41, dtype=np.uint32), 25)
    stream = Stream(1000, 10, seed=5, shards=shards)
    epoch = [row for step in range(100) for row in stream.rows(step)]
    assert sorted(epoch) == list(range(1000))
    windows = [set(shards[epoch[at : at + 25 * WINDOW]].tolist()) for at in range(0, 1000, 25 * WINDOW)]
    assert sum(map(len, windows)) <= 40 + 2 * len(windows)  # the number 0 has no images: a window may be short of one
    assert windows[0] != set(range(1, WINDOW + 1))
    assert len(set(shards[epoch[:40]].tolist())) > 3  # mixed, not one after the other
    assert [row for step in range(100, 200) for row in stream.rows(step)] != epoch
    assert Stream(1000, 10, seed=5, shards=shards).rows(150) == stream.rows(150)
    plain = Stream(1000, 10, seed=5)
    assert plain.rows(0) == Stream(1000, 10, 5).rows(0)
    assert len(set(shards[plain.rows(0) + plain.rows(1)].tolist())) > WINDOW


def test_any_file_system_of_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    labelled = packs.tar(tmp_path / "l.tar", {"k/1.png": packs.picture(1), "k/1.txt": b"2 .5 .5 .1 .1\n"})
    memory.pipe("/b/s/0.tar", labelled.read_bytes())
    memory.pipe("/b/s/1.tar", shard(tmp_path, range(2)))
    memory.pipe("/b/s/readme.md", b"text")
    for data in ("memory://b/s", "memory://b/s/*.tar", "memory://b/s/{0..1}.tar"):
        start_anew()
        index = find_images(data, keep=tmp_path)
        assert [path.rpartition("/")[2] for path in index] == ["1.png", "000.png", "001.png"]
    assert np.array_equal(read_image(index.path(0)), packs.pixels(packs.picture(1)))
    assert [row.label for row in read_labels(label_path(index.path(0))).rows] == [2]
    (tmp_path / "d.yaml").write_text("train: memory://b/s/0.tar\nval: gone\nnames: [a, b, c]\n")
    assert list(find_images(tmp_path / "d.yaml")) == [index.path(0)]
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    kept = find_images("memory://b/s/{0..1}.tar", keep=tmp_path)
    assert list(kept) == list(index)
    memory.pipe("/b/s/1.tar", shard(tmp_path, range(5), "other.tar"))
    start_anew()
    assert len(find_images("memory://b/s/{0..1}.tar", keep=tmp_path)) == 6


def test_the_table_that_pack_writes_spares_reading_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.jobs.pack import pack
    from headstart.settings.tools import PackSettings

    (tmp_path / "d").mkdir()
    for number in range(3):
        (tmp_path / f"d/{number}.png").write_bytes(packs.picture(number))
    pack(PackSettings(data=str(tmp_path / "d"), out=str(tmp_path / "out")))
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "out").iterdir():
        memory.pipe(f"/b/{path.name}", path.read_bytes())
    start_anew()
    monkeypatch.setattr(remote, "scan", lambda *_: pytest.fail("headers were read"))
    index = find_images("memory://b/000000.tar", keep=tmp_path)
    for number, path in enumerate(index):
        assert np.array_equal(read_image(path), packs.pixels(packs.picture(number)))
    monkeypatch.undo()
    memory.pipe("/c/000000.tar", shard(tmp_path, range(9)))  # another shard beside an old table
    memory.pipe("/c/000000.tar.index", (tmp_path / "out/000000.tar.index").read_bytes())
    assert len(find_images("memory://c/000000.tar", keep=tmp_path)) == 9


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_package)
    with pytest.raises(UserError, match="s3:// is read by s3fs, which is not installed") as error:
        find_images("s3://bucket/{000..127}.tar")
    assert error.value.hint == "pip install s3fs"
    monkeypatch.undo()
    with pytest.raises(UserError, match="addresses of the kind nothing:// are not known"):
        find_images("nothing://bucket/0.tar")
    with pytest.raises(UserError, match="is an address") as error:
        find_images("https://example.org/images")
    assert "headstart pack" in str(error.value.hint)
    with pytest.raises(UserError, match="is a compressed tar"):
        find_images("s3://bucket/0.tar.gz")
    with pytest.raises(UserError, match="there are no files at memory://nowhere"):
        find_images("memory://nowhere/")


def test_each_storage_is_asked_for_its_own_parts(tmp_path: Path) -> None:
    """Two kinds in one batch, with a shard at the same path in both."""
    own = shard(tmp_path, range(2), "0.tar")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/0.tar").write_bytes(own)
    fsspec.filesystem("memory").pipe(f"{tmp_path}/s/0.tar", shard(tmp_path, range(2, 4), "1.tar"))
    index = find_images([f"file://{tmp_path}/s/0.tar", f"memory://{tmp_path}/s/0.tar"])
    reader, rows = FileReader(index, None), list(range(len(index)))
    alone = [reader.read(row) for row in rows]
    assert len(rows) == 4
    reader.ahead(rows)
    assert len(remote._ahead.parts) == 4, "all of them came ahead"
    assert all(np.array_equal(reader.read(row), image) for row, image in zip(rows, alone, strict=True))
