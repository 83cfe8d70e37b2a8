"""Everything that a comparison needs before its first training: data without leaks, label lists, starts."""

from __future__ import annotations

import json
import os
import shutil
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
from headstart.comparison.label_lists import LabelList
from headstart.comparison.leaks import refuse_leaks
from headstart.comparison.starts import Pretraining, Start, StartFile, build_starts, parse_starts, pretraining_of
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.files import LOCK, explained, lock, write_text
from headstart.images.index import find_images
from headstart.run import provenance
from headstart.settings.schema import CompareSettings

SETTINGS = "compare.yaml"
# A comparison may be given more starts, budgets and seeds, and be told to say more or less; all else is another one.
_MAY_CHANGE = {
    *("starts", "labels", "seeds", "unlabelled", "longer", "device", "jobs", "workers", "out", "plan"),
    *("overwrite", "pictures", "report"),
}
_FOLDERS = ("cells", "search", "longer", "starts", "labels", "probe")
_FILES = (SETTINGS, "results.json", "results.md", "report.html", "detections.json", "detections.log")


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
        leaks: Start -> what is known of test images in its pretraining, in words.
    """

    settings: CompareSettings
    folder: Path
    dataset: Dataset
    starts: Sequence[Start]
    budgets: Sequence[Budget]
    lists: Mapping[tuple[str, int], LabelList]
    search: Mapping[str, LabelList]
    files: Mapping[tuple[str, int], StartFile]
    pretrainings: Mapping[str, Pretraining]
    leaks: Mapping[str, str]


@contextmanager
def open_folder(settings: CompareSettings) -> Iterator[Path]:
    """The comparison's folder: a new one, or the one of this comparison, to go on with; others are kept out of it.

    Raises:
        UserError: It holds something else, a comparison with other settings, or one that is at work.
    """
    name = f"{Path(settings.data).stem}-{Path(settings.model).stem.replace(':', '-')}"
    folder = Path(settings.out or Path("runs") / "compare" / name).resolve()
    found = [item for item in folder.iterdir() if item.name != LOCK] if folder.is_dir() else []
    if found and not (folder / SETTINGS).is_file():
        hint = "choose an empty or new folder"
        raise UserError("holds files that are no comparison of headstart", where=f"out={folder}", hint=hint)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    taken = lock(folder)
    try:
        _begin(settings, folder)
        yield folder
    finally:
        taken.release()


def _begin(settings: CompareSettings, folder: Path) -> None:
    asked, record = settings.model_dump(), folder / SETTINGS
    if record.is_file() and settings.overwrite:
        _clear(folder)
    elif record.is_file():
        _refuse_other(asked, record)
    with explained(folder):
        for part in ("starts", "labels"):
            (folder / part).mkdir(exist_ok=True)
    write_text(record, yaml.safe_dump({**asked, "data": _absolute(settings.data)}, sort_keys=False))


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _refuse_other(asked: Mapping[str, Any], record: Path) -> None:
    known = yaml.safe_load(record.read_text(encoding="utf-8"))
    now = {**asked, "data": _absolute(asked["data"])}
    problems = [
        UserError(f"was {known.get(key)!r} when the comparison began, is {value!r} now", where=key)
        for key, value in now.items()
        if key not in _MAY_CHANGE and known.get(key) != value
    ]
    if problems:
        hint = "starts, labels and seeds may be added; for the rest choose another out=, or overwrite=true"
        problems.append(UserError(f"{record.parent} holds another comparison", where="out", hint=hint))
        raise UserError.several(problems)


def _absolute(data: str) -> str:
    return str(Path(data).resolve()) if Path(data).is_file() else data


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
    leaks = _refuse_leaks(settings, dataset, starts, pretrainings)
    lists, search = _write_lists(settings, dataset, budgets, folder / "labels")
    files = build_starts(starts, settings.seeds, dataset, trainer.architecture(settings.model), folder / "starts")
    return Prepared(settings, folder, dataset, starts, budgets, lists, search, files, pretrainings, leaks)


def _refuse_leaks(
    settings: CompareSettings, dataset: Dataset, starts: Sequence[Start], pretrainings: Mapping[str, Pretraining]
) -> dict[str, str]:
    """Raise where test images are in the labelled pool or in a pretraining; what is known of each checkpoint."""
    others: dict[str, Sequence[str]] = {f"train of {dataset.yaml.name}": dataset.pool}
    words = {}
    named = list(find_images(settings.unlabelled)) if settings.unlabelled else []
    if named:
        others["unlabelled"] = named
    for start in starts:
        if start.kind != "checkpoint":
            continue
        images = _pretraining_images(pretrainings.get(start.name))
        if images:
            others[f"the pretraining of {start.name}"] = images
        looked = len(images) or len(named)
        gone = "its pretraining images are not there any more" if start.name in pretrainings else "they are not known"
        unknown = f"its pretraining images were not looked at for test images: {gone}"
        words[start.name] = f"none of {looked:,} pretraining images is a test image" if looked else unknown
    refuse_leaks(dataset.test, others)
    return words


def _pretraining_images(known: Pretraining | None) -> list[str]:
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
    classes = label_lists.classes_by_image(dataset)
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


def facts(prepared: Prepared, slots: str) -> dict[str, Any]:
    """What ``results.json`` says apart from the trainings."""
    s, dataset = prepared.settings, prepared.dataset
    return {
        "name": prepared.folder.name,
        "command": " ".join(sys.argv),
        "settings": {**s.model_dump(exclude={"plan", "overwrite"}), "data": str(dataset.yaml)},
        "side_by_side": slots,
        "data": {
            "yaml": str(dataset.yaml),
            "names": list(dataset.names),
            "train_images": len(dataset.pool),
            "test_images": len(dataset.test),
            "split": dataset.split,
            "test_sha256": label_lists.file_hash(prepared.folder / "labels" / "test.txt"),
        },
        "starts": [_start_facts(prepared, start) for start in prepared.starts],
        "budgets": [{"name": b.name, "images": b.images(len(dataset.pool))} for b in prepared.budgets],
        "lists": [
            {"budget": budget, "seed": seed, "images": one.images, "file": _below(one.file, prepared.folder)}
            | {"sha256": one.sha256}
            for (budget, seed), one in prepared.lists.items()
        ],
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }


def _start_facts(prepared: Prepared, start: Start) -> dict[str, Any]:
    files = {seed: file for (name, seed), file in prepared.files.items() if name == start.name}
    first = next(iter(files.values()))
    known = prepared.pretrainings.get(start.name)
    return {
        "name": start.name,
        "kind": start.kind,
        "weights": start.path,
        "taken": {part: list(counts) for part, counts in first.taken.items()},
        "parameters": first.parameters,
        "sha256": {str(seed): file.sha256 for seed, file in files.items()},
        "pretraining": None if known is None else json.loads(json.dumps(vars(known))),
        "leak": prepared.leaks.get(start.name, ""),
    }


def _below(path: Path, folder: Path) -> str:
    return path.resolve().relative_to(folder.resolve()).as_posix()
