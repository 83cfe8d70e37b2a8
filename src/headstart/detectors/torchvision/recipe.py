"""The further arguments of a fine-tuning: defaults and ranges; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """A further argument of a training: its default, and the range that it may have."""

    default: float
    least: float
    most: float


ARGUMENTS = {
    "momentum": Argument(0.9, 0, 1),  # of SGD and RMSprop
    "weight_decay": Argument(1e-4, 0, 1),
    "warmup": Argument(0.1, 0, 1),  # share of the steps over which the rate rises
    "lrf": Argument(0.01, 0, 1),  # share of the rate that is left at the end
    "clip": Argument(10.0, 1e-6, 1e6),  # largest norm of the gradients
    "flip": Argument(0.5, 0, 1),  # probability of a mirrored image
    "scale_min": Argument(0.5, 0.1, 10),  # smallest and largest zoom of an image
    "scale_max": Argument(1.5, 0.1, 10),
}


def recipe(extra: Mapping[str, Any]) -> dict[str, float]:
    """Every further argument: as given, or its default."""
    return {name: float(extra.get(name, argument.default)) for name, argument in ARGUMENTS.items()}
