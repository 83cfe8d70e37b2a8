"""Folders that hold what runs have drawn: no images to learn from."""

from __future__ import annotations

from collections.abc import Iterable

_OUTPUTS = {
    "a pretraining's output": {"settings.yaml", "log.txt", "checkpoints"},
    "a comparison's output": {"compare.yaml", "cells"},
    "the output of a training by Ultralytics": {"args.yaml", "weights"},
}


def whose(names: Iterable[str]) -> str:
    """What a folder with these names in it is, where its images are pictures of a run; else nothing.

    With ``data=.`` and ``out`` below it a run would learn from what the one before has drawn.
    """
    there = set(names)
    return next((what for what, marks in _OUTPUTS.items() if marks <= there), "")
