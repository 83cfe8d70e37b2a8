"""Which images a run with labels sees, and which it leaves for judging the outcome."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
import yaml

import packs
from headstart.images.dataset_yaml import read_dataset_yaml
from headstart.images.index import find_images
from headstart.images.judges import without_judges
from headstart.jobs.labelled import given_labels
from headstart.jobs.scenes import draw_dataset


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 images without labels, 4 in train, 3 in val, all below one folder."""
    return draw_dataset(tmp_path_factory.mktemp("mine") / "data", unlabelled=5, train=4, val=3, imgsz=64)


def names(labels: Path, *data: Path) -> tuple[list[str], tuple[str, ...]]:
    given = [str(one) for one in data]
    found = without_judges(find_images(given, labels=str(labels)), given, str(labels))
    return sorted(Path(path).parent.name for path in found), found.notes


def test_images_of_val_are_left_out_of_a_folder(labels: Path) -> None:
    found, notes = names(labels, labels.parent / "images")
    assert found == ["train"] * 4 + ["unlabelled"] * 5
    assert notes == (f"3 images are in val or test of {labels}, and were left out, to judge the outcome",)
    assert names(labels, labels.parent)[0] == found
    assert names(labels, labels.parent)[1] == notes, "the folder is not used whole any more"


def test_who_names_val_has_it(labels: Path) -> None:
    found, notes = names(labels, labels.parent / "images/unlabelled", labels.parent / "images/val")
    assert found == ["train"] * 4 + ["unlabelled"] * 5 + ["val"] * 3
    assert notes == ()
    assert names(labels, labels.parent / "images/unlabelled") == (["train"] * 4 + ["unlabelled"] * 5, ())


def test_what_is_in_train_too_stays(labels: Path, tmp_path: Path) -> None:
    """The layout of small examples: one folder for both."""
    both = tmp_path / "both.yaml"
    images = labels.parent / "images"
    both.write_text(f"train: {images}/train\nval: {images}/train\nnames: [a, b, c, d, e, f, g, h]\n")
    found = without_judges(find_images(str(images / "train")), [str(images)], str(both))
    assert len(found) == 4


