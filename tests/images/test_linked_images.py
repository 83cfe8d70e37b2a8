"""Images by the names that their user gave them, and the same image known under several."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import packs
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.images.resolved import Resolver
from headstart.jobs.labelled import given_labels


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Four labelled images as DVC, git-annex or a Hugging Face cache lay them out: links to files of other names."""
    for folder in ("images", "labels", "store", "lists"):
        (tmp_path / "d" / folder).mkdir(parents=True)
    for number in range(4):
        kept = tmp_path / f"d/store/5ac{number}"
        kept.write_bytes(packs.picture(number))
        (tmp_path / f"d/images/{number}.png").symlink_to(kept)
        (tmp_path / f"d/labels/{number}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "d/lists/train.txt").write_text("".join(f"../images/{number}.png\n" for number in range(4)))
    (tmp_path / "d/my.yaml").write_text("train: lists/train.txt\nnames: [thing]\n")
    return tmp_path / "d"


def test_lists_that_lead_upward_keep_the_names_of_links(stored: Path) -> None:
    images = find_images(str(stored / "lists/train.txt"))
    assert list(images) == [str(stored / f"images/{number}.png") for number in range(4)]
    labels = [label_path(path) for path in images]
    assert labels == [stored / f"labels/{number}.txt" for number in range(4)]
    _, told = given_labels(str(stored / "my.yaml"), find_images([], labels=str(stored / "my.yaml")))
    assert told[0].startswith("4 labelled images (4 boxes, 1 classes; 0 show no object), 0 without labels")


def test_what_is_above_a_link_is_above_what_it_leads_to(stored: Path) -> None:
    """As the system has it: a name is not shortened over a folder that is a link."""
    (stored / "far/away").mkdir(parents=True)
    (stored / "far/1.png").write_bytes(packs.picture(9))
    (stored / "near").symlink_to(stored / "far/away")
    (stored / "list.txt").write_text("near/../1.png\n")
    assert list(find_images(str(stored / "list.txt"))) == [str(stored / "far/1.png")]


def test_the_same_image_has_one_real_path(stored: Path) -> None:
    (stored / "again").symlink_to(stored / "images")
    (stored / "0.tar").symlink_to(packs.tar(stored / "store/all.tar", {"a/1.png": b"", "2.png": b""}))
    resolved = Resolver()
    for name in ("images/1.png", "again/1.png", "store/5ac1", "labels/1.txt", "gone/1.png"):
        assert resolved(str(stored / name)) == os.path.realpath(stored / name), name
    for name in ("a/1.png", "2.png"):
        assert resolved(str(stored / "0.tar" / name)) == f"{os.path.realpath(stored)}/store/all.tar/{name}"
    assert resolved("S3A://b/0.tar/1.png") == resolved("s3://b/0.tar/1.png") == "s3://b/0.tar/1.png"


def test_members_that_are_named_by_another_way_are_there_once(stored: Path) -> None:
    packs.tar(stored / "shards/0.tar", {f"{number}.png": packs.picture(number) for number in range(3)})
    (stored / "linked").symlink_to(stored / "shards")
    (stored / "shards/train.txt").write_text("./0.tar/1.png\n")
    both = find_images([str(stored / "linked"), str(stored / "shards/train.txt")])
    assert list(both) == [f"{stored}/linked/0.tar/{number}.png" for number in range(3)]
    alone = find_images(str(stored / "shards/train.txt"))
    assert (list(alone), alone.shards) == ([f"{stored}/shards/0.tar/1.png"], (f"{stored}/shards/0.tar",))


def test_a_dataset_may_name_a_shard_that_is_a_link_into_a_store(stored: Path) -> None:
    """The file that it leads to is called by its hash, without a suffix."""
    kept = packs.tar(stored / "store/6bd0", {"1.png": packs.picture(1), "1.txt": b"0 0.5 0.5 0.5 0.5\n"})
    (stored / "train.tar").symlink_to(kept)
    (stored / "shard.yaml").write_text("train: train.tar\nnames: [thing]\n")
    images = find_images([], labels=str(stored / "shard.yaml"))
    assert list(images) == [f"{stored}/train.tar/1.png"]
    assert given_labels(str(stored / "shard.yaml"), images)[0].rows.tolist() == [0]


def test_lists_of_members_are_refused_where_files_are_wanted(stored: Path) -> None:
    packs.tar(stored / "0.tar", {"1.png": packs.picture(1)})
    (stored / "members.txt").write_text("./0.tar/1.png\n")
    with pytest.raises(UserError, match=r"0\.tar is a shard: images with labels are read from files here"):
        find_images(str(stored / "members.txt"), labelled=True)
    both = find_images([str(stored / "members.txt"), str(stored / "images")], labelled=True)
    assert len(both) == 4
    assert any("1 images that lists name within shards or videos" in note for note in both.notes)


def test_tiffs_are_turned_upright(tmp_path: Path) -> None:
    """As docs/images.md says, and Ultralytics does."""
    from PIL import Image
    from ultralytics.utils.patches import imread

    from headstart.images.decode import read_image

    shown = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(shown).save(tmp_path / "1.tif", exif=exif)
    np.testing.assert_array_equal(read_image(str(tmp_path / "1.tif")), np.rot90(shown, -1))
    ours = cv2.cvtColor(imread(str(tmp_path / "1.tif")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(ours, np.rot90(shown, -1))
