"""Thousands of files of every kind that people have, good and bad, and a real short pretraining over them.

    python benchmarks/odd_files.py [--files 10000] [--seed 0] [--workers 2] [--out FOLDER]

Each file is of one of about a hundred kinds; its size, contents, quality, and where it is cut or damaged, are drawn
from the seed. 10,000 take about 100 MB.

Checks that no file stops the run, that each is used, or listed once with a reason, that both together are all, that
none was changed, and tells the greatest memory that the run and its loader processes took together. Exit status 1 where
something is not so.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from headstart.errors import UserError
from headstart.images.decode import DecodeError, read_image
from headstart.images.index import find_images

Random = np.random.Generator
Make = Callable[[Random], bytes]


# -- what is drawn ----------------------------------------------------------------------------------------------------


def pixels(r: Random, height: int = 0, width: int = 0) -> np.ndarray:
    """A gradient with rectangles and, where it is not large, noise, uint8 RGB."""
    height, width = height or int(r.integers(20, 100)), width or int(r.integers(20, 100))
    image = np.linspace(0, 120, height * width * 3).reshape(height, width, 3)
    if image.size < 100_000:  # else the files would take gigabytes
        image = image + r.integers(0, 60, image.shape)
    image = image.astype(np.uint8)
    for _ in range(3):
        x, y = (int(r.integers(0, side)) for side in (width, height))
        cv2.rectangle(image, (x, y), (x + 20, y + 15), r.integers(0, 255, 3).tolist(), -1)
    return image


def pil(kind: str, mode: str = "RGB", shape: tuple[int, int] = (0, 0), frames: int = 1, **options: object) -> Make:
    def make(r: Random) -> bytes:
        first = pixels(r, *shape)
        images = [Image.fromarray(np.roll(first, 9 * turn, axis=1)) for turn in range(frames)]
        images = [image.quantize(64) if mode == "P" else image.convert(mode) for image in images]
        buffer = io.BytesIO()
        more: dict[str, object] = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
        if kind in ("JPEG", "WEBP", "AVIF", "MPO"):
            more["quality"] = int(r.integers(10, 96))
        images[0].save(buffer, kind, **more, **options)
        return buffer.getvalue()

    return make


def opencv(suffix: str, change: Callable[[np.ndarray], np.ndarray] = lambda image: image) -> Make:
    def make(r: Random) -> bytes:
        done, data = cv2.imencode(suffix, change(pixels(r)))
        assert done, suffix
        return data.tobytes()

    return make


def turned(kind: str, orientation: int) -> Make:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pil(kind, exif=exif)


def cut(make: Make, share: float) -> Make:
    """The first part of a file: about `share` of it."""

    def shortened(r: Random) -> bytes:
        data = make(r)
        return data[: int(len(data) * r.uniform(0.7 * share, min(0.99, 1.3 * share)))]

    return shortened


def filled(make: Make, share: float) -> Make:
    """A download that stopped, into a file of the full size."""

    def stopped(r: Random) -> bytes:
        data = make(r)
        return data[: int(len(data) * r.uniform(0.7 * share, min(0.99, 1.3 * share)))].ljust(len(data), b"\0")

    return stopped


def flipped(make: Make, bits: int) -> Make:
    """A file with a few bits changed, `bits` at most."""

    def damaged(r: Random) -> bytes:
        data = bytearray(make(r))
        for at in r.integers(0, len(data), r.integers(1, bits + 1)):
            data[at] ^= 1 << int(r.integers(8))
        return bytes(data)

    return damaged


def after(make: Make, more: bytes) -> Make:
    return lambda r: make(r) + more


def always(data: bytes) -> Make:
    return lambda _: data


def claims(make: Make, layout: str, mark: bytes, offset: int) -> Make:
    """A real file whose header is made to claim 32000 x 31000 pixels."""

    def claiming(r: Random) -> bytes:
        data = bytearray(make(r))
        struct.pack_into(layout, data, data.index(mark) + offset, 32000, 31000)
        return bytes(data)

    return claiming


JPEG, PNG, WEBP, TIFF, BMP = pil("JPEG"), pil("PNG"), pil("WEBP"), pil("TIFF"), pil("BMP")
JP2 = opencv(".jp2", lambda image: np.tile(image, (4, 4, 1)))  # its encoder refuses small ones
GIF_CLAIM = b"GIF89a" + struct.pack("<HH", 32000, 32000) + bytes(32)

KINDS: dict[str, Make] = {
    "rgb.jpg": JPEG,
    "rgb.JPEG": JPEG,
    "progressive.jpg": pil("JPEG", progressive=True),
    "gray.jpg": pil("JPEG", "L"),
    "cmyk.jpg": pil("JPEG", "CMYK"),
    "turned3.jpg": turned("JPEG", 3),
    "turned6.jpg": turned("JPEG", 6),
    "no_end.jpg": lambda r: JPEG(r)[:-2],
    "no_end_filled.jpg": lambda r: JPEG(r)[:-2] + bytes(4000),
    "no_end_progressive.jpg": lambda r: pil("JPEG", progressive=True)(r)[:-2],
    "half.jpg": cut(JPEG, 0.5),
    "almost.jpg": cut(JPEG, 0.97),
    "header_only.jpg": cut(JPEG, 0.05),
    "half_filled.jpg": filled(JPEG, 0.5),
    "half_progressive.jpg": cut(pil("JPEG", progressive=True), 0.5),
    "flipped.jpg": flipped(JPEG, 9),
    "trailing.jpg": after(JPEG, b"\r\n--boundary--"),
    "zeros.jpg": lambda r: b"\xff\xd8\xff" + bytes(200_000),
    "markers.jpg": always(b"\xff\xd8\xff" + b"\xff\xe0\0\2" * 50_000),
    "claims.jpg": claims(JPEG, ">HH", b"\xff\xc0", 5),
    "gif_claims.jpg": always(GIF_CLAIM),
    "png_named.jpg": PNG,
    "webp_named.jpg": WEBP,
    "gif_named.jpg": pil("GIF", frames=2),
    "avif_named.jpg": pil("AVIF"),
    "html.jpg": always(b"<!DOCTYPE html><html>404</html>"),
    "text.jpg": always(b"no image\n"),
    "empty.jpg": always(b""),
    "one_byte.jpg": always(b"\xff"),
    "random.jpg": lambda r: r.bytes(int(r.integers(1, 5000))),
    "pdf.jpg": always(b"%PDF-1.7\n" + bytes(500)),
    "zip.jpg": always(b"PK\3\4" + bytes(500)),
    "rgb.png": PNG,
    "gray.png": pil("PNG", "L"),
    "bits1.png": pil("PNG", "1"),
    "palette.png": pil("PNG", "P"),
    "rgba.png": pil("PNG", "RGBA"),
    "la.png": pil("PNG", "LA"),
    "sixteen.png": opencv(".png", lambda image: image.astype(np.uint16) * 257),
    "twelve.png": opencv(".png", lambda image: image.astype(np.uint16) * 16),
    "ten_gray.png": opencv(".png", lambda image: image[..., 0].astype(np.uint16) * 4),
    "animated.png": pil("PNG", frames=3),
    "half.png": cut(PNG, 0.5),
    "no_end.png": lambda r: PNG(r)[:-12],
    "flipped.png": flipped(PNG, 6),
    "claims.png": claims(PNG, ">II", b"IHDR", 4),
    "jpeg_named.png": JPEG,
    "ppm_named.png": opencv(".ppm"),
    "pfm_named.png": opencv(".pfm", lambda image: image.astype(np.float32) / 255),
    "one_pixel.png": pil("PNG", shape=(1, 1)),
    "line.png": pil("PNG", shape=(1, 20_000)),
    "column.png": pil("PNG", shape=(20_000, 1)),
    "strip.png": pil("PNG", shape=(12, 3000)),
    "pole.png": pil("PNG", shape=(3000, 12)),
    "large.png": pil("PNG", shape=(1500, 2000)),
    "empty.png": always(b""),
    "rgb.webp": WEBP,
    "lossless.webp": pil("WEBP", lossless=True),
    "rgba.webp": pil("WEBP", "RGBA"),
    "animated.webp": pil("WEBP", frames=3),
    "half.webp": cut(WEBP, 0.5),
    "flipped.webp": flipped(WEBP, 6),
    "rgb.bmp": BMP,
    "gray.bmp": pil("BMP", "L"),
    "bits1.bmp": pil("BMP", "1"),
    "half.bmp": cut(BMP, 0.5),
    "claims.bmp": claims(BMP, "<ii", b"BM", 18),
    "rgb.tif": TIFF,
    "lzw.tiff": pil("TIFF", compression="tiff_lzw"),
    "jpeg_inside.tif": pil("TIFF", compression="jpeg"),
    "group4.tif": pil("TIFF", "1", compression="group4"),
    "cmyk.tif": pil("TIFF", "CMYK"),
    "palette.tif": pil("TIFF", "P"),
    "rgba.tif": pil("TIFF", "RGBA"),
    "pages.tif": pil("TIFF", frames=3),
    "sixteen.tif": opencv(".tif", lambda image: image.astype(np.uint16) * 257),
    "twelve.tif": opencv(".tif", lambda image: image.astype(np.uint16) * 16),
    "float.tif": opencv(".tif", lambda image: image.astype(np.float32) / 255),
    "float_gray.tif": opencv(".tif", lambda image: image[..., 0].astype(np.float32) * 9 - 300),
    "nan.tif": opencv(".tif", lambda image: np.full(image.shape, np.nan, np.float32)),
    "signed.tif": opencv(".tif", lambda image: image.astype(np.int16) - 100),
    "big.tif": pil("TIFF", big_tiff=True),
    "half.tif": cut(TIFF, 0.5),
    "png_named.tif": PNG,
    "rgb.avif": pil("AVIF"),
    "animated.avif": pil("AVIF", frames=2),
    "half.avif": cut(pil("AVIF"), 0.5),
    "rgb.jp2": JP2,
    "half.jp2": cut(JP2, 0.5),
    "two.mpo": pil("MPO", frames=2),
    "thumbnail.dng": TIFF,
    "not_heic.heic": always(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(200)),
    "passed_over.gif": pil("GIF"),
}
SPECIAL = ("folder.jpg", "broken_link.jpg", "circle.jpg", "link_to_good.jpg", "pipe.jpg", "no_utf8.jpg", "deep.jpg")


def write(folder: Path, number: int, seed: int) -> Counter[str]:
    """Write `number` files, each kind in turn; how many of each."""
    kinds = [*KINDS, *SPECIAL]
    written: Counter[str] = Counter()
    random.seed(seed)
    for at in range(number):
        kind = kinds[at % len(kinds)]
        stem, suffix = kind.split(".")
        place = folder / f"{at % 7}" / f"{stem}_{at:05d}.{suffix}"
        place.parent.mkdir(exist_ok=True)
        written[kind] += 1
        good = JPEG(np.random.default_rng([seed, at]))
        if kind in KINDS:
            place.write_bytes(KINDS[kind](np.random.default_rng([seed, at])))
        elif kind == "folder.jpg":
            place.mkdir()
            (place / "inside.png").write_bytes(good)
        elif kind == "broken_link.jpg":
            place.symlink_to(folder / "nowhere.jpg")
        elif kind == "circle.jpg":
            place.symlink_to(place)
            if not (folder / "around").exists():
                (folder / "around").symlink_to(folder)
        elif kind == "link_to_good.jpg":
            hidden = folder / f".kept_{at}.jpg"
            hidden.write_bytes(good)
            place.symlink_to(hidden)
        elif kind == "pipe.jpg":
            os.mkfifo(place)
        elif kind == "no_utf8.jpg":
            Path(os.fsdecode(os.fsencode(place.parent) + b"/\xff\xfe_%d.jpg" % at)).write_bytes(good)
        else:
            deep = place.parent.joinpath(*["folder of a rather long name"] * 6)
            deep.mkdir(parents=True, exist_ok=True)
            (deep / place.name).write_bytes(good)
    return written


# -- the run, and what is looked at afterwards ------------------------------------------------------------------------


def contents(folder: Path) -> str:
    """A fingerprint of all files, names, bytes and times."""
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        digest.update(os.fsencode(path) + struct.pack("<qq", info.st_size, info.st_mtime_ns))
        if path.is_file() and not path.is_symlink():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def memory_of(pid: int) -> int:
    """Bytes that a process and all that come from it hold, what they share counted once for each."""
    parents, held = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        parents[int(lines["Pid"])] = int(lines["PPid"])
        held[int(lines["Pid"])] = int(lines.get("VmRSS", "0 kB").split()[0]) * 1024
    tree, size = {pid}, 0
    while len(tree) > size:
        size = len(tree)
        tree |= {child for child, parent in parents.items() if parent in tree}
    return sum(held.get(one, 0) for one in tree)


def pretrain(data: Path, out: Path, images: int, workers: int) -> tuple[int, int, float]:
    """Exit status, greatest memory in bytes, and seconds of a run that reads every image once."""
    batch = 16
    words = f"model=yolo11n.yaml method=simclr imgsz=64 batch={batch} workers={workers} steps={-(-images // batch)}"
    words += " device=cpu precision=32 cache=off report=false probe_every=0"
    began = time.perf_counter()
    run = subprocess.Popen(
        [sys.executable, "-m", "headstart", "pretrain", f"data={data}", f"out={out}", *words.split()]
    )
    greatest = [0]

    def watch() -> None:
        while run.poll() is None:
            greatest[0] = max(greatest[0], memory_of(run.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = run.wait()
    watcher.join()
    return status, greatest[0], time.perf_counter() - began


def faults(data: Path, out: Path) -> list[str]:
    """What is not as it should be: an image neither used nor listed, listed twice, or listed in spite of its use."""
    rows: list[dict[str, str]] = []
    if (out / "skipped.csv").exists():
        with (out / "skipped.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.DictReader(stream))
    listed = Counter(row["path"] for row in rows)
    found = [f"listed {count} times: {path!r}" for path, count in listed.items() if count > 1]
    found += [f"listed without a reason: {row['path']!r}" for row in rows if not row["reason"]]
    images = find_images(str(data))
    used = 0
    for path in images:
        try:
            read_image(path)
            good = True
        except (DecodeError, UserError):
            good = False
        used += good
        if good == (path in listed):
            found.append(f"{'can be read, but is listed' if good else 'cannot be read, and is not listed'}: {path!r}")
    print(f"{len(images):,} images: {used:,} used, {len(rows):,} listed")
    if used + len(rows) != len(images):
        found.append(f"{used} used and {len(rows)} listed are not the {len(images)} images")
    reasons = Counter(row["reason"].split(":")[0] for row in rows)
    print("\n".join(f"{count:6d} skipped: {reason}" for reason, count in reasons.most_common()))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where files and run are kept; by default they are removed")
    asked = parser.parse_args()
    place = asked.out or Path(tempfile.mkdtemp(prefix="odd-files-"))
    data, out = place / "data", place / "run"
    data.mkdir(parents=True)
    try:
        written = write(data, asked.files, asked.seed)
        before, images = contents(data), len(find_images(str(data)))
        size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file() and not path.is_symlink())
        print(f"{asked.files} files of {len(written)} kinds, {size / 2**20:.0f} MB, {images} images by their names")
        status, memory, seconds = pretrain(data, out, images, asked.workers)
        found = faults(data, out)
        found += [f"the run ended with exit status {status}"] if status else []
        found += ["a file of the data was changed"] if contents(data) != before else []
        print(f"{memory / 2**20:.0f} MiB at most with {asked.workers} workers, {seconds:.0f} s")
        print("\n".join(found) or "every image was used, or listed once with its reason; nothing was changed")
        return 1 if found else 0
    finally:
        if not asked.out:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
