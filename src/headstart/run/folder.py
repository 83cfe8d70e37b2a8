"""The run folder: settings, versions, metrics, events, skipped images, log."""

from __future__ import annotations

import datetime
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import yaml

from headstart.aside import Contents
from headstart.errors import UserError, printable
from headstart.files import (
    LOCK,
    OwnedFolder,
    explained,
    in_use,
    json_line,
    no_link,
    write_json_lines,
    write_text,
)
from headstart.reading import parse_yaml, read_json_lines
from headstart.run.listing import Listing
from headstart.run.loggers import Logger, Status, open_loggers
from headstart.run.provenance import git_state, versions
from headstart.settings.loggers import NamedLogger

CONTENTS = Contents(
    what="a run",
    mark="settings.yaml",
    files=(
        "settings.yaml", "metrics.jsonl", "events.jsonl", "log.txt", "skipped.csv", "noted.csv", "handback.json",
        "start.pt", "headstart.pt", "unverified.pt", "finetune.yaml", "report.html", "pseudolabels.pt", "teacher.json",
    ),
    folders=("checkpoints", "assets", "loggers", "search"),
    before=("log.txt", "skipped.csv", "noted.csv", "start.pt", "pseudolabels.pt", "checkpoints", "loggers"),
)  # fmt: skip
"""What a run writes, and so all that overwrite=true may remove."""


