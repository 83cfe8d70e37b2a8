"""Everything that a comparison needs before its first training: data without leaks, label lists, starts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headstart.aside import Contents
from headstart.comparison import label_lists
from headstart.comparison.budgets import Budget, check_budgets, parse_budgets
from headstart.comparison.dataset import Dataset, read_dataset
from headstart.comparison.detections import has_objects
from headstart.comparison.label_lists import LabelList
from headstart.comparison.leaks import Leaks, look_for_leaks
from headstart.comparison.longer import most
from headstart.comparison.pretrainings import FOLDER as PRETRAININGS
from headstart.comparison.pretrainings import Node, namers
from headstart.comparison.recipes import RecipeStart, coco_weights, placed, read_recipe, with_namer
from headstart.comparison.remarks import NAME_IT, not_coco, other_size
from headstart.comparison.request import PARENTS, RECORD
from headstart.comparison.results import SETTINGS
from headstart.comparison.start_records import PretrainingFacts
from headstart.comparison.starts import Start, StartFile, build_starts, called_coco, parse_starts, pretraining_of
from headstart.detectors.find import finetuner
from headstart.errors import UserError
from headstart.files import OwnedFolder, explained, write_text
from headstart.images.dataset_yaml import find_dataset_yaml, shipped
from headstart.images.index import find_images
from headstart.images.labels import expected, label_path
from headstart.paths import located
from headstart.reading import looked_at, parse_yaml
from headstart.run.display import make_console
from headstart.settings.resolve import as_plain
from headstart.settings.schema import CompareSettings

# A comparison may be given more starts, budgets and seeds, and be told to say more or less; all else is another one.
_MAY_CHANGE = {
    *("starts", "labels", "seeds", "unlabelled", "longer", "device", "jobs", "workers", "out", "plan"),
    *("launcher", "ray", "overwrite", "pictures", "report", "trust", "loggers", "reference"),
    "start_lr",  # of starts that are added: see `_other_rates`
}
_TRAININGS = ("cells", "search", "longer", PRETRAININGS)
"""Folders that hold trainings: without any, nothing is lost by other options."""
_ANOTHER_NAME = "with another rate it is another start: give it another name, as mine2=previous.pt"
_LOOKS = "thumbnails.npz"
CONTENTS = Contents(
    what="a comparison",
    mark=SETTINGS,
    files=(SETTINGS, "results.json", "results.md", "report.html", "detections.json", "detections.log"),
    folders=(*_TRAININGS, "starts", "labels", "probe", "loggers"),
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
        recipes: Start, as `Start.base` names it -> the recipe that makes it.
        leaks: What is known of test images among labelled images and pretraining images.
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
    recipes: Mapping[str, RecipeStart]
    leaks: Leaks

    @property
    def needed(self) -> tuple[Path, ...]:
        """What a machine that trains has to see, something of each folder: the comparison's own record first."""
        images = map(Path, (self.dataset.pool[0], self.dataset.test[0]))
        # A pretraining works in the current folder.
        return (self.folder / SETTINGS, Path(self.dataset.yaml), *images, *([Path.cwd()] if self.recipes else []))


