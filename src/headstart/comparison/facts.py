"""What ``results.json`` says of a comparison apart from its trainings: data, starts, lists, versions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.comparison import label_lists
from headstart.comparison.detections import has_objects
from headstart.comparison.prepare import Prepared
from headstart.comparison.pretrainings import Node, Pretraining
from headstart.comparison.recipes import CARRIERS, coco_weights
from headstart.comparison.records import AskedSettings, BudgetFacts, DataFacts, Facts, GitFacts, ListFacts
from headstart.comparison.start_records import LongerFacts, PretrainingFacts, RecipeFacts, RecipeRunFacts, StartFacts
from headstart.comparison.starts import Start, StartFile, called_coco
from headstart.run import provenance
from headstart.settings.resolve import as_plain


@dataclass(frozen=True)
class Made:
    """What became of a run of a recipe.

    Attributes:
        pretraining: The run.
        file: The start that it became; None where it failed or was stopped.
        known: What its run folder tells, likewise.
        error: Why it failed.
    """

    pretraining: Pretraining
    file: StartFile | None = None
    known: PretrainingFacts | None = None
    error: str = ""


def facts(
    prepared: Prepared,
    slots: str,
    made: Mapping[Node, Made] | None = None,
    longer: Mapping[str, tuple[str, int]] | None = None,
) -> Facts:
    """What is known apart from the trainings.

    Args:
        prepared: The comparison.
        slots: Why so many trainings run side by side.
        made: What became of the runs of recipes.
        longer: Budget -> the start that takes the most steps, and the steps of its pretraining.
    """
    s, dataset = prepared.settings, prepared.dataset
    silent = {"plan", "overwrite", "loggers", "launcher", "ray"}  # where it ran is told by `side_by_side`
    asked = {**s.model_dump(mode="json", exclude=silent), "data": str(dataset.yaml)}
    git = provenance.git_state()
    starts = tuple(_start_facts(prepared, start, made or {}, longer or {}) for start in prepared.starts)
    return Facts(
        name=prepared.folder.name,
        command=shlex.join(sys.argv),
        settings=AskedSettings.model_validate(asked),
        side_by_side=slots,
        data=_data_facts(prepared),
        starts=starts,
        budgets=tuple(BudgetFacts(name=b.name, images=b.images(len(dataset.pool))) for b in prepared.budgets),
        lists=_list_facts(prepared),
        versions=provenance.versions(),
        git=GitFacts(**git) if git else None,
    )


def _data_facts(prepared: Prepared) -> DataFacts:
    dataset = prepared.dataset
    return DataFacts(
        yaml=str(dataset.yaml),
        names=tuple(dataset.names),
        train_images=len(dataset.pool),
        test_images=len(dataset.test),
        labelled_test_images=sum(has_objects(image, dataset.keypoints) for image in dataset.test),
        split=dataset.split,
        test_sha256=label_lists.file_hash(prepared.folder / "labels" / "test.txt"),
        leak=prepared.leaks.test,
        recordings=prepared.leaks.recordings,
    )


def _list_facts(prepared: Prepared) -> tuple[ListFacts, ...]:
    return tuple(
        ListFacts(budget=budget, seed=seed, images=one.images, file=_below(one.file, prepared), sha256=one.sha256)
        for (budget, seed), one in prepared.lists.items()
    )


def _start_facts(
    prepared: Prepared, start: Start, made: Mapping[Node, Made], longer: Mapping[str, tuple[str, int]]
) -> StartFacts:
    own = {node: one for node, one in made.items() if start.kind == "recipe" and node.start == start.base}
    files = {str(seed): file for (name, seed), file in prepared.files.items() if name == start.name}
    files |= {_of(node): one.file for node, one in own.items() if one.file}
    first = next(iter(files.values()), None)
    follows = [LongerFacts(budget=name, follows=one, steps=steps) for name, (one, steps) in longer.items()]
    return StartFacts(
        name=start.name,
        kind=start.kind,
        weights=start.path,
        taken={part: (counts[0], counts[1]) for part, counts in first.taken.items()} if first else {},
        parameters=first.parameters if first else 0,
        sha256={key: file.sha256 for key, file in files.items()},
        pretraining=prepared.pretrainings.get(start.name),
        leak=prepared.leaks.starts.get(start.name),
        recipe=_recipe_facts(prepared, start, own) if start.kind == "recipe" else None,
        longer=tuple(follows) if start.longer else (),
        foreign=called_coco(start, first),
        as_is=start.as_is,
        detects=bool(first and first.detects),
    )


def _of(node: Node) -> str:
    """Seed, budget and search of a run, as the key of a start's weights."""
    words = [str(node.seed), node.budget, "search" if node.search else ""]
    return ", ".join(word for word in words if word)


def _recipe_facts(prepared: Prepared, start: Start, made: Mapping[Node, Made]) -> RecipeFacts:
    recipe = prepared.recipes[start.base].recipe
    s = prepared.settings
    coco = coco_weights(s.starts, s.model)
    filled: dict[str, Any] = recipe.filled(s.model, data=None, coco=coco, labels=None, seed=0, imgsz=s.imgsz)
    return RecipeFacts(
        file=str(recipe.file),
        method=recipe.method,
        labelled=recipe.labelled,
        options={key: as_plain(value) for key, value in recipe.options.items()},
        carriers={key: str(filled[key]) for key in CARRIERS if filled.get(key) is not None},
        runs=tuple(_run_facts(prepared, node, one) for node, one in made.items()),
    )


def _run_facts(prepared: Prepared, node: Node, made: Made) -> RecipeRunFacts:
    run = made.pretraining
    return RecipeRunFacts(
        budget=node.budget,
        seed=node.seed,
        search=node.search,
        folder=_below(run.run, prepared),
        labels_sha256=run.labels.sha256 if run.labels else "",
        sha256=made.file.sha256 if made.file else "",
        state="done" if made.file else "failed" if made.error else "missing",
        error=made.error,
        seconds=run.seconds,
        pretraining=made.known,
    )


def _below(path: Path, prepared: Prepared) -> str:
    return path.relative_to(prepared.folder).as_posix()  # not resolved: trainings may be linked to another disk
