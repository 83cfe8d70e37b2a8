"""A search that several processes share finds what one finds, ends in all of them, and goes on with any number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_parts import SEARCH
from test_search import Bright, batch

from headstart import ranks
from headstart.errors import RunError
from headstart.images.loader import PixelBatch
from headstart.pseudolabels import parts
from headstart.pseudolabels.parts import Parts
from headstart.pseudolabels.search import Found, find_pseudolabels
from headstart.run.stopping import Stopped
from processes import in_processes


def batches() -> list[PixelBatch]:
    """Image 3 cannot be read, 6 stands in for it and comes again; the third has no objects, the last repeats."""
    given = [batch([4, 1]), batch([2, 6]), batch([0, 5], bright=False), batch([6, 7]), batch([4, 6])]
    given[1].skipped.append(("3.jpg", "not an image"))
    return given


def searched(folder: Path, given: Iterator[PixelBatch] | None = None, **more: Any) -> Found:
    """This process's share of what the folder has not."""
    detector: Any = Bright()
    own = Parts(folder) if ranks.first() else None
    first = ranks.from_first(own.batches if own else 0) + ranks.rank()
    given = given or iter(batches()[first :: ranks.world()])
    return find_pseudolabels(
        detector, detector.trunk(), given, 8, SEARCH, device=torch.device("cpu"), parts=own, total=8, **more
    )


def same(found: Found, expected: Found) -> bool:
    pairs = [(tensor, expected.labels.tensors()[name]) for name, tensor in found.labels.tensors().items()]
    return all(torch.equal(one, other) for one, other in [*pairs, (found.searched, expected.searched)])


@pytest.fixture(autouse=True)
def part_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0.0)


@pytest.fixture
def one(tmp_path: Path) -> Found:
    """What one process finds."""
    found = searched(tmp_path / "one")
    assert found.searched.tolist() == [True, True, True, False, True, True, True, True]
    assert found.labels.first.tolist() == [0, 0, 1, 2, 2, 3, 3, 4, 5]
    return found


@pytest.mark.parametrize("number", [2, 3])
def test_what_is_found_is_what_one_process_finds(number: int, one: Found, tmp_path: Path) -> None:
    def work(rank: int) -> tuple[Found, list[Any]]:
        told: list[Any] = []
        return searched(tmp_path / "shared", skip=told.extend, progress=lambda *done: told.append(done)), told

    results = in_processes(number, work, tmp_path)
    assert all(same(found, one) for found, _ in results)
    assert results[0][1] == [(2, 8), ("3.jpg", "not an image"), (4, 8), (6, 8), (8, 8), (8, 8)]
    assert results[1][1] == [], "the first process tells"
    kept = [[path.name for path in sorted((tmp_path / name).iterdir())] for name in ("one", "shared")]
    assert kept[0] == kept[1] == [f"part-{at:06d}.pt" for at in range(5)]


def test_one_that_is_asked_to_stop_stops_all_after_their_batch_and_another_number_goes_on(
    one: Found, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"

    def work(rank: int) -> str:
        asked = iter([None, Stopped("of the second")])
        with pytest.raises(Stopped) as stopped:
            searched(folder, asked=lambda: next(asked) if rank == 1 else None)
        return str(stopped.value)

    assert in_processes(2, work, tmp_path) == ["of the second"] * 2
    assert Parts(folder).batches == 4
    assert all(same(found, one) for found in in_processes(3, lambda _: searched(folder), tmp_path))
    (folder / "part-000001.pt").unlink()
    assert Parts(folder).batches == 1
    assert all(same(found, one) for found in in_processes(2, lambda _: searched(folder), tmp_path))


def test_what_ends_one_ends_all_and_nothing_after_a_gap_is_kept(one: Found, tmp_path: Path) -> None:
    """In the second round the first process has a batch, and the other none that it could bring."""
    folder = tmp_path / "shared"

    def broken() -> Iterator[PixelBatch]:
        yield batches()[1]
        raise RunError("the disk is gone", where="data")

    def work(rank: int) -> str:
        with pytest.raises(RunError) as error:
            searched(folder, broken() if rank == 1 else None)
        return str(error.value)

    assert in_processes(2, work, tmp_path) == ["data: the disk is gone"] * 2
    assert Parts(folder).batches == 3
    assert same(searched(folder), one)


def test_a_part_that_cannot_be_written_ends_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    def work(rank: int) -> str:
        with pytest.raises(Exception) as error:
            searched(tmp_path / "file" / "parts")
        return str(error.value)

    first, second = in_processes(2, work, tmp_path)
    assert first == second
    assert "part-000000.pt" in first


def test_time_that_is_up_ends_all_after_the_same_round(tmp_path: Path) -> None:
    first, second = in_processes(2, lambda _: searched(tmp_path / "shared", seconds=0.0), tmp_path)
    assert same(first, second)
    assert first.searched.nonzero()[:, 0].tolist() == [1, 2, 4, 6]
    again = in_processes(2, lambda _: searched(tmp_path / "shared", seconds=0.0), tmp_path)
    assert same(again[1], first), "nor is more searched when it goes on"


def test_a_process_that_dies_is_noticed(tmp_path: Path) -> None:
    def dies() -> Iterator[PixelBatch]:
        yield batches()[1]
        os._exit(1)

    work: Callable[[int], Any] = lambda rank: searched(tmp_path / "shared", dies() if rank == 1 else None)  # noqa: E731
    with pytest.raises(AssertionError, match=r"(?i)connection (closed|reset) by peer"):
        in_processes(2, work, tmp_path)
    assert Parts(tmp_path / "shared").batches == 3
