"""Is a user's folder what it was, byte by byte, after every command that reads it?

    python benchmarks/user_folder.py DATA.yaml [--read-only] [--out runs/user_folder]

Contents, modes and times of all below the folder of DATA.yaml are taken before and after doctor, pretrain (without and
with its labels), probe, embed, pack, export and compare, each of a few steps. Exit status 1 where anything differs, or
a command fails.
``--read-only`` takes the right to write from all of it in the meantime; root writes all the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from headstart.cli.command import main as headstart
from untouched import read_only, snapshot


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
    lines, same = [], True
    with tempfile.TemporaryDirectory() as place, read_only(folder) if given.read_only else nullcontext():
        before = snapshot(folder)
        for words in commands(given.data.resolve(), (given.out or Path(place) / "out").resolve()):
            status = headstart(words)
            after = snapshot(folder)
            changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
            same = same and not changed and not status
            lines.append(f"{words[0]}: exit status {status}, {len(changed)} changed {' '.join(changed[:3])}".rstrip())
    print("\n".join(lines))
    print(f"{len(before):,} files and folders: {'the same' if same else 'CHANGED, or a command failed'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