class RunFolder:
    """One run's folder; `create` or `open` it.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._streams: dict[str, TextIO] = {}
        self._skipped = Listing(path / "skipped.csv", "reason")
        self._noted = Listing(path / "noted.csv", "note", several=True)
        self._made: list[Logger] = []
        self._loggers: list[Logger] = []
        self._owned = OwnedFolder(path, CONTENTS)
        self._kept = self._trained = False

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False, unbegun: bool = False) -> RunFolder:
        """Make the folder. A run that is to be replaced is set aside until `under_way`.

        Args:
            path: Where.
            overwrite: Replace a run that is there.
            unbegun: Begin one that was killed before it had settings.

        Raises:
            UserError: It holds a run already, and may not be replaced; or something that is not a run.
        """
        problem = refusal(path, overwrite=overwrite or (unbegun and nothing_yet(path)))
        if problem:
            raise problem
        run = cls(path)
        run.take()
        if run._owned.begun or run._owned.replacing:
            run._owned.set_aside()
        else:
            run._owned.clear()
        with explained(path):
            (path / "checkpoints").mkdir(exist_ok=True)
        return run

    def take(self) -> None:
        """Keep other runs out of the folder until `close`.

        Raises:
            UserError: One is at work in it.
        """
        self._owned.take()
        if self._kept:
            self._skipped.read(mend=True)
            self._noted.read(mend=True)

    def under_way(self) -> None:
        """Say that the first step is done: a run that this one replaces is removed."""
        self._kept = self._trained = True
        self._owned.replaced()

    def keep(self) -> None:
        """Say that what was written so far is worth to go on from, should the run end before its first step."""
        self._kept = True

    def put_back(self) -> bool:
        """Bring back the run that this one was to replace, where its first step was not done; whether there was one."""
        if self._trained or not self._owned.replacing:
            return False
        self._close_files()
        self._owned.put_back()
        self._kept = True
        return True

    def end(self) -> None:
        """Close it; what stands for nothing, and would be in the way of the next run, is removed."""
        if self._kept:
            self.close()
            return
        self._end_writing()
        self._owned.discard()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run to go on with it; what it skipped and noted before is remembered.

        Raises:
            UserError: There is no run.
        """
        owned = OwnedFolder(path, CONTENTS)
        if owned.replacing and not in_use(path):
            owned.take()
            if not owned.begun:  # what was to replace it was killed before it had settings
                owned.put_back()
            owned.release()
        if not owned.begun:
            raise UserError("there is no run to resume", where=f"out={path}", hint="leave out resume=true to start one")
        run = cls(path)
        run._kept = True
        run._skipped.read()
        run._noted.read()
        return run

    @property
    def begun(self) -> bool:
        """Whether it has settings, which a run is gone on with from."""
        return self._owned.begun

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

    def make_loggers(self, asked: Sequence[NamedLogger], show: Callable[[str], None] | None = None) -> None:
        """Make loggers for `start_loggers`: what cannot be made is said before anything long is done.

        Args:
            asked: As `open_loggers` takes them.
            show: Told what loggers have to say, and that one fails; it is in the log as well.

        Raises:
            UserError: One of them is not found or cannot be made.
        """

        def say(message: str) -> None:
            self.log(message)
            if show:
                show(message)

        self._made = open_loggers(asked, self.path / "loggers", say)

    def start_loggers(self) -> None:
        """Tell loggers of all that is written from now on; what they raise never ends the run."""
        self._loggers, self._made = self._made, []
        for logger in self._loggers:
            logger.start(self.read_settings())

    def picture(self, step: int, name: str) -> None:
        """Show loggers a picture of ``assets``, if it was drawn."""
        path = self.path / "assets" / f"{name}.png"
        for logger in self._loggers if path.is_file() else []:
            logger.image(step, name, path)

    def finish(self, status: Status) -> None:
        """Tell loggers how the run ended; nothing follows."""
        for logger in self._loggers:
            logger.finish(status)
        self._loggers = []

    def read_settings(self) -> dict[str, Any]:
        """What `write_settings` wrote."""
        content: dict[str, Any] = parse_yaml((self.path / "settings.yaml").read_text(encoding="utf-8"))
        return content

    def metrics(self, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; NaN and infinity become null, which JSON can hold."""
        self._line("metrics.jsonl", {k: v if math.isfinite(v) else None for k, v in values.items()})
        for logger in self._loggers:
            logger.metrics(int(values["step"]), {k: v for k, v in values.items() if k != "step"})

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines from `step` on: a resumed run writes them again."""
        for name in ("metrics.jsonl", "events.jsonl"):
            path = self.path / name
            if path.is_file():
                write_json_lines(path, [line for line in read_json_lines(path) if _step(line) < step])

    def event(self, step: int, kind: str, message: str) -> None:
        """Append to ``events.jsonl`` and the log: an alarm, or something worth knowing."""
        self._line("events.jsonl", {"step": step, "kind": kind, "message": message})
        self.log(f"{kind} at step {step}: {message}")
        for logger in self._loggers:
            logger.event(step, kind, message)

    def teacher(self, record: Mapping[str, Any]) -> None:
        """Write what a teacher has labelled so far to ``teacher.json``, in place of what was there."""
        write_text(self.path / "teacher.json", json.dumps(record, indent=1) + "\n")

    def log(self, message: str) -> None:
        """Append to ``log.txt``, with the time; further lines of a message are indented."""
        message = printable(message).replace("\n", "\n    ")
        with explained(self.path):
            stream = self._stream("log.txt")
            stream.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {message}\n")
            stream.flush()

    def skip(self, items: list[tuple[str, str]]) -> None:
        """List images that could not be used in ``skipped.csv``, each once: (path, reason)."""
        self._skipped.add(items)

    def note(self, items: list[tuple[str, str]]) -> None:
        """List images that were read in a way worth knowing in ``noted.csv``, each once: (path, what was done)."""
        self._noted.add(items)

    def noted(self) -> list[str]:
        """What was noted, in sentences with the number of images."""
        return [f"{count:,} images: {note} (noted.csv lists them)" for note, count in self._noted.counts.most_common()]

    def close(self) -> None:
        """Close the files, and let other runs into the folder."""
        self._end_writing()
        self._owned.release()

    def _end_writing(self) -> None:
        with suppress(UserError):  # a full disk: a better message is on its way
            self.finish("failed")  # whoever ends well has said so before
        self._close_files()

    def _close_files(self) -> None:
        for stream in self._streams.values():
            with suppress(OSError):  # likewise
                stream.close()
        self._streams.clear()

    def _line(self, name: str, values: dict[str, Any]) -> None:
        with explained(self.path):
            stream = self._stream(name)
            stream.write(json_line(values))
            stream.flush()

    def _stream(self, name: str) -> TextIO:
        if name not in self._streams:
            no_link(self.path / name)
            # Undecodable file names are written as they are on the disk.
            self._streams[name] = (self.path / name).open("a", encoding="utf-8", errors="surrogateescape", newline="")
        return self._streams[name]


def refusal(path: Path, *, overwrite: bool) -> UserError | None:
    """Why a new run may not be written to `path`, or None where it may."""
    owned = OwnedFolder(path, CONTENTS)
    if (problem := owned.refusal()) or overwrite or not (owned.begun or owned.unbegun or owned.replacing):
        return problem
    if owned.unbegun:
        what = "there is a run in this folder that ended before its first step"
        begins = "resume=true begins it" if nothing_yet(path) else "overwrite=true replaces it"
        return UserError(what, where=f"out={path}", hint=f"{begins}, or choose another folder")
    hint = "resume=true goes on with it, overwrite=true replaces it, or choose another folder"
    return UserError("there is a run in this folder already", where=f"out={path}", hint=hint)


def nothing_yet(path: Path) -> bool:
    """Whether it holds a run that was killed before it had settings, and nothing that took it long to make."""
    owned = OwnedFolder(path, CONTENTS)
    if owned.begun or owned.replacing or (path / "pseudolabels.pt").exists():
        return False
    return owned.unbegun or ((path / LOCK).is_file() and owned.refusal() is None)  # or it had only taken the folder


def new_folder(parent: Path, name: str) -> Path:
    """The first of ``parent/name``, ``parent/name-2``, … that does not exist."""
    number = 1
    while (path := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def _step(line: dict[str, Any]) -> float:
    step = line.get("step")
    return float(step) if isinstance(step, (int, float)) else math.inf
