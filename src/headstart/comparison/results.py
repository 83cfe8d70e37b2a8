"""``results.json``: the cells put together, compared, and judged. Its schema is in docs/comparison.md."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from headstart.comparison import wording
from headstart.comparison.checks import find_faults
from headstart.comparison.statistics import epochs_to_reach, paired
from headstart.errors import UserError
from headstart.files import write_text

FILE = "results.json"
FORMAT = 1

Record = dict[str, Any]


def conclude(facts: Mapping[str, Any], cells: Sequence[Record], chosen: Sequence[Record]) -> Record:
    """All that ``results.json`` holds.

    Args:
        facts: Settings, data, starts, budgets, lists, versions: what is known before a cell is trained.
        cells: Every cell: kind, start, budget, seed, lr, epochs, images, state ("done", "failed", "missing"), and of
            those done what `cell_record` gives.
        chosen: Start, budget, rate and the validation scores that it was chosen by.
    """
    done = [cell for cell in cells if cell["state"] == "done" and cell["kind"] == "main"]
    names = [start["name"] for start in facts["starts"]]
    budgets = [budget["name"] for budget in facts["budgets"]]
    differences = compare_all(done, names, budgets)
    content = {
        "format": FORMAT,
        **facts,
        "rates": list(chosen),
        "cells": list(cells),
        "scores": scores(done, names, budgets),
        "differences": differences,
        "reached": reached(done, names, budgets),
        "faults": find_faults(done),
    }
    content["verdict"] = wording.sentence(content)
    return content


def scores(done: Sequence[Record], names: Sequence[str], budgets: Sequence[str]) -> list[Record]:
    """Mean and spread of every start at every budget; the interval is that of `paired`, of the scores themselves."""
    found = []
    for budget in budgets:
        for name in names:
            group = [cell for cell in done if (cell["start"], cell["budget"]) == (name, budget)]
            if group:
                record: Record = {"start": name, "budget": budget, "seeds": [cell["seed"] for cell in group]}
                for measure in ("map50_95", "map50"):
                    summary = paired([cell[measure] for cell in group])
                    record[measure] = {"mean": summary.mean, "low": summary.t_low, "high": summary.t_high}
                found.append(record)
    return found


def compare_all(done: Sequence[Record], names: Sequence[str], budgets: Sequence[str]) -> list[Record]:
    """Every start against ``scratch`` and against ``coco``, where they are there; else against the first start."""
    references = [name for name in ("scratch", "coco") if name in names] or list(names[:1])
    pairs = [(name, other) for other in references for name in names if name != other]
    pairs = [pair for pair in pairs if pair != ("scratch", "coco")]  # the same pair as coco against scratch
    found = []
    for start, reference in pairs:
        for budget in budgets:
            of = {
                name: {cell["seed"]: cell for cell in done if (cell["start"], cell["budget"]) == (name, budget)}
                for name in (start, reference)
            }
            seeds = sorted(set(of[start]) & set(of[reference]))
            if seeds:
                record: Record = {"start": start, "reference": reference, "budget": budget, "seeds": seeds}
                for measure in ("map50_95", "map50"):
                    values = [round(of[start][seed][measure] - of[reference][seed][measure], 6) for seed in seeds]
                    record[measure] = {**dataclasses.asdict(paired(values)), "differences": values}
                found.append(record)
    return found


def reached(done: Sequence[Record], names: Sequence[str], budgets: Sequence[str]) -> list[Record]:
    """Epochs until a start is as good as scratch is in the end, seed by seed; None where it never is.

    A seed with which scratch ends at nothing is left out: there is nothing to reach.
    """
    if "scratch" not in names:
        return []
    found = []
    for budget in budgets:
        scratch = [cell for cell in done if (cell["start"], cell["budget"]) == ("scratch", budget)]
        finals = {cell["seed"]: cell["map50_95"] for cell in scratch if cell["map50_95"] > 0}
        for name in names:
            group = [c for c in done if (c["start"], c["budget"]) == (name, budget) and c["seed"] in finals]
            if name != "scratch" and group:
                epochs = [epochs_to_reach([p[2] for p in cell["curve"]], finals[cell["seed"]]) for cell in group]
                middle = median(math.inf if one is None else one for one in epochs)
                found.append(
                    {
                        "start": name,
                        "budget": budget,
                        "seeds": [cell["seed"] for cell in group],
                        "epochs": epochs,
                        "median": None if math.isinf(middle) else middle,
                        "of": group[0]["epochs"],
                    }
                )
    return found


def write_results(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``results.json`` into the comparison's folder."""
    path = folder / FILE
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_results(folder: Path) -> Record:
    """What `write_results` wrote.

    Raises:
        UserError: There is none, or it is of another format.
    """
    path = folder / FILE if folder.is_dir() else folder
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
    except FileNotFoundError:
        hint = "give the folder that `headstart compare` wrote (its out=)"
        raise UserError("holds no comparison", where=str(folder), hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from error
    return dict(content)
