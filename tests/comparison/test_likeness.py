"""Copies whose files differ are found, on plain ground and among the frames of a recording, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from headstart.comparison import likeness
from headstart.comparison.likeness import Thumbnails, beside_each_other, look_alike, nearest, numbered, thumbnails

Pixels = npt.NDArray[np.uint8]
FRAMES = 40


def recording(seed: int, contrast: float) -> list[Pixels]:
    """Frames of a camera that moves over ground of so much contrast, in gray levels; some show a thing that lies there.

    Every pixel has the noise of a sensor.
    """
    random = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(random.normal(size=(240, 900)).astype(np.float32), (0, 0), 9)
    ground = 120 + contrast * ground / ground.std()
    frames = []
    for number in range(FRAMES):
        frame = ground[:, 12 * number : 12 * number + 320] + random.normal(0, 3, (240, 320))
        if number % 5 == 0:
            cv2.circle(frame, (60 + 3 * number, 120), 14, 40.0, -1)
        frames.append(cv2.merge([frame.clip(0, 255).astype(np.uint8)] * 3))
    return frames


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def save(image: Pixels) -> Pixels:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8)

    return save


def scaled(factor: float, how: int) -> Callable[[Pixels], Pixels]:
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how).astype(np.uint8)


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "the same pixels": lambda image: image,
    "quality 90": jpeg(90),
    "quality 60": jpeg(60),
    "half as large": scaled(0.5, cv2.INTER_AREA),
    "a third as large": scaled(1 / 3, cv2.INTER_AREA),
    "enlarged": scaled(1.7, cv2.INTER_CUBIC),
    "brighter": lambda image: cv2.add(image, np.full_like(image, 4)).astype(np.uint8),
}


def write(folder: Path, name: str, images: list[Pixels], suffix: str = ".png") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{name}{number:03d}{suffix}") for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(path, image)
    return paths


@pytest.fixture(scope="module", params=[2.5, 25.0], ids=["plain ground", "ground"])
def frames(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Pixels], Thumbnails, Thumbnails]:
    """Every other frame is a test image; the others, and those of another recording, are trained on."""
    folder = tmp_path_factory.mktemp("frames")
    images = recording(0, request.param)
    test = thumbnails(write(folder / "test", "a", images[::2]))
    others = [*write(folder / "train", "b", images[1::2]), *write(folder / "train", "c", recording(1, request.param))]
    return images[::2], test, thumbnails(others)


def test_frames_beside_each_other_are_no_copies(frames: Any) -> None:
    _, test, others = frames
    assert look_alike(test, others) == []


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found_among_their_neighbors(frames: Any, tmp_path: Path, name: str) -> None:
    images, test, others = frames
    suffix = ".png" if name == "the same pixels" else ".jpg"
    copies = thumbnails(write(tmp_path, "copy", [COPIES[name](image) for image in images], suffix))
    both = Thumbnails((*others.paths, *copies.paths), np.concatenate([others.values, copies.values]))
    found = look_alike(test, both)
    right = set(zip(test.paths, copies.paths, strict=True))
    assert set(found) <= right
    assert len(found) >= 0.9 * len(right)


@pytest.mark.parametrize(("here", "beside"), [(3, 0), (5, 0), (9, 0), (2, 1), (1, 3)])
def test_several_copies_do_not_hide_each_other(frames: Any, tmp_path: Path, here: int, beside: int) -> None:
    """Of each of some test images so many are on the other side, and so many among the test images themselves."""
    images, test, others = frames
    sides = [others, test]
    for number in range(here + beside):
        saved = [jpeg(92 - 3 * number)(image) for image in images[::2]]
        made = thumbnails(write(tmp_path, f"copy{number}-", saved, ".jpg"))
        to = sides[number >= here]
        sides[number >= here] = Thumbnails((*to.paths, *made.paths), np.concatenate([to.values, made.values]))
    found = look_alike(sides[1], sides[0])
    known = dict(zip(test.paths[::2], range(len(images)), strict=False))
    own = [(known[one], Path(other).stem) for one, other in found if one in known]
    assert all(name.startswith("copy") and int(name[-3:]) == at for at, name in own), "frames are no copies"
    assert len({at for at, _ in own}) >= 0.9 * len(known)
    assert len(own) >= 0.8 * here * len(known)


def test_a_camera_that_stands_still_for_long_makes_no_copies(tmp_path: Path) -> None:
    """More frames that differ in their noise alone than are looked at: the next thing looked at is none beyond them."""
    random, moving = np.random.default_rng(3), recording(0, 25.0)
    still = [np.clip(moving[0] + random.normal(0, 3, moving[0].shape), 0, 255).astype(np.uint8) for _ in range(20)]
    test = thumbnails(write(tmp_path / "test", "a", [still[0], *moving[10:30]]))
    assert look_alike(test, thumbnails(write(tmp_path / "train", "b", [*still[1:], *moving[31:]]))) == []


def test_plain_images_are_no_copies_of_each_other(tmp_path: Path) -> None:
    """Black frames, and walls that differ in their noise alone."""
    random = np.random.default_rng(0)
    walls = [random.normal(130, 2, (120, 160, 3)).clip(0, 255).astype(np.uint8) for _ in range(12)]
    black = [np.zeros((120, 160, 3), np.uint8)] * 2
    test, others = (thumbnails(write(tmp_path / part, "a", images)) for part, images in
                    (("a", [*walls[:6], black[0]]), ("b", [*walls[6:], black[1]])))  # fmt: skip
    assert look_alike(test, others) == []


def test_the_nearest_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "_BLOCK", 7)
    random = np.random.default_rng(0)
    some, others = (random.normal(0, 20, (count, 1024)).astype(np.float16) for count in (5, 30))
    distances = np.sqrt(((some[:, None].astype(float) - others[None].astype(float)) ** 2).mean(2))
    found = nearest(some, others)
    np.testing.assert_array_equal(found.rows, distances.argsort(1)[:, :12])
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :12], rtol=1e-4)
    few = nearest(some, others[:2])
    assert np.isinf(few.distances[:, 2:]).all()
    assert nearest(some[:0], others).rows.shape == (0, 12)


def test_it_is_fast_enough() -> None:
    """A thousand images a second, once they are decoded, with as many test images."""
    random = np.random.default_rng(0)
    values = random.normal(0, 20, (2000, 1024)).astype(np.float16)
    began = time.process_time()
    both = (
        Thumbnails(tuple(map(str, range(1000))), values[:1000]),
        Thumbnails(tuple(map(str, range(1000))), values[1000:]),
    )
    assert look_alike(*both) == []
    assert time.process_time() - began < 1


def test_thumbnails_are_kept_for_files_that_did_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path / "images", "a", recording(0, 20)[:4])
    (tmp_path / "images/broken.jpg").write_bytes(b"no image")
    given, cache = [*paths, str(tmp_path / "images/broken.jpg"), str(tmp_path / "gone.png")], tmp_path / "kept.npz"
    first = thumbnails(given, cache)
    assert first.paths == tuple(paths)
    assert [reason for _, reason in first.unread] == ["not an image", "no such file"]
    read: list[str] = []
    before = likeness.thumbnail
    monkeypatch.setattr(likeness, "thumbnail", lambda path: (read.append(path), before(path))[1])
    cv2.imwrite(paths[2], np.zeros((40, 40, 3), np.uint8))
    second = thumbnails(given, cache)
    assert set(read) == {paths[2], *given[4:]}
    np.testing.assert_array_equal(second.values[[0, 1, 3]], first.values[[0, 1, 3]])
    assert not second.values[2].any()
    cache.write_bytes(b"damaged")
    np.testing.assert_array_equal(thumbnails(given, cache).values, second.values)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/frame_0012.jpg", ("frame_#", 12)),
        ("frame_0012_jpg.rf.0a1b2c3d4e5f.jpg", ("frame_#", 12)),
        ("cam2-7-left.png", ("cam2-#-left", 7)),
        ("000525.jpg", ("#", 525)),
        ("cat.jpg", None),
    ],
)
def test_running_numbers(name: str, found: tuple[str, int] | None) -> None:
    assert numbered(name) == found


def test_frames_of_one_recording_on_both_sides(tmp_path: Path) -> None:
    images = recording(0, 25)
    named = [str(tmp_path / f"frame_{number:04d}.png") for number in range(FRAMES)]
    for path, image in zip(named, images, strict=True):
        cv2.imwrite(path, image)
    found = beside_each_other(thumbnails(named[::4]), thumbnails([p for at, p in enumerate(named) if at % 4]))
    assert len(found) >= 8
    assert all(abs(numbered(one)[1] - numbered(other)[1]) <= 2 for one, other in found)  # type: ignore[index]


def test_images_numbered_in_no_order_are_of_no_recording(tmp_path: Path) -> None:
    """Some look most like the one beside them by chance."""
    images, order = recording(0, 25), np.random.default_rng(1).permutation(FRAMES)
    named = [str(tmp_path / f"{number:04d}.png") for number in range(FRAMES)]
    for path, at in zip(named, order, strict=True):
        cv2.imwrite(path, images[at])
    assert beside_each_other(thumbnails(named[::4]), thumbnails([p for at, p in enumerate(named) if at % 4])) == []


@pytest.mark.parametrize(
    ("part", "change"), [(b"PK\x01\x02", (10, 99)), (b"PK\x01\x02", (8, 1)), (b"{'descr'", (0, 40))]
)
def test_kept_thumbnails_that_are_damaged_are_made_again(tmp_path: Path, part: bytes, change: tuple[int, int]) -> None:
    """Another compression, encryption, a bracket in the head: numpy and zipfile raise errors of their own of each."""
    kept = tmp_path / "looks.npz"
    likeness._write(kept, ["a", "b"], np.zeros((2, likeness.SIDE**2), np.float32))
    assert likeness._read(kept).keys() == {"a", "b"}
    data = bytearray(kept.read_bytes())
    place, value = change
    data[data.index(part) + place] = value
    kept.write_bytes(data)
    assert likeness._read(kept) == {}
