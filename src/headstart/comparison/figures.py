"""What a training that is finished gives to ``results.json``."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from headstart.comparison.records import Arrived, ClassScore, Figures, Point
from headstart.comparison.used_records import CountFacts, UsedFacts
from headstart.detectors.finetuner import FinetuneResult
from headstart.errors import UserError


def figures_of(result: FinetuneResult, device: str) -> Figures:
    """What a finished training gives to ``results.json``.

    Args:
        result: Of the training.
        device: cpu, mps or cuda.

    Raises:
        UserError: Its ``results.csv`` cannot be read.
    """
    arrival, used = result.arrival, result.used
    return Figures(
        map50_95=result.map50_95,
        map50=result.map50,
        seconds=result.seconds,
        curve=tuple(Point(one.epoch, one.seconds, one.map50_95, one.map50) for one in result.curve),
        class_scores=tuple(
            ClassScore(name=one.name, map50_95=one.map50_95, map50=one.map50, objects=one.objects)
            for one in result.classes
        ),
        rows_sha256=rows_hash(result.folder),
        arrived=Arrived(tensors=arrival.tensors, model=arrival.model, ema=arrival.ema),
        parameters=arrival.parameters,
        initial_sha256=arrival.initial,
        device=device,
        versions=dict(arrival.versions),
        breaks=arrival.breaks,
        used=UsedFacts(train=CountFacts(**vars(used.train)), test=CountFacts(**vars(used.test))) if used else None,
    )


def rows_hash(folder: Path) -> str:
    """Of every loss, rate and figure of a run, epoch by epoch: all of results.csv but its times.

    Raises:
        UserError: It cannot be read.
    """
    digest, path = hashlib.sha256(), folder / "results.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                digest.update(repr([value for key, value in row.items() if (key or "").strip() != "time"]).encode())
    except (OSError, ValueError, csv.Error) as error:
        hint = "remove this folder: the same command then trains it again"
        raise UserError(f"cannot be read: {error}", where=str(path), hint=hint) from None
    return digest.hexdigest()
