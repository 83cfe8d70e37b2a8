from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_search import Bright, batch

from headstart.images.loader import PixelBatch
from headstart.pseudolabels import parts
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.parts import Objects, Parts
from headstart.pseudolabels.search import Search, find_pseudolabels

SEARCH = Search(imgsz=160, max_objects=2, min_score=0.5, max_area=0.5, clusters=2, components=1, seed=0)


def batches() -> list[PixelBatch]:
    """Eight images, the second batch without any object, the last one filled up with images that came before."""
    return [batch([4, 1]), batch([2, 3], bright=False), batch([0, 5]), batch([6, 7]), batch([4, 6])]


def searched(folder: Path | None, given: list[PixelBatch] | Iterator[PixelBatch]) -> PseudoLabels:
    detector: Any = Bright()
    found = find_pseudolabels(
        detector, detector.trunk(), given, 8, SEARCH, device=torch.device("cpu"), parts=Parts(folder)
    )
    assert found.searched.all()
    return found.labels


@pytest.mark.parametrize("killed", range(6))
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_killed_search_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int, seconds: float
) -> None:
    """Before each batch, and after the last: with a part a batch, or none but the last."""
    monkeypatch.setattr(parts, "SECONDS", seconds)
    expected = searched(None, batches())

    def until() -> Iterator[PixelBatch]:
        yield from batches()[:killed]
        raise SystemExit

    with pytest.raises(SystemExit):
        searched(tmp_path, until())
    done = Parts(tmp_path).batches
    assert done == (killed if seconds == 0 else 0)
    found = searched(tmp_path, batches()[done:])
    assert all(torch.equal(tensor, found.tensors()[name]) for name, tensor in expected.tensors().items())


def test_a_part_is_made_when_memory_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four objects of 8 float16 are 64 bytes."""
    monkeypatch.setattr(parts, "BYTES", 64)
    written: list[int] = []
    made = Parts(tmp_path, lambda: written.append(made.batches))
    for number in range(5):
        rows = torch.tensor([2 * number, 2 * number + 1])
        made.add(Objects(rows, torch.rand(2, 4), torch.rand(2), torch.rand(2, 8).half()), rows, 2)
    assert written == [2, 4]
    again = Parts(tmp_path)
    assert (again.batches, again.images) == (4, 8)
    assert again.looked().tolist() == list(range(8))
    found, expected = Objects.joined(again.found()), Objects.joined(made.found())
    assert all(torch.equal(one, other[:8]) for one, other in zip(found, expected, strict=True))
    made.finish()
    assert (Parts(tmp_path).batches, len(list(tmp_path.iterdir()))) == (5, 3)
    made.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_part_is_searched_again_with_all_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    expected = searched(tmp_path, batches())
    path = tmp_path / "part-000002.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "bit" else content[:100])
    if damage == "gone":
        path.unlink()
    again = Parts(tmp_path)
    assert again.batches == 2
    assert again.damaged.startswith("part-000003.pt" if damage == "gone" else "part-000002.pt")
    assert {one.name for one in tmp_path.iterdir()} == {"part-000000.pt", "part-000001.pt"}
    found = searched(tmp_path, batches()[2:])
    assert all(torch.equal(tensor, found.tensors()[name]) for name, tensor in expected.tensors().items())


def test_seconds_of_all_processes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget bounds the search as a whole: once it is over no further batch is searched."""
    now = [100.0]
    monkeypatch.setattr(parts.time, "monotonic", lambda: now[0])
    first = Parts(tmp_path)
    now[0] += 7
    first.add(None, torch.tensor([3]), 1)
    first.finish()
    now[0] += 1000  # not at work
    second = Parts(tmp_path)
    now[0] += 5
    assert second.seconds == 12
