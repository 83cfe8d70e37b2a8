"""What the user gave, as complete settings: every problem of it together.

Three steps, in this order: `collect` puts files, old names and words together, `build` makes one group of options of
the values, and whoever asked raises what was found wrong.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from headstart.errors import UserError, did_you_mean
from headstart.paths import expanded, homes
from headstart.plugins import is_python_file
from headstart.reading import parse_yaml
from headstart.settings.loggers import names
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import RENAMED, Options, PretrainSettings
from headstart.settings.words import none_meant
from headstart.trust import trusted

Kind = TypeVar("Kind", bound=Options)
Check = Callable[[Mapping[str, Any]], list[UserError]]


class Resolved(NamedTuple):
    """The settings of one pretraining, valid and complete."""

    run: PretrainSettings
    method: MethodSettings


def collect(
    options: Mapping[str, Any], problems: list[UserError], known: Container[str] | None = None
) -> dict[str, Any]:
    """The options that were given: those of the file ``cfg``, overridden by the others; old names are the new ones.

    Of a command that has few options the old names of others, which are not `known`, stay. Where a file cannot be read,
    or an option is given under both names, `problems` gets one more.
    """
    given = read_cfg(options.get("cfg"), problems)
    given |= {key: value for key, value in options.items() if key != "cfg"}
    given = {key: homes(value) for key, value in given.items()}
    for name, value in given.items():
        if isinstance(value, str) and not _nameable(value):
            raise UserError(f"holds what no name or path may: {value!r}", where=name)
    if isinstance(given.get("out"), Path):
        given["out"] = str(given["out"])
    for old, new in RENAMED.items():
        if known is not None and new not in known:
            continue
        if old in given and new in given:
            problems.append(UserError(f"is the old name of {new}: give one of the two", where=old))
        elif old in given:
            print(f"{old}= is called {new}= now", file=sys.stderr)
            given[new] = given.pop(old)
    return given


def _nameable(text: str) -> bool:
    """Whether a system takes it as a name: no NUL, and no half of a character, as YAML and JSON may hold them."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def read_cfg(path: object, problems: list[UserError]) -> dict[str, Any]:
    """The options in a ``cfg`` file; where it cannot be read none, and `problems` gets one more.

    A run's own ``settings.yaml`` is one: what was asked of that run.
    """
    if path is None:
        return {}
    try:
        content = parse_yaml(expanded(str(path)).read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise ValueError("it must hold 'key: value' lines")
    except (OSError, ValueError) as error:
        problems.append(UserError(f"cannot read {str(path)!r}: {error}", where="cfg"))
        return {}
    if isinstance(content.get("asked"), dict):
        left = ("out", "resume", "overwrite", "trust")
        content = {key: value for key, value in content["asked"].items() if key not in left}
    refused = untrusted(content, str(path))
    problems += refused.values()
    # Left out at once: what looks for more problems imports a method to do so.
    return {str(key): value for key, value in content.items() if key not in refused}


def untrusted(content: Mapping[str, Any], file: str) -> dict[str, UserError]:
    """What a file asks for that it may not, by option: trust for itself, and Python files to run that nobody typed."""
    problems = {}
    if "trust" in content:
        problems["trust"] = UserError("cannot be set in a file, which would trust itself", where=f"{file}: trust")
    for key in ("method", "teacher", "loggers") if not trusted() else ():
        value = content.get(key)
        for name in names(value) if key == "loggers" else value if isinstance(value, list) else [value]:
            if isinstance(name, str) and any(is_python_file(part.strip(" []")) for part in name.split(",")):
                hint = f"give {key}= yourself; or, if you know who made both files, trust=true"
                problems[key] = UserError(f"names a Python file, which would run: {name}", where=file, hint=hint)
    return problems


def resolve_pretrain(
    given: Mapping[str, Any],
    settings: type[MethodSettings],
    presets: Mapping[str, Mapping[str, Any]],
    *,
    method: str,
    problems: list[UserError],
    trained: bool = False,
    check: Check = lambda given: [],
) -> Resolved:
    """Complete settings of a pretraining with a method.

    Args:
        given: From `collect`.
        settings: The method's options.
        presets: The method's.
        method: Its name, for messages.
        problems: What was found wrong before.
        trained: Whether the detector starts from trained weights: the learning rate is then lower, unless given.
        check: Looks at all values, whatever else is wrong with them, and returns more problems.

    Raises:
        UserError: Every problem together: unknown names with a suggestion, wrong types, values out of range.
    """
    problems = list(problems)
    general, own = set(PretrainSettings.model_fields), set(settings.model_fields)
    problems += unknown(given, [*general, *own], "pretrain")
    name, preset = _preset_of(given, presets, method, problems)
    merged = {**preset, **given, "preset": name}
    run = build(PretrainSettings, {k: v for k, v in merged.items() if k in general}, problems)
    built = build(settings, {k: v for k, v in merged.items() if k in own}, problems)
    problems += conflicts(given)
    fields = {**PretrainSettings.model_fields, **settings.model_fields}
    problems += check({**{k: f.default for k, f in fields.items() if not f.is_required()}, **merged})
    if problems or run is None or built is None:
        raise UserError.several(problems)
    return Resolved(run, _with_rate(run, built, lower=trained and "lr" not in given))


def resolve_options(
    kind: type[Kind], options: Mapping[str, Any], command: str, check: Check = lambda given: []
) -> Kind:
    """The options of a command that has one group of them.

    Raises:
        UserError: Every problem together.
    """
    problems: list[UserError] = []
    known = kind.model_fields
    given = none_meant(known, collect(options, problems, known))
    problems += unknown(given, list(known), command)
    built = build(kind, {key: value for key, value in given.items() if key in known}, problems)
    defaults = {key: field.get_default(call_default_factory=True) for key, field in known.items()}
    problems += check({**{k: v for k, v in defaults.items() if not known[k].is_required()}, **given})
    if problems or built is None:
        raise UserError.several(problems)
    return built


def unknown(given: Iterable[str], known: Iterable[str], command: str) -> list[UserError]:
    """A complaint for every unknown option, with a suggestion."""
    names = [*known, "cfg"]
    return [
        UserError(
            f"there is no option {key!r}",
            hint=did_you_mean(key, names) or f"see headstart {command} --help for all options",
        )
        for key in given
        if key not in names
    ]


def conflicts(given: Mapping[str, Any]) -> list[UserError]:
    """Options that cannot be given together, and a time budget that is none."""
    problems = []
    lengths = [name for name in ("epochs", "steps", "budget") if given.get(name) is not None]
    if len(lengths) > 1:
        many = "the two, not both" if len(lengths) == 2 else "the three"
        problems.append(UserError(f"give one of {many}", where=", ".join(lengths)))
    budget = given.get("budget")
    if budget is not None and budget_seconds(str(budget)) is None:
        hint = "give a number with s, m or h, such as 30m or 1h30m"
        problems.append(UserError(f"{str(budget)!r} is not a duration", where="budget", hint=hint))
    return problems


def budget_seconds(budget: str) -> float | None:
    """Seconds of ``45s``, ``30m``, ``1.5h`` or ``1h30m``; None for anything else, 0 among it."""
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", budget.strip().lower())
    if found is None or not any(found.groups()):
        return None
    try:
        seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
    except ValueError:  # 1.2.3m
        return None
    return seconds or None


def _preset_of(
    given: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]], method: str, problems: list[UserError]
) -> tuple[str | None, Mapping[str, Any]]:
    """Name and options of the preset that is used: the one given, else the method's first."""
    name = given.get("preset")
    if name is None:
        return next(iter(presets.items()), (None, {}))
    if str(name) in presets:
        return str(name), presets[str(name)]
    hint = did_you_mean(str(name), presets) or f"presets of {method}: {', '.join(presets) or 'none'}"
    problems.append(UserError(f"method {method!r} has no preset {str(name)!r}", where="preset", hint=hint))
    return None, {}


