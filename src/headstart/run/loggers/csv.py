"""CSV files, one for the measures and one for what happened."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from headstart.run.loggers.base import Logger, Status


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
