"""Images that a glob names."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.images.index import find_images
from headstart.jobs.prepare import prepare


def test_a_relative_glob_in_a_folder_with_brackets(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proj [1]/imgs/deep").mkdir(parents=True)
    for place, name in enumerate(("imgs/a.jpg", "imgs/deep/b.jpg")):
        (tmp_path / "proj [1]" / name).write_bytes(sorted(image_folder.glob("*.jpg"))[place].read_bytes())
    monkeypatch.chdir(tmp_path / "proj [1]")
    given = {"model": "yolo11n.yaml", "method": "dino", "steps": 1, "batch": 2, "device": "cpu"}
    for pattern, number in (("imgs/*.jpg", 1), ("imgs/**/*.jpg", 2), ("./i*/*.jpg", 1)):
        assert len(find_images(pattern)) == number
        assert len(prepare({**given, "data": pattern}).images) == number
