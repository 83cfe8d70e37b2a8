"""TensorBoard's event files."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from headstart.errors import UserError
from headstart.run.loggers.base import Logger, Status, readable

_SECTIONS = ("loss", "teacher", "probe", "time")
_OTHERS = dict.fromkeys(("data_wait", "images_per_second", "seconds"), "time") | {"map50": "test", "map50_95": "test"}


def tag(name: str) -> str:
    """What a measure is called in TensorBoard, which has a section for all that stands before the same slash."""
    if "/" in name:
        return name
    section, _, rest = name.partition("_")
    if section in _SECTIONS:
        return f"{section}/{rest or name}"
    return f"{_OTHERS.get(name, 'train')}/{name}"


class TensorBoardLogger(Logger):
    """Event files in ``tensorboard/``: ``tensorboard --logdir RUN/loggers/tensorboard``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from lightning_fabric.loggers import TensorBoardLogger as Fabrics

        # Files are named by the second: a run that goes on at once would write over its earlier one.
        self._logger = Fabrics(folder, name="tensorboard", version="", filename_suffix=f".{secrets.token_hex(4)}")

    @classmethod
    def missing(cls, settings: Mapping[str, Any]) -> UserError | None:
        """See `Logger.missing`."""
        if find_spec("tensorboard") or find_spec("tensorboardX"):
            return None
        what, hint = "tensorboard needs a package that is not installed", "pip install tensorboard"
        return UserError(what, where="loggers", hint=hint)

    def start(self, settings: Mapping[str, Any]) -> None:
        """See `Logger.start`."""
        self._text("settings", "```\n" + yaml.safe_dump(dict(settings), sort_keys=False) + "```", 0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger.metrics`."""
        self._logger.log_metrics({tag(name): value for name, value in values.items()}, step)

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
        self._logger.experiment.add_image(f"pictures/{name}", pixels[..., ::-1].copy(), step, dataformats="HWC")

    def finish(self, status: Status) -> None:
        """See `Logger.finish`."""
        self._text("status", status, 0)
        self._logger.finalize(status)

    def _text(self, tag: str, text: str, step: int) -> None:
        self._logger.experiment.add_text(tag, readable(text), step)
