"""For your own ``yolo.train(...)``: did the weights that were pretrained arrive in it?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.detectors.handback import PARTS, HandBack, Part, shorten
from headstart.errors import UserError, enumerated
from headstart.jobs.ending import Run, say
from headstart.trust import granted

if TYPE_CHECKING:
    from torch import Tensor

_PLACES = ("the trainer's model", "the trainer's EMA")
_HINT = "start from the checkpoint, YOLO(run.checkpoint), or call headstart.load_into(yolo, run) before train()"


def verify(checkpoint: Run | str | PathLike[str], *, strict: bool = True, trust: bool = False) -> Verify:
    """A callback for an Ultralytics training: compares what it starts from with a checkpoint, tensor by tensor.

    Ultralytics builds the model anew when a training begins, and takes only the tensors whose names and shapes match,
    without a word about the others. The callback looks into the trainer's model and its EMA before the first step,
    says what arrived, and names what did not. A training that is resumed is not compared.

    Args:
        checkpoint: A run, a run folder, its ``headstart.pt``, or any other Ultralytics checkpoint.
        strict: Whether a training to which backbone, or a neck that was pretrained, did not arrive whole is ended by
            an error; else that is said alone. Of the head it is always said alone: it depends on the classes.
        trust: Whether code that the checkpoint holds may run.

    Returns:
        The callback; after the training began, its ``handback`` has what was found.

    Raises:
        UserError: There is no such checkpoint, or it cannot be read.

    Examples:
        >>> yolo = YOLO("runs/a/headstart.pt")
        >>> yolo.add_callback("on_train_start", headstart.callbacks.verify("runs/a"))
        >>> yolo.train(data="my.yaml")
    """
    from headstart.detectors.tensors import own_state
    from headstart.detectors.ultralytics.opening import open_checkpoint, splitter
    from headstart.detectors.ultralytics.undisturbed import quiet

    path = _path(checkpoint)
    with granted(trust), quiet():
        opened = open_checkpoint(path, where="checkpoint")
    state, part_of = own_state(opened.model), splitter(opened.model)
    trained = ((opened.ckpt or {}).get("headstart") or {}).get("trained") or PARTS
    return Verify(path, state, {name: part_of(name) for name in state}, dict(opened.model.names), trained, strict)


class Verify:
    """See `verify`. It is called with the trainer, from ``on_train_start``.

    Attributes:
        handback: What of the checkpoint was found in the trainer; None before a training began.
    """

    def __init__(
        self, path: Path, state: dict[str, Tensor], parts: dict[str, Part], names: dict[int, str], trained: Any,
        strict: bool,
    ) -> None:  # fmt: skip
        self.handback: HandBack | None = None
        self._path, self._state, self._parts, self._names = path, state, parts, names
        self._trained, self._strict = frozenset(trained), strict

    def __call__(self, trainer: Any) -> None:
        """Compare.

        Raises:
            UserError: Backbone, or a neck that was pretrained, did not arrive whole; or it is called too early.
        """
        if getattr(trainer, "ema", None) is None:
            what = "this callback is for on_train_start: before, the trainer's weights are not there"
            raise UserError(what, hint='yolo.add_callback("on_train_start", headstart.callbacks.verify(...))')
        if epoch := int(getattr(trainer, "start_epoch", 0) or 0):
            say(f"the training goes on after epoch {epoch}: its weights are not compared with {self._path}")
            return
        found = self.handback = self._compared(trainer)
        if os.environ.get("RANK", "-1") in ("-1", "0"):  # one of the processes that train together says it
            for line in self._lines(found):
                say(line)
        if self._strict and (problem := self._problem(found)):
            raise problem

    def _compared(self, trainer: Any) -> HandBack:
        from headstart.detectors.tensors import not_finite
        from headstart.detectors.ultralytics.arrival import compare

        lost, excused = compare(trainer, self._state, self._names)
        wrong = lost["EMA"] | lost["model"]  # the EMA is made of the model: there a tensor is lost first
        return HandBack.compared(
            self._state,
            {name: reason for name, reason in wrong.items() if name not in excused},
            self._parts.__getitem__,
            [name for name, part in self._parts.items() if part in self._trained],
            places=_PLACES,
            fresh=tuple(name for name in wrong if name in excused),
            not_finite=not_finite(self._state),
        )

    def _lines(self, found: HandBack) -> Iterator[str]:
        counts = [f"{part} {self._arrived(found, part)} of {found.parts[part].total}" for part in PARTS]
        whole = f"; {len(found.fresh)} of the head start fresh, for other classes" if found.fresh else ""
        yield f"{self._path} in {enumerated(_PLACES)}: {', '.join(counts)} tensors{whole}"
        for part in PARTS:
            if lost := [f"{one.name} {one.reason}" for one in found.dropped if one.part == part]:
                pretrained = "pretrained" if part in self._trained else "not pretrained"
                yield f"DID NOT ARRIVE, {len(lost)} of the {part} ({pretrained}): {shorten(lost, '; ')}"
        if found.not_finite:
            yield f"NOT FINITE, {len(found.not_finite)} with NaN or infinity: {shorten(found.not_finite)}"

    @staticmethod
    def _arrived(found: HandBack, part: Part) -> int:
        return found.parts[part].arrived - len(found.fresh) * (part == "head")

    def _problem(self, found: HandBack) -> UserError | None:
        if found.not_finite:
            what = f"holds NaN or infinity in {len(found.not_finite)} tensors: {shorten(found.not_finite)}"
            return UserError(what, where=str(self._path), hint="pretrain it again with a lower learning rate")
        needed = {"backbone"} | ({"neck"} & self._trained)
        lost = [one for one in found.dropped if one.part in needed]
        if not lost:
            return None
        total = sum(found.parts[part].total for part in PARTS if part in needed)
        of = " and ".join(part for part in PARTS if part in needed)
        listed = shorten([f"{one.name} {one.reason}" for one in lost], "; ")
        what = f"{len(lost)} of {total} tensors of {of} did not reach the training: {listed}"
        return UserError(what, where=str(self._path), hint=_HINT)


def _path(checkpoint: Any) -> Path:
    if isinstance(checkpoint, Run):
        if checkpoint.checkpoint is None:
            why = "it was interrupted, or its weights did not arrive"
            raise UserError(f"the run in {checkpoint.folder} has no checkpoint: {why}", where="checkpoint")
        return checkpoint.checkpoint
    path = Path(checkpoint)
    path = path / "headstart.pt" if path.is_dir() else path
    if not path.is_file():
        hint = "give the out= folder of a finished pretraining, or a .pt"
        raise UserError(f"{path} does not exist", where="checkpoint", hint=hint)
    return path
