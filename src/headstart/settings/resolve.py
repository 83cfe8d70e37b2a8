"""What the user gave, as complete settings: every problem of it together."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import ValidationError

from headstart.errors import UserError, did_you_mean
from headstart.settings.schema import MethodSettings, Options, PretrainSettings

METHODS_FOLDER = Path(__file__).parent.parent / "methods"
_NO_METHODS = {"__init__", "base", "schedules", "anchor", "find"}


class MethodInfo(NamedTuple):
    """What a method's file says of itself, read without importing torch."""

    name: str
    path: Path
    summary: str
    settings: type[MethodSettings]
    presets: dict[str, dict[str, Any]]


class Resolved(NamedTuple):
    """The settings of one pretraining, valid and complete."""

    run: PretrainSettings
    method: MethodSettings
    info: MethodInfo


def method_names() -> list[str]:
    """Names of the methods that come with headstart: the files of its folder."""
    return sorted(path.stem for path in METHODS_FOLDER.glob("*.py") if path.stem not in _NO_METHODS)


def read_method(name: str) -> MethodInfo:
    """Read the options of a method from its file: ``class Settings``, ``PRESETS`` and the first docstring line.

    Only these and the light imports they need are run, because importing the file itself would import torch.

    Raises:
        UserError: No such method, or the file has no ``Settings``.
    """
    path = Path(name) if name.endswith(".py") else METHODS_FOLDER / f"{name}.py"
    if not path.is_file() or (path.parent == METHODS_FOLDER and path.stem in _NO_METHODS):
        hint = did_you_mean(name, method_names()) or f"methods: {', '.join(method_names())}, or the path of a .py file"
        raise UserError(f"there is no method {name!r}", where="method", hint=hint)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in tree.body if _declares_options(node)]
        space: dict[str, Any] = {"__name__": f"headstart_method_options.{path.stem}"}
        exec(compile(ast.Module(body=nodes, type_ignores=[]), str(path), "exec"), space)
        settings: type[MethodSettings] = space["Settings"]
        settings.model_rebuild(_types_namespace=space)
    except KeyError:
        raise UserError("has no class Settings(MethodSettings)", where=str(path)) from None
    except Exception as error:
        raise UserError(f"its options cannot be read: {error}", where=str(path)) from error
    summary = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
    return MethodInfo(path.stem, path, summary, settings, space.get("PRESETS", {}))


