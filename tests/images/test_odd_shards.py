"""Shards as other tools write them, and as they are cut: nothing is lost without a word, nothing is made up."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import packs
from headstart.errors import UserError
from headstart.images import catalog, shards
from headstart.images.decode import read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import label_path, read_labels
from headstart.images.members import split
from headstart.jobs.export_labels import file_names
from headstart.jobs.labelled import given_labels

BOX = b"0 .5 .5 .2 .2\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "_known", {})
    monkeypatch.setattr(catalog, "_folders", [])


def names(index: ImageIndex) -> list[str]:
    return [member.name for path in index if (member := split(path))]


def test_what_macos_adds_is_no_image(tmp_path: Path) -> None:
    members = {"._1.png": b"\0\5\x16\7", "1.png": packs.picture(1), "__MACOSX/a/._2.png": b"x", ".trash/3.png": b"x"}
    for path in (packs.tar(tmp_path / "a.tar", members), packs.zipped(tmp_path / "b.zip", members)):
        index = find_images(path)
        assert names(index) == ["1.png"]
        assert index.skipped == []
        assert index.notes == (f"{path.name}: 1 images",)


def test_labels_that_are_cut_off_are_not_labels_that_lack(tmp_path: Path) -> None:
    members = {"1.png": packs.picture(1), "1.txt": BOX, "2.png": packs.picture(2), "2.txt": BOX * 60}
    path = packs.tar(tmp_path / "a.tar", members)
    with tarfile.open(path) as file:
        last = file.getmember("2.txt").offset_data
    path.write_bytes(path.read_bytes()[: last + 100])
    index = find_images(path)
    assert names(index) == ["1.png", "2.png"]
    assert index.skipped == [(f"{path}/2.txt", "truncated: the shard ends in the midst of it")]
    found = read_labels(label_path(f"{path}/2.png"))
    assert found.dropped  # as an image without labels it would be taught as one without objects
    assert "truncated" in str(found.problems[0])
    assert not read_labels(label_path(f"{path}/1.png")).dropped
    path = packs.tar(tmp_path / "b.tar", {"1.png": packs.picture(1), "1.bin": bytes(5000)})
    path.write_bytes(path.read_bytes()[:-12_000])
    assert find_images(path).skipped == [(str(path), "truncated: it ends in the midst of a member")]


def test_what_follows_the_end_of_a_tar_is_said(tmp_path: Path) -> None:
    one = packs.tar(tmp_path / "1.tar", {"1.png": packs.picture(1)})
    two = packs.tar(tmp_path / "2.tar", {"2.png": packs.picture(2)})
    (tmp_path / "both.tar").write_bytes(one.read_bytes() + two.read_bytes())
    index = find_images(tmp_path / "both.tar")
    assert names(index) == ["1.png"]
    assert [path for path, why in index.skipped if "more follows after its end mark" in why] == [
        str(tmp_path / "both.tar")
    ]
    assert find_images(one).skipped == []


def test_links_are_listed(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {"1.png": packs.picture(1)})
    with tarfile.open(path, "a") as file:
        for name, kind in (("soft.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("folder", tarfile.SYMTYPE)):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "elsewhere.png"
            file.addfile(about)
    assert find_images(path).skipped == [
        (f"{path}/soft.png", "a symbolic link: pack what it leads to (tar --dereference)"),
        (f"{path}/hard.png", "a hard link to what is no file of the tar"),
    ]
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packs.zipped(tmp_path / "b.zip", {"1.png": packs.picture(1)}), "a") as file:
        file.writestr(link, "1.png")
    assert find_images(tmp_path / "b.zip").skipped == [(f"{tmp_path}/b.zip/link.png", "a link: pack what it leads to")]


@pytest.mark.parametrize("system", [0, 3])
def test_backslashes_of_windows_are_folders(tmp_path: Path, system: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (("images\\a\\1.png", packs.picture(1)), ("labels\\a\\1.txt", BOX), ("images\\a\\", b"")):
            about = zipfile.ZipInfo("x")
            about.filename, about.create_system = name, system
            file.writestr(about, data)
    index = find_images(path)
    image = f"{path}/images/a/1.png" if system == 0 else f"{path}/images\\a\\1.png"  # of Unix it is a letter
    assert list(index) == [image]
    assert np.array_equal(read_image(image), packs.pixels(packs.picture(1)))
    assert len(read_labels(label_path(image)).rows) == (1 if system == 0 else 0)


def test_what_is_there_in_place_of_images_is_said(tmp_path: Path) -> None:
    packs.tar(tmp_path / "a.tar", {"1.json": b"{}", "2.json": b"{}", "in.tar": b"x", "1.gif": b"GIF89a"})
    with pytest.raises(UserError) as error:
        find_images(tmp_path / "a.tar")
    assert "members of shards that are no images: 2 .json, 1 .tar" in error.value.what
    assert "passed over in shards, for Ultralytics does not train on such files: 1 .gif" in error.value.what


@pytest.mark.parametrize(
    ("braces", "wanted"),
    [("{a..c}", "abc"), ("{c..a}", "abc"), ("{a..e..2}", "ace"), ("{b,d}", "bd"), ("{e..a..3}", "be")],
)
def test_braces_are_those_of_a_shell(tmp_path: Path, braces: str, wanted: str) -> None:
    for letter in "abcde":
        packs.tar(tmp_path / f"{letter}.tar", {f"{letter}.png": packs.picture(1)})
    assert "".join(name[0] for name in names(find_images(f"{tmp_path}/{braces}.tar"))) == wanted


def test_numbers_in_braces_may_have_a_step(tmp_path: Path) -> None:
    for number in range(9):
        packs.tar(tmp_path / f"{number:02d}.tar", {f"{number}.png": packs.picture(1)})
    assert names(find_images(f"{tmp_path}/{{00..08..3}}.tar")) == ["0.png", "3.png", "6.png"]


def test_patterns_in_datasets_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        packs.tar(tmp_path / f"d/s/{number}.tar", {f"{number}.png": packs.picture(number), f"{number}.txt": BOX})
    monkeypatch.chdir(tmp_path)  # where Ultralytics looks first for a relative path
    for part in ("s/{0..3}.tar", "s/*.tar"):
        (tmp_path / "d/a.yaml").write_text(f"path: .\ntrain: {part}\nval: 's/{{1..2}}.tar'\nnames: [a]\n")
        assert names(find_images("d/a.yaml")) == ["0.png", "3.png"]
    (tmp_path / "d/list.txt").write_text("s/{2..3}.tar\n")
    assert names(find_images("d/list.txt")) == ["2.png", "3.png"]
    (tmp_path / "here.txt").write_text("d/s/1.tar/1.png\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "here.txt").rename(tmp_path / "lists/here.txt")  # whose names begin in the working folder
    read_image(find_images("lists/here.txt").path(0))
    with (tmp_path / "lists/here.txt").open("r+") as file:  # as `ls` wrote it, before the first was removed
        file.write("d/gone.png\nd/s/1.tar/1.png\n")
    read_image(find_images("lists/here.txt").path(1))


def test_members_that_are_held_out_are_not_learnt_from(tmp_path: Path) -> None:
    packs.tar(tmp_path / "a.tar", {f"{number}.png": packs.picture(number) for number in range(4)})
    packs.tar(tmp_path / "b.tar", {"b.png": packs.picture(5)})
    (tmp_path / "val.txt").write_text("a.tar/1.png\na.tar/3.png\n")
    (tmp_path / "a.yaml").write_text("train: [a.tar, b.tar]\nval: val.txt\nnames: [a]\n")
    index = find_images(tmp_path / "a.yaml")
    assert names(index) == ["0.png", "2.png", "b.png"]
    assert index.left_out == 2
    (tmp_path / "train.txt").write_text("a.tar/1.png\nb.tar/b.png\n")
    (tmp_path / "b.yaml").write_text("train: train.txt\nval: a.tar\nnames: [a]\n")
    assert names(find_images(tmp_path / "b.yaml")) == ["b.png"]


def test_what_is_held_out_at_an_address_is_not_learnt_from(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    for number in range(3):
        path = packs.tar(tmp_path / f"{number}.tar", {f"{number}.png": packs.picture(number)})
        fsspec.filesystem("memory").pipe_file(f"/held/{number}.tar", path.read_bytes())
    for part in ("memory://held/2.tar", "memory://held/{1..2}.tar"):
        (tmp_path / "a.yaml").write_text(f"train: 'memory://held/{{0..2}}.tar'\nval: '{part}'\nnames: [a]\n")
        wanted = ["0.png", "1.png"] if part.endswith("/2.tar") else ["0.png"]
        assert names(find_images(tmp_path / "a.yaml")) == wanted


def test_an_address_is_one_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = type(fsspec.filesystem("memory"))
    kinds = type("Kinds", (memory,), {"protocol": ("s3", "s3a"), "root_marker": "/", "store": {}, "pseudo_dirs": [""]})
    kinds._strip_protocol = classmethod(lambda _, path: "/" + path.rpartition("://")[2].strip("/"))
    for kind in ("s3", "s3a"):
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, kind, kinds)
    for number in range(3):
        path = packs.tar(tmp_path / f"{number}.tar", {f"{number}.png": packs.picture(number)})
        kinds().pipe_file(f"/held/{number}.tar", path.read_bytes())
    assert sorted(names(find_images(["s3a://held/{0..1}.tar", "s3://held/{1..2}.tar"]))) == ["0.png", "1.png", "2.png"]
    (tmp_path / "a.yaml").write_text("train: 's3a://held/{0..2}.tar'\nval: s3://held/2.tar\nnames: [a]\n")
    assert names(find_images(tmp_path / "a.yaml")) == ["0.png", "1.png"]


def test_labels_of_another_form_are_named(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {"1.png": packs.picture(1), "1.json": b'{"boxes": []}'})
    (tmp_path / "a.yaml").write_text("train: a.tar\nnames: [a]\n")
    with pytest.raises(UserError) as error:
        given_labels(str(tmp_path / "a.yaml"), find_images(tmp_path / "a.yaml"))
    assert error.value.hint == (
        f"expected {path}/1.txt for {path}/1.png; {path}/1.json is not read, for there is no common form of such "
        "labels: write a .txt for each image (a line for each object: class x y width height, as shares of the sides), "
        "and pack both into shards anew"
    )


def test_names_that_no_file_may_have_are_cut(tmp_path: Path) -> None:
    long = [f"/a.tar/{part}/{'ü' * 200}.jpg" for part in range(3)]
    found = file_names([*long, "/b.tar/x.jpg"])
    assert len(set(found)) == 4
    for name in found:
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").touch()


def test_very_many_images_of_one_name() -> None:
    found = file_names([f"/{number}/rgb.png" for number in range(20_000)])
    assert len(set(found)) == 20_000
    assert found[:3] == ["rgb.png", "rgb-2.png", "rgb-3.png"]


def kept_table(shard: Path, at: Path) -> tuple[dict[str, Any], bytes, catalog.Stamp]:
    """What is kept of a shard: what the file says of itself, the rest of its bytes, and the shard's stamp."""
    shards.table_of(str(shard), names=True).write(at)
    head, _, rest = at.read_bytes().partition(b"\n")
    return json.loads(head), rest, shards.stamp_of(str(shard))


