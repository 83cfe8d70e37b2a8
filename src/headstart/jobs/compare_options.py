"""The options of a comparison, each declared once, and the starts and label budgets that they name.

Nothing here imports torch, so that ``--help`` and a misspelt key are answered at once.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.comparison.budgets import parse_budgets
from headstart.comparison.launcher import launcher_problems
from headstart.comparison.starts import Start, parse_starts
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import Finetuner
from headstart.errors import UserError, did_you_mean
from headstart.run.loggers import check_loggers
from headstart.settings.loggers import listed
from headstart.settings.resolve import read_cfg, resolve_options
from headstart.settings.schema import CompareSettings, seeds, split, strings
from headstart.settings.words import guessed, none_meant

_PLAIN = re.compile(r"[\w.%/+=:-]+")
"""What can stand in a list without quotation marks."""


def command(settings: CompareSettings, folder: Path) -> str:
    """What to type to go on with a comparison: all that it was asked for, but not to replace what is there.

    Args:
        settings: Of the comparison.
        folder: Where it is.
    """
    words = ["headstart", "compare"]
    for name, field in CompareSettings.model_fields.items():
        value = getattr(settings, name)
        if name not in ("out", "overwrite") and value != field.default:
            words.append(f"{name}={_word(value)}")
    return shlex.join([*words, f"out={folder}"])


def _word(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1 and all(_PLAIN.fullmatch(str(one)) for one in value):
        return ",".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict, bool)) else str(value)


def resolve(options: Mapping[str, Any]) -> CompareSettings:
    """Complete and valid settings.

    Arguments of the family's training that are no options of ours (``close_mosaic=0``) go into ``extra``, from the file
    ``cfg`` as from the options; these override the file's.

    Raises:
        UserError: Every problem together.
    """
    unread: list[UserError] = []
    said = read_cfg(options.get("cfg"), unread), {key: value for key, value in options.items() if key != "cfg"}
    parts = [none_meant(CompareSettings.model_fields, part) for part in said]
    given = {**parts[0], **parts[1]}
    known = set(CompareSettings.model_fields)
    theirs = (_further(given) if set(given) - known else set()) - known
    ours = {key: value for key, value in given.items() if key not in theirs}
    extras = [part["extra"] for part in parts if part.get("extra") is not None]
    if all(isinstance(one, Mapping) for one in extras):  # what is none is refused with all else
        further = [{**(part.get("extra") or {}), **{key: part[key] for key in part if key in theirs}} for part in parts]
        ours["extra"] = _as_typed({**further[0], **further[1]})
    # Names of starts that are numbers: YAML and Python give them as such.
    if isinstance(ours.get("reference"), (int, float)):
        ours["reference"] = str(ours["reference"])
    if isinstance(ours.get("start_lr"), Mapping):
        ours["start_lr"] = {str(name): rate for name, rate in ours["start_lr"].items()}
    if unread:  # said with all else that is wrong
        ours["cfg"] = options["cfg"]
    return resolve_options(CompareSettings, ours, "compare", _check)


def _as_typed(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Words in a file mean what they mean on the line: YAML takes ``5e-4`` for a string."""
    return {key: guessed(value) if isinstance(value, str) else value for key, value in extra.items()}


def _check(given: Mapping[str, Any]) -> list[UserError]:
    """Problems that the types do not show; nothing is read or built."""
    from headstart.images.dataset_yaml import find_dataset_yaml  # imported here: nothing of it is needed for the help

    problems: list[UserError] = []
    model, trainer = str(given["model"]), None
    try:
        trainer = finetuner(model)
        problems += _check_family(given, model, trainer)
    except UserError as error:
        problems.append(error)
    loggers = listed(given.get("loggers"))
    problems += check_loggers(loggers) if isinstance(loggers, list) else []
    problems += parse_budgets(_words(strings(given["labels"])))[1]
    problems += [*_check_lists(given), *launcher_problems(given)]
    if given.get("epochs") is not None and given.get("steps") is not None:
        problems.append(UserError("give one of the two, not both", where="epochs, steps"))
    data = given.get("data")
    if isinstance(data, str) and Path(data).suffix not in (".yaml", ".yml"):
        problems.append(UserError(f"{data} is not a dataset YAML", where="data", hint="name a .yaml file"))
    elif isinstance(data, str) and find_dataset_yaml(data) is None:
        problems.append(UserError(f"{data} does not exist", where="data"))
    return problems


def _check_family(given: Mapping[str, Any], model: str, trainer: Finetuner) -> list[UserError]:
    """What the family of the model has to say."""
    starts, wrong = parse_starts(_words(strings(given["starts"])), model)
    problems = [*trainer.check_model(model), *wrong]
    names = {start.name for start in starts}
    tuned = {start.name for start in starts if not start.as_is}
    if isinstance(given["start_lr"], Mapping) and (strange := [n for n in given["start_lr"] if n not in tuned]):
        what = f"{' and '.join(map(str, strange))} is no start that is fine-tuned"
        problems.append(UserError(what, where="start_lr", hint=f"the starts are {', '.join(sorted(tuned))}"))
    if starts and given.get("reference") not in (None, *names):
        what = f"{given['reference']!r} is no start"
        hint = did_you_mean(str(given["reference"]), names) or f"the starts are {', '.join(sorted(names))}"
        problems.append(UserError(what, where="reference", hint=hint))
    if any(start.kind == "recipe" for start in starts):
        from headstart.jobs.recipes import check_recipes  # finds out what is wrong as pretraining does: imports torch

        problems += check_recipes(starts, given)
    problems += _check_longer(given, starts)
    problems += trainer.optimizer_problems(str(given["optimizer"]))
    extra = given["extra"]
    return problems + (trainer.extra_problems({str(k): v for k, v in extra.items()}) if isinstance(extra, dict) else [])


def _check_longer(given: Mapping[str, Any], starts: Sequence[Start]) -> list[UserError]:
    """``longer=true`` where there would be no such training: it would be left out without a word."""
    kinds = {start.kind for start in starts}
    if str(given["longer"]).lower() != "true" or not kinds:
        return []
    if "scratch-longer" in kinds:
        what = "scratch-longer is that training already, at every budget and seed"
        return [UserError(what, where="longer", hint="leave longer out")]
    what = "no start is scratch, of which it is a longer training"
    return [] if "scratch" in kinds else [UserError(what, where="longer", hint="add scratch to the starts")]


def _further(given: Mapping[str, Any]) -> set[str]:
    """The further arguments of the family that the options name; none where it is not known."""
    try:
        return set(finetuner(str(given.get("model", CompareSettings.model_fields["model"].default))).arguments())
    except UserError:
        return set()


def _check_lists(given: Mapping[str, Any]) -> list[UserError]:
    """Lists that may be neither empty nor hold anything twice."""
    problems = []
    values = {"starts": strings(given["starts"]), "labels": strings(given["labels"])}
    values |= {"seeds": seeds(given["seeds"]), "lr": split(given["lr"])}
    for name, found in values.items():
        if isinstance(found, list) and not found:
            problems.append(UserError("names nothing", where=name))
        elif name in ("seeds", "lr") and len({_as_number(one) for one in _list(found)}) < len(_list(found)):
            problems.append(UserError("holds a value twice", where=name))
    return problems


def _as_number(value: Any) -> str:
    """What a number is written as, alike for 0.001 and 1e-3; rates, of which folders are named, with six digits."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)  # the settings complain of it
    return str(int(number)) if number.is_integer() else f"{number:g}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _words(value: Any) -> list[str]:
    """The strings among the items; the settings complain of the others."""
    return [one for one in _list(value) if isinstance(one, str)]
