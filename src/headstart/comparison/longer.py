"""Controls that are fine-tuned for longer: for as many steps in all as the start that takes the most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from headstart.comparison.start_records import PretrainingFacts


def finetuning_steps(epochs: int, images: int, batch: int) -> int:
    """Steps of a training: batches, the last of an epoch may be smaller; an update may take several."""
    return epochs * math.ceil(images / batch)


def steps_of(known: PretrainingFacts, batch: int) -> int | None:
    """Steps of a pretraining as those of a fine-tuning: as many images shown; None where the run does not say.

    Args:
        known: What its run folder tells.
        batch: Images a step of the fine-tuning.
    """
    if known.steps is None or known.shown is None:
        return None
    return math.ceil(known.steps * known.shown / batch)


def most(known: Mapping[str, Iterable[PretrainingFacts]], batch: int) -> tuple[str, int] | None:
    """The start whose pretraining takes the most steps, and these; None where none of them tells.

    Args:
        known: Start -> its pretrainings.
        batch: Images a step of the fine-tuning.
    """
    steps = [(name, found) for name, runs in known.items() for one in runs if (found := steps_of(one, batch))]
    return max(steps, key=lambda pair: pair[1], default=None)


def longer_epochs(epochs: int, images: int, batch: int, steps: int) -> int:
    """Epochs of a training that is given `steps` more steps: whole ones, so not less than that."""
    return epochs + math.ceil(steps / math.ceil(images / batch))
