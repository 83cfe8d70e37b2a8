"""What only a GPU, or several processes, would show, as far as stand-ins tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from headstart import machine, ranks
from headstart.images.index import find_images
from headstart.images.readers import DeviceReader
from headstart.jobs import batch, labelled
from headstart.launch import random_state
from headstart.training.memory import Memory

GIB = 2**30


class Sent:
    """Stands in for a tensor: notes how it is sent."""

    def to(self, device: torch.device, *, non_blocking: bool) -> tuple[str, bool]:
        return device.type, non_blocking


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("mps", True), ("cuda:1", False)])
def test_a_copy_is_waited_for_but_on_cuda(device: str, waits: bool) -> None:
    sent: Any = Sent()
    assert machine.sent(sent, torch.device(device)) == (device.partition(":")[0], not waits)


def test_alone_torch_knows_of_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of lightly's ask it by themselves, and would wait for processes that do something else."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with ranks.alone():
        assert not dist.is_initialized()
        with ranks.alone():
            assert not dist.is_initialized()
        assert not dist.is_initialized()
    assert dist.is_initialized()


@pytest.mark.parametrize("area", [64 * 64, 65 * 64])
def test_what_lies_on_a_device_is_read_by_the_process_that_holds_it(
    area: int, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Loader:
        def __init__(self, *_: Any, workers: int, **__: Any) -> None:
            asked.append(workers)
            raise InterruptedError

    monkeypatch.setattr(labelled, "ImageLoader", Loader)
    images = find_images(str(image_folder))
    reader = labelled.RowReader(images, workers=3, area=64 * 64)
    reader.reader = DeviceReader(len(images), torch.device("cpu"), 2**20)
    with pytest.raises(InterruptedError):
        next(iter(reader([0, 1], area)))
    assert asked == [0 if area == 64 * 64 else 3], "larger ones are read from files, by any process"


def test_the_peak_of_a_larger_batch_is_not_that_of_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1.2 GiB an image, with room for 7: four fit, eight do not."""
    taken = {"peak": 2.0 * GIB, "now": 2.0 * GIB}

    class Trial:
        def __init__(self, *_: Any) -> None: ...

        def __call__(self, images: int) -> int:
            taken["peak"] = max(taken["peak"], taken["now"] + 1.2 * GIB * images)
            return 0

    def forget(device: torch.device) -> None:
        taken["peak"] = taken["now"]

    monkeypatch.setattr(batch, "_Trial", Trial)
    monkeypatch.setattr(batch, "_peak", lambda device: int(taken["peak"]))
    monkeypatch.setattr(batch, "_forget_peak", forget)
    monkeypatch.setattr(batch, "_forks", lambda device: True)
    job: Any = None
    tried = batch._here(job, torch.device("cpu"), 64, 7 * GIB)
    assert {images: round((needed or 0) / GIB, 1) for images, needed in tried.items()} == {8: 9.6, 4: 4.8}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux has it")
def test_the_peak_of_memory_is_forgotten_on_a_cpu() -> None:
    batch._forget_peak(torch.device("cpu"))  # of the tests before this one
    before = machine.memory_peak()
    large = bytearray(256 * 2**20)
    large[:: 2**12] = b"\1" * len(large[:: 2**12])
    most = machine.memory_peak()
    del large
    batch._forget_peak(torch.device("cpu"))
    assert most - before > 200 * 2**20 > machine.memory_peak() - before


def test_what_was_tried_before_a_run_is_not_in_use_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"peak": 23 * GIB}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: taken.update(peak=GIB))
    assert Memory(torch.device("cuda"), 64, 224).base == GIB
    assert taken["peak"] == GIB


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_the_random_numbers_are_those_of_the_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Module:
        @staticmethod
        def get_rng_state(*which: Any) -> torch.Tensor:
            asked.append(which)
            return torch.zeros(1)

        @staticmethod
        def set_rng_state(state: torch.Tensor, *which: Any) -> None:
            asked.append(which)

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    with random_state.kept_random_state(torch.device(device)):
        pass
    assert asked == [(torch.device(device),) if device == "cuda:1" else ()] * 2
