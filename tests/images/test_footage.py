"""Which frames of a video are used, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import films
from headstart.errors import UserError
from headstart.images import footage, frames, index_cache, video
from headstart.images.cache import open_cache
from headstart.images.decode import read_image
from headstart.images.index import ImageIndex, find_images
from headstart.images.loader import ImageLoader


def numbers(index: ImageIndex) -> list[int]:
    return [frame.number for path in index if (frame := frames.parse(path))]


def test_frames_are_taken_every_so_many_seconds(tmp_path: Path) -> None:
    path = films.written(tmp_path / "clip.avi", list(range(100)), rate=10)
    assert numbers(find_images(str(path))) == list(range(0, 100, 5))  # every half a second
    assert numbers(find_images(str(path), every=2)) == [0, 20, 40, 60, 80]
    assert numbers(find_images(str(path), every=0)) == list(range(100))
    assert numbers(find_images(str(path), every=0.25)) == [0, 3, 5, 8, 10, 13, *range(15, 100)][:6] + [
        number for number in range(15, 100) if number % 5 in (0, 3)
    ]


def test_the_rate_may_vary(tmp_path: Path) -> None:
    pytest.importorskip("av")
    times = [0, 100, 200, 1500, 1600, 2900, 3000, 3100, 3600]
    path = films.encoded(tmp_path / "clip.mp4", times=times, numbers=list(range(len(times))))
    index = find_images(str(path), every=1)
    assert numbers(index) == [0, 3, 5, 6]  # the first at or after 0, 1, 2 and 3 seconds
    assert [films.number_of(read_image(name)) for name in index] == [0, 3, 5, 6]
    assert index.path(1).endswith("clip.mp4#frame=000003,t=1.500000")


def test_what_is_found_lies_beside_images_and_is_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "b.png"), films.picture(1))
    films.written(tmp_path / "clip.avi", [0] * 20 + [1] * 20 + [0] * 20, rate=10)
    index = find_images(str(tmp_path), every=0.5)
    assert [Path(path).name for path in index] == [
        "b.png",
        "clip.avi#frame=000000,t=0.000000",
        "clip.avi#frame=000020,t=2.000000",
        "clip.avi#frame=000040,t=4.000000",
    ]
    assert index.notes == (
        "clip.avi: 60 frames, every 0.5 s 12, 9 near-identical left out",
        "near-identical: no part of 32 x 32 differs by more than 8 of 255 from the frame before",
    )


def test_near_identical_is_what_no_part_of_the_picture_tells_apart(tmp_path: Path) -> None:
    """A fixed camera with noise shows nothing new; a small thing that comes into its view does."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.integers(60, 180, (240, 320, 3), dtype=np.uint8), (0, 0), 3)
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 2, (320, 240))
    for number in range(20):
        image = np.clip(ground + random.normal(0, 5, ground.shape), 0, 255).astype(np.uint8)
        if number >= 12:  # 10 x 10 of 320 x 240 pixels
            image[100:110, 50:60] = 250
        writer.write(image)
    writer.release()
    assert numbers(find_images(str(tmp_path), every=0)) == [0, 12]