@pytest.mark.parametrize(
    "claim",
    [
        {"members": 10**10},  # 80 GB would be asked for
        {"members": 2**62},
        {"members": 10**18, "columns": -1},
        {"members": -1},
        {"bytes": 10**18},
        {"bytes": float("inf")},
        {"twice": float("inf")},
        {"stamp": None},
    ],
)
def test_a_table_is_believed_as_far_as_its_file_goes(tmp_path: Path, claim: dict[str, Any]) -> None:
    """A stranger's shards bring their tables along."""
    path = packs.tar(tmp_path / "a.tar", {"1.png": packs.picture(1)})
    head, rest, stamp = kept_table(path, tmp_path / "table")

    def read(head: dict[str, Any], rest: bytes) -> catalog.Catalog | None:
        data = io.BytesIO(json.dumps(head).encode() + b"\n" + rest)
        return catalog.Catalog.read(data, str(path), stamp, names=True)

    assert read(head, rest) is not None
    assert read(head | claim, rest) is None
    assert read({"a": 1}, rest) is None
    assert catalog.Catalog.read(io.BytesIO(b"[" * 10**6), str(path), stamp, names=True) is None


def test_a_table_leads_to_bytes_of_its_shard(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {"1.png": packs.picture(1), "2.png": packs.picture(2)})
    head, rest, stamp = kept_table(path, tmp_path / "table")
    head.pop("crc32")  # as a stranger would
    table = np.frombuffer(rest[16:48], "<i8").reshape(2, 2).copy()
    for row in ((stamp.st_size, 1), (2**62, 2**62), (0, 2**63 - 1), (-1, 5), (5, -1)):  # the second has a sum below 0
        table[1] = row
        data = io.BytesIO(json.dumps(head).encode() + b"\n" + rest[:16] + table.tobytes() + rest[48:])
        assert catalog.Catalog.read(data, str(path), stamp, names=False) is None, row


@pytest.mark.parametrize("name", ["../../b.png", "/b.png", "a/./b.png", "a//b.png", "b.png/.."])
def test_names_of_a_table_lead_nowhere(tmp_path: Path, name: str) -> None:
    path = packs.tar(tmp_path / "a.tar", {"..b./.1..png": packs.picture(1), "x" * len(name): packs.picture(2)})
    head, rest, stamp = kept_table(path, tmp_path / "table")
    good = io.BytesIO(json.dumps(head).encode() + b"\n" + rest)
    assert catalog.Catalog.read(good, str(path), stamp, names=True) is not None
    rest = rest.replace(b"x" * len(name), name.encode())
    head.pop("crc32")  # as a stranger would
    bad = io.BytesIO(json.dumps(head).encode() + b"\n" + rest)
    assert catalog.Catalog.read(bad, str(path), stamp, names=True) is None
