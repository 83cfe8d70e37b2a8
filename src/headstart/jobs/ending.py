"""How a pretraining ends: what is handed out, and what is left of one that ends early."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from headstart.detectors.find import family
from headstart.detectors.handback import HandBack
from headstart.errors import UserError
from headstart.run.display import make_console
from headstart.run.folder import RunFolder
from headstart.run.stopping import Stopped
from headstart.trust import granted


@dataclass
class Run:
    """A pretraining that ended.

    Attributes:
        folder: The run folder.
        checkpoint: The detector to fine-tune, ``YOLO(run.checkpoint)``; None where the run was interrupted, or where
            weights did not arrive in it.
        handback: What arrived in it, tensor by tensor.
        step: Steps done.
        interrupted: Whether Ctrl-C ended it; ``pretrain(out=run.folder, resume=True)`` goes on.
    """

    folder: Path
    checkpoint: Path | None
    handback: HandBack | None = field(repr=False)
    step: int
    interrupted: bool

    def yolo(self, trust: bool = False) -> Any:
        """The pretrained detector as a live Ultralytics object, whose ``train()`` starts from what was learnt.

        Args:
            trust: Whether code that the checkpoint holds, of a layer of your own, may run.

        Raises:
            UserError: There is no checkpoint, or it is of another family than Ultralytics'.

        Examples:
            >>> run = headstart.pretrain(data="my/images", model=YOLO("yolo11n.pt"))
            >>> run.yolo().train(data="my.yaml", epochs=100)
        """
        if self.checkpoint is None:
            what = "there is no checkpoint: the run was interrupted, or its weights did not arrive"
            raise UserError(what, where=str(self.folder))
        make_live = getattr(family(str(self.checkpoint)), "live", None)
        if make_live is None:
            what = f"{self.checkpoint} is not a checkpoint of Ultralytics, so there is no YOLO object of it"
            raise UserError(what, hint="the end of the run said how its detector is loaded")
        with granted(trust):
            return make_live(self.checkpoint)

    @property
    def ok(self) -> bool:
        """Whether the run ended and every tensor arrived."""
        return self.handback is not None and self.handback.ok

    def _repr_html_(self) -> str | None:
        """The card that a notebook shows; None where the folder is no longer there."""
        from headstart.report.cards import run_card

        try:
            return run_card(self.folder)
        except UserError:
            return None


def ended_early(folder: RunFolder, error: BaseException, *, new: bool, again: str) -> None:
    """Say what is left of a run that ends by an error or a signal, and bring back the one that it was to replace.

    Args:
        folder: Of the run.
        error: What ends it.
        new: Whether it began just now.
        again: The command that goes on with it.
    """
    asked, begun = isinstance(error, KeyboardInterrupt), folder.begun
    if not asked:  # where nobody reads the output any more, this alone tells
        words = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error)).rstrip()
        with suppress(UserError):  # on a full disk: `error` says more
            folder.log(f"stopped: {words}")
    # A system that ends the run will start it again; a person, or an error, has changed the plan.
    if new and not (begun and isinstance(error, Stopped)) and folder.put_back():
        say(f"the run that was in {folder.path} before is there again, as it was")
    elif asked and not begun:  # the folder goes
        say("stopped before anything was saved: the same command begins it again")
    elif asked:
        folder.keep()
        say("stopped; everything up to the last checkpoint is saved. To go on:")
        say(f"  {again}")


def say(line: str) -> None:
    """Print a line on standard error."""
    make_console(stderr=True, soft_wrap=True).print(Text(line))
