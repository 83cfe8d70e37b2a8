"""Did the weights arrive? A checkpoint read back, an Ultralytics trainer started on it, every tensor compared.

Ultralytics rebuilds the model when a training begins and takes only the tensors whose names and shapes match, without
a word about the others; a model built from a YAML passes none at all to its training (ultralytics #16520, #6104).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.handback import PARTS, Dropped, HandBack, Part, PartCount, shorten
from headstart.detectors.tensors import differences, mismatches, not_finite, own_state
from headstart.detectors.ultralytics.class_rows import class_names, merged
from headstart.detectors.ultralytics.opening import check_trainable, made_from_scratch, open_checkpoint, splitter
from headstart.detectors.ultralytics.undisturbed import quiet, undisturbed
from headstart.errors import UserError
from headstart.images.class_names import alike
from headstart.trust import granted

_PLACES = ("the file read back", "the trainer's model", "the trainer's EMA")


def verify(path: Path, module: nn.Module, part_of: Callable[[str], Part], trained: Collection[str]) -> HandBack:
    """See `headstart.detectors.base.Detector.verify`."""
    expected = own_state(module)
    with undisturbed(module):
        live = open_checkpoint(path, where=str(path))
        read = live.model
        classes, found = int(live.model.yaml["nc"]), [mismatches(expected, live.model.state_dict(), _PLACES[0])]
        names = class_names(read)
        trainer, shared = start_trainer(live, classes, path), set[str]()
        for place, holder in zip(_PLACES[1:], (trainer.model, trainer.ema.ema), strict=True):
            wrong, rows = mismatches(expected, state := holder.state_dict(), place), merged(names, expected, state)
            shared |= rows & wrong.keys()
            found.append({name: why for name, why in wrong.items() if name not in rows})
        lost = found[2] | found[1] | found[0]  # where a tensor is lost first is the reason
        other = 3 if classes != 3 else 4
        live.model = read  # train() has put the trainer's model in its place
        retrained = start_trainer(live, other, path, until="_build_train_pipeline")
        changed = mismatches(expected, retrained.model.state_dict(), f"the trainer's model, built for {other} classes")
    fresh = [name for name in changed if name not in lost]
    beyond = {name: changed[name] for name in fresh if part_of(name) != "head"}
    return HandBack.compared(
        expected,
        lost | beyond,
        part_of,
        trained,
        places=_PLACES,
        fresh=tuple(name for name in fresh if name not in beyond),
        classes=(classes, other),
        alike=tuple(alike(names)) if shared else (),
        shared=len(shared),
        not_finite=not_finite(expected),
    )


def load_into(yolo: Any, run: Any, trust: bool = False) -> HandBack:
    """Load what a run pretrained into a live Ultralytics object, so that its ``train()`` starts from it.

    The object may have other classes or another task than the run; its backbone must be the run's. What the run did
    not train stays as it is; so does a neck or a head that does not fit as a whole. With a head come the names of the
    classes that it finds: ``train()`` looks for its own among them.

    Args:
        yolo: A YOLO, RTDETR, YOLOWorld or YOLOE object.
        run: What `headstart.pretrain` returned, a run folder, or its ``headstart.pt``.
        trust: Whether code that the checkpoint holds may run.

    Returns:
        What was loaded, by part; a neck or a head that does not fit is in ``dropped`` and is left as it was.

    Raises:
        UserError: No such run, or another backbone.

    Examples:
        >>> yolo = YOLO("yolo11n-seg.yaml")
        >>> headstart.load_into(yolo, "out")
        >>> yolo.train(data="my.yaml")
    """
    named = Path(getattr(run, "folder", run))
    path = named / "headstart.pt" if named.is_dir() else named
    if not path.is_file():
        raise UserError(f"{path} does not exist", where="run", hint="give the out= folder of a finished pretraining")
    if not isinstance(getattr(yolo, "model", None), nn.Module):
        raise UserError(f"a {type(yolo).__name__} without a network cannot take weights", where="yolo")
    check_trainable(yolo.model, str(yolo.model_name), where="yolo")
    with granted(trust), quiet(yolo.model):
        given = open_checkpoint(path, where="run")
    trained: list[Part] = (given.ckpt.get("headstart") or {}).get("trained", [])
    if not trained:
        raise UserError(f"{path} holds no pretrained weights", where="run", hint="give a run's headstart.pt")
    found = _load(yolo, own_state(given.model), splitter(given.model), trained, path)
    _keep(yolo, {"from_scratch": made_from_scratch(given)})
    if found.parts["head"].arrived:
        yolo.model.names = dict(given.model.names)
    return found


def _load(
    yolo: Any, state: Mapping[str, Tensor], part_of: Callable[[str], Part], trained: list[Part], path: Path
) -> HandBack:
    own, own_part = yolo.model.state_dict(), splitter(yolo.model)
    parts = {part: {name: state[name] for name in state if part_of(name) == part} for part in trained}
    ours = {part: {name: own[name] for name in own if own_part(name) == part} for part in PARTS}
    wrong: dict[str, str] = {}
    for part, given in list(parts.items()):
        unfit = differences(given, ours[part], "this model") | differences(ours[part], given, str(path))
        if unfit and part == "backbone":
            listed = shorten([f"{name} {reason}" for name, reason in unfit.items()], "; ")
            raise UserError(f"the backbone of this model is not the one of {path}: {listed}", where="yolo")
        if unfit:
            left = "is left as it was: the part as a whole does not fit"
            wrong |= {name: unfit.get(name, left) for name in ours[part]}
            del parts[part]
    with torch.no_grad():
        for name, tensor in (pair for given in parts.values() for pair in given.items()):
            own[name].copy_(tensor)
    counts = {
        part: PartCount(len(ours[part]), len(ours[part]) * (part in trained), len(ours[part]) * (part in parts))
        for part in PARTS
    }
    dropped = tuple(Dropped(name, own_part(name), True, reason) for name, reason in wrong.items())
    return HandBack(counts, dropped)


def _keep(yolo: Any, record: Mapping[str, Any]) -> None:
    """Make ``yolo.train()`` start from the object's own weights: it does only while ``ckpt`` says they were loaded."""
    yolo.ckpt = yolo.ckpt or {"model": yolo.model, "headstart": dict(record)}
    yolo.overrides.pop("pretrained", None)
    yolo.predictor = None


