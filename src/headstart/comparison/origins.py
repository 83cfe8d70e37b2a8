"""What weights were pretrained on: the images of their run folder, and of what that began with and was taught by.

What is published is taken as it is: nobody knows the images behind it. Of any other file only its run folder tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headstart.comparison.start_records import LeakFacts, PretrainingFacts
from headstart.comparison.starts import Start, pretraining_of
from headstart.detectors.find import check_model, finetuner
from headstart.errors import UserError
from headstart.images.frames import EVERY, file_of
from headstart.images.index import ImageIndex, find_images
from headstart.images.judges import without_judges
from headstart.images.members import is_address

_SOURCES = ("model", "init", "proposals", "teacher", "teacher_weights")
"""Options of a pretraining that may name weights, or code that brings some."""
_FILES = (".pt", ".pth", ".bin", ".safetensors", ".py")


class Behind(NamedTuple):
    """What a pretraining brings in beside its own images.

    Attributes:
        images: Option and weights (``init=a/headstart.pt``) -> the images that these learnt from, as far as they are
            there.
        unknown: Of which weights not all images are known, in words.
    """

    images: dict[str, list[str]]
    unknown: tuple[str, ...]


def behind(options: Mapping[str, Any], seen: frozenset[Path] = frozenset()) -> Behind:
    """What the weights that a pretraining begins with, or is taught by, learnt from: their run folders tell.

    Args:
        options: Of the pretraining.
        seen: Weights that were followed before.

    Raises:
        UserError: The record of a run cannot be read.
    """
    images: dict[str, list[str]] = {}
    unknown: list[str] = []
    for key in _SOURCES:
        value = options.get(key)
        if value is None or _published(value):
            continue
        file = Path(value) if isinstance(value, str) else Path()
        known = pretraining_of(Start("", "checkpoint", str(file))) if file.is_file() else None
        if known is None:
            unknown.append(f"what {key}={file.name} learnt from is not known")
        elif file.resolve() not in seen:
            name = f"{key}={file.parent.name}/{file.name}"
            images[name] = pretraining_images(known)
            leak = of_run(known, images[name])
            unknown += [f"of {name}: {leak.words}"] if leak.outcome != "passed" else []
            more = behind(began_with(known), seen | {file.resolve()})
            images = more.images | images
            unknown += [words for words in more.unknown if words not in unknown]
    return Behind(images, tuple(unknown))


def began_with(known: PretrainingFacts) -> dict[str, str]:
    """The options that name what a run began with, and what taught it."""
    named = {key: value for key, value in known.carriers.items() if key != "labels"}
    return named if "init" in named else {**named, "model": known.model}  # which is that of init= otherwise


def _published(value: Any) -> bool:
    """Whether an option names what is published, by the name of an architecture or a network; or no weights at all."""
    if not isinstance(value, str) or value.startswith("{"):  # an object in memory, as a run's record tells it
        return False
    file = Path(value)
    if file.suffix not in _FILES:
        return True
    return file.suffix == ".pt" and not check_model(finetuner(file.name).architecture(file.name))


def of_run(known: PretrainingFacts, images: Sequence[str]) -> LeakFacts:
    """What is known of test images among those of a run, where none was found by content.

    Args:
        known: What its folder tells.
        images: Of it, as far as they are there.
    """
    used, seen = known.images or 0, len(images)
    if not seen:
        return LeakFacts(outcome="not known", words="its pretraining images are not there any more")
    if seen < used:
        words = f"{seen:,} of its {used:,} pretraining images are still there, and none of these is a test image"
        return LeakFacts(outcome="not known", words=words)
    if known.fingerprint and _index(known).fingerprint() != known.fingerprint:
        words = "the images that are there now are not those of its pretraining, and none of these is a test image"
        return LeakFacts(outcome="not known", words=words)
    return LeakFacts(outcome="passed", words=f"none of {seen:,} pretraining images is a test image")


def pretraining_images(known: PretrainingFacts | None) -> list[str]:
    """The images of a pretraining, labelled ones among them, where they are still where it found them."""
    if known is None or not known.data:
        return []
    try:
        # Relative paths were relative to the folder that the pretraining was started in: as a rule, this one.
        return [path for path in _index(known) if is_address(path) or os.path.exists(file_of(path))]  # noqa: PTH110
    except UserError:
        return []


def _index(known: PretrainingFacts) -> ImageIndex:
    """The images of a pretraining as its options name them now, without those that it left out to judge the outcome."""
    every, labels = EVERY if known.every is None else known.every, known.carriers.get("labels")
    images = find_images(list(known.data), labels=labels, every=every)
    if labels is None or len(images) == known.images:  # earlier versions left none out
        return images
    return without_judges(images, known.data, labels)
