"""Read a run folder as it is found: finished, interrupted, or with files that are missing or cut short."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import UserError
from headstart.reading import parse_json, parse_yaml, read_json_lines
from headstart.settings.resolve import readable

_HEADS = (["path", "reason"], ["path", "note"])
_MOST_KINDS, _OTHER = 40, "other"
_MOST_NUMBERS = 50_000_000
"""In all columns: a line can bring a name of its own, and as many columns as lines fill any memory."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Listed:
    """Images that a run lists, with a few words on each.

    Attributes:
        name: Of the file with all of them.
        rows: The first: path and words.
        count: Of all.
        kinds: What is said of them, without what differs from one to the next, and of how many images; the most first.
    """

    name: str
    rows: list[tuple[str, str]]
    count: int
    kinds: list[tuple[str, int]]


@dataclass(frozen=True)
class FoundRun:
    """What is known of a run.

    Attributes:
        path: The folder.
        settings: ``settings.yaml``: ``options``, ``resolved``, ``versions``, ``git``, ``command``, ``started``.
        metrics: A column (N,) for every name in ``metrics.jsonl``, by rising step; nan where a line lacks it.
        events: ``events.jsonl``: ``step``, ``kind``, ``message``.
        hand_back: ``handback.json``; empty where the run has not come so far.
        skipped: Images that could not be used, with the reason.
        noted: Images that were used, but read in a way worth knowing, with what was done.
        probe: ``assets/probe.json``.
        teacher: ``teacher.json``; empty where no teacher has labelled anything.
        finished: The detector was handed back.
    """

    path: Path
    settings: dict[str, Any]
    metrics: dict[str, Floats]
    events: list[dict[str, Any]]
    hand_back: dict[str, Any]
    skipped: Listed
    noted: Listed
    probe: dict[str, Any]
    teacher: dict[str, Any]
    finished: bool

    def option(self, name: str, default: Any = None) -> Any:
        """The value that option `name` had in the end: what "auto" became, not "auto"; an object in memory in words."""
        parts = (self.settings.get(part) for part in ("resolved", "options"))
        resolved, given = (part if isinstance(part, dict) else {} for part in parts)
        found = resolved.get(name)
        # Earlier versions kept a mark of the labels there, by the option's own name: no option resolves to facts.
        if found is None or (isinstance(found, dict) and name in given):
            found = given.get(name)
        return self.settings.get(name, default) if found is None else readable(found)

    def column(self, name: str) -> Floats:
        """A column of the metrics; all nan where nothing of that name was logged."""
        return self.metrics.get(name, np.full(len(self.metrics.get("step", ())), math.nan))

    @property
    def seconds(self) -> float:
        """Time spent, summed over the parts of a run that was resumed; 0 where nothing was logged."""
        times = self.column("seconds")
        times = times[np.isfinite(times)]
        if not len(times):
            return 0.0
        rises = np.diff(times, prepend=0.0)
        return float(np.where(rises < 0, times, rises).sum())


def find_run(path: Path) -> FoundRun:
    """Read the run in folder `path`.

    Raises:
        UserError: There is no run: neither ``settings.yaml`` nor ``metrics.jsonl``.
    """
    if not any((path / name).is_file() for name in ("settings.yaml", "metrics.jsonl")):
        what = "holds no run: neither settings.yaml nor metrics.jsonl" if path.is_dir() else "there is no such folder"
        raise UserError(what, where=str(path), hint="give the folder that `headstart pretrain` wrote (its out=)")
    hand_back = _json(path / "handback.json")
    return FoundRun(
        path=path,
        settings=_settings(path / "settings.yaml"),
        metrics=_columns(read_json_lines(path / "metrics.jsonl")),
        events=[event for event in read_json_lines(path / "events.jsonl") if event.get("message")],
        hand_back=hand_back,
        skipped=_listed(path / "skipped.csv", lambda reason: reason.split(":")[0]),
        noted=_listed(path / "noted.csv", lambda note: note),
        probe=_json(path / "assets" / "probe.json"),
        teacher=_json(path / "teacher.json"),
        finished=bool(hand_back) or (path / "headstart.pt").is_file(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = parse_yaml(_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _columns(lines: list[dict[str, Any]]) -> dict[str, Floats]:
    """Columns in the order of the steps; of a step that was logged twice (before and after a resume) the later one."""
    by_step = {_number(line.get("step")): line for line in lines}
    steps = sorted(step for step in by_step if math.isfinite(step))
    names = list(dict.fromkeys(name for line in lines for name in line))[: _MOST_NUMBERS // max(len(steps), 1)]
    return {name: np.array([_number(by_step[step].get(name)) for step in steps], dtype=np.float64) for name in names}


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


def _listed(path: Path, kind: Callable[[str], str], limit: int = 50) -> Listed:
    """The rows of a file with images, each once: a run that was gone on with may have listed some again."""
    rows: list[tuple[str, str]] = []
    kinds: Counter[str] = Counter()
    seen: set[int] = set()
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            for row in csv.reader(line.replace("\0", "") for line in stream):
                if not row or row[:2] in _HEADS or hash(tuple(row)) in seen:
                    continue
                seen.add(hash(tuple(row)))
                words = row[1] if len(row) > 1 else ""
                # Of a file of ours there are a few dozen; of another's, which may have any number, the rest is one.
                kinds[kind(words) if kind(words) in kinds or len(kinds) < _MOST_KINDS else _OTHER] += 1
                if len(rows) < limit:
                    rows.append((row[0], words))
    except (OSError, csv.Error):
        pass
    return Listed(path.name, rows, sum(kinds.values()), kinds.most_common())
