"""Videos through the commands: frames are images everywhere, and what cannot be read is listed once."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import headstart
from gone import gone_at
from headstart.comparison import likeness
from headstart.comparison.origins import pretraining_images
from headstart.comparison.recipes import read_recipe
from headstart.comparison.start_records import PretrainingFacts
from headstart.images.decode import read_image
from headstart.images.index import find_images
from headstart.jobs.doctor import doctor
from headstart.jobs.export_labels import export_labels
from headstart.methods.base import GivenLabels
from headstart.pseudolabels.base import PseudoLabels
from headstart.pseudolabels.labelling import Detections, Labelling
from headstart.settings.tools import DoctorSettings
from small import SMALL


def scene(number: int) -> np.ndarray:
    """A picture of its own, RGB."""
    random = np.random.default_rng(number)
    image = cv2.resize(random.integers(0, 255, (6, 8, 3), dtype=np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(image)


def film(path: Path, numbers: list[int]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 2.0, (96, 64))
    for number in numbers:
        writer.write(scene(number)[..., ::-1])
    writer.release()
    return path


def pretrain(data: Path, out: Path, **more: object) -> headstart.Run:
    (data.parent / "small.yaml").write_text(SMALL)
    fixed = {"model": str(data.parent / "small.yaml"), "method": "dino", "batch": 4, "imgsz": 32, "local_imgsz": 32}
    fixed |= {"locals": 1, "workers": 0, "device": "cpu", "report": False, "probe_every": 0, "log_every": 1}
    return headstart.pretrain(data=str(data), out=str(out), **{**fixed, **more})


def test_a_run_learns_from_frames_and_goes_on_bit_by_bit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    film(data / "a.avi", [0, 1, 1, 2, 3, 4, 5, 6, 7])
    cv2.imwrite(str(data / "b.png"), scene(9))
    (data / "c.mp4").write_bytes(b"nothing")
    whole = pretrain(data, tmp_path / "whole", steps=6)
    log = (tmp_path / "whole/log.txt").read_text()
    assert "a.avi: 9 frames, every 0.5 s 9, 1 near-identical left out" in log
    assert "9 images, " in log  # eight frames and a picture
    listed = list(csv.reader((tmp_path / "whole/skipped.csv").open()))
    assert listed == [["path", "reason"], [str(data / "c.mp4"), "not a video"]]

    with gone_at(5):
        pretrain(data, tmp_path / "parts", steps=6, save_every=2)
    assert "every: 0.5" in (tmp_path / "parts/settings.yaml").read_text()
    again = headstart.pretrain(resume=True, out=str(tmp_path / "parts"))
    one, two = (torch.load(run.checkpoint, weights_only=False)["model"].state_dict() for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert list(csv.reader((tmp_path / "parts/skipped.csv").open())) == listed


def test_a_frame_that_is_a_test_image_is_seen(tmp_path: Path) -> None:
    """Saved anew from the video that is learnt from: not by content of files, but by what it shows."""
    film(tmp_path / "clip.avi", list(range(20)))
    frames = list(find_images(str(tmp_path / "clip.avi"), every=0))
    (tmp_path / "val").mkdir()
    for number in range(20, 30):
        cv2.imwrite(str(tmp_path / f"val/{number}.jpg"), scene(number))
    copied = tmp_path / "val/copied.jpg"
    cv2.imwrite(str(copied), cv2.cvtColor(read_image(frames[7]), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    test = likeness.thumbnails([str(path) for path in sorted((tmp_path / "val").iterdir())])
    others = likeness.thumbnails(frames, tmp_path / "looks.npz")
    assert likeness.look_alike(test, others) == [(str(copied), frames[7])]
    assert likeness.thumbnails(frames, tmp_path / "looks.npz").paths == tuple(frames)  # from the file
    assert likeness.numbered(frames[7]) == ("clip_#", 7)
    assert likeness.numbered("/x/clip_000007.jpg") == ("clip_#", 7)


def test_a_comparison_finds_the_frames_of_a_pretraining_and_of_a_recipe(tmp_path: Path) -> None:
    video = str(film(tmp_path / "clip.avi", list(range(12))))
    facts = {"folder": "x", "data": (video,), "images": 6, "method": "dino", "model": "", "steps": 1, "seconds": 1.0}
    known = PretrainingFacts(**facts, device="cpu", every=1.0)
    assert pretraining_images(known) == find_images(video, every=1.0).paths()
    assert pretraining_images(known.model_copy(update={"every": None})) == find_images(video).paths()
    (tmp_path / "recipe.yaml").write_text(f"method: dino\ndata: {video}\nevery: 2\n")
    recipe = read_recipe(tmp_path / "recipe.yaml", problems := [])
    assert not problems
    assert recipe is not None
    assert recipe.every == 2.0


def test_doctor_looks_at_frames(tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", list(range(12)))
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    report = doctor(DoctorSettings(images=str(tmp_path), model="not-there.pt", device="cpu"))
    found = {one.about: one for one in report.findings}
    assert found["videos"].words.startswith("12 of 12 images are frames of videos: clip.avi: 12 frames, every 0.5 s 12")
    assert found["videos.read"].outcome == "note"
    assert found["sizes"].facts["commonest"] == (96, 64)
    assert "all of 12 images can be read" in found["images.images.read"].words
    json.dumps(report.as_dict())


def test_labels_of_frames_are_written_with_the_frames(tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", [3, 4, 5])
    images = find_images(str(tmp_path / "clip.avi"))
    none = PseudoLabels.gather(3, torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    given = GivenLabels(("bolt",), torch.zeros(0).long(), none)
    box, score, label = torch.tensor([[0.0, 0, 0.5, 0.5]]), torch.tensor([0.9]), torch.tensor([0])
    found = Labelling.split(Detections(torch.tensor([1]), box, score, label, torch.arange(3)), 0.5)
    assert export_labels(tmp_path / "out", images, given, found) == (1, 0, 2, 0)
    saved = tmp_path / "out/images/clip-000001.jpg"
    far = [np.abs(read_image(str(saved)).astype(int) - read_image(path)).mean() for path in images]
    assert far[1] < 8 < 30 < min(far[0], far[2])  # a JPEG of strong colors
    assert (tmp_path / "out/labels/clip-000001.txt").read_text().startswith("0 0.25")
    (tmp_path / "clip.avi").write_bytes(b"nothing any more")
    assert export_labels(tmp_path / "other", images, given, found) == (0, 0, 2, 1)


def test_what_to_label_next_is_saved_as_images(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from headstart.jobs.embed import embed
    from headstart.settings.tools import EmbedSettings

    film(tmp_path / "clip.avi", list(range(8)))
    (tmp_path / "small.yaml").write_text(SMALL)
    made = embed(
        EmbedSettings(
            data=str(tmp_path / "clip.avi"), model=str(tmp_path / "small.yaml"), out=str(tmp_path / "f.parquet"),
            imgsz=64, boxes=False, next=3, workers=0, device="cpu",
        )
    )  # fmt: skip
    assert made.images == 8
    assert len(made.chosen) == 3
    saved = sorted(path.name for path in (tmp_path / "f.next").iterdir())
    assert saved == sorted(f"clip-{int(path.split('frame=')[1][:6]):06d}.jpg" for path in made.chosen)
