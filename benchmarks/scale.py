"""A million files: seconds to the first batch at the first and the second start, and the memory of all processes.

    python benchmarks/scale.py [--files 1000000] [--workers 2] [--steps 20] [--folder DIR] [--cache disk]

Files are hard links to 64 small JPEGs in folders of 1000, below a temporary folder that is removed at the end. Each
start is a process of its own that imports, then finds images, opens the cache and loads batches as `headstart pretrain`
does; memory is what the main process and its workers take together over the main process after its imports, batches on
their way included. Mapped files are not in it: the system can take their pages back at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ORIGINALS, A_FOLDER, AREA = 64, 1000, 184_320


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
    data, folder = Path(arguments.folder) / "images", Path(arguments.folder) / "cache"
    index = find_images(data, keep=folder)
    found = time.perf_counter() - began
    with open_cache(arguments.cache, index, AREA, folder=folder, epochs=10) as cache:
        opened = time.perf_counter() - began
        options = {"batch": 64, "max_area": AREA, "workers": arguments.workers, "seed": 0, "steps": arguments.steps}
        with ImageLoader(index, **options, reader=cache.reader) as loader:
            batches = iter(loader)
            next(batches)
            first = time.perf_counter() - began
            for _ in range(arguments.steps // 2):
                next(batches)
            workers = [child.pid for child in torch.multiprocessing.active_children()]
            taken = memory([os.getpid(), *workers]) - before
    told = {"index": found, "cache": opened - found, "first batch": first, "memory": taken}
    print(json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cache", default="disk")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--folder", help="where to make the files; by default the system's temporary folder")
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        seconds = make_files(Path(folder), arguments.files)
        print(f"{arguments.files} files made in {seconds:.0f} s; {arguments.workers} workers, batch 64")
        time.sleep(3)  # a folder must have been left alone for two seconds before its index is kept
        print(f"{'start':>6} {'index s':>9} {'cache s':>9} {'first batch s':>14} {'memory MB':>10}")
        for number in range(1, arguments.starts + 1):
            command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--start"]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            seconds_of = [told[name] for name in ("index", "cache", "first batch")]
            print(
                f"{number:>6} {seconds_of[0]:>9.2f} {seconds_of[1]:>9.2f} {seconds_of[2]:>14.2f} "
                f"{told['memory'] / 1e6:>10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