@contextmanager
def open_folder(settings: CompareSettings) -> Iterator[OwnedFolder]:
    """The comparison's folder: a new one, or the one of this comparison, to go on with; others are kept out of it.

    A comparison that is to be replaced is set aside in it, until the new one has something to show (`replaced`).

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
        yield owned
    finally:
        owned.release()


def _begin(settings: CompareSettings, owned: OwnedFolder) -> None:
    asked, record = settings.model_dump(), owned.path / SETTINGS
    replaces = settings.overwrite and not settings.plan  # a plan removes nothing
    # What was to replace another one was killed early: it is gone on with where it is what is asked for.
    if owned.replacing and not (owned.begun and (replaces or settings.plan or _changed(asked, record) == [])):
        owned.put_back()
    if owned.begun and replaces:
        owned.set_aside()
    elif owned.begun and any((owned.path / name).is_dir() for name in _TRAININGS):
        _refuse_other(asked, record)
    with explained(owned.path):
        for part in ("starts", "labels"):
            (owned.path / part).mkdir(exist_ok=True)
    write_text(record, yaml.safe_dump({**asked, "data": _absolute(settings.data)}, sort_keys=False))


def _refuse_other(asked: Mapping[str, Any], record: Path) -> None:
    problems = _changed(asked, record)
    if problems is None:
        # Each training has a mark of all that it was asked for: those of other options are made anew all the same.
        told = f"{record} is damaged and is written anew; trainings that these options do not ask for are made anew"
        make_console(stderr=True, soft_wrap=True).print(told, markup=False)
    if problems:
        hint = "starts (with rates of their own), labels and seeds may be added; for the rest choose another out="
        hint += "" if asked["plan"] else ", or overwrite=true"
        problems.append(UserError(f"{record.parent} holds another comparison", where="out", hint=hint))
        raise UserError.several(problems)


def _changed(asked: Mapping[str, Any], record: Path) -> list[UserError] | None:
    """What makes it another comparison than the one in the folder; None where its record is damaged."""
    try:
        with looked_at(record):
            known = parse_yaml(record.read_text(encoding="utf-8"))
    except ValueError:
        known = None
    if not isinstance(known, dict):
        return None
    now = {**{key: as_plain(value) for key, value in asked.items()}, "data": _absolute(asked["data"])}
    # An earlier version had fewer options, and did what their defaults say now.
    before = {key: as_plain(field.get_default()) for key, field in CompareSettings.model_fields.items()} | known
    return [
        UserError(f"was {before[key]!r} when the comparison began, is {value!r} now", where=key)
        for key, value in now.items()
        if key not in _MAY_CHANGE and before[key] != value
    ] + _other_rates(asked, known, record.parent)


def _other_rates(asked: Mapping[str, Any], known: Mapping[str, Any], folder: Path) -> list[UserError]:
    """Starts that were trained at a rate and have another of their own now, or had one of their own."""
    before, now = known.get("start_lr"), asked["start_lr"]
    own = before if isinstance(before, dict) else {}
    problems, rates = [], _trained_at(folder)
    for start in parse_starts(asked["starts"], asked["model"])[0]:
        name, trained = start.name, rates.get(start.name, set())
        other = trained - {now[name]} if name in now else trained & {own.get(name)}
        for rate in sorted(other):
            told = f"has {now[name]:g} now" if name in now else "has none of its own now"
            what = f"{name} was trained at {rate:g}, and {told}"
            problems.append(UserError(what, where="start_lr", hint=_ANOTHER_NAME))
    return problems


def _trained_at(folder: Path) -> dict[str, set[float]]:
    """Learning rates of the trainings of each start that are finished."""
    found: dict[str, set[float]] = {}
    for record in folder.glob(f"{PARENTS['main']}/*/{RECORD}"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged ones are made anew
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["epochs"]:
                found.setdefault(known["start"], set()).add(float(known["lr"]))
    return found


def _absolute(data: str) -> str:
    found = find_dataset_yaml(data)
    return str(located(found)) if found and shipped(data) is None else data


def prepare(settings: CompareSettings, folder: Path) -> Prepared:
    """Read the data, refuse leaks, write the label lists, build the starts.

    Raises:
        UserError: What a user can put right; see the parts.
    """
    trainer = finetuner(settings.model)
    dataset = read_dataset(settings.data, settings.split, trainer, settings.model)
    starts, _ = parse_starts(settings.starts, settings.model)
    budgets = sorted(parse_budgets(settings.labels)[0], key=lambda budget: budget.images(len(dataset.pool)))
    check_budgets(budgets, len(dataset.pool))
    pretrainings = {start.name: found for start in starts if (found := pretraining_of(start))}
    recipes, named_by = _recipes(settings, dataset, starts, folder)
    _refuse_nothing_to_follow(settings, starts, pretrainings, recipes)
    _refuse_unlabelled_test(dataset)
    named = list(find_images(settings.unlabelled)) if settings.unlabelled else []
    leaks = look_for_leaks(dataset, starts, pretrainings, recipes, named, folder / "labels" / _LOOKS)
    sizes = [*_sizes(settings, pretrainings, recipes), *_alone(starts)]
    sizes += _background(dataset)
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *named_by, *sizes, *leaks.notes))
    lists, search = _write_lists(settings, dataset, budgets, folder / "labels")
    _refuse_shared_folders(settings, starts, budgets, recipes)
    there = _with_coco([start for start in starts if start.kind != "recipe"], settings, recipes)
    files = build_starts(there, settings.seeds, dataset, trainer.architecture(settings.model), folder / "starts")
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *_foreign(starts, files, settings.seeds[0])))
    return Prepared(settings, folder, dataset, starts, budgets, lists, search, files, pretrainings, recipes, leaks)


def _background(dataset: Dataset) -> list[str]:
    """That images count as background because they have no label file, which nobody may have meant."""
    without = [image for image in dataset.pool if not dataset.objects.get(image) and not label_path(image).is_file()]
    if not without:
        return []
    what = f"{len(without):,} of {len(dataset.pool):,} images of train have no label file, and are taken for background"
    return [f"{what}, such as {without[0]}; those that nobody has labelled belong into unlabelled="]


def _refuse_shared_folders(
    settings: CompareSettings, starts: Sequence[Start], budgets: Sequence[Budget], recipes: Mapping[str, RecipeStart]
) -> None:
    """Names of starts with which two runs, or a run and a start, would have one folder: each would get the other's."""
    of: dict[str, set[str]] = {}
    for start in starts:
        for seed in settings.seeds:
            for budget in budgets if start.kind == "recipe" and recipes[start.base].recipe.labelled else [None]:
                name = Node(start.base if start.kind == "recipe" else start.name, budget.name if budget else "", seed)
                of.setdefault(name.name, set()).add(name.start)
    if shared := sorted({" and ".join(sorted(names)) for names in of.values() if len(names) > 1}):
        what = f"{'; '.join(shared)} would have one folder with these labels"
        raise UserError(what, where="starts", hint="give one of them another name, which does not end in a number")


