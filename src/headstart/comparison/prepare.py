"""Everything that a comparison needs before its first training: data without leaks, label lists, starts."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headstart.comparison import label_lists
from headstart.comparison.budgets import Budget, check_budgets, parse_budgets
from headstart.comparison.dataset import Dataset, read_dataset
from headstart.comparison.detections import has_objects
from headstart.comparison.label_lists import LabelList
from headstart.comparison.leaks import refuse_leaks
from headstart.comparison.records import (
    AskedSettings,
    BudgetFacts,
    DataFacts,
    Facts,
    GitFacts,
    LeakFacts,
    ListFacts,
    PretrainingFacts,
    StartFacts,
)
from headstart.comparison.results import SETTINGS
from headstart.comparison.starts import Start, StartFile, build_starts, parse_starts, pretraining_of
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.files import Contents, OwnedFolder, explained, write_text
from headstart.images.dataset_yaml import find_dataset_yaml, shipped
from headstart.images.index import find_images
from headstart.images.labels import label_path
from headstart.run import provenance
from headstart.settings.schema import CompareSettings

# A comparison may be given more starts, budgets and seeds, and be told to say more or less; all else is another one.
_MAY_CHANGE = {
    *("starts", "labels", "seeds", "unlabelled", "longer", "device", "jobs", "workers", "out", "plan"),
    *("overwrite", "pictures", "report"),
}
_TRAININGS = ("cells", "search", "longer")
"""Folders that hold trainings: without any, nothing is lost by other options."""
CONTENTS = Contents(
    what="a comparison",
    mark=SETTINGS,
    files=(SETTINGS, "results.json", "results.md", "report.html", "detections.json", "detections.log"),
    folders=(*_TRAININGS, "starts", "labels", "probe"),
)


@dataclass(frozen=True)
class Prepared:
    """A comparison before its first training.

    Attributes:
        settings: Of the comparison.
        folder: Where it is kept.
        dataset: The labelled data.
        starts: What is compared.
        budgets: Label budgets, the smallest first.
        lists: (budget, seed) -> the labelled images of its cells.
        search: Budget -> the list that rates are tried on, whose ``val`` is the validation part; empty for one rate.
        files: (start, seed) -> its checkpoint.
        pretrainings: Start -> what its run folder tells.
        test_leak: What is known of test images among the labelled images.
        leaks: Start -> what is known of test images in its pretraining.
    """

    settings: CompareSettings
    folder: Path
    dataset: Dataset
    starts: Sequence[Start]
    budgets: Sequence[Budget]
    lists: Mapping[tuple[str, int], LabelList]
    search: Mapping[str, LabelList]
    files: Mapping[tuple[str, int], StartFile]
    pretrainings: Mapping[str, PretrainingFacts]
    test_leak: LeakFacts
    leaks: Mapping[str, LeakFacts]


@contextmanager
def open_folder(settings: CompareSettings) -> Iterator[Path]:
    """The comparison's folder: a new one, or the one of this comparison, to go on with; others are kept out of it.

    Raises:
        UserError: It holds something else, a comparison with other settings, or one that is at work.
    """
    name = f"{Path(settings.data).stem}-{Path(settings.model).stem.replace(':', '-')}"
    owned = OwnedFolder(Path(settings.out or Path("runs") / "compare" / name).resolve(), CONTENTS)
    if problem := owned.refusal():
        raise problem
    owned.take()
    try:
        _begin(settings, owned)
        yield owned.path
    finally:
        owned.release()


def _begin(settings: CompareSettings, owned: OwnedFolder) -> None:
    asked, record = settings.model_dump(), owned.path / SETTINGS
    if owned.begun and settings.overwrite and not settings.plan:  # a plan removes nothing
        owned.clear()
    elif owned.begun and any((owned.path / name).is_dir() for name in _TRAININGS):
        _refuse_other(asked, record)
    with explained(owned.path):
        for part in ("starts", "labels"):
            (owned.path / part).mkdir(exist_ok=True)
    write_text(record, yaml.safe_dump({**asked, "data": _absolute(settings.data)}, sort_keys=False))


def _refuse_other(asked: Mapping[str, Any], record: Path) -> None:
    try:
        known = yaml.safe_load(record.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("it is empty")
    except (OSError, ValueError, yaml.YAMLError) as error:
        hint = "overwrite=true starts the comparison again, or choose another out="
        raise UserError(f"cannot be read: {error}", where=str(record), hint=hint) from error
    now = {**asked, "data": _absolute(asked["data"])}
    problems = [
        UserError(f"was {known.get(key)!r} when the comparison began, is {value!r} now", where=key)
        for key, value in now.items()
        if key not in _MAY_CHANGE and known.get(key) != value
    ]
    if problems:
        hint = "starts, labels and seeds may be added; for the rest choose another out="
        hint += "" if asked["plan"] else ", or overwrite=true"
        problems.append(UserError(f"{record.parent} holds another comparison", where="out", hint=hint))
        raise UserError.several(problems)


def _absolute(data: str) -> str:
    found = find_dataset_yaml(data)
    return str(found.resolve()) if found and shipped(data) is None else data


def prepare(settings: CompareSettings, folder: Path) -> Prepared:
    """Read the data, refuse leaks, write the label lists, build the starts.

    Raises:
        UserError: What a user can put right; see the parts.
    """
    trainer = finetuner(settings.model)
    dataset = read_dataset(settings.data, settings.split, trainer)
    starts, _ = parse_starts(settings.starts, settings.model)
    budgets = sorted(parse_budgets(settings.labels)[0], key=lambda budget: budget.images(len(dataset.pool)))
    check_budgets(budgets, len(dataset.pool))
    pretrainings = {start.name: found for start in starts if (found := pretraining_of(start))}
    _refuse_unlabelled_test(dataset)
    test_leak, leaks = _refuse_leaks(settings, dataset, starts, pretrainings)
    lists, search = _write_lists(settings, dataset, budgets, folder / "labels")
    files = build_starts(starts, settings.seeds, dataset, trainer.architecture(settings.model), folder / "starts")
    return Prepared(settings, folder, dataset, starts, budgets, lists, search, files, pretrainings, test_leak, leaks)


def _refuse_unlabelled_test(dataset: Dataset) -> None:
    if not any(has_objects(image, dataset.keypoints) for image in dataset.test):
        hint = f"expected {label_path(dataset.test[0])} for {dataset.test[0]}; split=val or split=test names the part"
        what = f"{dataset.split} has no labelled objects: nothing can be measured on it"
        raise UserError(what, where=str(dataset.yaml), hint=hint)


def _refuse_leaks(
    settings: CompareSettings, dataset: Dataset, starts: Sequence[Start], pretrainings: Mapping[str, PretrainingFacts]
) -> tuple[LeakFacts, dict[str, LeakFacts]]:
    """Raise where test images are in the labelled pool or in a pretraining.

    Returns:
        What was looked at of the labelled images, and of the pretraining of each start that had one.
    """
    others: dict[str, Sequence[str]] = {f"train of {dataset.yaml.name}": dataset.pool}
    found = {}
    named = list(find_images(settings.unlabelled)) if settings.unlabelled else []
    if named:
        others["unlabelled"] = named
    for start in starts:
        known = pretrainings.get(start.name)
        images = _pretraining_images(known) if start.kind == "checkpoint" else []
        if images:
            others[f"the pretraining of {start.name}"] = images
        if start.kind != "scratch":
            found[start.name] = _leak(start, known, len(images), len(named))
    refuse_leaks(dataset.test, others)
    return LeakFacts(outcome="passed", words=f"none of {len(dataset.pool):,} labelled images is a test image"), found


def _leak(start: Start, known: PretrainingFacts | None, looked: int, named: int) -> LeakFacts:
    """What is known where no test image was found: `looked` images of its own run folder, `named` by the user."""
    used = known.images or 0 if known else 0
    if start.kind != "checkpoint":
        return LeakFacts(outcome="not known", words="the images behind published weights are not known")
    seen = max(looked, named)
    if 0 < seen < used:
        where = "are still there" if seen == looked else "were named by unlabelled="
        words = f"{seen:,} of its {used:,} pretraining images {where}, and none of these is a test image"
        return LeakFacts(outcome="not known", words=words)
    if seen:
        return LeakFacts(outcome="passed", words=f"none of {seen:,} pretraining images is a test image")
    gone = "its pretraining images are not there any more" if known else "its pretraining images are not known"
    return LeakFacts(outcome="not known", words=gone)


def _pretraining_images(known: PretrainingFacts | None) -> list[str]:
    """The images of a pretraining, where they are still where it found them."""
    if known is None or not known.data:
        return []
    try:
        # Relative paths were relative to the folder that the pretraining was started in: as a rule, this one.
        return [path for path in find_images(known.data) if os.path.exists(path)]  # noqa: PTH110
    except UserError:
        return []


def _write_lists(
    settings: CompareSettings, dataset: Dataset, budgets: Sequence[Budget], folder: Path
) -> tuple[dict[tuple[str, int], LabelList], dict[str, LabelList]]:
    classes = dataset.classes
    test = folder / "test.txt"
    write_text(test, "".join(f"{image}\n" for image in dataset.test))
    marks = label_lists.label_marks([*dataset.pool, *dataset.test])
    lists, search = {}, {}
    for seed in settings.seeds:
        order = label_lists.stratified_order(classes, seed)
        for budget in budgets:
            images = order[: budget.images(len(order))]
            name = f"{budget.key}-seed{seed}"
            lists[budget.name, seed] = label_lists.write_list(folder, name, dataset, images, test, marks)
            if seed == settings.seeds[0] and len(settings.lr) > 1:
                held = label_lists.held_out_part(images, classes, settings.lr_val, seed)
                part = folder / f"{name}-validation.txt"
                write_text(part, "".join(f"{image}\n" for image in sorted(held)))
                rest = sorted(set(images) - set(held))
                search[budget.name] = label_lists.write_list(folder, f"{name}-search", dataset, rest, part, marks)
    return lists, search


def facts(prepared: Prepared, slots: str) -> Facts:
    """What ``results.json`` says apart from the trainings."""
    s, dataset = prepared.settings, prepared.dataset
    asked = {**s.model_dump(mode="json", exclude={"plan", "overwrite"}), "data": str(dataset.yaml)}
    data = DataFacts(
        yaml=str(dataset.yaml),
        names=tuple(dataset.names),
        train_images=len(dataset.pool),
        test_images=len(dataset.test),
        labelled_test_images=sum(has_objects(image, dataset.keypoints) for image in dataset.test),
        split=dataset.split,
        test_sha256=label_lists.file_hash(prepared.folder / "labels" / "test.txt"),
        leak=prepared.test_leak,
    )
    lists = tuple(
        ListFacts(
            budget=budget, seed=seed, images=one.images, file=_below(one.file, prepared.folder), sha256=one.sha256
        )
        for (budget, seed), one in prepared.lists.items()
    )
    git = provenance.git_state()
    return Facts(
        name=prepared.folder.name,
        command=shlex.join(sys.argv),
        settings=AskedSettings.model_validate(asked),
        side_by_side=slots,
        data=data,
        starts=tuple(_start_facts(prepared, start) for start in prepared.starts),
        budgets=tuple(BudgetFacts(name=b.name, images=b.images(len(dataset.pool))) for b in prepared.budgets),
        lists=lists,
        versions=provenance.versions(),
        git=GitFacts(**git) if git else None,
    )


def _start_facts(prepared: Prepared, start: Start) -> StartFacts:
    files = {seed: file for (name, seed), file in prepared.files.items() if name == start.name}
    first = next(iter(files.values()))
    known = prepared.pretrainings.get(start.name)
    return StartFacts.model_validate(
        {
            "name": start.name,
            "kind": start.kind,
            "weights": start.path,
            "taken": {part: tuple(counts) for part, counts in first.taken.items()},
            "parameters": first.parameters,
            "sha256": {str(seed): file.sha256 for seed, file in files.items()},
            "pretraining": known,
            "leak": prepared.leaks.get(start.name),
        }
    )


def _below(path: Path, folder: Path) -> str:
    return path.resolve().relative_to(folder.resolve()).as_posix()
