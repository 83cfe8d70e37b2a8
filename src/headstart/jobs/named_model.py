"""The detector that ``model=`` of a tool names: a run's folder, a file, or a name whose weights may lie here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from headstart.detectors.base import Detector
from headstart.detectors.find import finetuner, load_detector, split_name
from headstart.errors import UserError
from headstart.settings.auto import weights_beside
from headstart.trust import granted


def checkpoint(model: str) -> str:
    """The file that ``model=`` names; of a run's folder what it handed back.

    Raises:
        UserError: It is a folder without that.
    """
    if not Path(model).is_dir():
        return model
    file = Path(model) / "headstart.pt"
    if not file.is_file():
        raise UserError("holds no headstart.pt", where=f"model={model}", hint="a run hands it back at the end")
    return str(file)


class ModelHere:
    """A detector on this machine, as far as it is there: nothing is downloaded.

    Attributes:
        name: As the user gave it.
        path: Its file; None where a bare name (``yolo11n.pt``) has no weights in the current folder.

    Raises:
        UserError: A path is given, and no file is there.
    """

    def __init__(self, name: str, *, trust: bool) -> None:
        self.name, self._trust = name, trust
        file = checkpoint(name)
        if Path(file).is_file():
            self.path: str | None = file
            return
        if (os.sep in name or (os.altsep or os.sep) in name) and not split_name(name)[0]:
            hint = "give a .pt on this machine, or a finished run's folder"
            raise UserError("there is no such file", where=f"model={name}", hint=hint)
        self.path = weights_beside(name if Path(name).suffix else f"{name}.yaml")

    @cached_property
    def detector(self) -> Detector | UserError | None:
        """The detector, loaded once; why it cannot be; None without a file."""
        if self.path is None:
            return None
        try:
            with granted(self._trust):
                return load_detector(self.path)
        except UserError as error:
            return error

    @property
    def poses(self) -> bool:
        """Whether it learns keypoints: by what its file holds, else by its name; not where that is not known."""
        if isinstance(self.detector, Detector):
            return self.detector.task == "pose"
        with suppress(UserError):  # of no family, or of one that is not fine-tuned
            return finetuner(self.name).learns_keypoints(self.name)
        return False

    def rejected(self, images: Sequence[str]) -> dict[str, str]:
        """Those of `images` that its training leaves out, and why; empty where its family has none."""
        with suppress(UserError):  # the start says so
            return finetuner(self.path or self.name).rejected(images)
        return {}
