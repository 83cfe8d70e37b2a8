"""Did the start arrive? A trainer's model and EMA against the checkpoint that they should hold, tensor by tensor.

Ultralytics rebuilds the model when a training begins and copies only tensors whose names and shapes match, without a
word about the others. Weights that were dropped look like a start that does not help.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headstart.detectors.finetuner import Arrival
from headstart.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 5
"""How many of the tensors that did not arrive are named in the message."""


def check_arrival(trainer: Any, start: Mapping[str, Tensor], names: Mapping[int, str], where: str) -> Arrival:
    """Compare an Ultralytics trainer, set up and not yet stepped, with its start.

    Args:
        trainer: Called from ``on_train_start``: its ``model``, ``ema`` and ``data`` are final by then.
        start: The state dict of the start, float32; empty for a model YAML.
        names: The start's class names, by index.
        where: The start's path, for messages.

    Raises:
        UserError: A tensor whose shape does not depend on the classes is missing or altered.
    """
    import torch
    import ultralytics

    module = getattr(trainer.model, "module", trainer.model)
    states = {"model": module.state_dict(), "EMA": trainer.ema.ema.state_dict()}
    excused = _class_dependent(start, states["model"], _head(module), dict(names) == dict(trainer.data["names"]))
    lost = {name: _lost(start, state) for name, state in states.items()}
    for name, keys in lost.items():
        if missing := [key for key in keys if key not in excused]:
            raise UserError(_complaint(name, missing, start, states[name]), where=where, hint=_HINT)
    if changed := _lost(states["model"], states["EMA"]):
        raise UserError(f"the trainer's EMA differs from its model in {changed[0]}", where=where, hint=_HINT)
    return Arrival(
        tensors=len(start),
        model=len(start) - len(lost["model"]),
        ema=len(start) - len(lost["EMA"]),
        skipped=tuple(lost["model"]),
        trained=len(states["model"]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        initial=fingerprint(states["model"]),
        versions={"ultralytics": ultralytics.__version__, "torch": torch.__version__},
    )


_HINT = "the checkpoint and the model that Ultralytics rebuilds from it do not fit; nothing was trained"


def _lost(start: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors in `start` that `state` does not hold bit by bit."""
    return [key for key, value in start.items() if key not in state or not _same(value, state[key])]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one.cpu() == other.cpu().to(one.dtype)).all())


def _head(module: Any) -> str:
    """The prefix of the last layer's tensors: only there does anything depend on the classes."""
    return f"model.{len(module.model) - 1}."


def _class_dependent(
    start: Mapping[str, Tensor], state: Mapping[str, Tensor], head: str, same_classes: bool
) -> frozenset[str]:
    """Tensors that Ultralytics may rightly leave behind.

    With other classes, those of the head whose shape differs; and the class logits (weight and bias of the last
    convolution of a class branch), whose rows it carries over by class name where names agree.
    """
    if same_classes:
        return frozenset()
    keys = {key for key in start if key.startswith(head) and key in state}
    reshaped = {key for key in keys if start[key].shape != state[key].shape}
    logits = {key for key in keys if "cv3." in key and key.rsplit(".", 2)[-2].isdigit()}
    return frozenset(reshaped | logits)


def _complaint(holder: str, missing: Iterable[str], start: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    keys = list(missing)
    lines = [f"{len(keys)} of {len(start)} tensors did not reach the trainer's {holder}:"]
    for key in keys[:_NAMED]:
        if key not in state:
            lines.append(f"    {key} (no such tensor there)")
        elif state[key].shape != start[key].shape:
            lines.append(f"    {key} (shape {tuple(start[key].shape)}, there {tuple(state[key].shape)})")
        else:
            lines.append(f"    {key} (other values)")
    return "\n".join(lines + [f"    and {len(keys) - _NAMED} more"] * (len(keys) > _NAMED))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