def _recipes(
    settings: CompareSettings, dataset: Dataset, starts: Sequence[Start], folder: Path
) -> tuple[dict[str, RecipeStart], list[str]]:
    """Every recipe, and the images that it learns from: its own, ``unlabelled=``, or the labelled pool; notes."""
    found, notes, problems = {}, list[str](), list[UserError]()
    pool = folder / "labels/pool.txt"
    for start in {one.base: one for one in starts if one.kind == "recipe"}.values():
        recipe = read_recipe(Path(start.path), problems)
        if recipe is None:
            continue
        data = recipe.options.get("data") or placed(settings.unlabelled, Path.cwd())
        if not data:
            write_text(pool, "".join(f"{image}\n" for image in dataset.pool))
            data = str(pool.resolve())
        try:
            images = find_images(data, every=recipe.every)
        except UserError as error:
            problems.append(UserError(error.what, where=f"starts: {start.name}", hint=error.hint))
            continue
        recipe, why = with_namer(recipe, images.channels, namers(folder, start.base))
        notes += [f"{start.base}: {why}"] if why else []
        found[start.base] = RecipeStart(recipe, data, len(images), images.fingerprint())
    if problems:
        raise UserError.several(problems)
    return found, notes


def _sizes(
    settings: CompareSettings, pretrainings: Mapping[str, PretrainingFacts], recipes: Mapping[str, RecipeStart]
) -> list[str]:
    """Which detectors of the user's classes learnt, or will, from images of another size than the comparison's."""
    learnt = {name: known.imgsz for name, known in pretrainings.items() if "labels" in known.carriers}
    learnt |= {name: one.recipe.options.get("imgsz") for name, one in recipes.items() if one.recipe.labelled}
    return [words for name, size in learnt.items() if size and (words := other_size(name, int(size), settings.imgsz))]


def _refuse_nothing_to_follow(
    settings: CompareSettings,
    starts: Sequence[Start],
    pretrainings: Mapping[str, PretrainingFacts],
    recipes: Mapping[str, RecipeStart],
) -> None:
    """A start that is fine-tuned for longer needs one that tells the steps of its pretraining."""
    asked = next((start.name for start in starts if start.longer), None)
    if asked and not recipes and most({name: [one] for name, one in pretrainings.items()}, settings.batch) is None:
        what = f"no start tells how many steps its pretraining took, so it is not known how long {asked} would be"
        hint = "give the run folder of the pretraining, or a recipe in its place"
        raise UserError(what, where="starts", hint=hint)


