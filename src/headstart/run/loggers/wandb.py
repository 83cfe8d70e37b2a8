"""Weights & Biases, online where this machine is logged in, and otherwise into a folder that ``wandb sync`` uploads.

It asks nothing and waits for no server: without a login, and where the server does not answer, it logs offline.
"""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from headstart.errors import UserError
from headstart.files import write_text
from headstart.paths import expanded
from headstart.run.loggers.base import Logger, Status, readable
from headstart.settings.schema import Options, Strings

BEGIN, END = 30.0, 60.0
"""Seconds that its server may take to answer at the start, and to take in what is left at the end."""
_OFFLINE = ("offline", "dryrun")


class WandbSettings(Options):
    """What can be set of it."""

    project: str | None = Field(None, description="project; none: WANDB_PROJECT, else headstart")
    entity: str | None = Field(None, description="user or team; none: the account's own")
    name: str | None = Field(None, description="name of the run; none: its folder's")
    group: str | None = Field(None, description="group of the run; none: the comparison that it is a cell of")
    tags: Strings = Field([], description="tags of the run")
    notes: str | None = Field(None, description="notes on the run")
    mode: Literal["auto", "online", "offline"] = Field(
        "auto", description="auto: WANDB_MODE, else online where this machine is logged in and offline where it is not"
    )


class WandbLogger(Logger):
    """A run of W&B: measures over the steps, settings as its config, pictures, alarms as alerts.

    Lightning's logger is not used: it joins a run that the user's own program has open, sets WANDB_MODE for the rest of
    the process, and leaves the run's end to the interpreter's.
    """

    Settings = WandbSettings
    remote = True

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # what fails is not told to its makers
        import wandb

        self._wandb = wandb
        self._set = WandbSettings(**settings)
        self._run: Any = None

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> UserError | None:
        """See `Logger.missing`."""
        if find_spec("wandb"):
            return None
        return UserError("wandb is not installed", where="loggers", hint="pip install 'headstart[wandb]'")

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        mode, why = self._mode()
        try:
            self._run = self._begin(mode, settings)
        except Exception as error:  # of the network, of the login, of the server
            if mode in _OFFLINE:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            mode, why = "offline", f"its server cannot be logged to ({reason})"
            (self.folder / "wandb.id").unlink(missing_ok=True)  # W&B holds on to the id of what it could not begin
            self._run = self._begin(mode, settings)
        self._run.define_metric("*", step_metric="step")
        if mode in _OFFLINE:
            self.say(f"wandb logs offline, for {why}; to upload it: wandb sync {Path(self._run.dir).parent}")
        elif address := self._run.url:
            self.say(f"wandb logs to {address}")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        # Steps are a measure of their own: W&B's must grow, and a run that goes on may do some again.
        self._run.log({**values, "step": step})

    def event(self, step: int, kind: str, message: str) -> None:
        """See `Logger.event`."""
        line = readable(f"{kind} at step {step}: {message}")
        self._run.write_logs(f"{line}\n")
        if kind == "alarm":
            self._run.alert(title=f"headstart: {self._run.name}", text=line)

    def image(self, step: int, name: str, path: Path) -> None:
        """See `Logger.image`."""
        self._run.log({name: self._wandb.Image(os.fspath(path)), "step": step})

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        if self._run is not None:
            self._run.summary["status"] = status
            self._run.finish(exit_code=0 if status == "done" else 1)

    def _begin(self, mode: Any, settings: Mapping[str, Any]) -> Any:
        known, at = self._set, self.run.shared or self.folder
        at.mkdir(parents=True, exist_ok=True)
        # Nothing of the terminal is taken over, and nothing printed: a run has a display of its own.
        quiet = {"console": "off", "silent": True, "init_timeout": BEGIN, "finish_timeout": END}
        return self._wandb.init(
            project=known.project or os.environ.get("WANDB_PROJECT") or "headstart",
            entity=known.entity,
            name=known.name or readable(self.run.name),
            group=known.group or readable(self.run.group) or None,
            tags=known.tags or None,
            notes=known.notes,
            id=self._id(),
            resume=None if mode in _OFFLINE else "allow",
            config=readable(settings),
            dir=os.fspath(at),
            mode=mode,
            reinit="create_new",
            settings=self._wandb.Settings(**quiet),
        )

    def _id(self) -> str:
        """The id of the run, kept so that a run that goes on is the same one there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "wandb.id"
        with suppress(OSError):
            if (known := path.read_text(encoding="ascii").strip()).isalnum():
                return known
        new = secrets.token_hex(4)
        write_text(path, f"{new}\n")
        return new

    def _mode(self) -> tuple[str, str]:
        """How to log, and where that is offline, why."""
        if self._set.mode != "auto":
            return self._set.mode, "it is set so"
        if named := os.environ.get("WANDB_MODE"):
            return named, f"WANDB_MODE is {named}"
        return ("online", "") if self._logged_in() else ("offline", "this machine is not logged in (wandb login)")

    def _logged_in(self) -> bool:
        """Whether there is a key for the server; W&B itself would ask for one."""
        known = self._wandb.setup().settings
        if known.api_key or any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
            return True
        files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
        host = urlsplit(str(known.base_url)).netloc
        for file in files:
            with suppress(OSError, netrc.NetrcParseError):
                return netrc.netrc(expanded(file)).authenticators(host) is not None
        return False
