"""What the reference's own trainings tell: whether it had stopped gaining, and how many labels a start is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from headstart.comparison.records import CellResult, Facts, Gain, LabelsWorth

_ALWAYS = ("scratch", "scratch-longer", "coco", "coco-longer")
"""Starts that the others are compared with wherever they are there."""
_LONGER = "-longer"
STOPPED, SHARE = 0.005, 0.1
"""A last third that brings less than half a point, and less than a tenth of what there is in the end, is no gain any
more. The tenth counts below 5 points: 0.4 points are much of a score of 1."""
BEGUN = 0.01
"""Who ends below this, one point, has hardly begun to gain, and cannot have stopped."""
_RESAMPLES = 2000

Curve = npt.NDArray[np.float64]


def references_of(facts: Facts) -> list[str]:
    """The starts that the others are compared with; of two of them, the later one is compared with the earlier.

    Those of `_ALWAYS`, the one that ``reference=`` names, and every start that has one for longer beside it; without
    any, the first start.
    """
    names = [start.name for start in facts.starts]
    bases = [start.name.removesuffix(_LONGER) for start in facts.starts if start.kind == "checkpoint-longer"]
    own = [*bases, *_chosen(facts)]
    listed = [*_ALWAYS, *(name for base in own for name in (base, f"{base}{_LONGER}"))]
    return [name for name in dict.fromkeys(listed) if name in names] or names[:1]


def reference_of(facts: Facts) -> str | None:
    """The start that others are measured against, trained for as long if possible; None where it is not compared.

    The one that ``reference=`` names; else COCO's weights.
    """
    return next(iter(measured_against(facts)), None)


def measured_against(facts: Facts) -> list[str]:
    """`reference_of`, and the same start with its own number of steps."""
    names = {start.name for start in facts.starts}
    base = next(iter(_chosen(facts)), "coco")
    return [name for name in (f"{base}{_LONGER}", base) if name in names]


def _chosen(facts: Facts) -> list[str]:
    """What ``reference=`` names, without the longer training; nothing where it names nothing."""
    name = facts.settings.reference
    longer = {start.name for start in facts.starts if start.kind.endswith(_LONGER)}
    return [] if name is None else [name.removesuffix(_LONGER) if name in longer else name]


def tested(facts: Facts) -> list[str]:
    """The starts that a pretraining made and that are put to the test: not what they are compared with."""
    references = references_of(facts)
    made = [start for start in facts.starts if start.kind in ("checkpoint", "recipe")]
    return [start.name for start in made if not {start.name, start.base} & {*references}]


def gains(facts: Facts, done: Sequence[CellResult]) -> list[Gain]:
    """What the last third of its trainings brought the reference, at each budget; the mean over seeds."""
    reference = reference_of(facts)
    found = []
    for budget in facts.budgets:
        cells = [c for c in done if (c.start, c.budget) == (reference, budget.name) and c.epochs >= 3]
        if reference is None or not cells:
            continue
        brought = math.fsum(map(_last_third, cells)) / len(cells)
        ended = math.fsum(cell.measured.curve[-1].map50_95 for cell in cells) / len(cells)
        if ended < BEGUN:
            continue
        seeds, stopped = tuple(cell.seed for cell in cells), brought < min(STOPPED, SHARE * ended)
        found.append(Gain(start=reference, budget=budget.name, seeds=seeds, last_third=brought, stopped=stopped))
    return found


def _last_third(cell: CellResult) -> float:
    curve = cell.measured.curve
    return curve[-1].map50_95 - curve[2 * len(curve) // 3 - 1].map50_95


def labels_needed(images: Sequence[float], scores: Sequence[float] | Curve, target: float) -> float:
    """Labelled images with which the reference comes to `target`, on straight lines over the logarithm of the labels.

    A budget at which it does worse than with fewer labels counts as it did with these.

    Args:
        images: Labelled images at each budget, rising.
        scores: What it came to there.
        target: The score.

    Returns:
        The least budget where it comes to it there already; infinity where it does not even at the largest.
    """
    best = np.maximum.accumulate(np.asarray(scores, np.float64))
    if target > best[-1]:
        return math.inf
    at = int(np.argmax(best >= target))
    if at == 0:
        return float(images[0])
    share = (target - best[at - 1]) / (best[at] - best[at - 1])
    low, high = math.log(images[at - 1]), math.log(images[at])
    return math.exp(low + share * (high - low))


def labels_worth(facts: Facts, done: Sequence[CellResult]) -> list[LabelsWorth]:
    """For every pretrained start and budget, the labels with which the reference does as well.

    The interval is a 95 % percentile bootstrap over seeds, the same seeds drawn for start and reference; always the
    same for the same figures. Where trainings of the reference are missing, see `_in_common`.
    """
    reference, sizes = reference_of(facts), {budget.name: budget.images for budget in facts.budgets}
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for cell in done:
        scores.setdefault(cell.start, {}).setdefault(cell.budget, {})[cell.seed] = cell.measured.map50_95
    curve = {budget: scores.get(reference or "", {}).get(budget, {}) for budget in sizes}
    curve = {budget: seeds for budget, seeds in curve.items() if seeds}
    fixed = {start.name for start in facts.starts if start.fixed}
    if reference is None or reference in fixed or len(curve) < 2:
        return []
    return [
        one
        for name in tested(facts)
        if name not in fixed
        for budget in sizes
        if (one := _worth(name, reference, budget, scores.get(name, {}).get(budget, {}), curve, sizes))
    ]


def _worth(
    start: str,
    reference: str,
    budget: str,
    own: Mapping[int, float],
    curve: Mapping[str, Mapping[int, float]],
    sizes: Mapping[str, int],
) -> LabelsWorth | None:
    seeds, budgets = _in_common(own, curve)
    if not any(own[seed] for seed in seeds):
        return None
    images = [sizes[name] for name in budgets]
    ours = np.array([own[seed] for seed in seeds])
    theirs = np.array([[curve[name][seed] for seed in seeds] for name in budgets])
    needed = labels_needed(images, theirs.mean(axis=1), float(ours.mean()))
    interval = None
    if len(seeds) > 1:
        drawn = np.random.default_rng(0).integers(len(seeds), size=(_RESAMPLES, len(seeds)))
        found = sorted(labels_needed(images, theirs[:, at].mean(axis=1), float(ours[at].mean())) for at in drawn)
        ends = found[math.floor(0.025 * _RESAMPLES)], found[math.ceil(0.975 * _RESAMPLES) - 1]
        interval = (_finite(ends[0]), _finite(ends[1]))
    return LabelsWorth(
        start=start,
        reference=reference,
        budget=budget,
        images=sizes[budget],
        seeds=tuple(seeds),
        least=images[0],
        most=images[-1],
        needed=_finite(needed),
        interval=interval,
    )


def _in_common(own: Mapping[int, float], curve: Mapping[str, Mapping[int, float]]) -> tuple[list[int], list[str]]:
    """Seeds, and two or more budgets at which the reference has them all: those with the most trainings of it.

    A training that is missing at one budget would else take its seed from all the others. Of two ways that use as many,
    the one with more seeds.
    """
    found = []
    for pair in combinations(curve, 2):
        seeds = set(own).intersection(*(curve[name] for name in pair))
        budgets = [name for name, trained in curve.items() if seeds <= set(trained)]
        found.append((sorted(seeds), budgets))
    return max(found, key=lambda one: (len(one[0]) * len(one[1]), len(one[0])))


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else round(value, 1)
