"""What is said beside the verdict: what each start costs, whether the reference still gained, what labels it saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from headstart.comparison.records import Cost, LabelsWorth, Results
from headstart.comparison.start_records import AS_IS, StartFacts
from headstart.errors import enumerated
from headstart.run.display import duration

COST_HEADERS = ("labels", "start", "search", "pretraining", "fine-tuning", "in all", "steps in all")
COST_NOTE = (
    "One training with each start, the mean over seeds; a step of a fine-tuning is a batch, and steps of a pretraining "
    "count by the images that the network is shown, at that batch. A search for learning rates, which every start has, "
    "is left out."
)


def gaining(results: Results) -> str | None:
    """Whether the reference had stopped gaining when its trainings ended; None where that is not known.

    In a sentence that begins with the start's name and has no full stop.
    """
    if not results.gains:
        return None
    name = results.gains[0].start
    stopped = [labels(one.budget) for one in results.gains if one.stopped]
    rising = [one for one in results.gains if not one.stopped]
    parts = [f"had stopped gaining at {listed(stopped)}"] if stopped else []
    if rising:
        sizes = sorted(round(100 * one.last_third, 1) for one in rising)
        size = f"{sizes[0]:.1f}" if sizes[0] == sizes[-1] else f"{sizes[0]:.1f} to {sizes[-1]:.1f}"
        where = listed([labels(one.budget) for one in rising])
        parts.append(f"still gained {size} points over its last third at {where}: a longer training may bring it more")
    return f"{name} {', and '.join(parts)}"


def worth(one: LabelsWorth) -> str:
    """How many labels a start is worth, for people; without a full stop."""
    text = f"{one.start} with {one.images:,} labelled images does as well as {one.reference} with {_images(one)}"
    if one.interval is None:
        return f"{text} (one seed has no interval)"
    low, high = (_number(end, one) for end in one.interval)
    ends = f"{low} to {high}" if low != high else low
    return f"{text} (95 % bootstrap interval over {len(one.seeds)} seeds, too narrow with few of them: {ends})"


def _images(one: LabelsWorth) -> str:
    return _number(one.needed, one)


def _number(value: float | None, one: LabelsWorth) -> str:
    if value is None:
        return f"more than {one.most:,}"
    return f"{one.least:,} or fewer" if value <= one.least else f"{value:,.0f}"


def cost_rows(results: Results) -> list[tuple[str, ...]]:
    """Budget, start, time and steps of each part, time and steps in all: the columns of `COST_HEADERS`."""
    return [_cost_row(one) for one in results.costs]


def _cost_row(one: Cost) -> tuple[str, ...]:
    return (
        one.budget,
        one.start,
        duration(one.search_seconds) if one.search_seconds else "–",
        _part(one.pretraining_seconds, one.pretraining_steps),
        _part(one.finetuning_seconds, one.finetuning_steps),
        "not known" if one.seconds is None else duration(one.seconds),
        "not known" if one.steps is None else f"{one.steps:,}",
    )


def _part(seconds: float | None, steps: int | None) -> str:
    if seconds is None:
        return "–"
    return f"{duration(seconds)}, {steps:,} steps" if steps is not None else duration(seconds)


def made(start: StartFacts) -> str:
    """How a recipe made a start, and what brought labels into it; "" where there was none."""
    recipe = start.recipe
    if recipe is None:
        return ""
    often = "each list of labels, with these labels alone" if recipe.labelled else "each seed, without labels"
    told = [f"{key}={Path(value).name}" for key, value in recipe.carriers.items()]
    text = f"{recipe.method or 'the default method'}, made anew for {often}"
    return f"{text}; it brings in {' and '.join(told)}" if told else text


def carried(start: StartFacts) -> str:
    """What brought into the pretraining of a run folder what somebody learnt from labels; "" where nothing did."""
    known = start.pretraining.carriers if start.pretraining and start.recipe is None else {}
    told = [f"{key}={Path(value).name}" for key, value in known.items()]
    return f"its pretraining was given {' and '.join(told)}" if told else ""


def longer(start: StartFacts) -> str:
    """How much longer a start was fine-tuned, and which it follows; "" for the others."""
    if not start.longer:
        return ""
    groups: dict[tuple[int, str], list[str]] = {}
    for one in start.longer:
        groups.setdefault((one.steps, one.follows), []).append(labels(one.budget))
    each = [f"{steps:,} steps at {listed(at)}, as {follows}" for (steps, follows), at in groups.items()]
    return f"fine-tuned for longer by {'; '.join(each)}"


def other_size(name: str, learnt: int, measured: int) -> str:
    """That a detector of the user's classes learnt images of another size, in pixels, than it is measured with.

    In a sentence without full stop; "" where the sizes are alike.
    """
    if math.ceil(learnt / 32) == math.ceil(measured / 32):
        return ""
    return (
        f"{name} learns images of {learnt} px, and is fine-tuned and measured with others of {measured} px: "
        f"imgsz={learnt} here has both alike"
    )


NAME_IT = "own weights have a name of their own: starts=coco,mine=weights.pt reference=mine"
"""What to do where own weights were given as COCO's."""


def not_coco(weights: str, why: str) -> str:
    """That weights which were given as COCO's are not, after the start's name; without a full stop."""
    return f"is {Path(weights).name}, and not COCO's published weights: {why}"


def foreign(start: StartFacts) -> str:
    """What is said of a start that is called COCO's and is not; "" for the others."""
    return f"{start.name} {not_coco(start.weights, start.foreign)}" if start.foreign else ""


def measurable(results: Results, start: StartFacts) -> str:
    """That a start is a detector of the user's classes, and how to have it measured as it is; "" where it is there."""
    if start.as_is or not start.detects or any(one.as_is and one.base == start.name for one in results.starts):
        return ""
    what = f"{start.name} is a detector of these classes before it is fine-tuned"
    return f"{what}: the same command with {start.name}{AS_IS} among the starts measures it as it is, too"


def labels(budget: str) -> str:
    """A budget in words: ``5% of the labels``, ``200 labelled images``."""
    return f"{budget} of the labels" if budget.endswith("%") else f"{budget} labelled images"


def listed(words: Sequence[str]) -> str:
    """``1%, 5% and 20% of the labels``: what the words have in common at their end is said once."""
    if len(words) > 1 and all(word.endswith("% of the labels") for word in words):
        words = [*(word.removesuffix(" of the labels") for word in words[:-1]), words[-1]]
    return enumerated(words)
