"""The loggers of a comparison: each of its trainings is a run of one group, logged once, when it has ended."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.comparison.records import CellResult, Figures
from headstart.detectors.finetuner import measured_epochs
from headstart.errors import UserError
from headstart.files import write_text
from headstart.run.loggers import Logger, Named, open_loggers
from headstart.run.loggers.guarded import Guarded
from headstart.settings.loggers import NamedLogger

FOLDER, LOGGED = "loggers", "logged.json"
_ASKED = ("kind", "start", "budget", "seed", "lr", "epochs", "images")


class CellLoggers:
    """Tells the loggers of a comparison of its trainings.

    Args:
        asked: The loggers, as `open_loggers` takes them.
        folder: The comparison's, after which the group is called.
        settings: What the comparison was asked for.
        say: Told what loggers have to say.

    Raises:
        UserError: A logger is not found, cannot be imported or made.
    """

    def __init__(
        self, asked: Sequence[NamedLogger], folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._folder, self._group, self._settings, self._show = folder / FOLDER, folder.name, dict(settings), say
        self._said: set[str] = set()
        self._asked = {_key(one): one for one in asked}
        open_loggers(list(asked), self._folder, say)  # what cannot be made is said before anything is trained

    def tell(self, cell: CellResult) -> None:
        """Log a training that ended, to the loggers that do not know it yet; one that was trained anew is a new run."""
        if not self._asked or cell.state == "missing":
            return
        own = self._folder / cell.folder.replace("/", "-")
        known = _logged(own / LOGGED, mark := _mark(cell))
        todo = {key: one for key, one in self._asked.items() if key not in known}
        if not known:
            shutil.rmtree(own, ignore_errors=True)
        if not todo:
            return
        named = Named(cell.folder.rpartition("/")[2], self._group, self._folder)
        named = named if cell.kind == "main" else named._replace(name=f"{cell.kind}-{named.name}")
        done = [*known, *(key for key, one in todo.items() if self._logged(key, one, own, named, cell))]
        try:
            own.mkdir(parents=True, exist_ok=True)
            write_text(own / LOGGED, json.dumps({"mark": mark, "loggers": done}) + "\n")
        except (OSError, UserError) as error:  # the trainings are worth more than a note that they were logged
            self._say(f"which trainings were logged is not kept: {error}; they are logged again with the next command")

    def _say(self, message: str) -> None:
        """Show a line, but for what was said of another training already: each has the same place to log to."""
        if (what := message.partition(":")[0]) not in self._said:
            self._said.add(what)
            self._show(message)

    def _logged(self, key: str, one: NamedLogger, own: Path, named: Named, cell: CellResult) -> bool:
        """Whether a logger took a training; one that did not is left out from there on."""
        try:
            (logger,) = open_loggers([one], own, self._say, named)
            _log(logger, cell, self._settings)
            lost = isinstance(logger, Guarded) and logger.failed  # which it has said
        except UserError as error:
            self._say(str(error))
            lost = True
        if lost:
            del self._asked[key]
        return not lost


def _log(logger: Logger, cell: CellResult, settings: Mapping[str, Any]) -> None:
    """One training, from its start to its end."""
    asked = {name: getattr(cell, name) for name in _ASKED}
    logger.start({"options": {**asked, "folder": cell.folder, "comparison": dict(settings)}})
    if cell.figures is None:
        logger.event(0, "alarm", cell.error.splitlines()[0] if cell.error else "it failed")
        logger.finish("failed")
        return
    figures, measured = cell.figures, measured_epochs(cell.epochs)
    for point in figures.curve:
        if point.epoch in measured:
            values = {"map50_95": point.map50_95, "map50": point.map50, "seconds": point.seconds}
            logger.metrics(point.epoch, {**values, "epoch": point.epoch})
    logger.metrics(cell.epochs, _final(figures))
    logger.finish("done")


def _final(figures: Figures) -> dict[str, float]:
    """What the last weights score, in all and class by class, and what the training cost."""
    found = {"final/map50_95": figures.map50_95, "final/map50": figures.map50, "final/seconds": figures.seconds}
    return found | {f"final/map50_95/{one.name}": one.map50_95 for one in figures.class_scores}


def _mark(cell: CellResult) -> str:
    """Equal for the same training with the same outcome."""
    rows = cell.figures.rows_sha256 if cell.figures else cell.error
    asked = [getattr(cell, name) for name in (*_ASKED, "labels_sha256", "start_sha256", "settings_sha256")]
    return hashlib.sha256(json.dumps([*asked, rows]).encode()).hexdigest()


def _logged(path: Path, mark: str) -> list[str]:
    """The loggers that were told of the training with this mark."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        return [str(one) for one in known["loggers"]] if known["mark"] == mark else []
    return []


def _key(one: NamedLogger) -> str:
    """A logger with its settings: other settings are another logger."""
    return one if isinstance(one, str) else json.dumps(one, sort_keys=True, default=str)
