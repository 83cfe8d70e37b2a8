"""The contract of a logger: it is told what happens in a run, and passes it on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from headstart.errors import UserError
from headstart.run.display import make_console
from headstart.settings.schema import Options

Status = Literal["done", "interrupted", "failed"]


class Named(NamedTuple):
    """What a run is called where runs lie side by side.

    Attributes:
        name: The run: its folder's name, or a comparison's cell.
        group: The comparison that it is a cell of; "" for a run of its own.
        shared: Where the loggers of a group may write together; None for a run of its own.
    """

    name: str = ""
    group: str = ""
    shared: Path | None = None


class Logger(ABC):
    """Is told what happens in a run, in the order in which it happens.

    What the user set of it comes as keyword arguments: ``loggers='{my_logger.py: {port: 80}}'`` gives ``port=80`` to a
    constructor that takes it. By default there is nothing to set.

    Args:
        folder: Where it may write; it need not exist.

    Attributes:
        Settings: What can be set of a logger that comes with headstart; it gets these, checked.
        remote: Whether it may wait for a network: it then works beside the run, which waits for its start and its end
            alone, and not for long.
        run: What the run is called, known from `start` on.

    Examples:
        A file ``my_logger.py``, used as ``loggers=my_logger.py``:

        >>> class Printer(Logger):
        ...     def metrics(self, step, values):
        ...         print(step, values["loss"])
        >>> Printer(Path("somewhere")).metrics(10, {"loss": 2.5, "lr": 0.1})
        10 2.5
    """

    Settings: ClassVar[type[Options]] = Options
    remote: ClassVar[bool] = False
    run: Named = Named()
    _tell: Callable[[str], None] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> UserError | None:
        """The package that is not installed and that it needs with these settings; None: all is there."""
        return None

    def start(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 - what a logger leaves out, it does without
        """The run begins, or goes on.

        Args:
            settings: What it was asked for and what it uses, as in ``settings.yaml``; of a comparison's cell, what it
                was asked for.
        """

    @abstractmethod
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Measures of a logged step, as in ``metrics.jsonl``; those that are not finite are nan or infinite.

        Args:
            step: Steps done; of a comparison's cell, epochs.
            values: ``loss``, ``lr``, ``epoch``, ... by name; not every step has all of them.
        """

    def event(self, step: int, kind: str, message: str) -> None:  # noqa: B027
        """An alarm (`kind` is ``alarm``), or something worth knowing (``info``)."""

    def image(self, step: int, name: str, path: Path) -> None:  # noqa: B027
        """A picture of the run was drawn: the image file `path`, called `name`."""

    def finish(self, status: Status) -> None:  # noqa: B027
        """The run ended; nothing follows. Files are closed here."""

    def say(self, message: str) -> None:
        """Tell whoever watches the run, in a line; on standard error unless the run has a better place."""
        (self._tell or make_console(stderr=True, soft_wrap=True).print)(message)


def readable(value: Any) -> Any:
    """A value, keys and items of maps and lists too, whose strings other programs can read: names need not be UTF-8."""
    if isinstance(value, Mapping):
        return {readable(str(key)): readable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(one) for one in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A map of maps as one, with names such as ``options.lr``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found