def test_a_val_that_is_not_there_takes_nothing_away(labels: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {labels.parent}\n" + labels.read_text().replace("images/val", "images/nowhere"))
    images = find_images(str(labels.parent / "images"))
    assert len(without_judges(images, [str(labels.parent / "images")], str(other))) == len(images) == 12


def parts(labels: Path, tmp_path: Path, data: list[Path], **named: object) -> list[str]:
    """The folders of what a run sees, of a dataset YAML with such parts."""
    own = tmp_path / "own.yaml"
    own.write_text(
        yaml.safe_dump({"path": str(labels.parent), "train": "images/train", "names": [*"abcdefgh"], **named})
    )
    return names(own, *data)[0]


@pytest.fixture
def folders(labels: Path) -> dict[str, Path]:
    return {name: labels.parent / "images" / name for name in ("", "train", "unlabelled", "val")}


def lists(labels: Path, tmp_path: Path) -> Path:
    """A list of two of the three images of val."""
    some = sorted((labels.parent / "images/val").iterdir())[:2]
    (tmp_path / "val.txt").write_text("".join(f"{path}\n" for path in some))
    return tmp_path / "val.txt"


@pytest.mark.parametrize(
    "named",
    [
        {"val": ["images/val", "images/of another machine"]},
        {"val": "images/val", "test": ["images/nowhere", "images/train"]},
        {"val": ["images/val", "images/[0-9].tar"]},
        {"minival": "images/val"},
    ],
)
def test_each_folder_of_val_counts_by_itself(
    named: dict[str, object], labels: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    """Before, all of val was learnt from where one of several entries was not on this machine."""
    assert "val" not in parts(labels, tmp_path, [folders[""]], **named)


def test_naming_one_part_leaves_the_others_out(labels: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    both = {"val": "images/val", "test": "images/unlabelled"}
    assert parts(labels, tmp_path, [folders[""]], **both) == ["train"] * 4
    assert parts(labels, tmp_path, [folders[""], folders["val"]], **both) == ["train"] * 4 + ["val"] * 3


def test_a_part_is_named_by_its_images_however_it_is_listed(
    labels: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    """Whether the dataset names a folder or a list, and whether `data` does."""
    listed = lists(labels, tmp_path)
    assert parts(labels, tmp_path, [listed], val="images/val") == ["train"] * 4 + ["val"] * 2
    assert parts(labels, tmp_path, [listed], val=str(listed)) == ["train"] * 4 + ["val"] * 2
    some = [folders["val"]]
    assert parts(labels, tmp_path, some, val=[str(listed)]) == ["train"] * 4 + ["val"], "more than val: of it none"
    assert parts(labels, tmp_path, some, val=[str(listed), "images/val"]) == ["train"] * 4 + ["val"] * 3


def test_shards_of_val_are_left_out_member_by_member(labels: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    for number in range(2):
        packs.tar(tmp_path / f"shards/{number}.tar", {f"{one}.png": packs.picture(one) for one in range(3)})
    assert parts(labels, tmp_path, [tmp_path / "shards"], val=str(tmp_path / "shards/0.tar")).count("1.tar") == 3
    assert "0.tar" not in parts(labels, tmp_path, [tmp_path / "shards"], val=str(tmp_path / "shards/0.tar"))
    found = parts(labels, tmp_path, [tmp_path / "shards/0.tar"], val=str(tmp_path / "shards"))
    assert found.count("0.tar") == 3, "named by itself"


def test_braces_name_no_shard_by_itself(labels: Path, tmp_path: Path) -> None:
    """As `data` names them where there are addresses; also of single files, as a program may list them."""
    for number in range(3):
        packs.tar(tmp_path / f"shards/{number}.tar", {"1.png": packs.picture(number)})
    val = str(tmp_path / "shards/{0..1}.tar")
    for data in (["{0..2}.tar"], ["0.tar", "1.tar", "2.tar"], ["0.tar/1.png", "1.tar/1.png", "2.tar/1.png"]):
        found = parts(labels, tmp_path, [tmp_path / "shards" / one for one in data], val=val)
        assert found == ["2.tar"] + ["train"] * 4, data
    assert parts(labels, tmp_path, [tmp_path / "shards/{0..1}.tar"], val=val) == ["0.tar", "1.tar"] + ["train"] * 4


def test_shards_of_val_at_an_address_are_left_out(labels: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for number in range(2):
        files.pipe(
            f"/judging/{number}.tar", packs.tar(tmp_path / "one.tar", {"1.png": packs.picture(number)}).read_bytes()
        )
    own = tmp_path / "far.yaml"
    about = {"path": str(labels.parent), "train": "images/train", "names": [*"abcdefgh"]}
    own.write_text(yaml.safe_dump({**about, "val": "memory://judging/0.tar"}))
    data = ["memory://judging/{0..1}.tar"]
    found = without_judges(find_images(data, labels=str(own)), data, str(own))
    assert [path for path in found if "://" in path] == ["memory://judging/1.tar/1.png"]
    assert read_dataset_yaml(own).there("val"), "as far as can be told here"


def test_paths_are_resolved_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following the links of each path of a million images took 70 seconds, before a run began."""
    for part in ("train", "val", "unlabelled"):
        for folder in ("images", "labels"):
            (tmp_path / folder / part).mkdir(parents=True)
        for number in range(100):
            (tmp_path / f"images/{part}/{number}.png").write_bytes(packs.picture(number))
            (tmp_path / f"labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    labels = tmp_path / "my.yaml"
    labels.write_text("train: images/train\nval: images/val\nnames: [thing]\n")
    asked, real = [], os.path.realpath

    def realpath(path: str, **more: bool) -> str:
        asked.append(path)
        return real(path, **more)

    monkeypatch.setattr(os.path, "realpath", realpath)
    data = [str(tmp_path / "images")]
    images = without_judges(find_images(data, labels=str(labels)), data, str(labels))
    given, _ = given_labels(str(labels), images)
    assert (len(images), len(given.rows)) == (200, 100)
    assert len(asked) < 100
