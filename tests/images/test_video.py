"""A frame is exactly the one that its name says, wherever it is read from, and whatever was read before."""

from __future__ import annotations

import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import films
from headstart.images import decode, footage, video
from headstart.images.decode import DecodeError, read_image
from headstart.images.frames import Frame, file_of, parse

KINDS = {
    "fixed.mp4": {},
    "open.mp4": {"x264_params": "open-gop=1:keyint=40:bframes=3:log=-1"},
    "refresh.mp4": {"x264_params": "intra-refresh=1:keyint=40:log=-1"},
    "varied.mp4": {"varied": True},
    "varied.mkv": {"varied": True},
    "stream.ts": {},
    "web.webm": {"codec": "libvpx-vp9", "cpu_used": "8"},
    "old.avi": {"codec": "mpeg4", "bf": "2"},
    "old.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2"},
}


def varied(frames: int) -> list[int]:
    chosen = random.Random(0)
    times = [0]
    for _ in range(frames - 1):
        times.append(times[-1] + chosen.choice([20, 33, 40, 200, 333]))
    return times


def in_order(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        there, image = capture.read()
        if not there:
            return frames
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_found_from_anywhere(name: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    options = dict(KINDS[name])
    times = varied(90) if options.pop("varied", False) else None
    path = films.encoded(tmp_path / name, times=times, **options)
    reference = in_order(path)
    assert [films.number_of(frame) for frame in reference] == list(range(90))  # what shows is what was written
    found = footage.look_through(str(path), 0)
    assert (found.frames, found.numbers) == (90, list(range(90)))
    assert not found.ended
    assert sum(seconds is not None for seconds in found.seconds) >= 88  # the last frame of some has no time
    frames = found.paths(str(path))
    random.Random(1).shuffle(frames)
    for written in frames[:40]:
        frame = parse(written)
        assert frame is not None
        assert np.array_equal(read_image(written), reference[frame.number])


def test_opencv_by_itself_gives_other_frames(tmp_path: Path) -> None:
    """Why frames are looked for by their time; where this fails one day, seeking could be simpler."""
    pytest.importorskip("av")
    path = films.encoded(tmp_path / "varied.mp4", times=varied(90))
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    wrong = 0
    for number in range(60, 80):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        there, image = capture.read()
        wrong += not there or films.number_of(image) != number
    assert wrong


def test_a_frame_without_a_time_is_counted(tmp_path: Path) -> None:
    path = films.written(tmp_path / "a.avi", list(range(60)))
    for number in (41, 3, 4, 59, 58, 0):
        assert films.number_of(read_image(f"{path}#frame={number:06d}")) == number
    assert not video.Capture(str(path)).frame(60, None)


def test_times_that_lead_elsewhere_are_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.written(tmp_path / "a.avi", list(range(60)))
    real = video.Capture.frame

    def next_one(self: video.Capture, number: int, seconds: float | None) -> object:
        return real(self, number + 1, None)

    monkeypatch.setattr(video.Capture, "frame", next_one)
    found = footage.look_through(str(path), 1.0)
    assert found.numbers == [0, 10, 20, 30, 40, 50]
    assert found.paths(str(path))[1] == f"{path}#frame=000010"


def test_names_of_frames() -> None:
    frame = Frame("/a/b c#1.MP4", 241, 8.0413671)
    assert frame.path == "/a/b c#1.MP4#frame=000241,t=8.041367"
    assert parse(frame.path) == Frame("/a/b c#1.MP4", 241, 8.041367)
    assert parse("/a.mkv#frame=000007") == Frame("/a.mkv", 7, None)
    assert file_of(frame.path) == "/a/b c#1.MP4"
    for path in ("/a.mp4", "/a.jpg#frame=000001", "/a.mp4#frame=1,t=2", "/x#frame=1.jpg"):
        assert parse(path) is None
        assert file_of(path) == path


def test_a_frame_is_scaled_down_as_an_image_is(tmp_path: Path) -> None:
    path = films.written(tmp_path / "a.avi", [5])
    assert read_image(f"{path}#frame=000000").shape == (64, 96, 3)
    small = read_image(f"{path}#frame=000000", max_area=32 * 48)
    assert small.shape == (32, 48, 3)
    assert small.dtype == np.uint8


def test_threads_and_forks_have_videos_of_their_own(tmp_path: Path) -> None:
    path = films.written(tmp_path / "a.avi", list(range(100)))
    names = [f"{path}#frame={number:06d},t={number / 10:.6f}" for number in range(100)]
    chosen = random.Random(0).sample(range(100), 100)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: films.number_of(read_image(names[n])), chosen)) == chosen
    read_image(names[10])
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            right = all(films.number_of(read_image(names[n])) == n for n in (70, 11, 12, 90))
            os._exit(0 if right else 1)
        assert films.number_of(read_image(names[11])) == 11
        assert os.waitpid(child, 0)[1] == 0
        assert films.number_of(read_image(names[12])) == 12


def test_few_videos_are_open_at_a_time(tmp_path: Path) -> None:
    paths = [films.written(tmp_path / f"{name}.avi", [1, 2, 3]) for name in range(video.OPEN + 2)]
    for path in paths:
        read_image(f"{path}#frame=000001")
    assert [key[0] for key in video._held.videos] == [str(path) for path in paths[-video.OPEN :]]


def test_a_video_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = films.written(tmp_path / "a.avi", [1, 2, 3])
    assert films.number_of(read_image(f"{path}#frame=000001")) == 2
    films.written(tmp_path / "b.avi", [7, 8, 9, 10]).replace(path)
    assert films.number_of(read_image(f"{path}#frame=000001")) == 8
    path.unlink()
    with pytest.raises(DecodeError, match="no such file"):
        read_image(f"{path}#frame=000001")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "not a video"),
        (b"ffconcat version 1.0\nfile a.avi\n", "not a video"),
        (b"export const x: number = 1;\n" * 20, "not a video"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 400, "damaged or truncated video"),
    ],
)
def test_what_is_no_video_is_not_played(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=reason):
        footage.look_through(str(path), 0)


def test_names_are_no_patterns(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), films.picture(number))
    (tmp_path / "%d.avi").write_bytes(b"RIFF\0\0\0\0AVI " + b"\0" * 600)
    shutil.copy(films.written(tmp_path / "a.avi", [4, 5]), tmp_path / "0.avi")
    with pytest.raises(DecodeError, match="damaged or truncated"):
        footage.look_through(str(tmp_path / "%d.avi"), 0)


def test_frames_that_claim_too_much_are_refused_before_one_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.written(tmp_path / "a.avi", [1, 2])
    monkeypatch.setattr(decode, "MAX_PIXELS", films.WIDE * films.HIGH - 1)
    monkeypatch.setattr(video.Capture, "grab", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(DecodeError, match="too large: frames of 96 x 64 pixels, more than 6143"):
        footage.look_through(str(path), 0)


def test_frames_that_take_more_than_a_share_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_room", lambda: 50_000)
    with pytest.raises(DecodeError, match="too large: frames of 96 x 64 pixels take"):
        footage.look_through(str(films.written(tmp_path / "a.avi", [1, 2])), 0)


def test_storage_that_fails_is_not_a_damaged_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.written(tmp_path / "a.avi", [1, 2])
    tried = []

    def stale(path: str, read: object) -> bytes:
        tried.append(path)
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(decode, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(decode, "_bytes", stale)
    with pytest.raises(decode.RunError, match="Stale file handle"):
        read_image(f"{path}#frame=000001")
    assert tried == [str(path)] * 3
