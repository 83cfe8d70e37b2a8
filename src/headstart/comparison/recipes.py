"""Recipes: starts that a comparison makes itself, from a YAML file of pretraining options."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.detectors.find import check_init, finetuner
from headstart.errors import UserError
from headstart.files import content_hash
from headstart.images.frames import EVERY
from headstart.methods import find
from headstart.paths import expanded, located
from headstart.plugins import is_python_file
from headstart.reading import parse_yaml
from headstart.settings.loggers import listed, renamed
from headstart.settings.resolve import in_memory, read_cfg, untrusted
from headstart.settings.schema import RENAMED
from headstart.settings.words import none_meant

SUFFIXES = (".yaml", ".yml")
_FILLED = {
    "out": "a comparison keeps the runs of its recipes in its own folder",
    "seed": "each run of a recipe gets the seed of its cells",
    "labels": "each run of a recipe gets the labels of its cells, and no other",
    "resume": "a comparison goes on with the runs of its recipes by itself",
    "overwrite": "a comparison makes the run of a recipe anew where the recipe has changed",
    "cfg": "a recipe is one file",
    "export_labels": "the runs of a recipe would write over each other's",
}
"""Options that a recipe may not set, and why."""
_OF_ITS_RUN = ("seed", "labels", "export_labels", "device", "workers", "cache_dir")
"""What a run's own ``settings.yaml`` says of that run, and not of the recipe."""
_PATHS = ("data", "model", "init", "method", "proposals", "teacher", "teacher_weights", "cache_dir")
_FILES = ("model", "init", "method", "proposals", "teacher", "teacher_weights")
"""Options that may name a file whose content changes what is learnt."""
INDIFFERENT = ("workers", "log_every", "save_every", "probe_every", "report", "cache", "cache_dir", "loggers")
"""Options that change nothing of what is learnt: a run is kept where they have changed."""
CARRIERS = ("init", "teacher", "proposals")
"""Options that bring in what somebody learnt from labels elsewhere."""


@dataclass(frozen=True)
class Recipe:
    """A file of pretraining options.

    Attributes:
        file: The YAML.
        options: What it says; paths that exist are absolute.
        labelled: Whether its method has an option ``labels``: it is then made anew for each list of labels.
    """

    file: Path
    options: Mapping[str, Any]
    labelled: bool

    @property
    def method(self) -> str:
        """The method as the recipe names it; "" where pretraining chooses it."""
        named = str(self.options.get("method") or "default")
        return "" if named in ("default", "auto") else named

    @property
    def every(self) -> float:
        """Seconds between two frames that it takes of videos."""
        try:
            return max(0.0, float(self.options.get("every", EVERY)))
        except (TypeError, ValueError):  # which is told where its options are checked
            return EVERY

    def filled(self, model: str, *, data: Any, coco: str, labels: str | None, seed: int, imgsz: int) -> dict[str, Any]:
        """The options of one of its runs, but for ``out`` and the device.

        Args:
            model: Of the comparison.
            data: Images to learn from, where the recipe names none.
            coco: The comparison's COCO weights, for a recipe that names neither ``model`` nor ``init``.
            labels: A dataset YAML whose ``train`` is the labelled images; None for a method without labels.
            seed: Of its cells.
            imgsz: Of the comparison, for a recipe with labels that names none: it makes a detector for such images.
        """
        found = {"data": data, **self.options, "seed": seed}
        if self.labelled:
            found.setdefault("imgsz", imgsz)
        if "model" not in found:
            found["model"] = finetuner(model).architecture(model)
            found.setdefault("init", coco)
        return found if labels is None else {**found, "labels": labels}


class RecipeStart(NamedTuple):
    """A start that a recipe makes: the recipe, the images that it learns from, how many, and a mark of their list."""

    recipe: Recipe
    data: Any
    images: int
    fingerprint: str


