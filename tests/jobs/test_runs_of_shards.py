"""Shards through the commands: their members are images everywhere."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import pytest
import torch

import headstart
import packs
from gone import gone_at
from headstart.comparison import likeness
from headstart.comparison.leaks import on_both_sides
from headstart.comparison.origins import pretraining_images
from headstart.comparison.start_records import PretrainingFacts
from headstart.errors import UserError
from headstart.images.decode import bytes_of
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.jobs.doctor import doctor
from headstart.jobs.embed import embed
from headstart.jobs.export_labels import export_labels
from headstart.jobs.pack import pack
from headstart.jobs.scenes import draw_dataset
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections, Labelling
from headstart.settings.tools import DoctorSettings, EmbedSettings, PackSettings
from small import SMALL


def pretrain(data: Path, out: Path, **more: object) -> headstart.Run:
    (data.parent / "small.yaml").write_text(SMALL)
    fixed = {"model": str(data.parent / "small.yaml"), "method": "dino", "batch": 4, "imgsz": 64, "local_imgsz": 32}
    fixed |= {"locals": 1, "workers": 0, "device": "cpu", "report": False, "probe_every": 0, "log_every": 1}
    return headstart.pretrain(data=str(data), out=str(out), **{**fixed, **more})


def weights(run: headstart.Run) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoint, weights_only=False)["model"].state_dict()


def same(one: headstart.Run, two: headstart.Run) -> bool:
    a, b = weights(one), weights(two)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of images, one of them broken; and the same in a tar and a zip, of names in the same order."""
    (tmp_path / "files").mkdir()
    members = {f"{n:02d}.png": packs.picture(n, 80 + n, 70) for n in range(10)} | {"03.png": b"no image"}
    for name, content in sorted(members.items()):
        (tmp_path / "files" / name).write_bytes(content)
    ordered = sorted(members.items())
    packs.tar(tmp_path / "shards/0.tar", dict(ordered[:6]))
    packs.zipped(tmp_path / "shards/1.zip", dict(ordered[6:]))
    return tmp_path / "files", tmp_path / "shards"


def test_a_run_from_shards_is_the_run_from_files(data: tuple[Path, Path], tmp_path: Path) -> None:
    files, shards = data
    plain = pretrain(files, tmp_path / "plain", steps=4)
    whole = pretrain(shards, tmp_path / "whole", steps=4, cache="disk", cache_dir=str(tmp_path / "cache"))
    assert same(plain, whole)
    listed = list(csv.reader((tmp_path / "whole/skipped.csv").open()))
    assert [row[0] for row in listed] == ["path", f"{shards}/0.tar/03.png"]
    assert "2 shards: 10 images" in (tmp_path / "whole/log.txt").read_text()

    with gone_at(3):
        pretrain(shards, tmp_path / "parts", steps=4, save_every=2)
    assert same(whole, headstart.pretrain(resume=True, out=str(tmp_path / "parts")))


def test_a_truncated_shard_is_used_as_far_as_it_goes(data: tuple[Path, Path], tmp_path: Path) -> None:
    _, shards = data
    path = shards / "0.tar"
    with tarfile.open(path) as file:
        last = file.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 10])
    pretrain(shards, tmp_path / "run", steps=2, batch=8)
    listed = list(csv.reader((tmp_path / "run/skipped.csv").open()))
    assert listed[1] == [f"{path}/05.png", "truncated: the shard ends in the midst of it"]


