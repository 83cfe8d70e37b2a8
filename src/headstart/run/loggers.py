"""Where a run's measures go beside its folder: CSV, TensorBoard, and loggers of users and of installed packages.

A logger is named as ``csv``, as ``tensorboard``, by the path of a Python file with one subclass of `Logger`, or by the
name of an entry point of the group ``headstart.loggers``, which is such a subclass.
"""

from __future__ import annotations

import csv
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from headstart import plugins
from headstart.errors import UserError, did_you_mean
from headstart.run.display import make_console

GROUP = "headstart.loggers"
Status = Literal["done", "interrupted", "failed"]


class Logger(ABC):
    """Is told what happens in a run, in the order in which it happens.

    Args:
        folder: Where it may write; it need not exist.

    Examples:
        A file ``my_logger.py``, used as ``loggers=my_logger.py``:

        >>> class Printer(Logger):
        ...     def metrics(self, step, values):
        ...         print(step, values["loss"])
        >>> Printer(Path("somewhere")).metrics(10, {"loss": 2.5, "lr": 0.1})
        10 2.5
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 - what a logger leaves out, it does without
        """The run begins, or goes on.

        Args:
            settings: What it was asked for and what it uses, as in ``settings.yaml``.
        """

    @abstractmethod
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Measures of a logged step, as in ``metrics.jsonl``; those that are not finite are nan or infinite.

        Args:
            step: Steps done.
            values: ``loss``, ``lr``, ``epoch``, ... by name; not every step has all of them.
        """

    def event(self, step: int, kind: str, message: str) -> None:  # noqa: B027
        """An alarm (`kind` is ``alarm``), or something worth knowing (``info``)."""

    def image(self, step: int, name: str, path: Path) -> None:  # noqa: B027
        """A picture of the run was drawn: the image file `path`, called `name`."""

    def finish(self, status: Status) -> None:  # noqa: B027
        """The run ended; nothing follows. Files are closed here."""


class CsvLogger(Logger):
    """``csv/version_N/metrics.csv`` and ``events.csv``; a run that goes on begins the next version."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from lightning_fabric.loggers import CSVLogger

        self._logger = CSVLogger(folder, name="csv", flush_logs_every_n_steps=1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        self._logger.log_metrics(dict(values), step)

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        path = Path(self._logger.experiment.log_dir) / "events.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.writer(stream)
            writer.writerows([("step", "kind", "message")] * new + [(step, kind, message)])

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`; says where it lies."""
        self.event(step, "image", f"{name}: {path}")

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        self._logger.finalize(status)


class TensorBoardLogger(Logger):
    """Event files in ``tensorboard/``: ``tensorboard --logdir RUN/loggers/tensorboard``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from lightning_fabric.loggers import TensorBoardLogger as Fabrics

        # Files are named by the second: a run that goes on at once would write over its earlier one.
        self._logger = Fabrics(folder, name="tensorboard", version="", filename_suffix=f".{secrets.token_hex(4)}")

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        self._text("settings", "```\n" + yaml.safe_dump(dict(settings), sort_keys=False) + "```", 0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        self._logger.log_metrics(dict(values), step)

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        self._text(kind, message, step)
        self._logger.save()

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`."""
        import cv2
        import numpy as np

        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)  # imread knows no names beyond ASCII
        if pixels is None:
            raise ValueError(f"{path} is not an image")
        self._logger.experiment.add_image(name, pixels[..., ::-1].copy(), step, dataformats="HWC")

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        self._text("status", status, 0)
        self._logger.finalize(status)

    def _text(self, tag: str, text: str, step: int) -> None:
        self._logger.experiment.add_text(tag, text.encode(errors="replace").decode(), step)


BUILT_IN: dict[str, type[Logger]] = {"csv": CsvLogger, "tensorboard": TensorBoardLogger}


class Guarded(Logger):
    """Passes everything on to a logger, and leaves it out once it has raised: it never ends a run.

    Args:
        logger: The logger.
        name: As the user named it.
        say: Told, once, that it failed.
    """

    def __init__(self, logger: Logger, name: str, say: Callable[[str], None]) -> None:
        super().__init__(logger.folder)
        self.name = name
        self._logger: Logger | None = logger
        self._say = say

    @property
    def failed(self) -> bool:
        """Whether it is left out."""
        return self._logger is None

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        self._pass("start", dict(settings))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        self._pass("metrics", step, dict(values))

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        self._pass("event", step, kind, message)

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`."""
        self._pass("image", step, name, path)

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        self._pass("finish", status)

    def _pass(self, what: str, *values: Any) -> None:
        if self._logger is None:
            return
        try:
            getattr(self._logger, what)(*values)
        except Exception as error:  # whatever a user's code, or a full disk, raises
            self._logger = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"the logger {self.name} failed and is left out from here on: {type(error).__name__}: {reason}")


# ---------------------------------------------------------------------------------------------------------------------
# Finding loggers
# ---------------------------------------------------------------------------------------------------------------------


def check_loggers(names: Sequence[str]) -> list[UserError]:
    """What is wrong with the loggers that a user names, found without importing any; empty where nothing is."""
    problems = [problem for name in dict.fromkeys(names) if (problem := _problem(name))]
    twice = [name for name in dict.fromkeys(names) if list(names).count(name) > 1]
    return problems + [UserError(f"names {name} twice", where="loggers") for name in twice]


def open_loggers(names: Sequence[str], folder: Path, say: Callable[[str], None] | None = None) -> list[Logger]:
    """The loggers that a user names; what they raise later on is said once and never ends the run.

    Args:
        names: ``csv``, ``tensorboard``, paths of Python files, names that installed packages offer.
        folder: Where they may write.
        say: Told of a logger that fails; by default it is printed on standard error.

    Raises:
        UserError: A logger is not found, cannot be imported or made: all of them together.
    """
    problems = check_loggers(names)
    told = say or make_console(stderr=True, soft_wrap=True).print
    found: list[Logger] = []
    for name in [] if problems else names:
        try:
            found.append(Guarded(_made(_class_of(name), name, folder), name, told))
        except UserError as problem:
            problems.append(problem)
    if problems:
        raise UserError.several(problems)
    return found


def _problem(name: str) -> UserError | None:
    if plugins.is_python_file(name):
        there = Path(name).expanduser().is_file()
        return None if there else UserError(f"there is no file {name}", where="loggers")
    if name == "tensorboard" and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        hint = "pip install tensorboard"
        return UserError("tensorboard needs a package that is not installed", where="loggers", hint=hint)
    known = [*BUILT_IN, *plugins.installed(GROUP)]
    if name in known:
        return None
    hint = did_you_mean(name, known) or f"loggers: {', '.join(known)}, or the path of a Python file"
    return UserError(f"there is no logger {name!r}", where="loggers", hint=hint)


def _class_of(name: str) -> Callable[[Path], Any]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not plugins.is_python_file(name):
        found = plugins.load_installed(GROUP, name, where="loggers")
        if not callable(found):
            raise UserError(f"{name} is not a subclass of {__name__}.Logger", where="loggers")
        return found  # type: ignore[no-any-return]
    return plugins.one_subclass(plugins.import_file(name, where="loggers"), Logger, where="loggers")


def _made(kind: Callable[[Path], Any], name: str, folder: Path) -> Logger:
    try:
        made = kind(folder)
    except Exception as error:  # whatever a user's code raises
        raise UserError(f"{name} cannot be made: {type(error).__name__}: {error}", where="loggers") from error
    if not isinstance(made, Logger):
        raise UserError(f"{name} gives a {type(made).__name__}, not a {__name__}.Logger", where="loggers")
    return made
