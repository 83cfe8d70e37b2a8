"""What doctor says of labels, images and divisions: each fault is made in a drawn data set, and told with its place."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from headstart.doctor import dataset, pictures, start
from headstart.doctor.dataset import Object, Part
from headstart.doctor.findings import Finding, Report, lost
from headstart.errors import UserError
from headstart.jobs.doctor import doctor
from headstart.jobs.scenes import draw_dataset
from headstart.pseudolabels.fit import Fit
from headstart.settings.tools import DoctorSettings


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes: 12 labelled images to train on, 6 to validate on, 4 without labels."""
    return draw_dataset(tmp_path_factory.mktemp("scenes") / "d", unlabelled=4, train=12, val=6, imgsz=128).parent


@pytest.fixture
def scenes(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn, tmp_path / "d")
    return tmp_path / "d"


def found_in(folder: Path, **options: object) -> dict[str, Finding]:
    """What is found in a data set, without the machine."""
    asked = {"data": str(folder / "scenes.yaml"), "model": "not-there.pt", "device": "cpu", **options}
    report = doctor(DoctorSettings(**asked))
    assert report.ok == all(one.outcome != "wrong" for one in report.findings)
    return {one.about: one for one in report.findings if not one.about.startswith(("versions", "devices", "folders"))}


def wrong(found: dict[str, Finding]) -> set[str]:
    return {about for about, one in found.items() if one.outcome == "wrong"}


def test_a_sound_data_set_is_counted(scenes: Path) -> None:
    """Counted again from the label files themselves."""
    found = found_in(scenes)
    assert wrong(found) == set()
    for part, number in (("train", 12), ("val", 6)):
        lines = [line for file in (scenes / "labels" / part).iterdir() for line in file.read_text().splitlines()]
        assert found[f"labels.{part}"].facts["objects"] == len(lines)
        assert found[f"labels.{part}"].facts["images"] == number
        counts = {name: count[part] for name, count in found["classes"].facts["counts"].items() if count[part]}
        assert sorted(counts.values()) == sorted(Counter(line.split()[0] for line in lines).values())
    assert found["start"].outcome == "unknown"
    assert "not-there.pt is not on this machine" in found["start"].words


