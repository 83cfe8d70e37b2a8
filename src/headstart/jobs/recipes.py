"""The recipes of a comparison, looked at as `headstart pretrain` looks at its options; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.comparison.recipes import RecipeStart, coco_problem, coco_weights, read_recipe
from headstart.comparison.starts import Start
from headstart.errors import UserError
from headstart.images.dataset_yaml import find_dataset_yaml
from headstart.settings.schema import CompareSettings, strings


def check_recipes(starts: Sequence[Start], given: Mapping[str, Any]) -> list[UserError]:
    """Every problem of every recipe among the starts.

    Args:
        starts: Of the comparison.
        given: The comparison's options; the problems of these are told elsewhere.
    """
    problems = []
    for start in {one.base: one for one in starts if one.kind == "recipe"}.values():
        found = _problems(Path(start.path), given)
        if any(one.as_is and one.base == start.base for one in starts):
            found += _no_detector(Path(start.path))
        place = f"recipe {start.base} ({start.path})"
        problems += [
            UserError(one.what, where=f"{place}: {one.where}" if one.where else place, hint=one.hint) for one in found
        ]
    return problems


def _no_detector(file: Path) -> list[UserError]:
    """What keeps what a recipe makes from being measured as it is: it learns without labels."""
    recipe = read_recipe(file, [])
    if recipe is None or recipe.labelled or not recipe.method:
        return []
    what = f"{recipe.method} learns without labels: what it hands back cannot be measured without a fine-tuning"
    hint = "leave -as-is out, or take a method that learns from labels: selftrain"
    return [UserError(what, where="starts", hint=hint)]


def _problems(file: Path, given: Mapping[str, Any]) -> list[UserError]:
    found: list[UserError] = []
    recipe = read_recipe(file, found)
    if recipe is None:
        return found
    from headstart.jobs.prepare import check_options  # imports torch

    model = str(given["model"])
    coco = coco_weights(strings(given["starts"]), model)
    if problem := coco_problem(recipe, model, coco):
        return [problem]
    labels = str(find_dataset_yaml(str(given["data"])) or given["data"]) if recipe.labelled else None
    # Which images the labelled pool has is found out later: any folder stands for them.
    data = given.get("unlabelled") or str(file.parent)
    imgsz = CompareSettings.model_fields["imgsz"].default  # that of the comparison is looked at with its own options
    return check_options(recipe.filled(model, data=data, coco=coco, labels=labels, seed=0, imgsz=imgsz))


def lengths(recipes: Mapping[str, RecipeStart], settings: CompareSettings) -> dict[str, int | None]:
    """Start -> steps of a run of its recipe; None where a time sets them (``budget=``)."""
    from headstart.jobs.prepare import length_of

    s = settings
    more: dict[str, Any] = {"coco": coco_weights(s.starts, s.model), "labels": None, "seed": 0, "imgsz": s.imgsz}
    return {
        name: length_of(one.recipe.filled(s.model, data=one.data, **more), one.images) for name, one in recipes.items()
    }
