"""Two machines are two processes here, each with a cache folder and a host name of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from headstart import ranks
from headstart.errors import UserError
from headstart.images import index_cache
from headstart.images.index import find_images
from headstart.jobs import carried
from processes import in_processes


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, of which even a small index is kept and sent in many pieces."""
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    monkeypatch.setattr(index_cache, "SETTLED", -1e9)
    monkeypatch.setattr(carried, "PIECE", 100)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        (images / f"{number:02d}.jpg").touch()
    return tmp_path


def on_machine(rank: int, machines: Path, shared: bool = False) -> None:
    os.environ["HEADSTART_CACHE"] = str(machines / ("cache" if shared else f"cache{rank}"))
    socket.gethostname = lambda: f"machine{rank}"


def sent_and_taken(rank: int, images: Path) -> dict[str, object]:
    if rank == 0:
        index = find_images(images, keep=index_cache.default_folder())
        data, kept = carried.packed({"images": index, "batch": 8})
        carried.bring(kept)
        ranks.from_first(data)
        return {"images": index, "batch": 8}
    kept = carried.bring([])
    found: dict[str, object] = carried.unpacked(ranks.from_first(b""), kept)
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_an_index_reaches_a_machine_that_has_another_cache(machines: Path, tmp_path: Path, shared: bool) -> None:
    def work(rank: int) -> tuple[list[str], Path | None, object]:
        on_machine(rank, machines, shared)
        found = sent_and_taken(rank, machines / "images")
        index = found["images"]
        return list(index), index.kept, found["batch"]  # type: ignore[call-overload, attr-defined]

    first, second = in_processes(2, work, tmp_path)
    wanted = [str(machines / "images" / f"{number:02d}.jpg") for number in range(30)]
    assert first[0] == second[0] == wanted
    assert second[2] == 8
    assert first[1] is not None
    there = machines / ("cache" if shared else "cache1") / "index" / first[1].name
    assert second[1] == there
    assert there.read_bytes() == first[1].read_bytes()


def test_an_index_that_is_not_kept_is_sent_as_it_is(
    machines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "FEWEST", 1000)

    def work(rank: int) -> int:
        on_machine(rank, machines)
        return len(sent_and_taken(rank, machines / "images")["images"])  # type: ignore[arg-type]

    assert in_processes(2, work, tmp_path) == [30, 30]


def test_a_machine_whose_cache_cannot_be_written_ends_the_start_in_all(machines: Path, tmp_path: Path) -> None:
    (machines / "cache1").touch()  # a file where the folder is to be

    def work(rank: int) -> str:
        on_machine(rank, machines)
        with pytest.raises(UserError) as told:
            sent_and_taken(rank, machines / "images")
        return str(told.value)

    first, second = in_processes(2, work, tmp_path)
    assert first == second
    assert "cannot be kept on machine1" in first
    assert "HEADSTART_CACHE" in first


def test_it_says_what_helps_where_a_machine_cannot_keep_an_index() -> None:
    assert "HEADSTART_CACHE" in carried.Kept("/c/index/a", "index/a", "a").hint
    assert "cache_dir=" in carried.Kept("/nvme/index/a", None, "a").hint, "HEADSTART_CACHE would not be looked at"
