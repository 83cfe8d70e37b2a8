"""What the runs of recipes would cost, from a few steps of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.comparison import pretrainings
from headstart.comparison.launcher import Launcher
from headstart.comparison.longer import steps_of
from headstart.comparison.prepare import Prepared
from headstart.comparison.pretrainings import Node
from headstart.errors import UserError
from headstart.images.index import find_images
from headstart.settings.resolve import budget_seconds


@dataclass(frozen=True)
class RecipePlan:
    """The runs of a recipe.

    Attributes:
        start: The start that it makes.
        runs: How many.
        labels: What they are made for: each list of labels, or each seed.
        images: Images that each learns from.
        steps: Steps of each; None where a time sets them.
        shown: Images that the network is shown in a step.
        seconds: Of each; 0 where that could not be measured.
        why: Why it could not.
    """

    start: str
    runs: int
    labels: str
    images: int
    steps: int | None
    shown: int
    seconds: float
    why: str = ""


_SAMPLE = 256
"""Images that a recipe is tried on."""


def plan_recipes(prepared: Prepared, launcher: Launcher, steps: Mapping[str, int | None]) -> list[RecipePlan]:
    """The runs of every recipe, timed by a few steps of each.

    Args:
        prepared: The comparison.
        launcher: Where trainings run.
        steps: Start -> steps of a run, as far as the options tell.
    """
    seeds = prepared.settings.seeds
    wanted = [*(pretrainings.nodes(prepared, search=True, seeds=seeds[:1]) if prepared.search else [])]
    wanted += [node for node in pretrainings.nodes(prepared, search=False, seeds=seeds) if node not in wanted]
    return [
        _plan(prepared, launcher, [node for node in wanted if node.start == name], steps[name])
        for name in prepared.recipes
    ]


def _plan(prepared: Prepared, launcher: Launcher, nodes: Sequence[Node], steps: int | None) -> RecipePlan:
    made, first = prepared.recipes[nodes[0].start], pretrainings.pretraining(prepared, nodes[0])
    labels = "each list" if made.recipe.labelled else "each seed"
    plan = RecipePlan(first.node.start, len(nodes), labels, made.images, steps, int(first.options.get("batch", 0)), 0.0)
    images = list(find_images(made.data, every=made.recipe.every))
    sample = images[:: max(1, len(images) // _SAMPLE)][:_SAMPLE]
    try:
        probe = prepared.folder / "probe"
        pace = launcher.run_one(
            f"probe of {first.node.start}",
            lambda place, stop: pretrainings.measured(first.options, sample, probe, place, stop),
        )
    except UserError as error:
        return dataclasses.replace(plan, why=str(error))
    allowed = budget_seconds(str(first.options.get("budget") or ""))
    seconds = allowed or pace.seconds(steps or 0, made.images)
    return dataclasses.replace(plan, shown=pace.shown, seconds=seconds)


def most_steps(prepared: Prepared, recipes: Sequence[RecipePlan]) -> int:
    """Steps that a start gets on top which is fine-tuned for longer."""
    batch = prepared.settings.batch
    known = [steps for one in prepared.pretrainings.values() if (steps := steps_of(one, batch))]
    return max([*known, *(math.ceil(plan.steps * plan.shown / batch) for plan in recipes if plan.steps)], default=0)
