"""``results.json``: the trainings put together and compared, written and read. Its types are in `records`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from headstart.comparison import upgrade, wording
from headstart.comparison.checks import make_checks
from headstart.comparison.costs import costs
from headstart.comparison.records import (
    FORMAT,
    CellResult,
    Difference,
    Facts,
    Mean,
    RateChoice,
    Reached,
    Results,
    Score,
    plain,
)
from headstart.comparison.reference import gains, labels_worth, references_of
from headstart.comparison.statistics import epochs_to_reach, paired
from headstart.errors import UserError
from headstart.files import write_text
from headstart.reading import parse_json

FILE, TABLE, PAGE = "results.json", "results.md", "report.html"
SETTINGS = "compare.yaml"
"""What a comparison was asked for: it is there from the beginning."""
_NAMED = 5
"""How many wrong fields of a damaged file are named."""

Kind = TypeVar("Kind", bound=BaseModel)


def conclude(facts: Facts, cells: Sequence[CellResult], rates: Sequence[RateChoice]) -> Results:
    """Scores, differences, checks and verdict of a comparison.

    Args:
        facts: What is known before a training.
        cells: Every training: done, failed or missing.
        rates: The learning rate of each start at each budget.
    """
    done = [cell for cell in cells if (cell.kind, cell.state) == ("main", "done")]
    names, budgets = [start.name for start in facts.starts], [budget.name for budget in facts.budgets]
    content = Results(
        **dict(facts),
        rates=tuple(rates),
        cells=tuple(cells),
        scores=tuple(scores(done, names, budgets)),
        differences=tuple(compare_all(done, names, budgets, references_of(facts))),
        reached=tuple(reached(done, names, budgets)),
        costs=tuple(costs(facts, done)),
        gains=tuple(gains(facts, done)),
        labels_worth=tuple(labels_worth(facts, done)),
        checks=(),
    )
    content = content.model_copy(update={"checks": make_checks(content)})
    return content.model_copy(update={"verdict": wording.sentence(content)})


def scores(done: Sequence[CellResult], names: Sequence[str], budgets: Sequence[str]) -> list[Score]:
    """Mean and spread of every start at every budget; the interval is that of `paired`, of the scores themselves."""
    found = []
    for budget in budgets:
        for name in names:
            group = [cell for cell in done if (cell.start, cell.budget) == (name, budget)]
            if group:
                seeds = tuple(cell.seed for cell in group)
                both = (_mean([cell.measured.map50_95 for cell in group]), _mean([c.measured.map50 for c in group]))
                found.append(Score(start=name, budget=budget, seeds=seeds, map50_95=both[0], map50=both[1]))
    return found


def _mean(values: Sequence[float]) -> Mean:
    summary = paired(values)
    return Mean(mean=summary.mean, low=summary.t_low, high=summary.t_high)


def compare_all(
    done: Sequence[CellResult], names: Sequence[str], budgets: Sequence[str], references: Sequence[str]
) -> list[Difference]:
    """Every start against every reference."""
    pairs = [(name, other) for other in references for name in names if name != other]
    # Of two references the later one is compared with the earlier: the other way round it is the same pair.
    pairs = [pair for pair in pairs if pair[0] not in references[: references.index(pair[1])]]
    found = [_difference(done, *pair, budget) for pair in pairs for budget in budgets]
    return [one for one in found if one is not None]


def _difference(done: Sequence[CellResult], start: str, reference: str, budget: str) -> Difference | None:
    """None where no seed was trained from both."""
    ours, theirs = (
        {cell.seed: cell.measured for cell in done if (cell.start, cell.budget) == (name, budget)}
        for name in (start, reference)
    )
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    return Difference(
        start=start,
        reference=reference,
        budget=budget,
        seeds=tuple(seeds),
        map50_95=paired([round(ours[seed].map50_95 - theirs[seed].map50_95, 6) for seed in seeds]),
        map50=paired([round(ours[seed].map50 - theirs[seed].map50, 6) for seed in seeds]),
    )


def reached(done: Sequence[CellResult], names: Sequence[str], budgets: Sequence[str]) -> list[Reached]:
    """Epochs until a start is as good as scratch is in the end, seed by seed; None where it never is.

    A seed with which scratch ends at nothing is left out: there is nothing to reach.
    """
    found = []
    for budget in budgets:
        scratch = [cell for cell in done if (cell.start, cell.budget) == ("scratch", budget)]
        finals = {cell.seed: cell.measured.map50_95 for cell in scratch if cell.measured.map50_95 > 0}
        for name in names:
            group = [c for c in done if (c.start, c.budget) == (name, budget) and c.seed in finals and c.epochs]
            if name != "scratch" and group:
                found.append(_reached(name, budget, group, finals))
    return found


def _reached(name: str, budget: str, group: Sequence[CellResult], finals: dict[int, float]) -> Reached:
    epochs = [epochs_to_reach([point.map50_95 for point in c.measured.curve], finals[c.seed]) for c in group]
    middle = median(math.inf if one is None else one for one in epochs)
    return Reached(
        start=name,
        budget=budget,
        seeds=tuple(cell.seed for cell in group),
        epochs=tuple(epochs),
        median=None if math.isinf(middle) else middle,
        of=group[0].epochs,
    )


def write_results(folder: Path, content: Results) -> Path:
    """Write ``results.json`` into the comparison's folder, and the same figures as a table for a README.

    A page that is there shows what was there before: it is removed, and may be drawn of these figures.
    """
    path = folder / FILE
    (folder / PAGE).unlink(missing_ok=True)
    write_text(folder / TABLE, wording.markdown(content), "backslashreplace")
    ordered = {"format": FORMAT, **plain(content)}
    text = json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False)
    # Of a path that is no UTF-8 what people read: readers of JSON refuse half of a surrogate pair.
    write_text(path, re.sub("[\ud800-\udfff]", lambda one: rf"\\u{ord(one[0]):x}", text) + "\n")
    return path


def read_results(folder: Path) -> Results:
    """What `write_results` wrote; a file of format 1 is read as format 2, its checks made anew.

    Args:
        folder: The comparison's folder, or the file itself.

    Raises:
        UserError: There is none, it is of a format that is not known, or it is damaged; with the fields.
    """
    path = folder / FILE if folder.is_dir() else folder
    missing = "give the folder that `headstart compare` wrote (its out=)"
    if (path.parent / SETTINGS).is_file():
        missing = "this comparison has not come to its end: call the same `headstart compare` command again"
    content = read_json(path, missing)
    known = content.get("format") if isinstance(content, dict) else None
    if isinstance(known, bool) or not isinstance(known, int):
        raise UserError("has no format number: it is not a results.json of headstart", where=str(path))
    if known not in (1, FORMAT):
        hint = "pip install --upgrade headstart" if known > FORMAT else "run the comparison again"
        raise UserError(f"is of format {known}; this version reads formats 1 and {FORMAT}", where=str(path), hint=hint)
    if known == 1:
        return _from_1(content, path)
    return validated(Results, content, path)


def _from_1(content: dict[str, Any], path: Path) -> Results:
    try:
        facts, cells, rates = upgrade.from_1(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"is damaged: {what}", where=str(path), hint=_AGAIN) from None
    parts = validated(_Parts, {"facts": facts, "cells": cells, "rates": rates}, path)
    return conclude(parts.facts, parts.cells, parts.rates)


class _Parts(BaseModel):
    """What a file of an older format is made of."""

    facts: Facts
    cells: tuple[CellResult, ...]
    rates: tuple[RateChoice, ...]


_AGAIN = "the same `headstart compare` command writes it again; trainings that are done are kept"


def read_json(path: Path, missing: str) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        missing: What to do where there is none.

    Raises:
        UserError: There is none, it cannot be read, or it is cut.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {path.name}", where=str(path.parent), hint=missing) from None
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error}" if isinstance(error, OSError) else f"is cut or damaged: {error}"
        raise UserError(what, where=str(path), hint=_AGAIN) from None


def validated(kind: type[Kind], content: Any, path: Path) -> Kind:
    """`content` as a record of type `kind`.

    Raises:
        UserError: Fields that are missing, unknown or of a wrong type, each named.
    """
    try:
        # Through JSON, strictly: there "1" is no number, and a list is a tuple.
        return kind.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
        listed = "\n    ".join([*found[:_NAMED], *more])
        raise UserError(f"is damaged:\n    {listed}", where=str(path), hint=_AGAIN) from None
