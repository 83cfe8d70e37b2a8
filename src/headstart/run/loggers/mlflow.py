"""MLflow: a server, or a database beside the run that ``mlflow ui`` shows."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from headstart.errors import UserError
from headstart.files import write_text
from headstart.run.loggers.base import Logger, Status, flat, readable
from headstart.settings.schema import Options

_ENDED = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_LONGEST = 500
"""Characters of a parameter's value that every store takes."""
_QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_DISABLE_TELEMETRY": "true",
}  # fmt: skip
"""Environment variables, unless they are set: it waits minutes for a lost server, and tells its makers of us."""


class MlflowSettings(Options):
    """What can be set of it."""

    tracking_uri: str | None = Field(
        None, description="server or store; none: MLFLOW_TRACKING_URI, else a database beside the run"
    )
    experiment: str | None = Field(
        None, description="experiment; none: MLFLOW_EXPERIMENT_NAME, else headstart, or of a cell its comparison"
    )
    name: str | None = Field(None, description="name of the run; none: its folder's")
    tags: dict[str, str] = Field({}, description="tags of the run")


class MlflowLogger(Logger):
    """A run of MLflow: measures over the steps, settings as parameters, pictures as artifacts.

    MLflow's client is used in place of Lightning's logger, which sets the store for the whole process.
    """

    Settings = MlflowSettings
    remote = True

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import entities
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._entities, self._errors, self._open = entities, MlflowException, MlflowClient
        self._set = MlflowSettings(**settings)
        self._client: Any = None
        self._id = ""
        self._told: dict[str, list[str]] = {}

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> UserError | None:
        """See `Logger.missing`."""
        hint = "pip install 'headstart[mlflow]'"
        if not find_spec("mlflow"):
            return UserError("mlflow is not installed", where="loggers", hint=hint)
        if _address(settings) is None and not (find_spec("sqlalchemy") and find_spec("alembic")):
            what = "mlflow needs sqlalchemy and alembic for a database beside the run"
            return UserError(what, where="loggers", hint=f"{hint}, or give its tracking_uri")
        return None

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        known, own = self._set, self.run.shared or self.folder
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it creates
        self.folder.mkdir(parents=True, exist_ok=True)
        address, artifacts = _address({"tracking_uri": known.tracking_uri}), None
        if address is None:
            (own / "mlflow").mkdir(parents=True, exist_ok=True)
            address, artifacts = f"sqlite:///{own.resolve()}/mlflow/mlflow.db", (own / "mlflow" / "artifacts").resolve()
        self._client = self._open(address)
        if not self._go_on(address):
            tags = {"headstart.group": readable(self.run.group)} if self.run.group else {}
            run = self._client.create_run(
                self._experiment(None if artifacts is None else artifacts.as_uri()),
                run_name=known.name or readable(self.run.name),
                tags={**tags, **known.tags},
            )
            self._id = run.info.run_id
            write_text(self.folder / "mlflow.json", json.dumps({"tracking_uri": address, "run_id": self._id}) + "\n")
        self._client.log_dict(self._id, readable(settings), "settings.yaml")
        self._parameters(settings)
        how = f"; to see it: mlflow ui --backend-store-uri {address}" if artifacts else ""
        self.say(f"mlflow logs to {_shown(address)}{how}")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        now = int(time.time() * 1000)
        found = [self._entities.Metric(_name(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=found)

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        key = f"{kind} at step {step}"
        self._told.setdefault(key, []).append(readable(message))  # a tag that is set again loses what it said
        self._client.set_tag(self._id, key, "\n".join(self._told[key])[:_LONGEST])

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`."""
        self._client.log_artifact(self._id, os.fspath(path), "pictures")

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        if self._id:
            self._client.set_tag(self._id, "headstart.status", status)
            self._client.set_terminated(self._id, _ENDED[status])

    def _go_on(self, address: str) -> bool:
        """Take up the run that this one was before, where it is there."""
        with suppress(OSError, ValueError, KeyError, TypeError, self._errors):
            known = json.loads((self.folder / "mlflow.json").read_text(encoding="utf-8"))
            if known["tracking_uri"] == address:
                run = self._client.get_run(known["run_id"])
                if run.info.lifecycle_stage == "active":  # and not deleted
                    self._client.update_run(run.info.run_id, status="RUNNING")
                    self._id = run.info.run_id
        return bool(self._id)

    def _experiment(self, artifacts: str | None) -> str:
        name = self._set.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or readable(self.run.group)
        name = name or "headstart"
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name, artifact_location=artifacts))

    def _parameters(self, settings: Mapping[str, Any]) -> None:
        """What the run uses, as parameters; those that it has keep the values that it began with."""
        used = settings.get("options", settings)
        there = self._client.get_run(self._id).data.params
        found = [
            self._entities.Param(_name(name), str(value)[:_LONGEST])
            for name, value in flat(readable(used)).items()
            if _name(name) not in there
        ]
        for first in range(0, len(found), 100):  # as many as it takes at once
            self._client.log_batch(self._id, params=found[first : first + 100])


def _shown(address: str) -> str:
    """An address without the user and the password in it."""
    return re.sub(r"//[^/@]*@", "//", address)


def _name(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w/. -]", "_", name)


def _address(settings: Mapping[str, Any]) -> str | None:
    """The store that is named; None: the database beside the run."""
    named = settings.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    return str(named) if named else None
