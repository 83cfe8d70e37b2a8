"""The run folder of a process that writes nothing: of several that train together the first one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headstart.run.folder import RunFolder
from headstart.run.loggers import Status
from headstart.settings.loggers import NamedLogger


class Unwritten(RunFolder):
    """As `RunFolder`; nothing is written, no lock is taken, no logger told."""

    def take(self) -> None:
        """Nothing."""

    def under_way(self) -> None:
        """Nothing."""

    def put_back(self) -> bool:
        """Nothing."""
        return False

    def end(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def write_settings(
        self, options: dict[str, Any], resolved: dict[str, Any], asked: Mapping[str, Any] | None = None
    ) -> None:
        """Nothing."""

    def make_loggers(self, asked: Sequence[NamedLogger], show: Callable[[str], None] | None = None) -> None:
        """Nothing."""

    def start_loggers(self) -> None:
        """Nothing."""

    def picture(self, step: int, name: str) -> None:
        """Nothing."""

    def finish(self, status: Status) -> None:
        """Nothing."""

    def metrics(self, values: dict[str, float]) -> None:
        """Nothing."""

    def truncate_metrics(self, step: int) -> None:
        """Nothing."""

    def event(self, step: int, kind: str, message: str) -> None:
        """Nothing."""

    def teacher(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(self, message: str) -> None:
        """Nothing."""

    def skip(self, items: list[tuple[str, str]]) -> None:
        """Nothing."""

    def note(self, items: list[tuple[str, str]]) -> None:
        """Nothing."""