def _with_rate(run: PretrainSettings, method: MethodSettings, *, lower: bool) -> MethodSettings:
    """The learning rate as it will be used: for the real batch, and lower on trained weights."""
    rate = method.lr * (run.batch_size / method.lr_for if method.lr_for else 1)
    return method.model_copy(update={"lr": rate * method.init_rate if lower else rate, "lr_for": None})


def build(kind: type[Kind], values: Mapping[str, Any], problems: list[UserError]) -> Kind | None:
    """A group of options; None, and a problem for every field that is wrong, where there is one."""
    try:
        return kind(**values)
    except ValidationError as error:
        # A union reports each of its branches; one line a field is what a user can act on.
        by_field: dict[str, list[str]] = {}
        for item in error.errors():
            by_field.setdefault(str(item["loc"][0]), []).append(_in_words(item))
        for field, words in by_field.items():
            value = "" if field not in values else f", not {values[field]!r}"
            hint = kind.model_fields[field].description
            problems.append(UserError(f"{' or '.join(dict.fromkeys(words))}{value}", where=field, hint=hint))
        return None


_WORDS = {
    "missing": "is needed",
    "finite_number": "must be a number that is not infinite",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_type": "must be a string",
    "list_type": "a list",
    "dict_type": "a map",
    "tuple_type": "must be a pair such as [0.4, 1.0]",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "too_short": "must have {min_length} values",
    "too_long": "must have {max_length} values",
}


def _in_words(item: Any) -> str:
    kind = str(item["type"])
    for part, words in {
        "int_": "must be a whole number",
        "float_": "must be a number",
        "bool_": "must be true or false",
    }.items():
        if kind.startswith(part):
            return words
    if kind == "missing" and len(item["loc"]) > 1:
        return "has too few values"
    return _WORDS[kind].format(**item.get("ctx", {})) if kind in _WORDS else str(item["msg"])


def as_plain(value: Any) -> Any:
    """A value of an option as ``settings.yaml`` can hold it; an object in memory as `in_memory` tells it again."""
    if isinstance(value, (tuple, list)):
        return [as_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):  # what derives from them, such as NumPy's float64, YAML knows no more than others
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Path):
        return str(value)
    origin = getattr(value, "ckpt_path", None) or getattr(value, "cfg", None)
    return {"in_memory": type(value).__name__, "origin": None if origin is None else str(origin)}


def in_memory(value: Any) -> bool:
    """Whether a stored value stands for an object that a file cannot hold."""
    return isinstance(value, dict) and "in_memory" in value


def readable(value: Any) -> Any:
    """A stored value as a person reads it: of an object in memory the file that it was made from, or its class."""
    return str(value.get("origin") or value["in_memory"]) if in_memory(value) else value
