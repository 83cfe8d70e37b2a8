"""Images that a training does not take, against what Ultralytics itself says of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.comparison.dataset import read_dataset
from headstart.detectors.find import finetuner
from headstart.doctor.dataset import label_findings, read_part
from headstart.images.dataset_yaml import read_dataset_yaml

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8))


def images(folder: Path) -> list[Path]:
    """Files of every kind, good and bad."""
    folder.mkdir(parents=True)
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.webp", "WEBP"), ("a.tif", "TIFF"), ("a.bmp", "BMP")):
        NOISE.save(folder / name, kind)
    NOISE.save(folder / "gif.jpg", "GIF")
    NOISE.save(folder / "ppm.png", "PPM")
    NOISE.save(folder / "png.jpg", "PNG")
    NOISE.save(folder / "two.mpo", "MPO", save_all=True, append_images=[NOISE])
    NOISE.resize((60, 9)).save(folder / "flat.png")
    NOISE.resize((10, 10)).save(folder / "least.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("<html>404</html>")
    whole = (folder / "a.png").read_bytes()
    (folder / "flipped.png").write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    (folder / "half.jpg").write_bytes((folder / "a.jpg").read_bytes()[:1500])
    (folder / "followed.jpg").write_bytes((folder / "a.jpg").read_bytes() + b"\r\n")
    return sorted(folder.iterdir())


def test_they_are_those_that_ultralytics_leaves_out(tmp_path: Path, monkeypatch) -> None:
    from ultralytics.data import utils
    from ultralytics.utils import checks

    monkeypatch.setattr(checks, "check_requirements", lambda *_, **__: False)  # it would install something
    files = images(tmp_path / "images")
    before = {path: path.read_bytes() for path in files}
    found = finetuner("yolo11n").rejected([str(path) for path in files])
    assert {path: path.read_bytes() for path in files} == before
    theirs = {
        str(path)
        for path in files
        if utils.verify_image_label((str(path), str(tmp_path / "no.txt"), "", False, 1, 0, 0, False))[0] is None
    }
    assert found.keys() == theirs
    assert {"empty.jpg", "text.jpg", "half.jpg", "flat.png", "gif.jpg", "ppm.png"} <= {
        Path(path).name for path in found
    }
    assert found[str(tmp_path / "images/flat.png")] == "60 x 9 pixels; 10 a side are the least"
    assert found[str(tmp_path / "images/empty.jpg")] == "empty file"


def test_what_a_training_would_end_at_is_left_out(tmp_path: Path) -> None:
    """Of these Ultralytics reads the head alone before the training, which then ends at the first of them."""
    from ultralytics.data.utils import verify_image_label

    for name, kind in (("a.bmp", "BMP"), ("a.tif", "TIFF"), ("a.jp2", "JPEG2000"), ("a.webp", "WEBP")):
        path = tmp_path / name
        NOISE.save(path, kind)
        assert finetuner("yolo11n").rejected([str(path)]) == {}
        whole = path.read_bytes()
        for share in (0.5, 0.9):
            path.write_bytes(whole[: int(share * len(whole))])
            assert "no image that can be read" in finetuner("yolo11n").rejected([str(path)])[str(path)], (name, share)
    path.unlink()
    (tmp_path / "b.bmp").write_bytes((tmp_path / "a.bmp").read_bytes())
    assert verify_image_label((str(tmp_path / "b.bmp"), str(tmp_path / "no.txt"), "", False, 1, 0, 0, False))[0]


def test_a_comparison_leaves_them_out_and_says_so_before_a_training(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for path in images(tmp_path / "images" / part):
            label = tmp_path / "labels" / part / f"{path.stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.2 0.2\n")
    os.mkfifo(tmp_path / "images/train/pipe.jpg")
    yaml = tmp_path / "my.yaml"
    yaml.write_text("train: images/train\nval: val.txt\nnames: [a]\n")
    (tmp_path / "val.txt").write_text("./images/val/a.png\n./images/val/empty.jpg\n./images/val/a.jpg 0\n")
    for model in ("yolo11n", "torchvision:fcos_resnet50_fpn"):
        found = read_dataset(yaml, "val", finetuner(model))
        assert found.test == (str(tmp_path / "images/val/a.png"),)
        names = {Path(path).name for path in found.pool}
        assert "a.jpg" in names
        assert not names & {"empty.jpg", "text.jpg", "pipe.jpg"}
        told = "\n".join(found.notes)
        assert "images are left out, for a training does not take them: " in told
        assert f"val: lines of {tmp_path}/val.txt that do not name an image: 1" in told
        assert f"{str(tmp_path / 'images/val/empty.jpg')!r}: empty file" in told


def test_the_doctor_says_what_was_passed_over(tmp_path: Path) -> None:
    images(tmp_path / "images")
    (tmp_path / "my.yaml").write_text("train: train.txt\nval: images\nnames: [a]\n")
    (tmp_path / "train.txt").write_text("./images/a.png\n./images/a.jpg 0\n")
    part = read_part(read_dataset_yaml(tmp_path / "my.yaml"), "train", 1, None)
    found = next(one for one in label_findings(part) if one.about == "images.train.passed_over")
    assert "lines of" in found.words
    assert "that do not name an image: 1" in found.words
