"""The folder that `headstart pack` writes to: what it may hold, and what an earlier call has left there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from headstart.errors import UserError
from headstart.files import explained
from headstart.images.catalog import BESIDE
from headstart.images.index import ImageIndex
from headstart.images.members import is_address
from headstart.reading import parse_json

STATE, CLASSES, DATASET, TRAIN, SKIPPED = "pack.json", "classes.txt", "data.yaml", "train.txt", "skipped.csv"
REMARK = "# For headstart: Ultralytics reads files, not shards.\n"


def refuse_within(images: ImageIndex, folder: Path) -> None:
    """Raise where images lie in the folder that is written to: they would be replaced while they are read."""
    below = tuple({f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}"})
    files = {os.path.realpath(shard) for shard in images.shards if not is_address(shard)}
    if within := next((one for one in chain(files, images) if one.startswith(below)), None):
        what = f"{within} lies in it: images cannot be packed into the folder that they are read from"
        raise UserError(what, where=f"out={folder}", hint="choose another folder")


def begun(folder: Path, plan: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """What was written by an earlier call that this one can go on with; None to begin anew.

    Raises:
        UserError: The folder holds something else.
    """
    where = f"out={folder}"
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file, not a folder", where=where)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not {name for name in names if name != ".lock" and not name.endswith(".tmp")}:
        return None
    if STATE not in names:
        raise UserError(
            "holds files that are not shards of headstart", where=where, hint="choose an empty or new folder"
        )
    if overwrite:
        return None
    state = _read_state(folder)
    if state is not None and not state["finished"] and all(state.get(key) == value for key, value in plan.items()):
        return state
    done = state is not None and state["finished"]
    what = "holds finished shards already" if done else "holds shards of other images, or of another size"
    if state is not None and state.get("classes") != plan.get("classes"):
        what = "holds shards whose labels have other classes"
    raise UserError(what, where=where, hint="overwrite=true replaces them, or choose another folder")


def _read_state(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found: dict[str, Any] = parse_json((folder / STATE).read_bytes())
        found["shards"] = [[str(name), *map(int, numbers)] for name, *numbers in found["shards"]]
        listed = len(found["shards"])
        found["shards"] = found["shards"][: _there(folder, found["shards"])]
        found["marks"] = [str(mark) for mark in found["marks"][: len(found["shards"])]]
        found["skipped"] = [(str(path), str(why)) for path, why in found["skipped"]]
        found["finished"] = bool(found["finished"]) and len(found["shards"]) == listed
        return found
    return None


def _there(folder: Path, listed: list[list[Any]]) -> int:
    """How many of the shards, from the first on, are there as they were written."""
    for at, (name, _, _, _, size) in enumerate(listed):
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or not path.with_name(name + BESIDE).is_file():
            return at
    return len(listed)


def clear(folder: Path) -> None:
    """Remove what `pack` has written, and nothing else; its mark last."""
    state: dict[str, Any] = {}
    listed: set[str] = set()
    with suppress(OSError, ValueError, TypeError):
        state = dict(parse_json((folder / STATE).read_bytes()))
        listed = {str(name) for name, *_ in state.get("shards", ())}
    listed.add(f"{len(listed):06d}.tar")  # which it may have been at
    shards = [path for path in folder.iterdir() if re.fullmatch(r"\d{6,}\.tar", path.name)]
    # One that has a table of its members beside it, too: a call that was stopped may have taken it off the list.
    tables = {path: path.with_name(path.name + BESIDE) for path in shards}
    ours = [one for path, table in tables.items() if path.name in listed or table.is_file() for one in (path, table)]
    ours += [folder / CLASSES] if state.get("classes") else []
    ours += of_an_end(folder)
    with explained(folder):
        for path in [*ours, folder / STATE]:
            path.unlink(missing_ok=True)


def of_an_end(folder: Path) -> list[Path]:
    """The files that are there of those that `pack` writes when all shards are."""
    beginnings = {folder / DATASET: REMARK, folder / TRAIN: REMARK, folder / SKIPPED: "path,reason"}
    return [file for file, head in beginnings.items() if _begins(file, head)]


def _begins(file: Path, head: str) -> bool:
    """Whether a file is one that `pack` writes, by its first line."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(head.encode())) == head.encode()
    except OSError:
        return False
