"""The runs of recipes: each in a process and a folder of its own, kept and gone on with as trainings are."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headstart.comparison import child
from headstart.comparison.label_lists import LabelList
from headstart.comparison.pace import Pace, pace_of
from headstart.comparison.pool import Slot
from headstart.comparison.recipes import INDIFFERENT, Recipe, coco_weights, file_marks
from headstart.errors import RunError, UserError, few
from headstart.files import content_hash, write_text
from headstart.reading import looked_at, parse_yaml
from headstart.run import provenance
from headstart.trust import trusted

if TYPE_CHECKING:
    from headstart.comparison.prepare import Prepared
    from headstart.comparison.starts import Start

FOLDER = "pretrainings"
RECORD, OPTIONS, LOG, RUN = "pretraining.json", "options.yaml", "pretrain.log", "run"
_PATIENCE = 120.0
"""Seconds that a pretraining may take to save what it has when it is told to stop."""


@dataclass(frozen=True)
class Node:
    """One run of a recipe, which its cells wait for.

    Attributes:
        start: Name of the start that it becomes; without what is added to it where that is measured as it is.
        budget: Label budget whose list it learns from; "" for a method without labels, which is made once a seed.
        seed: Of its cells.
        search: Whether its list is the one that rates are tried with, without the validation part.
    """

    start: str
    budget: str
    seed: int
    search: bool = False

    @property
    def name(self) -> str:
        """Its folder below `FOLDER`, and the stem of its start's file."""
        parts = [self.start, self.budget.replace("%", "pc"), f"seed{self.seed}", "search" if self.search else ""]
        return "-".join(part for part in parts if part)

    @property
    def shown(self) -> str:
        """The run in a line for people."""
        parts = [f"pretraining of {self.start}", self.budget, f"seed {self.seed}"]
        return ", ".join([*(part for part in parts if part), *(["without the validation part"] if self.search else [])])


