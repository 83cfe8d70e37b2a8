"""Looks at data, model and machine for ``method=auto``, and puts the choice into the options; the default method."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headstart import machine
from headstart.detectors.base import check_model, load_detector
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.settings.auto import Choice, Situation, choose, weights_beside
from headstart.settings.resolve import read_cfg, read_method
from headstart.settings.schema import PretrainSettings


def with_choice(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with ``method=auto`` replaced by what was chosen; what the user gave is kept.

    Without a method, a run that starts from trained weights gets ``objects`` where its head allows it.

    Why is said on standard error. Options that cannot be understood are left for `headstart.settings.resolve.resolve`,
    which tells all problems together.
    """
    given = {**read_cfg(options.get("cfg"), []), **{key: value for key, value in options.items() if key != "cfg"}}
    if given.get("method") is None and _for_objects(given):
        print(
            "method=objects: the run starts from trained weights, which find the objects to learn from "
            "(method=dino is the published recipe)",
            file=sys.stderr,
        )
        return {**options, "method": "objects"}
    if str(given.get("method")) != "auto":
        return dict(options)
    try:
        choice = choose(situation(given))
    except UserError:
        return {**given, "method": PretrainSettings.model_fields["method"].default}
    for line in choice.why:
        print(line, file=sys.stderr)
    return merged(given, choice)


def merged(given: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """The choice below what the user gave; of its steps nothing is left where the user gave a length of their own."""
    own = {key: value for key, value in given.items() if value is not None and key != "method"}
    chosen = dict(choice.options)
    if {"epochs", "steps", "budget"} & own.keys():
        del chosen["steps"]
    return {**chosen, **own}


def situation(given: Mapping[str, Any]) -> Situation:
    """What `choose` needs to know of the options.

    Raises:
        UserError: There are no images.
    """
    model = given.get("model", PretrainSettings.model_fields["model"].default)
    images = len(find_images(given.get("data") or []))
    trained = bool(given.get("init")) or str(model).endswith(".pt") or not isinstance(model, (str, Path))
    device, memory = hardware(str(given.get("device", "auto")))
    weights, teacher = weights_beside(model), given.get("teacher") is not None
    boxes = (trained or weights is not None) and _has_boxes(model)
    return Situation(images, trained, weights, teacher, device, memory, boxes)


def _for_objects(given: Mapping[str, Any]) -> bool:
    """Whether nothing of what was given speaks against the method ``objects``."""
    model = given.get("model", PretrainSettings.model_fields["model"].default)
    weights = str(given.get("init") or model)
    if not weights.endswith(".pt") or check_model(weights) or "preset" in given:
        return False
    known = {*PretrainSettings.model_fields, *read_method("objects").settings.model_fields, "cfg"}
    return known >= set(given) and _has_boxes(model)


def _has_boxes(model: Any) -> bool:
    """Whether the head of `model` can be trained on boxes alone; also False where the model cannot be loaded."""
    try:
        load_detector(model).object_head(2)
    except UserError:
        return False
    return True


def hardware(device: str) -> tuple[Literal["cpu", "cuda", "mps"], float]:
    """The kind of device that a run would use, and its memory in GiB (0 where not known)."""
    try:
        found = machine.parse_device(device)
    except UserError:  # what is wrong with it is told with all other problems
        return "cpu", 0.0
    return found.kind, found.memory() / 2**30
