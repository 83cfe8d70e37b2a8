"""Build torchvision's detectors, and read and write their state dicts."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headstart.detectors.damaged import refuse_damaged
from headstart.detectors.handback import PARTS, Part, shorten
from headstart.detectors.tensors import differences, own_state
from headstart.detectors.torchvision.names import FAMILY
from headstart.errors import UserError
from headstart.files import write_atomically

BACKGROUND = "__background__"
"""Class 0 of every detector of torchvision, as it calls it."""


class Record(NamedTuple):
    """What a state dict of ours says of itself, in its ``_metadata``.

    Attributes:
        model: The name by which torchvision builds it.
        names: Class names by index, the background first.
        trained: Parts that were pretrained.
        random: Whether no weights in it were trained.
        from_scratch: Whether they are random, or headstart made them of random ones.
        info: Plain values of the run.
    """

    model: str
    names: Sequence[str]
    trained: Sequence[Part] = ()
    random: bool = False
    from_scratch: bool = False
    info: Mapping[str, Any] = {}


def build(name: str, classes: int, imgsz: int | None = None, *, empty: bool = False) -> nn.Module:
    """A detector with random weights, all of it to be trained; nothing is downloaded.

    Args:
        name: As ``torchvision.models.get_model`` takes it.
        classes: With the background.
        imgsz: The longer side to which the model scales its images; None for torchvision's own sizes.
        empty: Leave the weights unset, which takes seconds less, for a state that is about to be loaded.

    Raises:
        UserError: torchvision cannot build it, or it has no feature pyramid.
    """
    from torchvision.models import get_model

    size = {} if imgsz is None else {"min_size": imgsz, "max_size": imgsz}
    with torch.device("meta") if empty else nullcontext():
        module: Any = get_model(name, weights=None, weights_backbone=None, num_classes=classes, **size)
    backbone = getattr(module, "backbone", None)
    if not (hasattr(backbone, "body") and hasattr(backbone, "fpn") and hasattr(module, "transform")):
        what = f"{name} has no feature pyramid (backbone.body and backbone.fpn)"
        raise UserError(what, where="model", hint="retinanet_resnet50_fpn and the other models named _fpn have one")
    return module.to_empty(device="cpu") if empty else module  # type: ignore[no-any-return]


def published_names(name: str) -> list[str]:
    """The classes of the model's published weights, the background first."""
    from torchvision.models import get_model_weights

    return list(next(iter(get_model_weights(name))).meta["categories"])


def published_state(name: str) -> dict[str, Tensor]:
    """The published COCO weights, downloaded by torchvision where they are not in its cache.

    Raises:
        UserError: They cannot be downloaded.
    """
    from torchvision.models import get_model_weights

    try:
        return dict(get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        what = f"torchvision could not download the published weights of {name}: {error}"
        hint = "connect this machine, or give the file: coco=path.pth"
        raise UserError(what, where="starts", hint=hint) from error


def part_of(tensor_name: str) -> Part:
    """The part that a tensor belongs to."""
    if tensor_name.startswith("backbone.body."):
        return "backbone"
    return "neck" if tensor_name.startswith("backbone.") else "head"


def class_tensors(name: str, classes: int) -> set[str]:
    """Tensors whose shape follows the number of classes, found by building the model with one class more."""
    with torch.random.fork_rng(devices=[]):
        one, other = (build(name, count, empty=True).state_dict() for count in (classes, classes + 1))
    return {key for key, tensor in one.items() if tensor.shape != other[key].shape}


def fitted(
    name: str,
    classes: int,
    state: Mapping[str, Tensor],
    *,
    source: str,
    where: str,
    same_names: bool,
    parts: Sequence[Part] = PARTS,
    empty: bool = False,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model with `classes` classes, filled with the tensors of `state` that it takes.

    Args:
        name: The model.
        classes: With the background.
        state: Tensors of a model of the same architecture.
        source: Where they are from, for messages.
        where: The option that names it, for messages.
        same_names: Whether its classes are the model's; the tensors of other classes start fresh.
        parts: What is taken.
        empty: See `build`.

    Returns:
        The model and what it took.

    Raises:
        UserError: Backbone or pyramid differ in any tensor, or the head has other tensors.
    """
    module = build(name, classes, empty=empty)
    own = own_state(module)
    given = with_counters(state, own)
    wrong = differences(own, given, source) | differences(given, own, name)
    other = set() if same_names else class_tensors(name, classes)
    bad = {key: why for key, why in wrong.items() if part_of(key) != "head" or key not in own or key not in given}
    if bad:
        listed = shorten([f"{key} {why}" for key, why in bad.items()], "; ")
        what = f"{source} is of another architecture than {name}: {len(bad)} tensors do not fit ({listed})"
        raise UserError(what, where=where, hint=f"use weights of {name}, or name the model that they are of")
    taken = {
        key: tensor for key, tensor in given.items() if key not in wrong and key not in other and part_of(key) in parts
    }
    module.load_state_dict(taken, strict=False)
    return module, taken


def with_counters(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the batch norms' counters at 0 where it has none: torchvision publishes frozen batch norms."""
    missing = {
        name: torch.zeros_like(own[name])
        for name in own
        if name.endswith("num_batches_tracked") and name not in state
        if name.replace("num_batches_tracked", "running_mean") in state
    }
    return {**state, **missing}


def read_state(path: str, where: str) -> tuple[dict[str, Tensor], Record | None]:
    """A state dict and, of one that headstart wrote, its record; no code in the file is run.

    A training's checkpoint of torchvision's references is understood as well (its ``model``), and names that begin
    with ``module.``.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    refuse_damaged(path, where)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", where=where) from None
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "give a state dict of the model: torch.save(model.state_dict(), path)"
        raise UserError(f"{path} cannot be read as a state dict: {reason}", where=where, hint=hint) from error
    wrapped = [key for key in ("model", "state_dict") if isinstance(content, dict) and key in content]
    held = content[wrapped[0]] if wrapped else content
    if not isinstance(held, dict) or not held or not all(isinstance(one, Tensor) for one in held.values()):
        raise UserError(f"{path} holds no state dict", where=where, hint="torch.save(model.state_dict(), path)")
    record = getattr(held, "_metadata", {}).get("headstart", {}).get("record")
    fields = json.loads(record) if record else None
    state = {name.removeprefix("module."): tensor for name, tensor in held.items()}
    return state, None if fields is None else Record(**{key: fields[key] for key in Record._fields if key in fields})


def write_state(path: Path, module: nn.Module, record: Record) -> None:
    """Write a state dict that ``load_state_dict(torch.load(path, weights_only=True))`` takes strictly.

    The record is a JSON string in its ``_metadata``, where torch keeps the versions of the modules.

    Raises:
        UserError: It cannot be written, e.g. a full disk; `path` is then as it was before.
    """
    state: Any = module.state_dict()
    held: Any = OrderedDict((name, tensor.detach().cpu().contiguous().clone()) for name, tensor in state.items())
    text = json.dumps({"family": FAMILY, **record._asdict()}, default=str)
    held._metadata = OrderedDict({**getattr(state, "_metadata", {}), "headstart": {"record": text}})
    write_atomically(path, lambda temporary: torch.save(held, temporary))
