"""The method where the user names none, or ``auto``: from what the data, the detector and the machine are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from headstart.detectors.base import Detector
from headstart.errors import UserError, did_you_mean, enumerated
from headstart.machine import parse_device
from headstart.methods import find
from headstart.methods.namer import AUTO
from headstart.settings.auto import Situation, choose
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import PretrainSettings

RANDOM, TRAINED, UNFIT = "dino", "objects", "pyramid"
"""The default methods: from random weights, from trained ones where the head can be trained on boxes, and where what
these find does not fit the images."""


LABELLED = "selftrain"
"""The default method where labels are given."""


def undecided(given: Mapping[str, Any]) -> bool:
    """Whether the method is still to be chosen, when the detector has been loaded."""
    return str(given.get("method") or "default") in ("default", "auto")


def unknown_anywhere(given: Iterable[str]) -> list[UserError]:
    """Names that are options of no method at all; those of another method are told when one is chosen."""
    known = {*PretrainSettings.model_fields, "cfg"}
    known |= {name for fields in find.options().values() for name in fields}
    hint = "see headstart pretrain --help for all options"
    return [
        UserError(f"there is no option {key!r}", hint=did_you_mean(key, known) or hint)
        for key in given
        if key not in known
    ]


def chosen_method(
    given: Mapping[str, Any], detector: Detector, images: int, *, fits: bool = True
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options with a method among them, what the user gave kept; and why, in sentences.

    Args:
        given: By the user.
        detector: With the weights that the run starts from.
        images: How many there are.
        fits: Whether the objects that are found on them are worth learning from, as far as that is known.

    Raises:
        UserError: An option was given that the default method does not have.
    """
    if given.get("labels"):
        detector.class_head()  # or it says why its head cannot be trained on them
        _refuse_others(given, LABELLED, detector.trained)
        return {**given, "method": LABELLED}, (f"method={LABELLED}: there are labels to learn from",)
    boxes = detector.trained and _learns_boxes(detector) and fits
    if str(given.get("method")) == "auto":
        return _automatic(given, detector, images, boxes)
    if not fits:
        why = f"method={UNFIT} in place of {TRAINED}: it needs no objects (method={TRAINED} takes them all the same)"
        return {**given, "method": UNFIT}, (why,)
    name = TRAINED if boxes else RANDOM
    _refuse_others(given, name, detector.trained)
    if name == RANDOM:
        why = f"method={name}: the head of {detector.name} ({detector.task}) cannot be trained on boxes alone"
        more = f"; method={UNFIT} trains the neck as well"
        return {**given, "method": name}, ((f"{why}{more}",) if detector.trained else ())
    why = (
        "method=objects: the run starts from trained weights, which find the objects to learn from "
        "(method=dino is the published recipe)"
    )
    return {**given, "method": name}, (why,)


def without_objects(
    given: Mapping[str, Any], detector: Detector, images: int
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The same where the objects that are found do not fit; None where an option asks for those all the same."""
    other, why = chosen_method(given, detector, images, fits=False)
    name = str(other["method"])
    return None if of_others(given, name, find.find(name).settings) else (other, why)


def _automatic(
    given: Mapping[str, Any], detector: Detector, images: int, boxes: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    device = parse_device(given.get("device", "auto"))
    init = str(given["init"]) if given.get("init") else None
    teacher, memory = given.get("teacher") not in (None, AUTO), device.memory() / 2**30
    choice = choose(Situation(images, detector.trained, init, teacher, device.kind, memory, boxes), given)
    return choice.options, choice.why


def _refuse_others(given: Mapping[str, Any], name: str, trained: bool) -> None:
    """Raise where an option was given that the default method lacks: it would silently be another run."""
    why = f", the default from {'trained' if trained else 'random'} weights"
    if problems := of_others(given, name, find.find(name).settings, why):
        raise UserError.several(problems)


def of_others(given: Iterable[str], name: str, settings: type[MethodSettings], why: str = "") -> list[UserError]:
    """A complaint for every option that other methods have, and this one has not.

    Args:
        given: Names of options.
        name: The method.
        settings: Its options.
        why: Where the user does not name the method: why it is this one.
    """
    foreign = [key for key in given if key not in {*PretrainSettings.model_fields, *settings.model_fields, "cfg"}]
    methods = find.options() if foreign else {}
    problems = []
    for key in foreign:
        if others := [other for other, fields in methods.items() if key in fields]:
            hint = f"{'add' if why else 'give'} method={others[0]}, or leave {key}= out"
            what = f"is an option of {enumerated(others)}, not of {name}{why}"
            problems.append(UserError(what, where=key, hint=hint))
    return problems


def _learns_boxes(detector: Detector) -> bool:
    """Whether the head can be trained on boxes alone; the random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        try:
            detector.pseudolabel_head(2)
        except UserError:
            return False
    return True