def test_labels_of_members_are_exported_beside_them(data: tuple[Path, Path], tmp_path: Path) -> None:
    _, shards = data
    index = find_images(shards)
    none = PseudoLabels.gather(10, torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    given = GivenLabels(("bolt",), torch.zeros(0).long(), none)
    box, score, label = torch.tensor([[0.0, 0, 0.5, 0.5]]), torch.tensor([0.9]), torch.tensor([0])
    found = Labelling.split(Detections(torch.tensor([7]), box, score, label, torch.arange(10)), 0.5)
    assert export_labels(tmp_path / "out", index, given, found) == (1, 0, 9, 0)
    assert (tmp_path / "out/images/07.png").read_bytes() == packs.picture(7, 87, 70)
    assert (tmp_path / "out/labels/07.txt").read_text().startswith("0 0.25")


def test_embed_reads_shards_and_saves_what_to_label(data: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    _, shards = data
    (tmp_path / "small.yaml").write_text(SMALL)
    made = embed(
        EmbedSettings(
            data=str(shards), model=str(tmp_path / "small.yaml"), out=str(tmp_path / "f.parquet"), boxes=False, next=3,
            imgsz=64, workers=0, device="cpu",
        )
    )  # fmt: skip
    assert made.images == 9
    assert [Path(path).name for path, _ in made.skipped] == ["03.png"]
    saved = {path.name: path.read_bytes() for path in (tmp_path / "f.next").iterdir()}
    assert saved == {Path(path).name: bytes_of(path) for path in made.chosen}
    assert "3 of the images to label, which are in shards, saved as images" in made.notes[-1]


def test_copies_in_shards_are_found_as_leaks(data: tuple[Path, Path], tmp_path: Path) -> None:
    files, shards = data
    paths = list(find_images(shards))
    assert (str(files / "01.png"), paths[1]) in on_both_sides([str(files / "01.png")], paths)
    made = likeness.thumbnails(paths, tmp_path / "looks.npz")
    again = likeness.thumbnails(paths, tmp_path / "looks.npz")
    assert (made.values == again.values).all()
    assert [Path(path).name for path, _ in made.unread] == ["03.png"]
    facts = {"folder": "x", "data": (str(shards),), "images": 10, "method": "dino", "model": "", "steps": 1}
    known = PretrainingFacts(**facts, seconds=1.0, device="cpu")
    assert pretraining_images(known) == paths


def test_doctor_and_probe_look_at_shards(data: tuple[Path, Path], tmp_path: Path) -> None:
    _, shards = data
    report = doctor(DoctorSettings(images=str(shards), device="cpu", model="none.pt"))
    found = {one.about: one for one in report.findings}
    assert found["shards"].words.startswith("images in 2 shards: 0.tar: 6 images; 1.zip: 4 images")
    assert found["images.images.read"].details[0].startswith(f"{shards}/0.tar/03.png: ")
    assert "9 images of 80x70 to 89x70 pixels" in found["sizes"].words
    (tmp_path / "small.yaml").write_text(SMALL)
    measured = headstart.probe(str(tmp_path / "small.yaml"), str(shards), images=4, imgsz=64)
    assert set(measured) == {"backbone", "neck"}


def test_a_comparison_refuses_shards(data: tuple[Path, Path], tmp_path: Path) -> None:
    _, shards = data
    (tmp_path / "d.yaml").write_text(f"train: {shards}/0.tar\nval: {shards}/1.zip\nnames: [a]\n")
    with pytest.raises(UserError, match="is a shard: images with labels are read from files here"):
        headstart.compare(data=str(tmp_path / "d.yaml"), out=str(tmp_path / "c"), plan=True)


def test_a_run_with_few_labels_is_the_same_from_files_and_from_shards(tmp_path: Path) -> None:
    """Before, the images without labels were packed as labelled ones that show nothing."""
    files = draw_dataset(tmp_path / "data", unlabelled=8, train=8, val=2, imgsz=64)
    train = sorted((files.parent / "images/train").iterdir())
    label_path(str(train[3])).unlink()  # which shows nothing, and is labelled all the same
    pack(PackSettings(data=str(files.parent / "images"), labels=str(files), out=str(tmp_path / "shards")))
    runs = []
    for name, data, labels in (
        ("files", files.parent / "images", files),
        ("shards", tmp_path / "shards", tmp_path / "shards/data.yaml"),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(SMALL)
        fixed = {"model": str(tmp_path / f"{name}.yaml"), "batch": 4, "imgsz": 64, "steps": 8, "workers": 0}
        fixed |= {"device": "cpu", "precision": "32", "report": False, "teacher": None, "burn_in": 0.5, "cache": "off"}
        run = headstart.pretrain(data=str(data), labels=str(labels), out=str(tmp_path / f"run {name}"), **fixed)
        log = (run.folder / "log.txt").read_text()
        assert "8 labelled images (" in log
        assert "1 show no object), 8 without labels" in log
        runs.append(run)
    assert same(*runs)
