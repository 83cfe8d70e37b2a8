from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest

from headstart.images import index_cache
from headstart.images.finder import Finder
from headstart.images.index import ImageIndex, find_images


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "FEWEST", 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("a/1.jpg", "a/2.png", "b/c/3.jpg", "b/4.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Make everything below `folder` look as if it had been left alone for a minute."""
    then = time.time() - 60
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() or path.suffix in (".txt", ".yaml"):
            os.utime(path, (then, then))


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders that are walked from now on."""
    walked: list[str] = []
    plain = Finder._walk

    def walk(self: object, root: str):  # type: ignore[no-untyped-def]
        walked.append(root)
        return plain(self, root)  # type: ignore[arg-type]

    monkeypatch.setattr(Finder, "_walk", walk)
    return walked


def test_the_second_time_nothing_is_walked_or_written(pictures: Path, tmp_path: Path, walks: list[str]) -> None:
    plain = find_images(pictures)
    walks.clear()
    first = find_images(pictures, tmp_path)
    assert walks == [str(pictures)]
    (file,) = (tmp_path / "index").iterdir()
    written = file.stat().st_mtime_ns
    second = find_images(pictures, tmp_path)
    assert walks == [str(pictures)]
    assert file.stat().st_mtime_ns == written
    for index in (first, second):
        assert list(index) == list(plain)
        assert index.fingerprint() == plain.fingerprint()
        assert (index.sources, index.notes, index.left_out) == (plain.sources, plain.notes, plain.left_out)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "deep"])
def test_changes_are_seen(pictures: Path, tmp_path: Path, change: str) -> None:
    before = list(find_images(pictures, tmp_path))
    if change == "add":
        (pictures / "a" / "9.jpg").touch()
    elif change == "remove":
        (pictures / "a" / "1.jpg").unlink()
    elif change == "rename":
        (pictures / "b" / "4.jpg").rename(pictures / "b" / "5.jpg")
    else:
        (pictures / "b" / "c" / "d").mkdir()
        (pictures / "b" / "c" / "d" / "1.jpg").touch()
    after = list(find_images(pictures, tmp_path))
    assert after == list(find_images(pictures)) != before
    settle(pictures)
    assert list(find_images(pictures, tmp_path)) == after


def test_lists_and_datasets_are_watched(pictures: Path, tmp_path: Path, walks: list[str]) -> None:
    (pictures / "train.txt").write_text("a/1.jpg\na/2.png\nb/4.jpg\nb/c/3.jpg\n")
    (pictures / "val.txt").write_text("a/1.jpg\n")
    (pictures / "set.yaml").write_text("train: train.txt\nval: val.txt\n")
    settle(pictures)
    first = find_images(pictures / "set.yaml", tmp_path)
    assert len(first) == 3
    assert list(ImageIndex.load(next((tmp_path / "index").iterdir())) or []) == list(first)
    (pictures / "val.txt").write_text("")
    assert len(find_images(pictures / "set.yaml", tmp_path)) == 4


def test_what_is_not_kept(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_images(str(pictures / "*" / "*.*"), tmp_path)  # a glob
    (pictures / "a" / "new.jpg").touch()  # a folder that may change within the tick of its time
    find_images(pictures, tmp_path)
    settle(pictures)
    monkeypatch.setattr(index_cache, "FEWEST", 6)
    find_images(pictures, tmp_path)
    assert not (tmp_path / "index").exists()
    (tmp_path / "file").touch()
    monkeypatch.setattr(index_cache, "FEWEST", 3)
    assert len(find_images(pictures, tmp_path / "file")) == 5  # a cache folder that cannot be made


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_damaged_file_is_made_again(pictures: Path, tmp_path: Path, length: int) -> None:
    plain = list(find_images(pictures, tmp_path))
    (file,) = (tmp_path / "index").iterdir()
    file.write_bytes(file.read_bytes()[:length])
    assert list(find_images(pictures, tmp_path)) == plain
    assert ImageIndex.load(file) is not None


def test_workers_get_the_file_and_not_the_paths(pictures: Path, tmp_path: Path) -> None:
    index = find_images(pictures, tmp_path)
    data = pickle.dumps(index)
    assert b"1.jpg" not in data
    assert list(pickle.loads(data)) == list(index)
    plain = find_images(pictures)
    assert list(pickle.loads(pickle.dumps(plain))) == list(plain)


def test_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for name in (b"\xff.jpg", "ä.jpg".encode(), b"new\nline.jpg"):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).touch()
    settle(folder)
    find_images(folder, tmp_path)
    assert list(find_images(folder, tmp_path)) == list(find_images(folder))


@pytest.mark.parametrize(
    "head",
    [
        "null",
        "[]",
        "7",
        '{"format": 4, "images": "3", "bytes": 4, "watched": {}}',
        '{"format": 4, "images": 1, "bytes": 4, "watched": null}',
        '{"format": 4, "images": 1e99, "bytes": 4, "watched": {}}',
    ],
)
def test_a_head_of_other_values_is_no_index(tmp_path: Path, head: str) -> None:
    (tmp_path / "index").write_text(f"{head}\n")
    assert index_cache.load(tmp_path / "index") is None