def test_lines_that_a_trainer_drops_are_told_with_file_and_line(scenes: Path) -> None:
    file = scenes / "labels" / "train" / "00003.txt"
    file.write_text("0 0.5 0.5 0.2 0.2\n9 0.5 0.5 0.2 0.2\n")
    (scenes / "labels" / "train" / "00004.txt").write_text("1 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    found = found_in(scenes)
    dropped = found["labels.train.dropped"]
    assert (dropped.outcome, dropped.details) == (
        "wrong",
        (f"{file}: line 2 has the class 9; there are 8 classes, from 0",),
    )
    assert found["labels.train.ineffective"].details == (
        f"{scenes / 'labels' / 'train' / '00004.txt'}: has 1 lines twice",
    )
    assert found["labels.train"].facts["used"] == 11


def test_classes_that_are_one_to_a_trainer(scenes: Path) -> None:
    (scenes / "scenes.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c, d, ' A', f, g, B]\n")
    named = found_in(scenes)["classes.names"]
    assert named.outcome == "wrong"
    assert named.words.startswith("'a' (0) and ' A' (4); 'b' (1) and 'B' (7) are one class to Ultralytics")


def test_images_without_label_files_are_background_or_nobody_labelled_them(scenes: Path) -> None:
    for number in range(8):
        (scenes / "labels" / "train" / f"{number:05d}.txt").unlink()
    note = found_in(scenes)["labels.train.objects"]
    assert note.outcome == "note"
    assert note.words.startswith("train: 8 of 12 images have no label file")
    shutil.rmtree(scenes / "labels" / "val")
    found = found_in(scenes)["labels.val.objects"]
    assert found.outcome == "wrong"
    assert str(scenes / "labels" / "val" / "00000.txt") in found.do


def test_what_is_on_both_sides(scenes: Path) -> None:
    train, val = scenes / "images" / "train", scenes / "images" / "val"
    shutil.copy(train / "00001.jpg", val / "00000.jpg")
    image = cv2.imread(str(train / "00002.jpg"))
    cv2.imwrite(str(val / "00001.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    found = found_in(scenes)
    assert wrong(found) == {"copies.val.train.content", "copies.val.train.alike"}
    assert found["copies.val.train.content"].details == (f"{val / '00000.jpg'} and {train / '00001.jpg'}",)
    assert found["copies.val.train.alike"].details == (f"{val / '00001.jpg'} and {train / '00002.jpg'}",)


def test_of_very_many_images_all_are_compared_by_content(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 5 as the most that are decoded, of 12 those at 0, 2, 4, 7 and 9: the copied one is not among them."""
    monkeypatch.setattr(pictures, "MOST", 5)
    train, val = scenes / "images" / "train", scenes / "images" / "val"
    sound = found_in(scenes)
    assert sound["images.train.read"].outcome == "unknown"
    assert "copies.val.train" not in sound
    told = sound["copies.val.train.looked"]
    assert told.outcome == "unknown"
    assert "5 of 6 images of val and 5 of 12 images of train were compared" in told.words
    assert "none is on both sides" in told.words
    shutil.copy(train / "00001.jpg", val / "00000.jpg")
    found = found_in(scenes)
    assert wrong(found) == {"copies.val.train.content"}
    assert found["copies.val.train.content"].details == (f"{val / '00000.jpg'} and {train / '00001.jpg'}",)
    assert found["copies.val.train.content"].words.startswith("1 of 6 images of val")
    assert "none is on both sides" not in found["copies.val.train.looked"].words


def test_frames_of_one_recording_on_both_sides(tmp_path: Path) -> None:
    """A camera that moves over ground: every second frame is held out; each looks most like one beside it."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.normal(size=(120, 800)).astype(np.float32), (0, 0), 9)
    ground = (120 + 30 * ground / ground.std()).clip(0, 255)
    for number in range(40):
        frame = ground[:, 12 * number : 12 * number + 160].astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"frame_{number:03d}.png"), cv2.merge([frame] * 3))
    frames = sorted(map(str, tmp_path.iterdir()))
    held_out, others = pictures.look_at(frames[1::2]), pictures.look_at(frames[::2])
    (found,) = pictures.copy_findings("val", "train", held_out, others)
    assert (found.about, found.outcome) == ("copies.val.train.recordings", "note")
    assert found.facts["images"] == 20
    apart = pictures.copy_findings("val", "train", pictures.look_at(frames[24:]), pictures.look_at(frames[:16]))
    assert [one.outcome for one in apart] == ["ok"]


def test_images_to_pretrain_on_are_compared_with_val_as_well(scenes: Path) -> None:
    more = scenes / "images" / "unlabelled"
    shutil.copy(scenes / "images" / "val" / "00005.jpg", more / "x.jpg")
    found = found_in(scenes, images=str(more))
    assert wrong(found) == {"copies.val.images.content"}
    assert found["images.images.read"].words == "images: all of 5 images can be read"


def test_odd_images(scenes: Path) -> None:
    train = scenes / "images" / "train"
    (train / "00000.jpg").write_bytes(b"no image")
    cv2.imwrite(str(train / "00001.jpg"), np.full((20, 200, 3), 90, np.uint8))
    found = found_in(scenes)
    assert found["images.train.read"].outcome == "wrong"
    assert found["images.train.read"].details[0].startswith(str(train / "00000.jpg"))
    assert found["sizes.strips"].details == (f"{train / '00001.jpg'}: 200x20",)
    assert found["sizes.tiny"].details == found["sizes.strips"].details
    assert found["sizes"].facts["commonest"] == (128, 128)


def test_images_that_a_training_leaves_out(scenes: Path) -> None:
    train = scenes / "images" / "train"
    cv2.imwrite(str(train / "00001.jpg"), np.full((9, 200, 3), 90, np.uint8))
    found = found_in(scenes)
    assert found["images.train.read"].outcome == "ok"
    assert found["images.train.refused"].details == (f"{train / '00001.jpg'}: 200 x 9 pixels; 10 a side are the least",)
    assert found["images.train.refused"].words == "train: 1 of 12 images are left out by a training"
    assert "images.val.refused" not in found


def test_the_size_of_objects_at_imgsz() -> None:
    """By hand: a quarter by a quarter of 400 x 200, scaled to 640 x 320, is 160 x 80: a side of 113.1."""
    large = [Object(0, (0.0, 0.0, 0.25, 0.25))]
    part = Part("train", ("a",), objects={"a": large * 3 + [Object(0, (0.0, 0.0, 0.01, 0.02))]})
    (found,) = pictures.object_findings(part, {"a": (400, 200)}, 640)
    assert found.outcome == "note"
    assert found.facts["median"] == pytest.approx(113.137, abs=0.01)
    assert found.facts["below_stride"] == 0.25
    assert "raise imgsz (imgsz=1280)" in found.do


def test_classes_that_cannot_be_learnt_or_measured() -> None:
    parts = {
        "train": Part("train", classes=Counter({0: 500, 1: 3})),
        "val": Part("val", classes=Counter({0: 20, 2: 4})),
    }
    found = {one.about: one for one in dataset.class_findings(["a", "b", "c", "d"], parts)}
    assert found["classes"].words == "2 of 4 classes are in train, objects from a 500 to b 3"
    only = found["classes.val_only"]
    assert (only.outcome, only.details) == ("note", ("c: 4",)), "a trainer trains all the same"
    assert only.words == (
        "1 of 2 classes in val are not in train: with 4 of 24 objects there, they count as 0 in its mAP, 50% of it"
    )
    parts["val"].classes[3] = 1  # c and d of a, c, d: most of what is measured cannot be learnt
    (only,) = [one for one in dataset.class_findings(["a", "b", "c", "d"], parts) if one.about == "classes.val_only"]
    assert (only.outcome, only.details) == ("wrong", ("c: 4", "d: 1"))
    assert only.facts == {"classes": 2, "of": 3, "objects": 5}
    assert found["classes.never"].details == ("d",)
    assert found["classes.rare"].details == ("b: 3",)


@pytest.mark.parametrize(("factor", "told"), [(1.2, True), (3.0, False)])
def test_objects_that_keep_their_size(factor: float, told: bool) -> None:
    """By hand: pairs of which one is so many times as large differ by log(factor) / sqrt(2), 13 % and 78 %."""
    sides = [0.1, 0.1 * factor]
    objects = {f"{at}": [Object(at, (0.2, 0.2, 0.2 + side, 0.2 + side)) for side in sides] for at in range(40)}
    parts = {"train": Part("train", objects=objects, classes=Counter(dict.fromkeys(range(40), 2)))}
    found = {one.about: one for one in dataset.class_findings([str(at) for at in range(40)], parts)}
    assert ("classes.sizes" in found) == told
    if told:
        assert found["classes.sizes"].outcome == "note"
        assert "differ in size by 13%" in found["classes.sizes"].words
        assert "scale=0" in found["classes.sizes"].do


def test_labels_of_no_image(scenes: Path) -> None:
    other = scenes / "labels" / "train" / "elsewhere.txt"
    other.write_text("0 0.5 0.5 0.2 0.2\n")
    found = found_in(scenes)["labels.orphans"]
    assert (found.outcome, found.details) == ("note", (str(other),))


def test_a_part_that_is_not_there_is_found_not_raised(scenes: Path) -> None:
    (scenes / "scenes.yaml").write_text("train: images/train\nnames: [a, b, c, d, e, f, g, h]\n")
    found = found_in(scenes)
    assert "has no val images" in found["images.val"].words
    assert wrong(found) == {"images.val"}


def test_a_yaml_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data: no such dataset YAML"):
        doctor(DoctorSettings(data=str(tmp_path / "x.yaml")))


def test_images_alone(scenes: Path) -> None:
    report = doctor(DoctorSettings(data=str(scenes / "images" / "unlabelled"), model="no.pt", device="cpu"))
    assert [title for title, _ in report.sections] == ["Machine", "Images", "Start"]


def test_images_that_a_list_names_and_are_not_there(scenes: Path) -> None:
    there = scenes / "images" / "train" / "00000.jpg"
    (scenes / "list.txt").write_text(f"{there}\n/gone/a.jpg\n")
    yaml = scenes / "scenes.yaml"
    yaml.write_text(yaml.read_text().replace("train: images/train", "train: list.txt"))
    found = found_in(scenes)["images.train"]
    assert (found.outcome, found.details) == ("wrong", ("/gone/a.jpg",))
    assert found.words == "train: 1 of 2 images are not there"


def test_which_losses_spoil() -> None:
    assert [lost(0, 100), lost(1, 100), lost(2, 100)] == ["ok", "note", "wrong"]


def test_words_and_plain_values() -> None:
    some = Finding("a", "wrong", "it is so", "do this", tuple(f"file {n}" for n in range(8)))
    report = Report((("Part", (some, Finding("b", "ok", "fine"))),))
    assert not report.ok
    assert report.text().splitlines() == [
        "Part",
        "  WRONG  it is so",
        *(f"           file {number}" for number in range(5)),
        "           and 3 more (json=FILE lists all)",
        "         -> do this",
        "  ok     fine",
        "",
        "1 wrong, 0 to note",
    ]
    assert report.as_dict()["findings"][0]["details"] == [f"file {n}" for n in range(8)]


# -- the start --------------------------------------------------------------------------------------------------------


def likely(labelled: int, found: int, again: float = 0.9, score: float = 0.2) -> dict[str, Finding]:
    fit = Fit("yolo11n", 64, score, again, labelled, found)
    return {one.about: one for one in start.fit_findings(fit, "yolo11n.pt", 80, "my.yaml")}


@pytest.mark.parametrize(
    ("labelled", "found", "start", "sure"),
    [(65, 58, "objects", "weak"), (367, 173, "open", "none"), (410, 2, "coco", "weak"), (5, 5, "open", "none")],
)
def test_the_images_that_were_measured(labelled: int, found: int, start: str, sure: str) -> None:
    """FOD-A, on which objects won; COCO's own, never compared; circuit boards, whose objects COCO does not find."""
    one = likely(labelled, found)["start.likely"]
    assert (one.facts["likely"], one.facts["sure"]) == (start, sure)
    assert any("on one data set" in line and "selftrain" in line for line in one.details)


def test_without_labels_the_look_decides() -> None:
    assert likely(0, 0, again=0.3)["start.likely"].facts["likely"] == "coco"
    assert "no labels looked at" in likely(0, 0)["start.measure"].words


def test_the_share_has_an_interval() -> None:
    """Wilson's of 58 in 65, from scipy.stats.binomtest(58, 65).proportion_ci(method='wilson')."""
    assert start.interval(58, 65) == pytest.approx((0.79399, 0.94685), abs=2e-5)
    assert start.interval(0, 10)[0] == 0.0


def test_other_weights_than_coco_were_not_compared() -> None:
    found = start.fit_findings(Fit("mine", 64, 0.5, 0.9, 65, 60), "mine.pt", 4, "my.yaml")
    assert [one.outcome for one in found] == ["ok", "unknown"]