class _Ready(Exception):  # noqa: N818 - not an error: the trainer stands where a training would begin
    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer


def start_trainer(live: Any, classes: int, path: Path, until: str = "resume_training") -> Any:
    """The task's own trainer, as it stands before its first step: model and EMA made, no data touched.

    Args:
        live: Ultralytics object of the checkpoint.
        classes: Class count of the data that the training would have.
        path: Of the checkpoint, for messages.
        until: The trainer's method at which it stops: "resume_training" is called right after the EMA is made.
    """
    names = dict(live.model.names) if len(live.model.names) == classes else {i: f"class {i}" for i in range(classes)}
    data = {
        "train": "", "val": "", "nc": classes, "names": names, "channels": int(live.model.yaml.get("channels") or 3),
        "kpt_shape": live.model.yaml.get("kpt_shape"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        try:
            live.train(
                trainer=_stopping(live.task_map[live.task]["trainer"], data, until), data="none.yaml", project=folder,
                device="cpu", epochs=1, batch=2, workers=0, amp=False, plots=False, val=False, deterministic=False,
            )  # fmt: skip
        except _Ready as ready:
            return ready.trainer
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"Ultralytics cannot start a training from it: {reason}", where=str(path)) from error
    raise UserError("Ultralytics trained without setting up as it is known to", where=str(path))


def _stopping(trainer: Any, data: dict[str, Any], until: str) -> Any:
    """A subclass of `trainer` that needs no images and stops when it calls its method `until`."""

    def stop(self: Any, *_: Any) -> None:
        raise _Ready(self)

    steps: dict[str, Callable[..., Any]] = {
        "get_dataset": lambda self: data,
        "_build_train_pipeline": lambda self: None,
        "get_validator": lambda self: SimpleNamespace(metrics=SimpleNamespace(keys=[])),
        "set_class_weights": lambda self: None,
        "label_loss_items": lambda self, *args, **kwargs: [],
        "run_callbacks": lambda self, event: None,
    }
    return type(f"Stopping{trainer.__name__}", (trainer,), {**steps, until: stop})