def _declares_options(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module in {"__future__", "typing", "pydantic", "headstart.settings", "headstart.settings.schema"}
    if isinstance(node, ast.ClassDef):
        return node.name == "Settings"
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    return isinstance(target, ast.Name) and target.id == "PRESETS"


def resolve(
    options: Mapping[str, Any], check: Callable[[Mapping[str, Any]], list[UserError]] = lambda given: []
) -> Resolved:
    """Turn what the user gave into complete settings.

    Args:
        options: Option name to value; ``cfg`` may name a YAML file with more of them, which the others override.
        check: Looks at the values given, whatever else is wrong with them, and returns more problems.

    Raises:
        UserError: Every problem together: unknown keys with a suggestion, wrong types, values out of range.
    """
    problems: list[UserError] = []
    given = {**read_cfg(options.get("cfg"), problems), **{k: v for k, v in options.items() if k != "cfg"}}
    info = _method_of(given, problems)
    general = set(PretrainSettings.model_fields)
    own = set(info.settings.model_fields) if info else set()
    if info:  # without a method its options cannot be told from misspelt ones
        problems += [_unknown(key, [*general, *own, "cfg"]) for key in given if key not in general | own]
    name, preset = _preset_of(given, info, problems)
    merged = {**preset, **given, "preset": name}
    run = _build(PretrainSettings, {k: v for k, v in merged.items() if k in general}, problems)
    method = _build(info.settings, {k: v for k, v in merged.items() if k in own}, problems) if info else None
    lengths = [name for name in ("epochs", "steps", "budget") if given.get(name) is not None]
    if len(lengths) > 1:
        many = "the two, not both" if len(lengths) == 2 else "the three"
        problems.append(UserError(f"give one of {many}", where=", ".join(lengths)))
    if run and run.budget is not None and budget_seconds(run.budget) is None:
        hint = "give a number with s, m or h, such as 30m"
        problems.append(UserError(f"{run.budget!r} is no time", where="budget", hint=hint))
    if run and method and method.anchor and not run.init and str(run.model).endswith((".yaml", ".yml")):
        problems.append(
            UserError("random weights are nothing to hold on to", where="anchor", hint="give init= as well")
        )
    if run and run.resume and run.overwrite:
        problems.append(UserError("give one of the two, not both", where="resume, overwrite"))
    fields = {**PretrainSettings.model_fields, **(info.settings.model_fields if info else {})}
    problems += check({**{k: f.default for k, f in fields.items() if not f.is_required()}, **merged})
    if problems or run is None or method is None or info is None:
        raise UserError.several(problems)
    return Resolved(run, _with_rate(run, method, asked="lr" in given), info)


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


def _with_rate(run: PretrainSettings, method: MethodSettings, *, asked: bool) -> MethodSettings:
    """The learning rate as it will be used: for the real batch, and gentler on trained weights."""
    rate = method.lr * (run.batch / method.lr_for if method.lr_for else 1)
    if run.init and not asked:
        rate *= method.init_rate
    return method.model_copy(update={"lr": rate, "lr_for": None})


Kind = TypeVar("Kind", bound=Options)


def resolve_options(
    kind: type[Kind],
    options: Mapping[str, Any],
    command: str,
    check: Callable[[Mapping[str, Any]], list[UserError]] = lambda given: [],
) -> Kind:
    """Turn what the user gave into the options of a command that has one class of them; see `resolve`.

    Raises:
        UserError: Every problem together.
    """
    problems: list[UserError] = []
    given = {**read_cfg(options.get("cfg"), problems), **{k: v for k, v in options.items() if k != "cfg"}}
    known = kind.model_fields
    problems += [_unknown(key, [*known, "cfg"], command) for key in given if key not in known]
    built: Kind | None = _build(kind, {key: value for key, value in given.items() if key in known}, problems)
    defaults = {key: field.get_default(call_default_factory=True) for key, field in known.items()}
    problems += check({**{k: v for k, v in defaults.items() if not known[k].is_required()}, **given})
    if problems or built is None:
        raise UserError.several(problems)
    return built


def read_cfg(path: object, problems: list[UserError]) -> dict[str, Any]:
    """The options in a ``cfg`` file; where it cannot be read none, and `problems` gets one more."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(str(path)).read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise ValueError("it must hold 'key: value' lines")
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(UserError(f"cannot read {str(path)!r}: {error}", where="cfg"))
        return {}
    return {str(key): value for key, value in content.items()}


def _method_of(given: Mapping[str, Any], problems: list[UserError]) -> MethodInfo | None:
    try:
        return read_method(str(given.get("method", PretrainSettings.model_fields["method"].default)))
    except UserError as error:
        problems.append(error)
        return None


def _preset_of(
    given: Mapping[str, Any], info: MethodInfo | None, problems: list[UserError]
) -> tuple[str, dict[str, Any]]:
    """Name and options of the preset that is used: the one given, else the general default or the method's first."""
    default = PretrainSettings.model_fields["preset"].default
    name = str(given.get("preset", default))
    if info is None or name in info.presets:
        return name, info.presets[name] if info else {}
    if not info.presets and name == default:
        return name, {}
    if "preset" not in given:
        return next(iter(info.presets.items()))
    hint = did_you_mean(name, info.presets) or f"presets of {info.name}: {', '.join(info.presets) or 'none'}"
    problems.append(UserError(f"method {info.name!r} has no preset {name!r}", where="preset", hint=hint))
    return name, {}


def _unknown(key: str, known: list[str], command: str = "pretrain") -> UserError:
    hint = did_you_mean(key, known) or f"see headstart {command} --help for all options"
    return UserError(f"there is no option {key!r}", hint=hint)


def _build(kind: type[Any], values: Mapping[str, Any], problems: list[UserError]) -> Any:
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
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_type": "must be a text",
    "list_type": "a list",
    "tuple_type": "must be a pair such as [0.4, 1.0]",
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
    return _WORDS[kind].format(**item.get("ctx", {})) if kind in _WORDS else str(item["msg"])


def to_dict(settings: Resolved) -> dict[str, Any]:
    """Plain values for ``settings.yaml``; a live model is described by its class and origin."""
    values = {name: getattr(part, name) for part in (settings.run, settings.method) for name in type(part).model_fields}
    return {key: _as_plain(value) for key, value in values.items()}


def _as_plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_as_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    origin = getattr(value, "ckpt_path", None) or getattr(value, "cfg", None) or "in memory"
    return f"live {type(value).__name__} ({origin})"