@dataclass(frozen=True)
class Pretraining:
    """A run of a recipe with all that it needs.

    Attributes:
        node: Which one.
        recipe: The recipe.
        options: Of ``headstart pretrain``, but for ``out`` and the device.
        labels: Its list of labelled images; None for a method without labels.
        images: Mark of the images that it learns from.
        folder: Its own, in which its run folder is.
    """

    node: Node
    recipe: Recipe
    options: Mapping[str, Any]
    labels: LabelList | None
    images: str
    folder: Path

    @property
    def run(self) -> Path:
        """The run folder of the pretraining."""
        return self.folder / RUN

    @property
    def checkpoint(self) -> Path:
        """What it hands back."""
        return self.run / "headstart.pt"

    @property
    def key(self) -> str:
        """Equal for runs that must give the same, but for what files hold and labels mean: recipe, labels, seed, ..."""
        lists = [self.labels.sha256, self.labels.own_annotations_sha256] if self.labels else []
        left = {"data", "labels", *INDIFFERENT, *file_marks(self.options)}
        asked = {name: value for name, value in self.options.items() if name not in left}
        content: dict[str, Any] = {"asked": asked, "lists": lists, "images": self.images}
        content |= {"version": provenance.versions().get("headstart")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def _meaning(self) -> str:
        """Mark of what the numbers in its label files mean; "" without labels."""
        return self.labels.meaning_sha256 if self.labels else ""

    def finished(self) -> bool:
        """Whether this very run was finished before, and what it handed back is as it was."""
        known = self._record()
        done = known.get("seconds") is not None and self._kept() and self._settings() is not None
        mark = content_hash(str(self.checkpoint))
        return done and bool(mark) and known.get("checkpoint", mark) == mark

    def replaces(self) -> bool:
        """Whether its folder holds a run that was finished, and is another one: it is removed for this."""
        return self._record().get("seconds") is not None and self.checkpoint.is_file() and not self._kept()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of its processes."""
        return float(self._record().get("seconds") or 0.0)

    def _kept(self) -> bool:
        """Whether what is there is of this very run."""
        known, now = self._record(), file_marks(self.options)
        began = known.get("files")
        if known.get("key") != self.key or not isinstance(began, dict) or began.keys() != now.keys():
            return False
        if known.get("meaning", self._meaning) != self._meaning:  # which older records do not have
            return False
        return all(began[name] == [*mark] or self._fetched(name, began[name]) for name, mark in now.items())

    def _fetched(self, name: str, began: Any) -> bool:
        """Whether an option named published weights when the run began, which are a file since it downloaded them."""
        path = Path(str(self.options[name]))
        return began == [path.name, ""] and path.resolve().parent == Path.cwd()

    def _settings(self) -> dict[str, Any] | None:
        """What the run's folder says of it; None where that is damaged or not there."""
        path = self.run / "settings.yaml"
        with suppress(ValueError), looked_at(path):
            found = parse_yaml(path.read_text(encoding="utf-8"))
            if isinstance(found["options"], dict) and isinstance(found["resolved"], dict):
                return dict(found)
        return None

    def _can_go_on(self) -> bool:
        """Whether its folder holds what can be gone on from: a run that is damaged beyond that is made anew.

        Raises:
            RunError: Storage or memory gave out: nothing may be removed for that.
        """
        from headstart.training import checkpoint  # torch: for those who have something to go on from

        if not self._kept() or self._settings() is None:
            return False
        folder = self.run / "checkpoints"
        if not self.checkpoint.is_file() and not checkpoint.steps(folder):
            return True  # ended before its first
        try:
            checkpoint.newest(folder)
        except RunError:
            raise
        except UserError:
            return False
        return True

    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        with suppress(ValueError), looked_at(path):  # none, or a damaged one: the run is made anew
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def make(self, place: Slot, stop: threading.Event | None = None) -> Path:
        """Run it to its end, or go on with it where it was stopped, and return the checkpoint.

        Raises:
            Stopped: `stop` was set; what was learnt is saved.
            UserError: It failed; with the end of its log.
        """
        if self.labels:
            self.labels.check()
        resume = self._can_go_on()
        spent = float(self._record().get("spent") or 0.0) if resume else 0.0
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        write_text(self.folder / OPTIONS, yaml.safe_dump(dict(self.options), sort_keys=False, allow_unicode=True))
        self._note(spent=spent)
        began = time.monotonic()
        try:
            command(self.folder, self.run, place, stop, resume=resume)
        finally:
            spent += time.monotonic() - began
            self._note(spent=spent)
        if not self.checkpoint.is_file():
            raise UserError(f"it left no checkpoint:\n{child.tail(self.folder / LOG)}", where=str(self.folder / LOG))
        self._note(spent=spent, seconds=round(spent, 2), checkpoint=content_hash(str(self.checkpoint)))
        return self.checkpoint

    def _note(self, **more: float | str) -> None:
        content = {"key": self.key, "files": file_marks(self.options), "meaning": self._meaning, **more}
        write_text(self.folder / RECORD, json.dumps(content, indent=1) + "\n")


def made_anew(runs: Sequence[Pretraining]) -> list[str]:
    """What is lost when these are made, in a sentence; none where nothing is."""
    lost = [run.node.shown for run in runs if run.replaces()]
    why = "recipe, labels, images or the version of headstart are others"
    return [f"made anew, for {why} than those of the run that is there: {few(lost)}"] if lost else []


def namers(folder: Path, start: str) -> list[str | None]:
    """What names the boxes in each of a recipe's runs that are in a comparison's folder (its option ``teacher``)."""
    found = []
    for file in sorted((folder / FOLDER).glob(f"*/{OPTIONS}")):
        if re.fullmatch(rf"{re.escape(start)}(-[^-]+)?-seed\d+(-search)?", file.parent.name):
            with suppress(OSError, ValueError):
                options = parse_yaml(file.read_text(encoding="utf-8"))
                found += [options["teacher"]] if isinstance(options, dict) and "teacher" in options else []
    return found


def node_of(prepared: Prepared, start: Start, budget: str, seed: int, *, search: bool) -> Node:
    """The run that the cells of a start wait for: one a list where the recipe uses labels, else one a seed.

    What is fine-tuned and what is measured as it is are of one run.
    """
    labelled = prepared.recipes[start.base].recipe.labelled
    return Node(start.base, budget, seed, search) if labelled else Node(start.base, "", seed)


def nodes(prepared: Prepared, *, search: bool, seeds: Sequence[int]) -> list[Node]:
    """The runs that the search for rates, or the cells of some seeds, wait for; seed by seed.

    A search needs none for what is measured as it is, unless something is trained for as long as that took.
    """
    followed = any(start.longer for start in prepared.starts)
    found = [
        node_of(prepared, start, budget.name, seed, search=search)
        for seed in seeds
        for budget in prepared.budgets
        for start in prepared.starts
        if start.kind == "recipe" and (followed or not (search and start.as_is))
    ]
    return list(dict.fromkeys(found))


def pretraining(prepared: Prepared, node: Node) -> Pretraining:
    """One run of a recipe, with the labels of its cells."""
    s, (recipe, data, _, fingerprint) = prepared.settings, prepared.recipes[node.start]
    labels = prepared.search[node.budget] if node.search else prepared.lists.get((node.budget, node.seed))
    used = str(labels.labels.resolve()) if labels else None
    coco = coco_weights(s.starts, s.model)
    options = recipe.filled(s.model, data=data, coco=coco, labels=used, seed=node.seed, imgsz=s.imgsz)
    return Pretraining(node, recipe, options, labels, fingerprint, prepared.folder / FOLDER / node.name)


def command(
    folder: Path, run: Path, place: Slot, stop: threading.Event | None, *, resume: bool = False, **more: Any
) -> None:
    """``headstart pretrain`` in a process of its own, with the options that lie in `folder`.

    It works in the current folder, so that published weights are downloaded to where everybody finds them.

    Raises:
        Stopped: `stop` was set.
        UserError: It failed; with the end of its log.
    """
    given: dict[str, Any] = {"out": run, "device": place.device, "resume": str(resume).lower(), **more}
    given |= {"trust": "true"} if trusted() else {}
    words = [f"cfg={folder / OPTIONS}", *(f"{key}={value}" for key, value in given.items())]
    log, module = folder / LOG, "headstart.comparison.command"
    code = place.run(module, ["pretrain", *words], log, stop, folder=Path.cwd(), patience=_PATIENCE)
    if code:
        why = f"was killed by signal {-code} (out of memory?)" if code < 0 else "failed"
        raise UserError(f"the pretraining {why}; the end of its log:\n{child.tail(log)}", where=str(log))


def measured(
    options: Mapping[str, Any],
    images: Sequence[str],
    folder: Path,
    place: Slot,
    stop: threading.Event | None = None,
    steps: int = 8,
) -> Pace:
    """How fast a recipe is, from a short run on a few images.

    Raises:
        Stopped: `stop` was set.
        UserError: So short a run on so few images is not possible.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = folder / "images.txt"
    write_text(listed, "".join(f"{image}\n" for image in images))
    short = {key: value for key, value in options.items() if key not in ("epochs", "budget", "loggers")}
    short |= {"data": str(listed), "steps": steps, "log_every": 1, "save_every": 10**6, "probe_every": 0}
    write_text(folder / OPTIONS, yaml.safe_dump({**short, "report": False}, sort_keys=False, allow_unicode=True))
    command(folder, folder / RUN, place, stop)
    pace = pace_of(folder / RUN, len(images))
    shutil.rmtree(folder, ignore_errors=True)
    return pace
