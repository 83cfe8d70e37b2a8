"""A million images as files and in shards: seconds to the first batch at each start, memory of all processes, speed.

    python benchmarks/scale.py [FOLDER] [--images 1000000] [--workers 2] [--steps 20] [--cache disk] [--kinds files]

Files are hard links to 64 small JPEGs in folders of 1000, shards are tars with 10,000 of the same, below a temporary
folder in FOLDER that is removed at the end. Each start is a process of its own that imports, then finds images, opens
the cache and loads batches as `headstart pretrain` does; memory is what the main process and its workers take together
over the main process after its imports, batches on their way included. Mapped files are not in it: the system can take
their pages back at any time. Images a second are those of the loader without a cache, over `--rate-steps` batches of 64
after the first ones.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ORIGINALS, A_FOLDER, A_SHARD, AREA = 64, 1000, 10_000, 184_320


def make_files(root: Path, files: int) -> float:
    """`files` hard links below `root`; the seconds that this took."""
    began = time.perf_counter()
    originals = root / "originals"
    originals.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(ORIGINALS):
        cv2.imwrite(str(originals / f"{number}.jpg"), random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for start in range(0, files, A_FOLDER):
        folder = root / "images" / f"{start // A_FOLDER:05d}"
        folder.mkdir(parents=True)
        for number in range(start, min(start + A_FOLDER, files)):
            os.link(originals / f"{number % ORIGINALS}.jpg", folder / f"frame_{number:08d}.jpg")
    return time.perf_counter() - began


def make_shards(root: Path, images: int) -> float:
    """The same images in tars below `root`; the seconds that this took."""
    began = time.perf_counter()
    contents = [(root / "originals" / f"{number}.jpg").read_bytes() for number in range(ORIGINALS)]
    (root / "shards").mkdir()
    for start in range(0, images, A_SHARD):
        with tarfile.open(root / "shards" / f"{start // A_SHARD:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as file:
            for number in range(start, min(start + A_SHARD, images)):
                about = tarfile.TarInfo(f"frame_{number:08d}.jpg")
                about.size = len(contents[number % ORIGINALS])
                file.addfile(about, io.BytesIO(contents[number % ORIGINALS]))
    return time.perf_counter() - began


def memory(pids: list[int]) -> int:
    """Bytes of processes without files that are mapped: a page that several share counts once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon", "Pss_Shmem")):
                total += int(line.split()[1]) * 1024
    return total


def start(arguments: argparse.Namespace) -> None:
    """One start, told in a line of JSON."""
    import torch

    from headstart.images.cache import open_cache
    from headstart.images.index import find_images
    from headstart.images.loader import ImageLoader

    torch.zeros(1)
    before, began = memory([os.getpid()]), time.perf_counter()
    data = Path(arguments.folder) / {"files": "images", "shards": "shards"}[arguments.kinds]
    folder = Path(arguments.folder) / "cache"
    os.environ["HEADSTART_CACHE"] = str(folder)
    index = find_images(data, keep=folder)
    found = time.perf_counter() - began
    with open_cache(arguments.cache, index, AREA, folder=folder, epochs=10) as cache:
        opened = time.perf_counter() - began
        options: dict[str, Any] = {
            "batch": 64,
            "max_area": AREA,
            "workers": arguments.workers,
            "seed": 0,
            "steps": arguments.steps,
        }
        with ImageLoader(index, **options, reader=cache.reader) as loader:
            batches = iter(loader)
            next(batches)
            first = time.perf_counter() - began
            for _ in range(arguments.steps // 2):
                next(batches)
            workers = [child.pid for child in torch.multiprocessing.active_children() if child.pid]
            taken = memory([os.getpid(), *workers]) - before
    steps = arguments.rate_steps
    options |= {"steps": steps + 8}
    with ImageLoader(index, **options) as loader:
        batches = iter(loader)
        for _ in range(8):  # those that workers had made while the others started
            next(batches)
        began = time.perf_counter()
        for _ in range(steps):
            next(batches)
        rate = 64 * steps / (time.perf_counter() - began)
    told = {"index": found, "cache": opened - found, "first batch": first, "memory": taken, "rate": rate}
    print(json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where to make the images; by default the system's temporary folder")
    parser.add_argument("--images", "--files", dest="images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cache", default="disk")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--kinds", default="files,shards", help="what to measure, of files and shards")
    parser.add_argument("--rate-steps", type=int, default=200)
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        kinds = arguments.kinds.split(",")
        seconds = make_files(Path(folder), arguments.images if "files" in kinds else 0)
        packing = make_shards(Path(folder), arguments.images) if "shards" in kinds else 0.0
        print(f"{arguments.images} images made in {seconds:.0f} s as files, in {packing:.0f} s as shards")
        print(f"{arguments.workers} workers, batch 64")
        time.sleep(3)  # a folder must have been left alone for two seconds before its index is kept
        head = f"{'':>8} {'start':>6} {'index s':>9} {'cache s':>9} {'first batch s':>14}"
        print(f"{head} {'memory MB':>10} {'images/s':>9}", flush=True)
        for kind in kinds:
            for number in range(1, arguments.starts + 1):
                _measured(kind, number, folder, arguments)


def _measured(kind: str, number: int, folder: str, arguments: argparse.Namespace) -> None:
    """One start in a process of its own, as a line."""
    names = ("images", "workers", "steps", "cache", "rate_steps")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    command = [sys.executable, __file__, folder, *options, f"--kinds={kind}", "--start"]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    index, cache, first = (told[name] for name in ("index", "cache", "first batch"))
    print(
        f"{kind:>8} {number:>6} {index:>9.2f} {cache:>9.2f} {first:>14.2f} {told['memory'] / 1e6:>10.0f} "
        f"{told['rate']:>9.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