def file_marks(options: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Of the options that may name a file whose content changes what is learnt: its own name, and a mark of it.

    A name that is no file has no mark: of a model or a method that is shipped, or of weights that are still to be
    downloaded.
    """
    named = {key: value for key in _FILES if isinstance(value := options.get(key), str)}
    return {
        key: (Path(value).name if Path(value).is_file() else value, content_hash(value, ours=True))
        for key, value in named.items()
    }


def read_recipe(file: Path, problems: list[UserError]) -> Recipe | None:
    """The recipe in a YAML file; None, and `problems` gets more, where it cannot be one.

    A run's own ``settings.yaml`` is a recipe: what was asked of that run, but for what was that run's alone.
    """
    found: list[UserError] = []
    options = read_cfg(file, found)
    if not found and (used := _used(file)) is not None:
        options = {key: value for key, value in options.items() if key not in _OF_ITS_RUN}
        options = {key: value for key, value in options.items() if value is not None or key not in _FILLED}
        # Labels may have chosen the method, and are not among the options any more.
        chosen = {"method": used["method"]} if used.get("labels") and "method" in used else {}
        if used.get("labels") and "imgsz" in used and "imgsz" not in options:  # by the machine that it was made on
            options["imgsz"] = used["imgsz"]
        found += (refused := untrusted(chosen, str(file))).values()
        options |= {} if refused else chosen
        found += [_lost(key) for key, value in options.items() if in_memory(value)]
    found += [
        UserError(f"cannot be set in a recipe: {_FILLED[key]}", where=key, hint="leave it out")
        for key in options
        if key in _FILLED
    ]
    options = none_meant(find.all_options(placed(options.get("method"), file.parent, folders=False)), options)
    options = {
        key: placed(value, file.parent, folders=key not in _FILES) if key in _PATHS else value
        for key, value in options.items()
    }
    if isinstance(loggers := listed(options.get("loggers")), list):
        options["loggers"] = [renamed(one, lambda name: _beside(name, file.parent)) for one in loggers]
    options = {RENAMED.get(key, key): value for key, value in options.items()}
    recipe = Recipe(file, options, labelled=False)
    try:
        if recipe.method:
            recipe = Recipe(file, options, labelled="labels" in find.options_of(recipe.method))
    except UserError as error:
        found.append(error)
    problems += found
    return None if found else recipe


def with_namer(recipe: Recipe, channels: int, before: Sequence[str | None] = ()) -> tuple[Recipe, str]:
    """The recipe with the network that names what it finds where it leaves that open, and why it is that one.

    It is said once for all of its runs: one of them may reach the network's weights when another does not.

    Args:
        recipe: As it was read.
        channels: Of the images that it learns from.
        before: What its runs have that are there already, which are gone on with as they began; empty for none.

    Raises:
        UserError: It gives weights that cannot be loaded.
    """
    if not recipe.labelled:
        return recipe, ""
    from headstart.methods.namer import AUTO, at_hand, left_open  # with torch, without which options are read

    method = find.find(recipe.method).method
    options = {"teacher": AUTO if method.namer else None, **recipe.options}
    if not left_open(options, method):
        return recipe, ""
    if len(kept := {*before} & {None, method.namer}) == 1:
        (name,) = kept
        why = "" if name else f"as in its runs that are there, {method.without_teacher}"
    else:
        name, why = at_hand(method, options, channels)
    return dataclasses.replace(recipe, options={**options, "teacher": name}), why


def coco_problem(recipe: Recipe, model: str, coco: str) -> UserError | None:
    """What keeps a recipe that names no weights from starting from the comparison's COCO weights; None: nothing."""
    if "model" in recipe.options or "init" in recipe.options or not check_init(model, coco):
        return None
    hint = "give them as coco=path among the starts, or name init= or model= in the recipe"
    return UserError("the COCO weights of this model are no file that pretraining could start from", hint=hint)


def coco_weights(words: Sequence[str], model: str) -> str:
    """The comparison's COCO weights: the file of ``coco=path`` among the starts, else the published ones."""
    given = next((word.partition("=")[2] for word in words if word.startswith("coco=")), "")
    named = given or finetuner(model).published(model)
    return str(located(named)) if Path(named).is_file() else named


def _lost(key: str) -> UserError:
    return UserError("was an object in memory, which a file cannot hold", where=key, hint="name a file in its place")


def _used(file: Path) -> dict[str, Any] | None:
    """The options that were used, of a run's own ``settings.yaml``; None for any other file."""
    content = parse_yaml(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("asked"), dict):
        return None
    used = content.get("options")
    return used if isinstance(used, dict) else {}


def _beside(name: Any, folder: Path) -> Any:
    return placed(name, folder) if is_python_file(name) else name


def placed(value: Any, folder: Path, *, folders: bool = True) -> Any:
    """A path as a recipe in `folder` means it: from there, else from the current one; what is none stays as it is.

    Without `folders` only files are meant: what is called as a method or a model is may be the folder of a run.
    """
    if isinstance(value, list):
        return [placed(one, folder, folders=folders) for one in value]
    if not isinstance(value, str) or not value.strip() or "://" in value:
        return value
    path = expanded(value)
    for place in (folder / path, path):
        pattern = folders and glob.has_magic(value)
        if place.is_file() or (folders and place.exists()) or (pattern and glob.glob(str(place))):  # noqa: PTH207 - patterns may be absolute
            return str(place.absolute())
    return value
