"""Any bytes where a file is expected give a value, a skipped file or a `UserError`; never anything else.

``HEADSTART_FUZZ_SECONDS`` is the time of each of these, a minute by default. ``pytest -m slow tests/security``.
"""

from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import fake_comparison
import fake_run
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from headstart.comparison.results import read_results
from headstart.comparison.shown import read_detections
from headstart.comparison.starts import Start, pretraining_of
from headstart.errors import UserError
from headstart.images.dataset_yaml import read_dataset_yaml
from headstart.images.decode import DecodeError, decode
from headstart.images.labels import Keypoints, read_labels, survey
from headstart.jobs.going_on import continued
from headstart.report import write_report
from headstart.report.run_reader import find_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SECONDS = float(os.environ.get("HEADSTART_FUZZ_SECONDS", "60"))
ONE = 5.0
"""Seconds that one file may take."""
MEMORY = 2**31
"""Bytes that one test may take beyond what the process had."""


class Enough(BaseException):
    """The time is up: nothing is wrong. Hypothesis takes an Exception for a fault, and looks for a shorter one."""


def fuzzed(strategy: some.SearchStrategy[Any], read: Callable[[Any], object]) -> None:
    """Read one example after the other, until the time is up; what is found is shortened until then, and raised."""
    end = time.monotonic() + SECONDS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found: list[tuple[Exception, Any]] = []
    count = 0

    @settings(max_examples=10**6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(example: Any) -> None:
        nonlocal count
        if time.monotonic() > end:
            raise Enough
        count += 1
        began = time.process_time()
        try:
            with suppress(UserError, DecodeError):
                read(example)
            assert time.process_time() - began < ONE
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY
        except Exception as error:
            found.append((error, example))
            raise

    with suppress(Enough):
        run()
    print(f"{count:,} examples in {SECONDS:g} s")
    if found:  # the time was up while Hypothesis looked for a shorter one
        error, example = found[-1]
        raise AssertionError(f"{type(error).__name__} for {example!r:.2000}") from error


def drawn(data: bytes) -> bool:
    """Whether a report is drawn of this example: of one in eight, since it takes many times as long as reading does."""
    return zlib.crc32(data) % 8 == 0


def damaged(seeds: list[bytes], *, words: list[bytes] = ()) -> some.SearchStrategy[bytes]:  # type: ignore[assignment]
    """Files that are nearly right: bytes changed, parts left out, doubled, or put in; and files that never were."""

    @some.composite
    def build(draw: Any) -> bytes:
        data = bytearray(draw(some.sampled_from(seeds)))
        for _ in range(draw(some.integers(0, 6))):
            at = draw(some.integers(0, len(data)))
            kind = draw(some.sampled_from(["change", "cut", "drop", "double", "put", "word"]))
            if kind == "change" and at < len(data):
                data[at] = draw(some.integers(0, 255))
            elif kind == "cut":
                del data[at:]
            elif kind == "drop":
                del data[at : at + draw(some.integers(1, 40))]
            elif kind == "double":
                data[at:at] = data[at : at + draw(some.integers(1, 40))]
            elif kind == "put":
                data[at:at] = draw(some.binary(max_size=20))
            elif words:
                data[at:at] = draw(some.sampled_from(list(words)))
        return bytes(data)

    return build() | some.binary(max_size=400)


# Values of any kind in place of those that are meant.
JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(10**320), 10**320) | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@some.composite
def exchanged(draw: Any, content: Any) -> Any:
    """`content` with a few of its parts, at any depth, exchanged for others or left out."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(some.integers(1, 3))):
        one = content
        while True:
            keys = list(one) if isinstance(one, dict) else list(range(len(one)))
            if not keys:
                break
            key = draw(some.sampled_from(keys))
            if isinstance(one[key], (dict, list)) and one[key] and draw(some.booleans()):
                one = one[key]
                continue
            if draw(some.booleans()):
                one[key] = draw(JSON)
            else:
                del one[key]
            break
    return content


# Images


def images() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    found = [cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")]
    found.append(cv2.imencode(".png", noise.astype(np.uint16) * 256)[1].tobytes())
    for kind, more in (("GIF", {}), ("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})):
        stream = io.BytesIO()
        Image.fromarray(noise).save(stream, kind, **more)
        found.append(stream.getvalue())
    return found


@pytest.mark.parametrize("area", [None, 400])
def test_images(area: int | None) -> None:
    words = [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\0",
        b"\xff\xd8",
        b"\xff\xc0",
        b"IHDR",
        b"VP8X",
        b"II*\0",
    ]
    fuzzed(damaged(images(), words=words), lambda data: decode(data, max_area=area))


# Labels and data sets


def test_labels() -> None:
    good = [b"0 0.5 0.5 0.2 0.2\n", b"1 0.1 0.1 0.9 0.1 0.9 0.9\n" * 3, "0 0.5 0.5 0.2 0.2 Ü\n".encode("utf-16")]
    words = [
        b"nan",
        b"inf",
        b"1e999",
        b"-0",
        b"1" * 5000,
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x85",
        b"_",
        "\u0661".encode(),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "labels").mkdir()
        path, image = folder / "labels/a.txt", str(folder / "images/a.jpg")

        def read(data: bytes) -> None:
            path.write_bytes(data)
            for classes, keypoints in (
                (None, None),
                (2, None),
                (1, Keypoints(2, 3)),
                (1, Keypoints(1, 2, learnt=False)),
            ):
                found = read_labels(path, classes, keypoints)
                assert np.isfinite(found.array()).all()
                survey([image], classes, keypoints)

        fuzzed(damaged(good, words=words), read)


def test_dataset_yamls() -> None:
    content = {
        "path": ".",
        "train": "images",
        "val": ["a", "b"],
        "names": {0: "a", 1: "b"},
        "nc": 2,
        "kpt_shape": [2, 3],
    }
    good = [yaml.safe_dump(content).encode(), b"train: a\nval: b\nnames: [x]\ndownload: |\n  import os\n"]
    words = [
        b"!!bool ",
        b"!!int ",
        b"&a ",
        b"*a",
        b"[",
        b"{",
        b"? ",
        b"<<: ",
        b"2024-13-45",
        b"1e999",
        b".inf",
        b"\0",
        b"~",
    ]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data.yaml"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            found = read_dataset_yaml(path)
            for part in found.parts:
                found.paths(part)
                found.looked_for(part)
            with suppress(UserError):
                found.class_names()
            found.keypoints()

        fuzzed(damaged(good, words=words) | exchanged(content).map(lambda one: yaml.safe_dump(one).encode()), read)


# Run folders


def run_folder(folder: Path) -> Path:
    path = fake_run.write_run(folder / "run")
    fake_run.write_hand_back(path, fake_run.LOST)
    return path


FILES = ("settings.yaml", "metrics.jsonl", "events.jsonl", "handback.json", "skipped.csv", "noted.csv")
ABSENT = {
    "events.jsonl": b'{"step": 7, "kind": "alarm", "message": "it fell"}\n',
    "noted.csv": b"path,note\na.png,12 bits in 16\n",
}
"""What a run has where it had cause to, and this one had not."""


@pytest.mark.parametrize("name", FILES)
def test_run_folders(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = run_folder(Path(place))
        path = folder / name
        good = path.read_bytes()[-3000:] if path.is_file() else ABSENT[name]

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(UserError):
                find_run(folder)
                if drawn(data):
                    write_report(folder)
            with suppress(UserError):
                pretraining_of(Start("a", "checkpoint", str(folder / "headstart.pt")))
            with suppress(UserError):
                continued({"out": str(folder)}, [])

        (folder / "headstart.pt").touch()
        write_report(folder)
        read(good)  # what both import takes longer than one file may
        strategy = damaged([good], words=[b"1e999", b"NaN", b"{", b"[", b"\0", b"\xff", b'"', b"1" * 400])
        if name == "settings.yaml":
            content = yaml.safe_load(good)
            strategy |= exchanged(json.loads(json.dumps(content, default=str))).map(
                lambda one: yaml.safe_dump(one).encode()
            )
        elif name == "handback.json":
            strategy |= exchanged(json.loads(good)).map(lambda one: json.dumps(one).encode())
        fuzzed(strategy, read)


@pytest.mark.parametrize("name", ["results.json", "detections.json"])
def test_comparisons(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        starts = ["scratch", "coco", "dino"]
        fake_comparison.write_comparison(folder, starts=starts, cells=fake_comparison.every_cell(starts, [0, 1, 2]))
        path = folder / name
        good = path.read_bytes()

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(UserError):
                read_results(folder)
            with suppress(UserError):
                read_detections(folder)
            if drawn(data):
                write_report(folder)

        write_report(folder)
        fuzzed(damaged([good]) | exchanged(json.loads(good)).map(lambda one: json.dumps(one).encode()), read)
