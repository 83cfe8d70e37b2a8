"""A run on shards at an address reads few of them at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

import packs
from headstart.images.loader import ImageLoader
from headstart.images.stream import WINDOW
from headstart.jobs import pretrain as at_work

SHARDS, EACH, BATCH = 3 * WINDOW, 2, 4


def test_images_come_from_a_window_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = fsspec.filesystem("memory")
    for number in range(SHARDS):
        members = {f"{image}.png": packs.picture(EACH * number + image) for image in range(EACH)}
        there.pipe(f"/windows/{number:02d}.tar", packs.tar(tmp_path / f"{number:02d}.tar", members).read_bytes())
    read: list[str] = []

    class Watched(ImageLoader):
        def __init__(self, index: Any, *given: Any, **more: Any) -> None:
            super().__init__(index, *given, **more)
            steps = WINDOW * EACH // BATCH  # as many as the images of one window make
            read.extend(index.path(row) for step in range(steps) for row in more["stream"].rows(step))

    monkeypatch.setattr(at_work, "ImageLoader", Watched)
    at_work.pretrain(
        data=f"memory://windows/{{00..{SHARDS - 1}}}.tar", model="yolo11n.yaml", method="simclr", steps=1, batch=BATCH,
        imgsz=32, workers=0, cache="off", device="cpu", report=False, probe_every=0, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert len(set(read)) == WINDOW * EACH
    assert len({path.rsplit("/", 1)[0] for path in read}) <= WINDOW + 1  # the number of what lies here may share one
