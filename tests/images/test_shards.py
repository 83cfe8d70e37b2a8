"""Shards on this machine: their members are images, wherever they lie, and whatever is wrong with others."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import packs
from headstart.errors import UserError
from headstart.images import catalog, index_cache, shards
from headstart.images.cache import open_cache
from headstart.images.decode import DecodeError, read_image
from headstart.images.frames import file_of
from headstart.images.index import ImageIndex, find_images
from headstart.images.labels import label_path, read_labels
from headstart.images.loader import ImageLoader
from headstart.images.members import Member, clean, key_of, split

LONG = {
    "a b.png": 1,
    "ü/日本.png": 2,
    "new\nline.png": 3,
    "d/" * 30 + "x" * 80 + ".png": 4,
    "y" * 180 + ".png": 5,
    "-rf.png": 6,
}


def names(index: ImageIndex) -> list[str]:
    return [member.name for path in index if (member := split(path))]


def refused(data: object, **more: bool) -> UserError:
    with pytest.raises(UserError) as error:
        find_images(data, **more)  # type: ignore[arg-type]
    return error.value


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "_known", {})
    monkeypatch.setattr(catalog, "_folders", [])


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_a_tar_are_images_whatever_they_are_called(tmp_path: Path, kind: int) -> None:
    wanted = {name: number for name, number in LONG.items() if kind != tarfile.USTAR_FORMAT or len(name) < 100}
    if kind == tarfile.USTAR_FORMAT:  # which has 155 bytes for folders, and 100 for the rest
        wanted["d/" * 40 + "x" * 80 + ".png"] = 7
    path = packs.tar(tmp_path / "a.tar", {name: packs.picture(number) for name, number in wanted.items()}, kind)
    index = find_images(path)
    assert sorted(names(index)) == sorted(wanted)
    for one in index:
        assert file_of(one) == str(path)
        assert np.array_equal(read_image(one), packs.pixels(packs.picture(wanted[split(one).name])))  # type: ignore[union-attr]
    assert index.notes == (f"a.tar: {len(wanted)} images",)
    assert index.skipped == []


def test_where_members_lie_is_what_tarfile_says(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {name: packs.picture(number) for name, number in LONG.items()})
    table = shards.table_of(str(path))
    with tarfile.open(path) as file:
        for one in file:
            assert table.find(one.name) == catalog.Place(one.offset_data, one.size, one.size)
    assert table.find("a b") is None


def test_zips_stored_and_deflated(tmp_path: Path) -> None:
    path = packs.zipped(tmp_path / "a.zip", {"s.png": packs.picture(1), "t/ü.png": packs.picture(2)})
    packs.zipped(path, {"d.png": packs.picture(3), "readme.md": b"text", "folder/": b""}, zipfile.ZIP_DEFLATED)
    packs.zipped(path, {"b.png": packs.picture(4)}, zipfile.ZIP_BZIP2)
    index = find_images(str(path))
    assert names(index) == ["d.png", "s.png", "t/ü.png"]
    for one, number in zip(index, (3, 1, 2), strict=True):
        assert np.array_equal(read_image(one), packs.pixels(packs.picture(number)))
    assert index.skipped == [(f"{path}/b.png", "packed by method 12: pack it stored or deflated")]
    assert "members of shards that are no images: 1 .md" in index.notes
    data = bytearray(path.read_bytes())
    data[data.index(packs.picture(1)) + 60] ^= 1  # a byte of the stored one
    path.write_bytes(data)
    os.utime(path, (1, 1))
    with pytest.raises(DecodeError, match="damaged zip: its bytes are not those that were packed"):
        read_image(f"{path}/s.png")
    path.write_bytes(data[:-30])
    assert "not a zip file, or truncated" in str(refused(path))


def test_names_lead_nowhere(tmp_path: Path) -> None:
    bad = {"../../up.png": 1, "/etc/abs.png": 2, "./here.png": 3, "a/../b.png": 4, "..": 5}
    path = packs.tar(tmp_path / "in/a.tar", {name: packs.picture(number) for name, number in bad.items()})
    before = sorted(tmp_path.rglob("*"))
    index = find_images(path)
    assert names(index) == ["%2E%2E/%2E%2E/up.png", "a/%2E%2E/b.png", "etc/abs.png", "here.png"]
    for one in index:
        assert os.path.normpath(one) == one
        assert one.startswith(str(path) + "/")
        read_image(one)
        Member(str(path), split(one).name)  # type: ignore[union-attr]
    assert sorted(one for one in tmp_path.rglob("*") if "cache" not in one.parts) == before
    assert clean("a\0b.png") == "a%00b.png"


def test_links_and_other_things_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    data = packs.picture(1)
    with tarfile.open(path, "w") as file:
        for name, kind, target in (
            ("folder.png", tarfile.DIRTYPE, ""),
            ("a.png", tarfile.REGTYPE, ""),
            ("hard.png", tarfile.LNKTYPE, "a.png"),
            ("lost.png", tarfile.LNKTYPE, "/etc/passwd"),
            ("soft.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("z.png", tarfile.REGTYPE, ""),
        ):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, target
            about.size = len(data) if kind == tarfile.REGTYPE else 0
            file.addfile(about, io.BytesIO(data) if about.size else None)
    index = find_images(path)
    assert names(index) == ["a.png", "hard.png", "z.png"]
    for one in index:
        assert np.array_equal(read_image(one), packs.pixels(data))


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {"a.png": packs.picture(1)})
    with tarfile.open(path, "a") as file:
        about = tarfile.TarInfo("./a.png")
        about.size = len(packs.picture(2))
        file.addfile(about, io.BytesIO(packs.picture(2)))
    index = find_images(path)
    assert np.array_equal(read_image(index.path(0)), packs.pixels(packs.picture(2)))
    assert index.notes[1].startswith("1 members of shards have the name of a later one")


def test_of_a_truncated_tar_what_is_there_is_used(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {f"{n}.png": packs.picture(n) for n in range(4)})
    with tarfile.open(path) as file:
        places = [one.offset_data for one in file]
    whole = path.read_bytes()
    path.write_bytes(whole[: places[2] + 100])
    index = find_images(path)
    assert names(index) == ["0.png", "1.png"]
    assert index.skipped == [(f"{path}/2.png", "truncated: the shard ends in the midst of it")]
    assert index.notes[-1].startswith("1 shards or members of shards cannot be used: ")
    path.write_bytes(whole[: places[2] - 512])
    found = find_images(path)
    assert names(found) == ["0.png", "1.png"]
    assert found.skipped[0][1].startswith(f"truncated: it ends at byte {places[2] - 512:,} without an end mark")
    path.write_bytes(whole[: places[2] - 512] + b"\x01" + whole[places[2] - 511 :])
    found = find_images(path)
    assert names(found) == ["0.png", "1.png"]
    assert "the checksum of a header is wrong" in found.skipped[0][1]


def test_bad_shards_are_listed_and_others_used(tmp_path: Path) -> None:
    packs.tar(tmp_path / "good.tar", {"a.png": packs.picture(1)})
    packs.tar(tmp_path / "none.tar", {})
    (tmp_path / "empty.tar").touch()
    (tmp_path / "text.tar").write_text("no tar at all" * 100)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("a.png"))
    (tmp_path / "b.tar.gz").write_bytes((tmp_path / "packed.tar").read_bytes())
    index = find_images(tmp_path)
    assert list(index) == [f"{tmp_path}/good.tar/a.png"]
    reasons = {Path(path).name: reason for path, reason in index.skipped}
    assert reasons["empty.tar"] == "empty file"
    assert reasons["text.tar"] == "not a tar file"
    assert reasons["packed.tar"].startswith("a compressed tar: its members cannot be read one by one")
    assert any("1 compressed tars, such as b.tar.gz, were passed over" in note for note in index.notes)
    error = refused(tmp_path / "b.tar.gz")
    assert "is a compressed tar" in error.what
    assert "gunzip" in str(error.hint)
    assert "1 shards or their members cannot be read" in refused(tmp_path / "text.tar").what


def test_sparse_members_and_wild_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        sparse = tarfile.TarInfo("s.png")
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "s.png"}
        sparse.size = 10
        file.addfile(sparse, io.BytesIO(b"0" * 10))
        about = tarfile.TarInfo("a.png")
        about.size = len(packs.picture(1))
        file.addfile(about, io.BytesIO(packs.picture(1)))
    index = find_images(path)
    assert names(index) == ["a.png"]
    assert index.skipped == [(f"{path}/s.png", "a sparse member: pack it as an ordinary one")]
    large = tarfile.TarInfo("x")
    large.type, large.size = tarfile.XHDTYPE, 2**40  # a claim of a terabyte of names
    (tmp_path / "b.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert refused(tmp_path / "b.tar").what.startswith("no images found in")
    for claim in (b"-1", b"999999999999999999999", b"0x10"):
        record = b"size=" + claim + b"\n"
        record = str(len(record) + 3).encode() + b" " + record
        held = tarfile.TarInfo("x")
        held.type, held.size = tarfile.XHDTYPE, len(record)
        data = held.tobuf() + record.ljust(512, b"\0") + tarfile.TarInfo("a.png").tobuf() + bytes(1024)
        (tmp_path / "c.tar").write_bytes(data)
        with pytest.raises(UserError, match="no images found"):
            find_images(tmp_path / "c.tar")


def test_bytes_of_any_kind_are_no_traceback(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    good = {
        "a.tar": packs.tar(tmp_path / "a.tar", {name: packs.picture(n) for name, n in LONG.items()}).read_bytes(),
        "a.zip": packs.zipped(tmp_path / "a.zip", {name: packs.picture(n) for name, n in LONG.items()}).read_bytes(),
    }
    outcomes = Counter[str]()
    for round_ in range(60):
        for name, data in good.items():
            changed = np.frombuffer(data, np.uint8).copy()
            heads = np.arange(0, len(changed), 512) if name == "a.tar" else np.arange(len(changed) - 600, len(changed))
            at = random.choice(heads, 3) + (random.integers(0, 512, 3) if name == "a.tar" else 0)
            changed[at.clip(max=len(changed) - 1)] = random.integers(0, 256, 3)
            path = tmp_path / f"{round_}-{name}"
            path.write_bytes(changed.tobytes())
            try:
                for one in find_images(path):
                    try:
                        read_image(one)
                        outcomes["read"] += 1
                    except DecodeError:
                        outcomes["damaged image"] += 1
            except UserError:
                outcomes["no shard"] += 1
    assert min(outcomes[kind] for kind in ("read", "damaged image", "no shard")) > 0, outcomes


# -- which shards -----------------------------------------------------------------------------------------------------


def test_braces_globs_folders_and_lists_name_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        packs.tar(tmp_path / f"s/{number:03d}.tar", {f"{number}.png": packs.picture(number)})
    monkeypatch.chdir(tmp_path)
    every = [f"{tmp_path}/s/{number:03d}.tar/{number}.png" for number in range(12)]
    assert list(find_images("s/{000..011}.tar")) == every
    assert list(find_images("s/{011..000}.tar")) == every
    assert list(find_images("s/{002,004}.tar")) == [every[2], every[4]]
    assert list(find_images("s/00[0-3].tar")) == every[:4]
    assert list(find_images("**/00?.tar")) == every[:10]
    assert list(find_images("s")) == every
    (tmp_path / "list.txt").write_text(f"s/003.tar\n{every[5]}\n")
    assert list(find_images("list.txt")) == [every[3], every[5]]
    assert list(find_images(every[7])) == [every[7]]
    error = refused("s/{010..013}.tar")
    assert error.what.startswith("2 of the 4 that s/{010..013}.tar names cannot be used: no such file or folder: s/012")
    assert "more than" in refused("s/{0..9}{0..99999999}.tar").what


def test_shards_beside_images_are_passed_over_unless_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(packs.picture(1))
    packs.zipped(tmp_path / "download.zip", {"a.png": packs.picture(1)})
    index = find_images(tmp_path)
    assert list(index) == [f"{tmp_path}/a.png"]
    assert index.notes[0].startswith(f"1 tar or zip files beside the images in {tmp_path}")
    assert len(find_images([tmp_path, tmp_path / "download.zip"])) == 2


def test_a_folder_may_be_called_like_a_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar/1.png").write_bytes(packs.picture(1))
    index = find_images(tmp_path)
    assert split(index.path(0)) is None
    read_image(index.path(0))


def test_a_dataset_may_name_shards(tmp_path: Path) -> None:
    packs.tar(tmp_path / "t.tar", {"a.png": packs.picture(1), "a.txt": b"0 .5 .5 .2 .2\n", "b.png": packs.picture(2)})
    packs.tar(tmp_path / "v.tar", {"c.png": packs.picture(3)})
    (tmp_path / "d.yaml").write_text("train: [t.tar, v.tar]\nval: v.tar\nnames: [thing]\n")
    assert names(find_images(tmp_path / "d.yaml")) == ["a.png", "b.png"]
    (tmp_path / "e.yaml").write_text("train: '{t,v}.tar'\nval: gone\nnames: [thing]\n")
    assert names(find_images(tmp_path / "e.yaml")) == ["a.png", "b.png", "c.png"]
    error = refused(tmp_path / "t.tar", labelled=True)
    assert "images with labels are read from files here" in error.what


def test_labels_beside_members(tmp_path: Path) -> None:
    path = packs.tar(
        tmp_path / "a.tar",
        {
            "k/1.left.png": packs.picture(1),
            "k/1.txt": b"3 .5 .5 .2 .2\n",
            "images/t/a.v2.png": packs.picture(2),
            "labels/t/a.v2.txt": b"4 .5 .5 .2 .2\n",
            "b.png": packs.picture(3),
        },
    )
    assert [row.label for row in read_labels(label_path(f"{path}/k/1.left.png")).rows] == [3]
    assert [row.label for row in read_labels(label_path(f"{path}/images/t/a.v2.png")).rows] == [4]
    none = read_labels(label_path(f"{path}/b.png"))
    assert (str(none.path), none.rows, none.problems) == (f"{path}/b.txt", (), ())
    assert [key_of(name) for name in ("a/b.c.jpg", "a.b/c", ".x.y")] == ["a/b", "a.b/c", ".x"]


# -- the run ----------------------------------------------------------------------------------------------------------


def batches(data: Path, parent: Path, kind: str, workers: int, steps: int = 6) -> list[torch.Tensor]:
    index = find_images(data)
    with (
        open_cache(kind, index, 900, folder=parent, epochs=9) as cache,  # type: ignore[arg-type]
        ImageLoader(index, batch=4, max_area=900, workers=workers, seed=3, steps=steps, reader=cache.reader) as loader,
    ):
        return [batch.pixels.clone() for batch in loader]


def test_batches_from_shards_are_those_from_files(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    members = {f"{n:02d}.png": packs.picture(n, 40 + n) for n in range(10)}
    for name, data in members.items():
        (tmp_path / "files" / name).write_bytes(data)
    wanted = batches(tmp_path / "files", tmp_path / "x", "off", 0)
    packs.tar(tmp_path / "tars/a.tar", dict(list(members.items())[:6]))
    packs.zipped(tmp_path / "tars/b.zip", dict(list(members.items())[6:]))
    for kind, workers in (("off", 0), ("off", 2), ("disk", 0), ("disk", 2), ("device", 0)):
        found = batches(tmp_path / "tars", tmp_path / "y", kind, workers)
        assert all(torch.equal(one, two) for one, two in zip(wanted, found, strict=True)), (kind, workers)


def test_a_shard_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {"a.png": packs.picture(1), "b.png": packs.picture(2)})
    index = find_images(path)
    first = read_image(index.path(1))
    packs.tar(path, {"c.png": packs.picture(3), "b.png": packs.picture(4)})
    os.utime(path, (5, 5))
    assert np.array_equal(read_image(index.path(1)), packs.pixels(packs.picture(4)))
    assert not np.array_equal(first, packs.pixels(packs.picture(4)))
    with pytest.raises(DecodeError, match="the shard has no such member"):
        read_image(index.path(0))
    path.unlink()
    with pytest.raises(DecodeError, match="no such file"):
        read_image(index.path(0))


def test_the_table_is_kept_and_the_second_start_reads_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "FEWEST", 1)
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    keep = tmp_path / "keep"
    for number in range(3):
        path = packs.tar(tmp_path / f"s/{number}.tar", {f"{n}.png": packs.picture(n) for n in range(3)})
        os.utime(path, (1000 + number, 1000 + number))
    os.utime(tmp_path / "s", (1000, 1000))
    scans: list[str] = []
    real = shards.scan

    def scan(shard: str, *given: object) -> catalog.Catalog:
        scans.append(Path(shard).name)
        return real(shard, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "scan", scan)
    first = find_images(tmp_path / "s", keep=keep)
    assert scans == ["0.tar", "1.tar", "2.tar"]
    for data in (tmp_path / "s", tmp_path / "s/*.tar"):  # the index is kept, and of a glob the tables
        catalog._known.clear()
        again = find_images(data, keep=keep)
        assert list(again) == list(first)
        read_image(again.path(4))
    assert scans == ["0.tar", "1.tar", "2.tar"]
    packs.tar(tmp_path / "s/1.tar", {"other.png": packs.picture(9)})
    os.utime(tmp_path / "s/1.tar", (2000, 2000))
    os.utime(tmp_path / "s", (1000, 1000))
    catalog._known.clear()
    changed = find_images(tmp_path / "s", keep=keep)
    assert names(changed) == ["0.png", "1.png", "2.png", "other.png", "0.png", "1.png", "2.png"]
    assert scans[3:] == ["1.tar"]
    monkeypatch.setattr(catalog, "_known", {})
    monkeypatch.setattr(catalog, "_folders", [])
    copy = pickle.loads(pickle.dumps(changed))  # as a process gets it that was not forked
    read_image(copy.path(0))
    assert scans[4:] == []
    for kept in (keep / "shards").iterdir():  # what is damaged is not believed
        data = kept.read_bytes()
        head, _, rest = data.partition(b"\n")
        kept.write_bytes(head + b"\n" + struct.pack("<q", -1) * (len(rest) // 8))
    catalog._known.clear()
    assert np.array_equal(read_image(copy.path(0)), packs.pixels(packs.picture(0)))
    assert scans[4:] == ["0.tar"]


def test_many_threads_read_one_shard(tmp_path: Path) -> None:
    path = packs.tar(tmp_path / "a.tar", {f"{n}.png": packs.picture(n) for n in range(40)})
    index = find_images(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_image, [*index, *index]))
    wanted = [packs.pixels(packs.picture(int(Path(name).stem))) for name in names(index)]
    assert all(np.array_equal(one, two) for one, two in zip(found, wanted * 2, strict=True))


@pytest.mark.parametrize("members", [10**12, 10**30, -1])
def test_a_kept_table_that_claims_too_much_is_not_believed(members: int) -> None:
    about = {"format": catalog.FORMAT, "stamp": [9, 9], "members": members, "columns": 2, "bytes": 0, "problems": []}
    file = io.BytesIO(json.dumps({**about, "twice": 0}).encode() + b"\n")
    assert catalog.Catalog.read(file, "a.tar", catalog.Stamp(9, 9), names=False) is None


def test_one_flipped_bit_of_a_kept_table_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a member's bytes were looked for elsewhere, and the image was left out as damaged."""
    monkeypatch.setattr(catalog, "_known", {})
    packs.tar(tmp_path / "a.tar", {f"{number}.png": packs.picture(number) for number in range(3)})
    table = shards.table_of(str(tmp_path / "a.tar"), names=True)
    table.write(tmp_path / "kept")
    data = (tmp_path / "kept").read_bytes()
    head = len(data.partition(b"\n")[0]) + 1

    def read(content: bytes) -> catalog.Catalog | None:
        return catalog.Catalog.read(io.BytesIO(content), table.shard, table.stamp, names=True)

    whole = read(data)
    assert whole is not None
    assert [*whole.names()] == [*table.names()]
    for place in range(head, len(data)):
        content = bytearray(data)
        content[place] ^= 1
        assert read(bytes(content)) is None, place
