"""``headstart pack``: shards of what was named, the same bytes each time, gone on with where it was stopped."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import cv2
import pytest
import torch

import films
import packs
from headstart import cli
from headstart.errors import UserError
from headstart.images import catalog
from headstart.images.decode import bytes_of
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.images.loader import ImageLoader
from headstart.jobs import pack as module
from headstart.jobs.labelled import given_labels
from headstart.jobs.pack import Packed, bytes_of_size, pack
from headstart.settings.tools import PackSettings


def packed(data: object, out: Path, **more: object) -> Packed:
    return pack(PackSettings(data=data, out=str(out), **{"shard_size": "100kB", **more}))  # type: ignore[arg-type]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """20 images of 20 kB with dots, spaces and accents in their names, every other one labelled; a dataset YAML."""
    (tmp_path / "d/images").mkdir(parents=True)
    (tmp_path / "d/labels").mkdir()
    for number in range(20):
        name = f"f.{number} é{number:02d}"
        (tmp_path / f"d/images/{name}.png").write_bytes(packs.picture(number, 80, 80))
        if number % 2:
            (tmp_path / f"d/labels/{name}.txt").write_bytes(b"%d 0.5 0.5 0.25 0.25\r\n" % (number % 3))
    (tmp_path / "d/d.yaml").write_text("train: images\nval: gone\nnames: [a, b b, c]\nkpt_shape: null\n")
    return tmp_path / "d"


def test_shards_hold_the_files_as_they_are(images: Path, tmp_path: Path) -> None:
    made = packed(str(images / "d.yaml"), tmp_path / "out")
    paths = list(find_images(images / "images"))
    wanted = []
    for row, path in enumerate(paths):
        key = f"{row:09d}-{Path(path).stem.replace('.', '_')}"
        wanted.append((f"{key}.png", Path(path).read_bytes()))
        label = images / "labels" / f"{Path(path).stem}.txt"
        wanted += [(f"{key}.txt", label.read_bytes())] if label.is_file() else []
    found = []
    for name in made.shards:
        assert (tmp_path / "out" / name).stat().st_size <= 100_000
        with tarfile.open(tmp_path / "out" / name) as file:
            found += [(one.name, file.extractfile(one).read()) for one in file]  # type: ignore[union-attr]
    assert found == wanted
    assert (sum(made.shards.values()), made.labels, made.classes) == (20, 10, ("a", "b b", "c"))
    assert (tmp_path / "out/classes.txt").read_text() == "a\nb b\nc\n"
    again = packed(str(images / "d.yaml"), tmp_path / "again")
    assert list(again.shards) == list(made.shards)
    for name in made.shards:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert made.lines()[-1].endswith("data='s3://BUCKET/FOLDER/{000000..000004}.tar'")


def test_what_is_packed_is_read_as_before(images: Path, tmp_path: Path) -> None:
    packed([str(images / "images")], tmp_path / "plain")
    assert not (tmp_path / "plain/data.yaml").exists()

    def batches(data: Path) -> list[torch.Tensor]:
        index = find_images(data)
        with ImageLoader(index, batch=8, max_area=900, workers=0, seed=1, steps=5) as loader:
            return [batch.pixels for batch in loader]

    one, two = batches(images / "images"), batches(tmp_path / "plain")
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    packed(str(images / "images"), tmp_path / "out", labels=str(images / "d.yaml"))
    data = tmp_path / "out/data.yaml"
    for file in (images / "d.yaml", data):
        index = find_images(str(file))
        given, told = given_labels(str(file), index)
        assert given.names == ("a", "b b", "c")
        owner, _, classes = given.labels.of(torch.arange(len(index)))
        shown = {Path(index.path(int(row))).stem[-2:]: int(label) for row, label in zip(owner, classes, strict=True)}
        assert shown == {f"{number:02d}": number % 3 for number in range(1, 20, 2)}
        assert told[0].startswith("20 labelled images (10 boxes, 3 classes; 10 show no object), 0 without labels")
    repacked = packed(str(tmp_path / "out"), tmp_path / "third", shard_size="1GB")
    assert list(repacked.shards.values()) == [20]
    sources = [bytes_of(path) for path in find_images(tmp_path / "out")]
    assert [bytes_of(path) for path in find_images(tmp_path / "third")] == sources


def test_it_goes_on_where_it_was_stopped(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(str(images / "d.yaml"), tmp_path / "whole")
    real = module.decode.bytes_of
    read: list[str] = []

    def stop(path: str) -> bytes:
        read.append(path)
        if len(read) == 12:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(module.decode, "bytes_of", stop)
        with pytest.raises(KeyboardInterrupt):
            packed(str(images / "d.yaml"), tmp_path / "out")
    there = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert 0 < len(there) < len(whole.shards)
    assert not list((tmp_path / "out").glob(".*.tmp"))
    with pytest.raises(UserError, match="holds shards of other images, or of another size"):
        packed(str(images / "d.yaml"), tmp_path / "out", shard_size="200kB")
    (tmp_path / "out/.000002.tar.1.tmp").write_bytes(b"killed")
    made = packed(str(images / "d.yaml"), tmp_path / "out")
    assert made.kept == len(there)
    assert (made.shards, made.labels) == (whole.shards, whole.labels)
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    for name in files - {".lock"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(UserError, match="holds finished shards already"):
        packed(str(images / "d.yaml"), tmp_path / "out")
    smaller = packed(str(images / "d.yaml"), tmp_path / "out", shard_size="1GB", overwrite=True)
    assert list(smaller.shards) == [path.name for path in (tmp_path / "out").glob("*.tar")] == ["000000.tar"]


def test_folders_of_others_are_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/000000.tar").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds files that are not shards of headstart"):
            packed(str(images), tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine/000000.tar").read_bytes() == b"mine"
    packed(str(images), tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    own = {"notes.txt": b"mine", "202401.tar": b"mine", "data.yaml": b"train: 000000.tar\n", "classes.txt": b"mine"}
    for name, content in own.items():
        (tmp_path / "out" / name).write_bytes(content)
    packed(str(images), tmp_path / "out", overwrite=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in own} == own


def test_shards_are_not_packed_over_themselves(images: Path, tmp_path: Path) -> None:
    packed(str(images), tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for data, out in (("out", "out"), ("link", "out"), ("out", "link"), ("out/000001.tar", "out")):
        with pytest.raises(UserError, match="lies in it: images cannot be packed into the folder"):
            packed(str(tmp_path / data), tmp_path / out, overwrite=True, shard_size="200kB")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_frames_are_packed_and_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    films.written(tmp_path / "d/clip.avi", [0, 1, 2, 3], rate=2)
    (tmp_path / "d/a.png").write_bytes(packs.picture(1))
    (tmp_path / "d/lost.png").symlink_to(tmp_path / "gone.png")
    made = packed(str(tmp_path / "d"), tmp_path / "out")
    index = find_images(tmp_path / "out")
    assert [Path(path).name for path in index] == [
        "000000000-a.png",
        *(f"{row:09d}-clip-{number:06d}.jpg" for row, number in enumerate(range(4), start=1)),
    ]
    shown = [films.number_of(cv2.imdecode(_array(bytes_of(path)), cv2.IMREAD_COLOR)) for path in list(index)[1:]]
    assert shown == [0, 1, 2, 3]
    listed = list(csv.reader((tmp_path / "out/skipped.csv").open()))
    assert listed == [["path", "reason"], [str(tmp_path / "d/lost.png"), "no such file"]]
    assert made.lines()[-3].endswith("1 images could not be read")


def _array(data: bytes):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.frombuffer(data, np.uint8)


def test_the_table_beside_a_shard_is_its_own(images: Path, tmp_path: Path) -> None:
    made = packed(str(images / "d.yaml"), tmp_path / "out")
    for name in made.shards:
        path = tmp_path / "out" / name
        with tarfile.open(path) as file, path.with_name(name + ".index").open("rb") as beside:
            table = catalog.Catalog.read(beside, name, catalog.Stamp(path.stat().st_size, -1), names=True)
            assert table is not None
            members = {one.name: (one.offset_data, one.size) for one in file}
        assert {one: table.find(one)[:2] for one in table.names()} == members  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("500 MB", 5 * 10**8), ("2GiB", 2**31), ("1.5g", 15 * 10**8), ("100000", 100_000), ("1KiB", None)],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(UserError, match="must be 100 kB at least"):
            bytes_of_size(text)
    else:
        assert bytes_of_size(text) == size


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pack", f"data={images}", f"out={tmp_path / 'out'}"]) == 0
    assert f"use them: headstart pretrain data={tmp_path / 'out'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/pack.json").read_text())["finished"] is True


def stopped(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int = 12) -> list[str]:
    """Pack, and stop when so many files were read; the shards that are there then."""
    real, read = module.decode.bytes_of, []

    def stop(path: str) -> bytes:
        read.append(path)
        if len(read) == after:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(module.decode, "bytes_of", stop)
        with pytest.raises(KeyboardInterrupt):
            packed(str(images / "d.yaml"), out)
    return sorted(path.name for path in out.glob("*.tar"))


def test_labels_that_changed_while_it_was_stopped_are_packed_as_they_are_now(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, shards that were there kept the old ones, beside new ones in the others."""
    out = tmp_path / "out"
    assert len(stopped(images, out, monkeypatch, after=25)) >= 2
    second = next(name for name in _members(out / "000001.tar") if name.endswith(".txt"))
    number = int(second.partition("-")[0])
    label = label_path(find_images(images / "images").path(number))
    Path(label).write_text("2 0.25 0.25 0.5 0.5\n")
    made = packed(str(images / "d.yaml"), out)
    assert made.kept == 1
    assert "labels have changed: shards from 000001.tar on were written anew" in made.lines()
    packed(str(images / "d.yaml"), tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.tar"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_other_classes_are_not_mixed_with_what_was_packed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped(images, tmp_path / "out", monkeypatch)
    yaml = images / "d.yaml"
    yaml.write_text(yaml.read_text().replace("[a, b b, c]", "[c, b b, a]"))
    with pytest.raises(UserError, match="holds shards whose labels have other classes"):
        packed(str(yaml), tmp_path / "out")


@pytest.mark.parametrize("name", ["000001.tar", "000003.tar.index"])
def test_a_shard_that_was_lost_is_packed_again(images: Path, tmp_path: Path, name: str) -> None:
    made = packed(str(images / "d.yaml"), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / name).unlink()
    again = packed(str(images / "d.yaml"), tmp_path / "out")
    assert (again.shards, again.labels, again.kept) == (made.shards, made.labels, int(name[:6]))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def _members(shard: Path) -> list[str]:
    with tarfile.open(shard) as file:
        return file.getnames()


@pytest.mark.parametrize("folder", ["_linked", "zlinked"])
def test_labels_lie_beside_the_image_that_the_yaml_names(images: Path, tmp_path: Path, folder: str) -> None:
    """As export_labels writes a data set: links to images elsewhere, whose own labels are others, or none."""
    mine = images / folder
    (mine / "images").mkdir(parents=True)
    (mine / "labels").mkdir()
    for path in sorted((images / "images").iterdir())[:3]:
        (mine / "images" / path.name).symlink_to(path)
        (mine / "labels" / f"{path.stem}.txt").write_text("2 0.5 0.5 0.125 0.125\n")
    (mine / "data.yaml").write_text("train: images\nval: images\nnames: [a, b b, c]\n")
    packed(str(images), tmp_path / "out", labels=str(mine / "data.yaml"))
    labels = []
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(shard) as file:
            labels += [file.extractfile(one).read() for one in file if one.name.endswith(".txt")]  # type: ignore[union-attr]
    assert labels == [b"2 0.5 0.5 0.125 0.125\n"] * 3


def test_what_is_validated_on_is_not_packed_to_be_learnt_from(images: Path, tmp_path: Path) -> None:
    judges = sorted((images / "images").iterdir())[:4]
    (images / "val.txt").write_text("".join(f"{path}\n" for path in judges))
    learnt = sorted((images / "images").iterdir())[4:9]
    (images / "train.txt").write_text("".join(f"{path}\n" for path in learnt))
    (images / "my.yaml").write_text("train: train.txt\nval: val.txt\nnames: [a, b b, c]\n")
    made = packed(str(images / "images"), tmp_path / "out", labels=str(images / "my.yaml"))
    assert sum(made.shards.values()) == 16
    assert any("4 images are in val or test" in line for line in made.lines())


def _given(labels: Path, *data: Path) -> tuple[set[str], str]:
    """Two digits of each labelled image that a run has, and what is said of all."""
    index = find_images([str(one) for one in data], labels=str(labels))
    given, told = given_labels(str(labels), index)
    return {Path(index.path(row)).stem[-2:] for row in given.rows.tolist()}, told[0]


def test_images_without_labels_stay_so_in_shards(images: Path, tmp_path: Path) -> None:
    """Before, all that had no label file beside it was an image that shows nothing, and was taught as one."""
    paths = sorted((images / "images").iterdir(), key=lambda path: path.stem[-2:])
    (images / "train.txt").write_text("".join(f"{path}\n" for path in paths[:9]))
    (images / "val.txt").write_text(f"{paths[9]}\n")
    (images / "my.yaml").write_text("train: train.txt\nval: val.txt\nnames: [a, b b, c]\n")
    paths[2].write_bytes(b"")
    paths[3].unlink()
    packed(str(images / "images"), tmp_path / "out", labels=str(images / "my.yaml"))
    words = "8 labelled images (3 boxes, 3 classes; 5 show no object), 10 without labels"  # without 3, and without val
    rows, told = _given(tmp_path / "out/data.yaml", tmp_path / "out")
    assert (rows, told) == ({f"{number:02d}" for number in (0, 1, 2, 4, 5, 6, 7, 8)}, words)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert _given(tmp_path / "out/data.yaml", tmp_path / "link") == (rows, words), "each member is there once"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    packed(str(images / "images"), tmp_path / "out", labels=str(images / "my.yaml"), overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    packed(str(images / "d.yaml"), tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/train.txt").exists(), "all are labelled"
    (tmp_path / "out/train.txt").write_text("mine")
    packed(str(images / "d.yaml"), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/train.txt").read_text() == "mine"


def test_val_is_not_packed_where_the_data_name_the_dataset(images: Path, tmp_path: Path) -> None:
    paths = sorted((images / "images").iterdir(), key=lambda path: path.stem[-2:])
    for name, some in (("train", paths[:9]), ("val", paths[9:12])):
        (images / f"{name}.txt").write_text("".join(f"{path}\n" for path in some))
    (images / "my.yaml").write_text("train: train.txt\nval: val.txt\nnames: [a, b b, c]\n")
    made = packed([str(images / "my.yaml"), str(images / "images")], tmp_path / "out")
    assert sum(made.shards.values()) == 17
    rows, _ = _given(tmp_path / "out/data.yaml", tmp_path / "out")
    assert rows == {f"{number:02d}" for number in range(9)}


def test_what_can_be_read_again_is_not_left_out(images: Path, tmp_path: Path) -> None:
    """An image that was away the first time, in a shard that is made anew."""
    out, yaml, every = tmp_path / "out", str(images / "d.yaml"), find_images(images / "images").paths()
    (images / "list.txt").write_text("".join(f"{path}\n" for path in every))
    (images / "d.yaml").write_text("train: list.txt\nval: gone\nnames: [a, b, c]\n")
    away = Path(every[9])
    away.rename(tmp_path / "away.png")
    assert [path for path, _ in packed(yaml, out).skipped] == [str(away)]
    (tmp_path / "away.png").rename(away)
    (out / "000000.tar").unlink()
    made = packed(yaml, out)
    assert not made.skipped
    assert not any("labels have changed" in line for line in made.lines())
    assert not (out / "skipped.csv").exists()
    packed(yaml, tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_where_nothing_could_be_read_the_same_command_looks_again(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{tmp_path}/drive/{number}.png\n" for number in range(3)))
    with pytest.raises(UserError, match="no image can be read"):
        packed(str(listed), tmp_path / "out")
    (tmp_path / "drive").mkdir()
    for number in range(3):
        (tmp_path / f"drive/{number}.png").write_bytes(packs.picture(number, 20, 20))
    assert packed(str(listed), tmp_path / "out").shards == {"000000.tar": 3}
