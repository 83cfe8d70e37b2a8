"""Did the start arrive? A trainer's model and EMA against the checkpoint that they should hold, tensor by tensor.

Ultralytics rebuilds the model when a training begins and copies only tensors whose names and shapes match, without a
word about the others. Weights that were dropped look like a start that does not help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.detectors.finetuner import Arrival
from headstart.detectors.handback import shorten
from headstart.detectors.tensors import fingerprint, mismatches, not_finite
from headstart.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


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

    if broken := not_finite(start):
        hint = "pretrain or train it again with a lower learning rate"
        raise UserError(f"holds NaN or infinity: {shorten(broken)}", where=where, hint=hint)
    module, states = holders(trainer)
    lost, excused = compare(trainer, start, names)
    for name, wrong in lost.items():
        if missing := [f"{key} {reason}" for key, reason in wrong.items() if key not in excused]:
            what = (
                f"{len(missing)} of {len(start)} tensors did not reach the trainer's {name}: {shorten(missing, '; ')}"
            )
            raise UserError(what, where=where, hint=_HINT)
    if changed := mismatches(states["model"], states["EMA"], "the trainer's EMA"):
        raise UserError(f"the trainer's EMA is not its model: {shorten(changed)}", where=where, hint=_HINT)
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


def compare(
    trainer: Any, start: Mapping[str, Tensor], names: Mapping[int, str]
) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Tensors of a start that a trainer's model and EMA do not hold.

    Args:
        trainer: See `check_arrival`.
        start: Likewise.
        names: Likewise.

    Returns:
        "model" and "EMA" -> name of the tensor -> what is wrong, in words; and those that Ultralytics may rightly
        leave behind, for other classes.
    """
    module, states = holders(trainer)
    excused = _class_dependent(start, states["model"], _head(module), dict(names) == dict(trainer.data["names"]))
    return {name: mismatches(start, state, f"the trainer's {name}") for name, state in states.items()}, excused


def holders(trainer: Any) -> tuple[Any, dict[str, Mapping[str, Tensor]]]:
    """The network that a trainer trains, and the states of model and EMA, without what DDP and torch.compile wrap."""
    from ultralytics.utils.torch_utils import unwrap_model

    module = unwrap_model(trainer.model)
    return module, {"model": module.state_dict(), "EMA": trainer.ema.ema.state_dict()}


_HINT = "the checkpoint and the model that Ultralytics rebuilds from it do not fit; nothing was trained"


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
