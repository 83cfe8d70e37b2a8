"""What must hold between the cells of a comparison, and what is said where it does not."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.comparison.finetune import FinetuneResult


def rows_hash(folder: Path) -> str:
    """Of every loss, rate and figure of a run, epoch by epoch: all of results.csv but its times."""
    digest = hashlib.sha256()
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            digest.update(repr([value for key, value in row.items() if key.strip() != "time"]).encode())
    return digest.hexdigest()


def cell_record(result: FinetuneResult) -> dict[str, Any]:
    """What a finished training gives to ``results.json``."""
    arrival = result.arrival
    return {
        "map50_95": result.map50_95,
        "map50": result.map50,
        "seconds": result.seconds,
        "curve": [[point.epoch, point.seconds, point.map50_95, point.map50] for point in result.curve],
        "classes": [vars(score) for score in result.classes],
        "rows_sha256": rows_hash(result.folder),
        "arrived": {"tensors": arrival.tensors, "model": arrival.model, "ema": arrival.ema},
        "parameters": arrival.parameters,
        "initial_sha256": arrival.initial,
        "versions": dict(arrival.versions),
    }


def find_faults(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything that makes the cells of ``results.json`` incomparable, in sentences; empty where all is well.

    Args:
        cells: Finished main cells.
    """
    return [
        *_same_seeds(cells),
        *_unequal(
            cells,
            ("budget", "seed"),
            "labels_sha256",
            lambda key: f"at {key[0]}, seed {key[1]}, the starts were trained on different lists of labelled images",
        ),
        *_unequal(cells, (), "parameters", lambda _: "the trained models are not of one size: another class count?"),
        *_unequal(cells, (), "device", lambda _: "some trainings ran on a GPU and some did not"),
        *_unequal(cells, (), "versions", lambda _: "the trainings ran with different versions of Ultralytics or torch"),
        *_lost(cells),
    ]


def _groups(cells: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        found[tuple(cell[key] for key in keys)].append(cell)
    return found


def _same_seeds(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Two seeds that gave the very same figures: the seed reached nothing (ultralytics #6820)."""
    faults = []
    for (start, budget), group in _groups(cells, ("start", "budget")).items():
        for at, one in enumerate(group):
            for other in group[:at]:
                scores = [[point[2:] for point in cell["curve"]] for cell in (one, other)]
                same_scores = scores[0] == scores[1] and any(value for point in scores[0] for value in point)
                if same_scores or one["rows_sha256"] == other["rows_sha256"]:
                    faults.append(
                        f"seeds {other['seed']} and {one['seed']} of {start} at {budget} gave the same figures in "
                        "every epoch: the seed changed nothing"
                    )
    return faults


def _unequal(
    cells: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    field: str,
    sentence: Callable[[tuple[Any, ...]], str],
) -> list[str]:
    """A sentence for each group of cells that do not agree in `field`."""
    faults = []
    for key, group in _groups(cells, keys).items():
        values = {repr(cell[field]) for cell in group}
        if len(values) > 1:
            faults.append(sentence(key))
    return faults


def _lost(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Weights that were not in the trainer: the training itself refuses them, so this is a second look."""
    faults = []
    for cell in cells:
        where, of = f"{cell['start']} at {cell['budget']}, seed {cell['seed']}", cell["arrived"]["tensors"]
        least = min(cell["arrived"]["model"], cell["arrived"]["ema"])
        if least < of:
            faults.append(f"{where}: {of - least} of {of} tensors of the start did not arrive")
        elif cell["initial_sha256"] != cell["start_sha256"]:
            faults.append(f"{where}: the training began with other weights than those of its start")
    return faults
