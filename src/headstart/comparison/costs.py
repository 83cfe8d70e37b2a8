"""What one training costs with each start, from the first look at unlabelled images to the last epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headstart.comparison.longer import finetuning_steps, steps_of
from headstart.comparison.records import CellResult, Cost, Facts
from headstart.comparison.reference import references_of
from headstart.comparison.start_records import PretrainingFacts, StartFacts


class _Before(NamedTuple):
    """What it took before a fine-tuning: seconds of search and of all else, steps of its own, steps as fine-tuned."""

    search: float | None
    seconds: float | None
    steps: int | None
    as_finetuned: int | None


def costs(facts: Facts, done: Sequence[CellResult]) -> list[Cost]:
    """The mean over seeds, at every budget and of every start whose trainings are done.

    Args:
        facts: What is known apart from the trainings.
        done: Main trainings that are done.
    """
    found, names = [], references_of(facts)
    references = {start.base for start in facts.starts if start.name in names}
    for budget in facts.budgets:
        for start in facts.starts:
            cells = [cell for cell in done if (cell.start, cell.budget) == (start.name, budget.name)]
            if cells:
                reference = start.base in references
                found.append(_cost(start, budget.name, cells, facts.settings.batch, reference=reference))
    return found


def _cost(start: StartFacts, budget: str, cells: Sequence[CellResult], batch: int, *, reference: bool) -> Cost:
    before = [one for cell in cells if (one := _before(start, cell, batch))]
    steps = round(_mean([finetuning_steps(cell.epochs, cell.images, batch) for cell in cells]))
    seconds = _mean([cell.measured.seconds for cell in cells])
    # Of weights that the others are compared with, as of COCO's, what they took before is nothing that is spent now.
    before_all = reference and start.recipe is None and start.pretraining is None
    pretrained = start.kind in ("checkpoint", "recipe") and not before_all
    as_finetuned = _known([one.as_finetuned for one in before]) if pretrained else 0.0
    spent = [_known([one.search for one in before]), _known([one.seconds for one in before])]
    own = _known([one.steps for one in before])
    return Cost(
        start=start.name,
        budget=budget,
        seeds=tuple(cell.seed for cell in cells),
        search_seconds=spent[0],
        pretraining_seconds=spent[1],
        pretraining_steps=None if own is None else round(own),
        finetuning_seconds=seconds,
        finetuning_steps=steps,
        seconds=None if pretrained and spent[1] is None else seconds + sum(one or 0.0 for one in spent),
        steps=None if as_finetuned is None else steps + round(as_finetuned),
    )


def _before(start: StartFacts, cell: CellResult, batch: int) -> _Before | None:
    if start.recipe is None:
        return _told(start.pretraining, batch) if start.pretraining else None
    for run in start.recipe.runs:
        mine = run.seed == cell.seed and run.budget in ("", cell.budget) and (not run.search or not run.budget)
        if mine and run.pretraining:
            told = _told(run.pretraining, batch)
            # Of a process that was killed, the run folder alone knows what it did.
            return told._replace(seconds=max(told.seconds or 0.0, run.seconds - (told.search or 0.0)))
    return None


def _told(known: PretrainingFacts, batch: int) -> _Before:
    return _Before(known.search_seconds, known.seconds, known.steps, steps_of(known, batch))


def _known(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is, or not of all."""
    kept = [value for value in values if value is not None]
    return _mean(kept) if kept and len(kept) == len(values) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
