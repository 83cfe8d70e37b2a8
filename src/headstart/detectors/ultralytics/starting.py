"""A checkpoint to start a training from: the user's classes, and as much of other weights as is wanted.

The class branch of many detectors is as wide as they have classes, within limits, and Ultralytics rebuilds it at the
width of the checkpoint that a training starts from. Starts with other class counts would be different networks. Here
every start is first a model of the YAML's own class count, then given the user's classes as Ultralytics does it: rows
of class layers by the names of the classes. A checkpoint that has the user's classes already brings its class layers
as a whole: they are loaded into that model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.base import refuse_not_finite
from headstart.detectors.finetuner import Built, StartSettings
from headstart.detectors.handback import Part, shorten
from headstart.detectors.tensors import built, differences, own_state
from headstart.detectors.ultralytics.class_rows import class_names, refuse_alike, rows_by_name
from headstart.detectors.ultralytics.detector import UltralyticsDetector
from headstart.detectors.ultralytics.opening import (
    build,
    check_trainable,
    made_from_scratch,
    open_checkpoint,
    splitter,
    with_classes,
)
from headstart.detectors.ultralytics.undisturbed import undisturbed
from headstart.errors import UserError


def build_start(settings: StartSettings, path: Path) -> Built:
    """See `headstart.detectors.finetuner.Finetuner.build_start`."""
    model, names, weights, parts = settings.model, settings.names, settings.weights, settings.parts
    refuse_alike(list(names), "data")
    with undisturbed():
        torch.manual_seed(settings.seed)
        live = build(model)
        source = live.model
        given: Mapping[str, Tensor] = {}
        foreign, classified, from_scratch = "", False, True
        if weights is not None:
            opened = open_checkpoint(weights, "starts", "connect this machine, or give the file: starts=coco=path.pt")
            other, foreign, from_scratch = opened.model, _foreign(opened), made_from_scratch(opened)
            classified = class_names(other) == list(names)
            check_trainable(other, weights, where="starts")
            given = _fitting(source, other, model, weights, parts)
            refuse_not_finite(given, weights, where="starts")
            source.load_state_dict(given, strict=False)
            whole = "head" in parts and len(other.names) == len(source.names)
            if whole:
                source.names = other.names  # target's class rows come from it by name
        torch.manual_seed(settings.seed)
        target = with_classes(source, names, settings.kpt_shape)
        target.load(source, verbose=False)
        if classified:
            given = {**given, **_class_layers(target, other, parts)}
            target.load_state_dict(given, strict=False)
        elif weights is not None and "head" in parts and not whole:
            target.load_state_dict(rows_by_name(target, source, other), strict=False)
        detector = UltralyticsDetector(live, target)
        detector.trained, detector.from_scratch = weights is not None, from_scratch
        detector.save(path, {"seed": settings.seed, "weights": weights, "parts": list(parts) if weights else []})
    found = built(detector.module, given, splitter(detector.module))
    return replace(found, foreign=foreign, classified=classified)


_COCO = re.compile(r"coco(-\w+)?")
"""What Ultralytics calls the data sets of its published weights; coco8 and coco128 are small ones to try things on."""
_CLASSES = {"detect": 80, "segment": 80, "pose": 1}
"""Task -> classes that COCO has for it."""


def _foreign(opened: Any) -> str:
    """Why a checkpoint is not of COCO, in words: what it says of itself; "" where it says nothing against that."""
    content = getattr(opened, "ckpt", None) or {}
    names, expected = class_names(opened.model), _CLASSES.get(opened.task)
    if expected and len(names) != expected:
        return f"it has {len(names)} classes ({shorten(names)}), and COCO has {expected}"
    if content.get("headstart"):
        return "headstart wrote it"
    data = Path(str((content.get("train_args") or {}).get("data") or "coco")).stem
    return "" if _COCO.fullmatch(data) else f"it was trained on {data}"


def _fitting(source: nn.Module, other: nn.Module, model: str, weights: str, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Tensors of `other` that the model takes.

    Raises:
        UserError: Backbone or neck differ in any tensor, or the head has other tensors.
    """
    own, state, part_of = own_state(source), own_state(other), splitter(source)
    wrong = differences(own, state, weights) | differences(state, own, model)
    # The shapes of the head follow the number of classes; which tensors there are does not.
    bad = {name: why for name, why in wrong.items() if part_of(name) != "head" or name not in own or name not in state}
    if bad:
        listed = shorten([f"{name} {why}" for name, why in bad.items()], "; ")
        raise UserError(
            f"{weights} is of another architecture than {model}: {len(bad)} tensors do not fit ({listed})",
            where="starts",
            hint="compare starts of one architecture, or name it with model=",
        )
    return {name: tensor for name, tensor in state.items() if name not in wrong and part_of(name) in parts}


def _class_layers(target: nn.Module, other: nn.Module, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Tensors of `other` that fit into the model with the user's classes: of one with these classes, all.

    A detector that was trained from a YAML has a class branch as narrow as its few classes allow; it is put into the
    wider one so that it computes the same.
    """
    own, state, part_of = own_state(target), own_state(other), splitter(target)
    wrong = differences(state, own, "the start")
    if all(name in own and _within(state[name], own[name]) for name in wrong):
        state |= {name: _widened(state[name], own[name]) for name in wrong}
        wrong = {}
    return {name: tensor for name, tensor in state.items() if name not in wrong and part_of(name) in parts}


def _within(tensor: Tensor, wide: Tensor) -> bool:
    return tensor.dim() == wide.dim() and all(one <= other for one, other in zip(tensor.shape, wide.shape, strict=True))


def _widened(tensor: Tensor, wide: Tensor) -> Tensor:
    """`tensor` in the first places of `wide`: channels that are new keep what is there, and no other one reads them."""
    made = wide.clone()
    made[: len(tensor)] = 0
    made[tuple(slice(size) for size in tensor.shape)] = tensor
    return made
