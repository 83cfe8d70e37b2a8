"""How long a pretraining is where the user does not say: the one rule, for the default method and for ``method=auto``.

Fewer steps from trained weights (HPT, arXiv 2103.12718, converges many times faster), on few images, and without a GPU.
More where the user's classes are learnt: what comes out is a finished detector, not a start of another training.
What is measured, from trained weights on a CPU: 1,000 steps (docs/evidence.md), and with labels 3,600 to 7,200, the
more the better (EXPERIMENTS.md, "longer rounds"); the others are guesses.
"""

from __future__ import annotations

from math import ceil

WITHOUT_GPU = 320
"""Side of the images of a run with labels where there is no GPU, pixels: a quarter of the time of 640."""

FEW = 1_000
"""Number of images below which a run is kept short."""
PASSES = 10
"""Passes over many images."""


def default_steps(images: int, batch: int, *, trained: bool, device: str, classes: bool = False) -> int:
    """Optimizer steps of a run that was given neither steps nor epochs nor a budget. A pure function.

    Args:
        images: How many there are.
        batch: Images a step.
        trained: Whether the run starts from trained weights.
        device: ``cpu``, ``cuda`` or ``mps``.
        classes: Whether the method learns the user's classes (`Needs.labels`).
    """
    if device == "cpu":
        steps = (1_000 if trained else 3_000) // (2 if images < FEW else 1)
        return 3_600 * steps // 1_000 if classes else steps
    passes = ceil(PASSES * images / batch)
    if trained and classes:
        return max(3_600 if images < FEW else 7_200, min(passes, 20_000))
    if trained:
        return max(2_000 if images < FEW else 5_000, min(passes, 20_000))
    return max(5_000 if images < FEW else 15_000, passes)


def published_steps(images: int, batch: int) -> int:
    """Steps of a recipe that is asked for as published, ``preset=tutorial``: 15,000, or 10 epochs if that is more."""
    return max(15_000, ceil(PASSES * images / batch))
