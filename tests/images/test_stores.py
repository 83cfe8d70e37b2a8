from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart import cli
from headstart.images import stores
from headstart.images.cache import Cache, open_cache
from headstart.images.index import find_images

needs_locks = pytest.mark.skipif(stores.fcntl is None, reason="needs the locks of Unix")


def used(images: Path, parent: Path, max_area: int | None = None) -> Cache:
    """A store with all images in it, open."""
    cache = open_cache("disk", find_images(str(images)), max_area, folder=parent)
    for row in range(len(cache.store or ())):
        cache.reader.read(row)
    return cache


def aged(store: Path, days: float) -> None:
    then = time.time() - days * 86_400
    for file in store.iterdir():
        os.utime(file, (then, then))


@pytest.fixture
def other(image_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(image_folder, tmp_path / "other [images]"))


def test_what_is_kept_is_listed_and_cleared(
    image_folder: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = tmp_path / "cache"
    (parent / "mine").mkdir(parents=True)
    (parent / "mine" / "thesis.tex").write_text("mine")
    assert cli.main(["cache", f"cache_dir={parent}"]) == 0
    assert capsys.readouterr().out == f"{parent}: 0 stores of decoded images, 0.0 MiB\n"
    large, small = used(image_folder, parent), used(other, parent, 900)
    large.close()
    small.close()
    (first, second) = stores.kept(parent)
    assert (first.sources, first.max_area) == ((str(image_folder),), None)
    assert (second.sources, second.max_area) == ((str(other),), 900)
    pixels = sum(path.stat().st_size for path in first.path.glob("*.pixels"))
    assert pixels <= first.bytes < pixels + 2**16
    assert cli.main(["cache", f"cache_dir={parent}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{parent}: 2 stores of decoded images, ")
    assert lines[1].endswith(f"  {image_folder}, used 0 days ago, in {first.path.name}")
    assert lines[2].endswith(f"  {other}, at most 900 pixels each, used 0 days ago, in {second.path.name}")
    aged(second.path, 8)
    assert cli.main(["cache", f"cache_dir={parent}", "clear=true", "unused=7"]) == 0
    assert [one.path for one in stores.kept(parent)] == [first.path]
    assert cli.main(["cache", f"cache_dir={parent}", "clear=true"]) == 0
    assert "removed 1 stores of decoded images" in capsys.readouterr().out
    assert [path.name for path in parent.iterdir()] == ["mine"]


@needs_locks
def test_a_store_in_use_is_never_removed(
    image_folder: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is that of another process."""
    used(image_folder, tmp_path / "cache").close()
    (one,) = stores.kept(tmp_path / "cache")
    code = (
        "import sys; from pathlib import Path; from headstart.images import stores; from headstart.images.index import "
        f"find_images; file = stores.use(Path({str(one.path)!r}), find_images({str(image_folder)!r}), None); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    aged(one.path, 99)
    assert cli.main(["cache", f"cache_dir={tmp_path / 'cache'}", "clear=true"]) == 0
    assert f"{one.path} stays: a run uses it" in capsys.readouterr().out
    assert "removed" not in used(other, tmp_path / "cache").why
    process.communicate("")
    assert "; 1 unused for 30 days removed, " in used(other, tmp_path / "cache").why
    assert not one.path.exists()


def test_a_store_that_is_used_again_is_as_new(image_folder: Path, other: Path, tmp_path: Path) -> None:
    parent = tmp_path / "cache"
    for images in (image_folder, other):
        used(images, parent).close()
    first, second = stores.kept(parent)
    aged(first.path, 31)
    aged(second.path, 31)
    (second.path / stores.ABOUT).unlink()  # of an older version
    assert [round(one.days) for one in stores.kept(parent)] == [31, 31]
    again = used(image_folder if first.sources == (str(image_folder),) else other, parent)
    assert "24 of 24 images are there already" in again.why
    assert [one.path for one in stores.kept(parent)] == [first.path]


def test_a_store_that_goes_while_it_is_looked_at_is_no_fault(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(image_folder, tmp_path).close()
    (folder,) = stores._stores(tmp_path)
    monkeypatch.setattr(stores, "_stores", lambda parent: iter([folder]))
    shutil.rmtree(folder)  # by another process
    assert [(one.path, one.bytes) for one in stores.kept(tmp_path)] == [(folder, 0)]
