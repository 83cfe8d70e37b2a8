"""The command, on drawn images: what is in its files, and the example of its page."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from ultralytics import YOLO

from headstart import cli
from headstart.errors import UserError
from headstart.jobs import embed as embed_module
from headstart.jobs.embed import embed
from headstart.jobs.scenes import CLASSES, draw_dataset
from headstart.settings.tools import EmbedSettings

pytest.importorskip("pyarrow")
PAGE = Path(__file__).parents[2] / "docs" / "embed.md"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images without labels, one of them twice and one damaged; 4 with labels; a network of their classes."""
    folder = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    draw_dataset(folder / "scenes", unlabelled=24, train=4, val=1, imgsz=64)
    pool = folder / "scenes" / "images" / "unlabelled"
    cv2.imwrite(str(pool / "copy.jpg"), cv2.imread(str(pool / "00003.jpg")), [cv2.IMWRITE_JPEG_QUALITY, 95])
    (pool / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    live = YOLO("yolo11n.yaml", verbose=False)
    live.save(folder / "coco.pt")
    from headstart.detectors.find import load_detector

    load_detector(str(folder / "coco.pt")).with_classes(CLASSES).save(folder / "mine.pt", {})
    return folder


def embedded(drawn: Path, out: Path, **options: Any) -> Any:
    given = {"model": str(drawn / "coco.pt"), "imgsz": 64, "workers": 0, "device": "cpu", **options}
    return embed(EmbedSettings(data=str(drawn / "scenes" / "images" / "unlabelled"), out=str(out), **given))


def table(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_files_of_a_pool_without_labels(drawn: Path, tmp_path: Path) -> None:
    made = embedded(drawn, tmp_path / "f.parquet", next=5)
    images, boxes = table(tmp_path / "f.parquet"), table(tmp_path / "f.boxes.parquet")
    assert images.num_rows == made.images == 25
    pool = drawn / "scenes" / "images" / "unlabelled"
    assert sorted(images["image"].to_pylist()) == sorted(str(one) for one in pool.iterdir() if one.stem != "damaged")
    assert set(images["width"].to_pylist()) == set(images["height"].to_pylist()) == {64}
    features = torch.tensor(images["feature"].to_pylist())
    assert features.shape == (25, 256)
    assert torch.allclose(features.norm(dim=1), torch.ones(25), atol=1e-5)
    about = json.loads(images.schema.metadata[b"headstart"])
    assert (about["level"], about["imgsz"], about["widths"]) == ("backbone", 64, [256])
    assert boxes.num_rows == made.boxes
    assert set(boxes["source"].to_pylist()) <= {"detection"}
    (skipped,) = lines(tmp_path / "f.skipped.csv")
    assert skipped["image"] == str(pool / "damaged.jpg")
    chosen = lines(tmp_path / "f.next.csv")
    assert [one["rank"] for one in chosen] == ["1", "2", "3", "4", "5"]
    assert [one["image"] for one in chosen] == made.chosen
    assert {one["uncertainty"] for one in chosen} == {""}
    pairs = lines(tmp_path / "f.duplicates.csv")
    assert (pairs[0]["image"], pairs[0]["other"]) == (str(pool / "00003.jpg"), str(pool / "copy.jpg"))
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_labels_and_a_detector_of_their_classes(drawn: Path, tmp_path: Path) -> None:
    labels = drawn / "scenes" / "scenes.yaml"
    made = embedded(drawn, tmp_path / "f.parquet", model=str(drawn / "mine.pt"), labels=str(labels), next=3)
    boxes = table(tmp_path / "f.boxes.parquet").to_pylist()
    written = [
        (str(drawn / "scenes" / "images" / "train" / f"{file.stem}.jpg"), int(line.split()[0]))
        for file in (drawn / "scenes" / "labels" / "train").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert sorted((one["image"], one["class"]) for one in boxes if one["source"] == "label") == sorted(written)
    images = table(tmp_path / "f.parquet").to_pylist()
    labelled = {one["image"] for one in images if one["labelled"]}
    assert len(labelled) == 4
    assert not labelled & set(made.chosen)
    chosen = lines(tmp_path / "f.next.csv")
    known = {one["image"]: one["uncertainty"] for one in images}
    assert [float(one["uncertainty"]) for one in chosen] == pytest.approx(
        [known[path] for path in made.chosen], abs=1e-4
    )


def test_a_network_that_finds_nothing_describes_labelled_boxes(drawn: Path, tmp_path: Path) -> None:
    labels = str(drawn / "scenes" / "scenes.yaml")
    made = embedded(drawn, tmp_path / "f.parquet", model="yolo11n-cls.yaml", labels=labels, next=0)
    assert set(table(tmp_path / "f.boxes.parquet")["source"].to_pylist()) == {"label"}
    assert made.notes == [
        "yolo11n-cls.yaml has random weights: its features say little",
        "yolo11n-cls (classify) finds no objects of its own: boxes are those of labels alone",
    ]
    assert not (tmp_path / "f.next.csv").exists()
    with pytest.raises(UserError, match=r"uncertainty: the head of yolo11n-cls .*\n  -> leave uncertainty= out"):
        embedded(drawn, tmp_path / "g.parquet", model="yolo11n-cls.yaml", uncertainty=True)


def test_what_is_there_is_not_replaced_unasked(drawn: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "f.next.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out: .*f.next.csv is there already\n  -> give another name, or overwrite"):
        embedded(drawn, tmp_path / "f.parquet")
    assert (tmp_path / "f.next.csv").read_text() == "mine"
    with pytest.raises(UserError, match=r"out: must end in .parquet"):
        embedded(drawn, tmp_path / "f.csv")
    monkeypatch.setattr("headstart.embedding.tables.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pyarrow is not installed, .*\n  -> pip install pyarrow"):
        embedded(drawn, tmp_path / "g.parquet")


def test_images_whose_label_files_have_errors_are_not_to_be_labelled(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    first, *_, last = sorted((tmp_path / "scenes" / "labels" / "train").iterdir())
    last.write_text(first.read_text() + "0 .5 .5 7 7\n")
    made = embedded(drawn, tmp_path / "f.parquet", labels=str(tmp_path / "scenes" / "scenes.yaml"), next=99)
    assert sum(table(tmp_path / "f.parquet")["labelled"].to_pylist()) == 3
    image = str(tmp_path / "scenes" / "images" / "train" / f"{last.stem}.jpg")
    rows = table(tmp_path / "f.parquet").to_pylist()
    assert [row["labelled"] for row in rows if row["image"] == image] == [False]
    assert len(made.chosen) == len(rows) - 4 == len(set(made.chosen) - {image})
    (note,) = [note for note in made.notes if "label files" in note]
    number = len(last.read_text().splitlines())
    assert note.startswith(f"1 of 4 images of train have errors in their label files: {last}: line {number} has a")
    assert "mend them" in note
    assert "left out" not in note


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_of_others_is_not_written_into(drawn: Path, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "f.next").mkdir()
        (tmp_path / "f.next" / "00001.jpg").write_text("mine")
    else:
        (tmp_path / "f.next").write_text("mine")
    for overwrite in (False, True):  # somebody may have labelled what lies there
        with pytest.raises(UserError, match=r"out: .*f.next is there already\n  -> move it away"):
            embedded(drawn, tmp_path / "f.parquet", overwrite=overwrite)
    assert not (tmp_path / "f.parquet").exists()


def test_the_example_of_the_page_runs(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The commands and the Python of docs/embed.md, in their order, where the page has its files."""
    text = PAGE.read_text(encoding="utf-8").split("## A worked example")[1].split("\n## ")[0]
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    shutil.copy(drawn / "mine.pt", tmp_path / "mine.pt")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    headstart (.+)$", text, re.MULTILINE)
    assert commands
    for line in commands:
        assert cli.main([*shlex.split(line), "imgsz=64", "workers=0", "device=cpu"]) == 0
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    held: dict[str, Any] = {}
    exec(code, held)
    assert len(held["nearest"]) == 5
    assert held["nearest"][0] == held["asked"]  # of all boxes the asked one is nearest to itself


def test_a_disk_that_is_full_at_the_last_bytes_is_said_in_words(tmp_path: Path) -> None:
    """What is written last waits in memory: it meets the full disk when the file is flushed."""

    class Full(io.BytesIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    made = embed_module.Embedded({})
    stream = embed_module._Stream([], None, None, made, {"widths": [2]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the disk is full"):
        embed_module._kept(stream, {"images": tmp_path / "a.parquet"}, Full())
    assert not list(tmp_path.iterdir())


def test_what_earlier_features_led_to_goes_with_them(tmp_path: Path) -> None:
    """Before, an embed that was stopped half way left new features beside the near-duplicates of the old ones."""
    files = {"images": tmp_path / "a.parquet", "duplicates": tmp_path / "a.duplicates.csv"}
    for path in files.values():
        path.write_text("old")
    stream = embed_module._Stream([], None, None, embed_module.Embedded({}), {"widths": [2]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no image can be read"):
        embed_module._kept(stream, files, io.BytesIO())
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert files["images"].read_bytes() != b"old"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f".a.parquet.{ended.pid}.tmp", f".a.parquet.{os.getpid()}.tmp", f".b.parquet.{ended.pid}.tmp"):
        (tmp_path / name).touch()
    embed_module._files(EmbedSettings(data="d", out=str(tmp_path / "a.parquet")))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f".a.parquet.{os.getpid()}.tmp", f".b.parquet.{ended.pid}.tmp"}


def test_what_an_earlier_call_wrote_of_other_features_goes(drawn: Path, tmp_path: Path) -> None:
    embedded(drawn, tmp_path / "f.parquet", next=5)
    (tmp_path / "f.parquet").unlink()
    with pytest.raises(UserError, match=r"f\.duplicates\.csv is there already"):
        embedded(drawn, tmp_path / "f.parquet", boxes=False)
    embedded(drawn, tmp_path / "f.parquet", boxes=False, next=0, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"f.parquet", "f.duplicates.csv", "f.skipped.csv"}


def test_what_is_validated_on_is_not_to_be_labelled_next(drawn: Path, tmp_path: Path) -> None:
    """It has labels: learnt from, it would judge what it taught."""
    shutil.copytree(drawn / "scenes", tmp_path / "scenes")
    content = tmp_path / "scenes" / "scenes.yaml"
    pool = tmp_path / "scenes" / "images"
    given = {"model": str(drawn / "coco.pt"), "imgsz": 64, "workers": 0, "device": "cpu", "next": 99}
    out = tmp_path / "f.parquet"
    made = embed(EmbedSettings(data=str(pool), labels=str(content), out=str(out), **given))
    assert made.images == 25 + 4 + 1
    chosen = [Path(line["image"]).parent.name for line in lines(tmp_path / "f.next.csv")]
    assert chosen == ["unlabelled"] * 25
    assert "1 images of val or test are described, and not among those to label next" in made.notes
