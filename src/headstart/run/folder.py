"""The run folder: settings, versions, metrics, events, skipped images, log."""

from __future__ import annotations

import csv
import datetime
import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import yaml
from filelock import FileLock

from headstart.errors import UserError
from headstart.files import LOCK, explained, in_use, lock, write_text
from headstart.run.provenance import git_state, versions

# What a run writes, and so all that overwrite=true may remove.
FILES = (
    "settings.yaml", "metrics.jsonl", "events.jsonl", "log.txt", "skipped.csv", "handback.json", "start.pt",
    "headstart.pt", "unverified.pt", "report.html", "pseudolabels.pt",
)  # fmt: skip
FOLDERS = ("checkpoints", "assets")


class RunFolder:
    """One run's folder; `create` or `open` it.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._streams: dict[str, TextIO] = {}
        self._skipped: set[str] = set()
        self._lock: FileLock | None = None

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False) -> RunFolder:
        """Make the folder.

        Raises:
            UserError: It holds a run already (unless `overwrite`), or something that is not a run.
        """
        problem = refusal(path, overwrite=overwrite)
        if problem:
            raise problem
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.take()
        _clear(path)
        with explained(path):
            (path / "checkpoints").mkdir(exist_ok=True)
        return run

    def take(self) -> None:
        """Keep other runs out of the folder until `close`.

        Raises:
            UserError: One is at work in it.
        """
        self._lock = self._lock or lock(self.path)

    def discard_unbegun(self) -> None:
        """Remove what a run that ended before it had settings has left: it would stand in the way of the next one."""
        if (self.path / "settings.yaml").is_file():
            return
        self.close()
        _clear(self.path)
        (self.path / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is in it as well
            self.path.rmdir()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run to go on with it; what it skipped before is remembered.

        Raises:
            UserError: There is no run.
        """
        if not (path / "settings.yaml").is_file():
            raise UserError("there is no run to resume", where=f"out={path}", hint="leave out resume=true to start one")
        run = cls(path)
        if (path / "skipped.csv").is_file():
            with (path / "skipped.csv").open(newline="", encoding="utf-8") as stream:
                run._skipped = {row["path"] for row in csv.DictReader(stream)}
        return run

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to resume from."""
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        """The detector to fine-tune."""
        return self.path / "headstart.pt"

    @property
    def skipped(self) -> int:
        """How many images could not be used so far."""
        return len(self._skipped)

    def write_settings(
        self, options: dict[str, Any], resolved: dict[str, Any], asked: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``settings.yaml``: what was asked, the options used, what "auto" became, versions, git state."""
        content = {
            "asked": dict(options if asked is None else asked),
            "options": options,
            "resolved": resolved,
            "versions": versions(),
            "git": git_state(),
            "command": shlex.join(sys.argv),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_text(self.path / "settings.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_settings(self) -> dict[str, Any]:
        """What `write_settings` wrote."""
        content: dict[str, Any] = yaml.safe_load((self.path / "settings.yaml").read_text(encoding="utf-8"))
        return content

    def metrics(self, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; NaN and infinity become null, which JSON can hold."""
        self._line("metrics.jsonl", {k: v if math.isfinite(v) else None for k, v in values.items()})

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines from `step` on: a resumed run writes them again."""
        for name in ("metrics.jsonl", "events.jsonl"):
            path = self.path / name
            if path.is_file():
                lines = path.read_text(encoding="utf-8").splitlines()
                write_text(path, "".join(f"{line}\n" for line in lines if _step(line) < step))

    def event(self, step: int, kind: str, message: str) -> None:
        """Append to ``events.jsonl`` and the log: an alarm, or something worth knowing."""
        self._line("events.jsonl", {"step": step, "kind": kind, "message": message})
        self.log(f"{kind} at step {step}: {message}")

    def log(self, message: str) -> None:
        """Append to ``log.txt``, with the time."""
        with explained(self.path):
            stream = self._stream("log.txt")
            stream.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {message}\n")
            stream.flush()

    def skip(self, items: list[tuple[str, str]]) -> None:
        """List images that could not be used in ``skipped.csv``, each once: (path, reason)."""
        new = [item for item in items if item[0] not in self._skipped]
        if not new:
            return
        with explained(self.path):
            stream = self._stream("skipped.csv")
            writer = csv.writer(stream)
            if stream.tell() == 0:
                writer.writerow(["path", "reason"])
            for path, reason in new:
                if path not in self._skipped:
                    self._skipped.add(path)
                    writer.writerow([path, reason])
            stream.flush()

    def close(self) -> None:
        """Close the files, and let other runs into the folder."""
        if self._lock:
            self._lock.release()
            self._lock = None
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _line(self, name: str, values: dict[str, Any]) -> None:
        with explained(self.path):
            stream = self._stream(name)
            stream.write(json.dumps(values) + "\n")
            stream.flush()

    def _stream(self, name: str) -> TextIO:
        if name not in self._streams:
            # Undecodable file names are written as they are on the disk.
            self._streams[name] = (self.path / name).open("a", encoding="utf-8", errors="surrogateescape", newline="")
        return self._streams[name]


def _clear(path: Path) -> None:
    """Remove the files and folders of a run, and nothing else."""
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)


def refusal(path: Path, *, overwrite: bool) -> UserError | None:
    """Why a new run may not be written to `path`, or None where it may."""
    if path.is_file():
        return UserError("is a file, not a folder", where=f"out={path}")
    if busy := in_use(path):
        return busy
    if not path.exists() or all(item.name == LOCK for item in path.iterdir()):
        return None
    if not (path / "settings.yaml").is_file():
        return UserError(
            "the folder holds files that are not a run of headstart",
            where=f"out={path}",
            hint="choose an empty or new folder",
        )
    if overwrite:
        return None
    return UserError(
        "there is a run in this folder already",
        where=f"out={path}",
        hint="resume=true goes on with it, overwrite=true replaces it, or choose another folder",
    )


def new_folder(parent: Path, name: str) -> Path:
    """The first of ``parent/name``, ``parent/name-2``, … that does not exist."""
    number = 1
    while (path := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line torn by a kill