def test_a_second_start_looks_at_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.written(tmp_path / "clip.avi", list(range(30)))
    first = find_images(str(path), tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(footage, "look_through", lambda *_: pytest.fail("it was looked through again"))
        again = find_images(str(path), tmp_path / "cache")
        assert (list(again), again.notes, again.fingerprint()) == (list(first), first.notes, first.fingerprint())
        with pytest.raises(pytest.fail.Exception):
            find_images(str(path), tmp_path / "cache", every=1)
    films.written(path, list(range(60)))
    os.utime(path, (1, 1))
    assert len(find_images(str(path), tmp_path / "cache")) == 12
    (kept,) = [one for one in (tmp_path / "cache/videos").iterdir() if json.loads(one.read_text())["frames"] == 60]
    kept.write_text("{")
    assert len(find_images(str(path), tmp_path / "cache")) == 12


def test_a_kept_index_notices_a_video_that_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    monkeypatch.setattr(index_cache, "SETTLED", 0.0)
    (tmp_path / "films").mkdir()
    path = films.written(tmp_path / "films/clip.avi", list(range(30)))
    assert len(find_images(str(path.parent), tmp_path / "cache")) == 6
    assert list((tmp_path / "cache/index").iterdir())
    folder = path.parent.stat()
    with path.open("r+b") as file, films.written(tmp_path / "b.avi", list(range(50))).open("rb") as other:
        file.write(other.read())  # in its place: the folder keeps its time
    assert path.parent.stat().st_mtime_ns == folder.st_mtime_ns
    assert len(find_images(str(path.parent), tmp_path / "cache")) == 10


def test_a_video_that_was_cut_short_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = films.written(tmp_path / "clip.avi", list(range(100)), rate=10).read_bytes()
    (tmp_path / "clip.avi").write_bytes(whole[: len(whole) * 6 // 10])
    (tmp_path / "none.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 400)
    index = find_images(str(tmp_path), every=1)
    found = numbers(index)
    assert found == list(range(0, 10 * len(found), 10))
    assert 3 <= len(found) <= 5  # of about 60 frames the last 16 may be decoded in part
    assert [films.number_of(read_image(path)) for path in index] == found
    (cut, short), (none, unread) = index.skipped
    assert (Path(cut).name, Path(none).name) == ("clip.avi", "none.mp4")
    assert short.startswith("truncated or damaged: used as far as it can be read, ")
    assert unread.startswith("damaged or truncated video")
    assert f"2 of 2 videos are not used, or not to their end: {cut} ({short}), ..." in index.notes


def test_an_estimate_in_a_header_is_no_damage(tmp_path: Path) -> None:
    pytest.importorskip("av")
    times = [number * 40 for number in range(20)] + [800 + number * 400 for number in range(20)]
    path = films.encoded(tmp_path / "a.mkv", times=times, numbers=list(range(40)))
    assert cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) > 100  # time by rate
    assert not find_images(str(path)).skipped


def test_only_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("nothing")
    with pytest.raises(UserError, match=r"1 videos cannot be read, such as .*a.mp4 \(not a video\)"):
        find_images(str(tmp_path))


def test_lists_and_data_take_single_frames(tmp_path: Path) -> None:
    path = films.written(tmp_path / "clip.avi", list(range(30)))
    named = list(find_images(str(path)))[2:4]
    assert list(find_images(named)) == named
    (tmp_path / "list.txt").write_text("\n".join(named) + f"\n{path}\n")
    assert list(find_images(str(tmp_path / "list.txt"))) == list(find_images(str(path)))


def test_labelled_images_are_no_frames(tmp_path: Path) -> None:
    path = films.written(tmp_path / "images/clip.avi", list(range(30))) if (tmp_path / "images").mkdir() is None else ""
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images/clip.avi\nval: images\nnames: [a]\n")
    with pytest.raises(UserError, match=r"clip\.avi is a video: its frames have no labels"):
        find_images(str(data))
    with pytest.raises(UserError, match=r"clip\.avi is a video: its frames have no labels"):
        find_images(str(path), labelled=True)
    cv2.imwrite(str(tmp_path / "images/a.png"), films.picture(1))
    data.write_text(f"path: {tmp_path}\ntrain: images\nval: other\nnames: [a]\n")
    index = find_images(str(data))
    assert [Path(one).name for one in index] == ["a.png"]
    assert "1 videos in train of" in index.notes[0]
    assert [Path(one).name for one in find_images(str(tmp_path / "images"), labelled=True)] == ["a.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_after_the_first_decodes_nothing(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.written(tmp_path / "clip.avi", list(range(60)))
    index = find_images(str(path))
    with open_cache("disk", index, None, folder=tmp_path / "cache") as cache:

        def batches(start: int, steps: int) -> list[tuple[list[int], list[int]]]:
            loader = ImageLoader(
                index, batch=4, max_area=None, workers=workers, seed=3, start_step=start, steps=steps,
                reader=cache.reader,
            )  # fmt: skip
            with loader:
                return [
                    (one.indices.tolist(), [films.number_of(p.permute(1, 2, 0).numpy()) for p in one.pixels])
                    for one in loader
                ]

        first = batches(0, 3)
        assert [[5 * row for row in rows] for rows, _ in first] == [shown for _, shown in first]
        assert cache.store is not None
        assert cache.store.kept() == 12
        monkeypatch.setattr(video, "read_frame", lambda frame: pytest.fail("it was decoded again"))
        assert batches(0, 3) == first
        if not workers:
            assert batches(1, 3) == first[1:]  # as a run that goes on
