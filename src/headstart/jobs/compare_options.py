"""The options of a comparison, each declared once, and the starts and label budgets that they name.

Nothing here imports torch, so that ``--help`` and a misspelt key are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.comparison.budgets import parse_budgets
from headstart.comparison.finetune import OWN, extra_problems, optimizer_problems, ultralytics_arguments
from headstart.comparison.starts import model_yaml, parse_starts
from headstart.errors import UserError
from headstart.settings.resolve import resolve_options
from headstart.settings.schema import CompareSettings, _seeds, _texts, split


def resolve(options: Mapping[str, Any]) -> CompareSettings:
    """Complete and valid settings.

    Arguments of Ultralytics' ``train`` that are no options of ours (``close_mosaic=0``) go into ``extra``.

    Raises:
        UserError: Every problem together.
    """
    known = {*CompareSettings.model_fields, "cfg"}
    theirs = set(ultralytics_arguments()) - set(OWN) if set(options) - known else set()
    ours = {key: value for key, value in options.items() if key in known or key not in theirs}
    others = {key: value for key, value in options.items() if key not in ours}
    if others:
        ours["extra"] = {**dict(options.get("extra") or {}), **others}
    return resolve_options(CompareSettings, ours, "compare", _check)


def _check(given: Mapping[str, Any]) -> list[UserError]:
    """Problems that the types do not show; nothing is read or built."""
    # Imported here: they import torch.
    from headstart.detectors.ultralytics.model_files import check_name, is_yaml
    from headstart.images.dataset_yaml import find_dataset_yaml

    problems: list[UserError] = []
    model = str(given["model"])
    if not (is_yaml(model_yaml(model)) and check_name(model_yaml(model)) is None):
        problem = check_name(model_yaml(model)) or UserError(f"{model} is no model YAML", where="model")
        problems.append(UserError(problem.what, where="model", hint=problem.hint))
    problems += parse_starts(_list(_texts(given["starts"])), model)[1]
    problems += parse_budgets(_list(_texts(given["labels"])))[1]
    problems += [*_check_lists(given), *optimizer_problems(str(given["optimizer"]))]
    problems += extra_problems(given["extra"]) if isinstance(given["extra"], dict) else []
    if given.get("epochs") is not None and given.get("steps") is not None:
        problems.append(UserError("give one of the two, not both", where="epochs, steps"))
    data = given.get("data")
    if isinstance(data, str) and Path(data).suffix not in (".yaml", ".yml"):
        problems.append(UserError(f"{data} is no dataset YAML", where="data", hint="name a .yaml file"))
    elif isinstance(data, str) and find_dataset_yaml(data) is None:
        problems.append(UserError(f"{data} does not exist", where="data"))
    return problems


def _check_lists(given: Mapping[str, Any]) -> list[UserError]:
    """Lists that may be neither empty nor hold anything twice."""
    problems = []
    values = {"starts": _texts(given["starts"]), "labels": _texts(given["labels"])}
    values |= {"seeds": _seeds(given["seeds"]), "lr": split(given["lr"])}
    for name, found in values.items():
        if isinstance(found, list) and not found:
            problems.append(UserError("names nothing", where=name))
        elif name in ("seeds", "lr") and len({str(one) for one in _list(found)}) < len(_list(found)):
            problems.append(UserError("holds a value twice", where=name))
    return problems


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
