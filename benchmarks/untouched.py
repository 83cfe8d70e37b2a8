"""Is a user's folder what it was, byte by byte, after every command that reads it?

    python benchmarks/untouched.py DATA.yaml [--read-only] [--out runs/untouched]

Contents, modes and times of all below the folder of DATA.yaml are taken before and after doctor, pretrain (without and
with its labels), probe, embed, pack, export and compare, each of a few steps. Exit status 1 where anything differs, or
a command fails.
``--read-only`` takes the right to write from all of it in the meantime; root writes all the same.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from headstart.cli.command import main as headstart

Snapshot = dict[str, tuple[int, int, str]]


def snapshot(folder: Path) -> Snapshot:
    """Mode, time of change in nanoseconds and SHA-256 of all that lies below."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
    return found


def commands(data: Path, out: Path) -> list[list[str]]:
    """What a user would run, very short."""
    short = ["model=yolo11n.yaml", "imgsz=64", "batch=4", "steps=4", "workers=1", "cache=disk"]
    few = [f"data={data}", "model=yolo11n.yaml", "seeds=1", "steps=4", "imgsz=64", "batch=4", "workers=0", "jobs=1"]
    return [
        ["doctor", f"data={data}"],
        ["pretrain", f"data={data}", "method=simclr", *short, f"out={out / 'a'}"],
        ["pretrain", f"data={data}", f"labels={data}", *short, f"out={out / 'b'}", f"export_labels={out / 'labels'}"],
        ["probe", f"source={out / 'a'}", f"data={data}", "images=32"],
        ["embed", f"data={data}", f"labels={data}", f"model={out / 'a'}", f"out={out / 'features.parquet'}"],
        ["pack", f"data={data}", f"out={out / 'shards'}"],
        ["export", f"source={out / 'a'}", f"out={out / 'export'}"],
        ["compare", *few, f"starts=scratch,a={out / 'a'}", "labels=100%", "lr=0.001", f"out={out / 'compare'}"],
    ]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="a new folder; by default one that is removed")
    parser.add_argument("--read-only", action="store_true")
    given = parser.parse_args()
    folder = given.data.resolve().parent
    modes = {path: path.lstat().st_mode for path in [folder, *folder.rglob("*")] if not path.is_symlink()}
    lines, same = [], True
    with tempfile.TemporaryDirectory() as place:
        out = (given.out or Path(place) / "out").resolve()
        try:
            for path, mode in modes.items() if given.read_only else ():
                path.chmod(mode & ~0o222)
            before = snapshot(folder)
            for words in commands(given.data.resolve(), out):
                status = headstart(words)
                after = snapshot(folder)
                changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
                same = same and not changed and not status
                lines.append(
                    f"{words[0]}: exit status {status}, {len(changed)} changed {' '.join(changed[:3])}".rstrip()
                )
        finally:
            for path, mode in modes.items() if given.read_only else ():
                path.chmod(mode)
    size = sum(path.stat().st_size for path in modes if path.is_file())
    print("\n".join(lines))
    said = "the same" if same else "CHANGED, or a command failed"
    print(f"{len(before):,} files and folders, {size / 2**20:.1f} MiB: {said}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