def _with_coco(starts: list[Start], settings: CompareSettings, recipes: Mapping[str, RecipeStart]) -> list[Start]:
    """The starts, and COCO's where recipes begin with weights that are still to be downloaded: once, before them."""
    coco = coco_weights(settings.starts, settings.model)
    wanted = any("model" not in one.recipe.options and "init" not in one.recipe.options for one in recipes.values())
    there = Path(coco).is_file() or any(start.path == coco for start in starts)
    return starts if there or not wanted else [*starts, Start("coco", "coco", coco)]


def _alone(starts: Sequence[Start]) -> list[str]:
    """That a start which is alone, as a baseline that others are added to later, is compared with nothing."""
    told = "is the only start: it is trained and measured, and compared with nothing; the same command with more starts"
    return [f"{starts[0].name} {told} keeps its trainings"] if len(starts) == 1 else []


def _foreign(starts: Sequence[Start], files: Mapping[tuple[str, int], StartFile], seed: int) -> list[str]:
    """What is to be said of weights that were given as COCO's and are not."""
    found = {start: called_coco(start, files.get((start.name, seed))) for start in starts}
    return [f"{start.name} {not_coco(start.path, why)}; {NAME_IT}" for start, why in found.items() if why]


def _refuse_unlabelled_test(dataset: Dataset) -> None:
    if not any(has_objects(image, dataset.keypoints) for image in dataset.test):
        hint = f"{expected(dataset.test[0])}; split=val or split=test names the part"
        what = f"{dataset.split} has no labelled objects: nothing can be measured on it"
        raise UserError(what, where=str(dataset.yaml), hint=hint)


def _write_lists(
    settings: CompareSettings, dataset: Dataset, budgets: Sequence[Budget], folder: Path
) -> tuple[dict[tuple[str, int], LabelList], dict[str, LabelList]]:
    classes = dataset.classes
    test = folder / "test.txt"
    write_text(test, "".join(f"{image}\n" for image in dataset.test))
    every = [*dataset.pool, *dataset.test]
    known = label_lists.label_marks(every), label_lists.image_sizes(every)  # once: there may be very many
    lists, search, problems = dict[tuple[str, int], LabelList](), dict[str, LabelList](), list[UserError]()
    for seed in settings.seeds:
        order = label_lists.stratified_order(classes, seed)
        for budget in budgets:
            images = order[: budget.images(len(order))]
            name = f"{budget.key}-seed{seed}"
            one = lists[budget.name, seed] = label_lists.write_list(folder, name, dataset, images, test, *known)
            if not one.counts.train.labelled:
                problems.append(_nothing_to_learn(budget, seed, one))
            if seed == settings.seeds[0] and len(settings.lr) > 1:
                held = label_lists.held_out_part(images, classes, settings.lr_val, seed)
                part = folder / f"{name}-validation.txt"
                write_text(part, "".join(f"{image}\n" for image in sorted(held)))
                rest = sorted(set(images) - set(held))
                tried = label_lists.write_list(folder, f"{name}-search", dataset, rest, part, *known)
                search[budget.name] = tried
                counts = tried.counts
                if one.counts.train.labelled and not (counts.train.labelled and counts.test.labelled):
                    problems.append(_nothing_to_choose_by(budget, tried))
    if problems:
        raise UserError.several(problems)
    return lists, search


def _nothing_to_learn(budget: Budget, seed: int, one: LabelList) -> UserError:
    what = f"the {one.images:,} labelled images that seed {seed} draws for {budget.name} show no object"
    return UserError(what, where="labels", hint="give more of them, or take this seed out")


def _nothing_to_choose_by(budget: Budget, one: LabelList) -> UserError:
    what = f"of {budget.name} the {one.test_images:,} images that rates are judged on, or the others, show no object"
    return UserError(what, where="lr", hint="give one rate, e.g. lr=0.001, a larger lr_val=, or more labels")
