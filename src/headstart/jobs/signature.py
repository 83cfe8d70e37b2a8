"""The signatures of ``headstart.pretrain`` and its like, from the settings: what an editor completes and mypy checks.

``tools/signatures.py`` writes them to ``__init__.pyi``; `with_signature` gives them to the functions themselves.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from headstart.errors import UserError
from headstart.methods import find
from headstart.settings import method_file, method_options, schema
from headstart.settings.words import alternatives, takes_many
from headstart.trust import granted

PATHS = {
    "data", "model", "method", "init", "out", "cfg", "cache_dir", "proposals", "teacher", "teacher_weights",
    "unlabelled", "source", "run", "starts", "labels", "images", "export_labels", "comparison", "json",
}  # fmt: skip
_BUDGETS = "labels"
"""What a comparison has a list of under this name names no file."""


def names_files(name: str, field: FieldInfo) -> bool:
    """Whether an option may name files."""
    return name in PATHS and not (name == _BUDGETS and takes_many(field))


Result = TypeVar("Result")


class Option(NamedTuple):
    """One parameter of a function.

    Attributes:
        name: Its name.
        type: What Python takes for it, as it is written in a signature.
        default: Its default as it is written; ``...`` where it depends on the method or the data, or none is needed
            when a run is resumed; None where it must be given.
        about: What it does.
    """

    name: str
    type: str
    default: str | None
    about: str


class _Written(str):
    """A type as it is written, which ``help`` shows without quotation marks."""

    __slots__ = ()
    __repr__ = str.__str__


class _Unsaid:
    """A default that depends on something else."""

    def __repr__(self) -> str:
        return "..."


def options(command: Literal["pretrain", "compare", "probe"]) -> list[Option]:
    """The parameters of the function that a command stands for."""
    if command == "probe":
        fields = schema.ProbeSettings.model_fields
        return [
            _option(name, field, None if field.is_required() else repr(field.default)) for name, field in fields.items()
        ]
    cfg = Option("cfg", "str | PathLike[str] | None", "None", "a YAML file with options; those given here override it")
    if command == "compare":
        fields = schema.CompareSettings.model_fields
        return [*(_option(name, field, _default(field)) for name, field in fields.items()), cfg]
    return [*_general(), cfg, *_of_methods()]


def _general() -> list[Option]:
    depend = {"method", "preset"} | {
        name for method in _methods() for preset in method.presets.values() for name in preset
    }
    fields = schema.PretrainSettings.model_fields
    return [_option(name, field, "..." if name in depend else _default(field)) for name, field in fields.items()]


def _of_methods() -> list[Option]:
    """The options of all methods; one that several have is described once a meaning."""
    found: dict[str, Option] = {}
    common = method_options.MethodSettings.model_fields
    users: dict[str, dict[str, list[str]]] = {}
    for method in _methods():
        for name, field in method.settings.model_fields.items():
            new = _option(name, field, "...")
            kinds = [*found[name].type.split(" | "), *new.type.split(" | ")] if name in found else [new.type]
            found[name] = new._replace(type=" | ".join(dict.fromkeys(kinds)))
            users.setdefault(name, {}).setdefault(new.about, []).append(method.name)
    for name, meanings in users.items():
        if name not in common:
            said = [f"{', '.join(methods)}: {about}" for about, methods in meanings.items()]
            found[name] = found[name]._replace(about="; ".join(said))
    ordered = [found.pop(name) for name in common] + list(found.values())
    own = "options of a method of your own, by name; they may also be given as they are"
    return [*ordered, Option("options", "Mapping[str, Any]", "...", own)]


@functools.cache
def _methods() -> list[method_file.MethodFile]:
    """The methods that come with headstart: those of installed packages are options of a method of one's own."""
    return [method_file.read(find.path_of(name)) for name in find.built_in()]


def _default(field: FieldInfo) -> str:
    return "..." if field.is_required() else repr(field.default)


# -- types as they are written ----------------------------------------------------------------------------------------


def _option(name: str, field: FieldInfo, default: str | None) -> Option:
    """A parameter. It takes what the settings take: a path where a file is named, a list for a tuple."""
    validated = any(hasattr(one, "func") for one in field.metadata)
    kinds = [part for one in alternatives(field.annotation) for part in _written(one, validated)]
    if names_files(name, field) and "str" in kinds:
        kinds = [
            "str",
            "PathLike[str]",
            *(kind.replace("Sequence[str]", "Sequence[str | PathLike[str]]") for kind in kinds),
        ]
    if name in ("device", "devices"):
        kinds += ["int", *(["Sequence[int]"] if name == "devices" else [])]
    kinds = ["Any"] if "Any" in kinds else sorted(dict.fromkeys(kinds), key="None".__eq__)
    return Option(name, " | ".join(kinds), default, str(field.description))


def _written(kind: Any, validated: bool) -> list[str]:
    """The alternatives that stand for a type; a validator of its own takes what is nearly of the type, too."""
    origin, inner = get_origin(kind), [part for one in get_args(kind)[:1] for part in _plain(one)]
    if origin is Literal:
        choices = [repr(choice) for choice in get_args(kind)]
        choices += [choice for choice in map(str, get_args(kind)) if choice.isdigit()] if validated else []
        return [f"Literal[{', '.join(choices)}]", *(["bool"] if validated and "'true'" in choices else [])]
    if origin is list:
        inner += ["int"] if validated and inner == ["str"] else []
        inner += ["PathLike[str]"] if validated and "str" in inner else []
        return [*(inner if validated else []), f"Sequence[{' | '.join(inner)}]"]
    if origin is tuple:
        return [f"tuple[{', '.join(' | '.join(_plain(one)) for one in get_args(kind))}]", f"list[{' | '.join(inner)}]"]
    return _plain(kind)


def _plain(kind: Any) -> list[str]:
    return [_named(one) for one in alternatives(kind)]


def _named(kind: Any) -> str:
    if get_origin(kind) is dict or kind is dict:
        return "Mapping[str, Any]"
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))


# -- functions --------------------------------------------------------------------------------------------------------


def with_signature(
    command: Literal["pretrain", "compare"],
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Let a function that takes ``**options`` show the real ones, to `inspect`, to ``help`` and to notebooks.

    ``trust`` is granted here, for as long as the function works. After a pretraining the random numbers of the process
    go on where they were: it seeds them, and a notebook is to draw other ones after each.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def call(**given: Any) -> Result:
            asked = plain(given)
            with granted(schema.truth(asked.get("trust"))), _undrawn() if command == "pretrain" else nullcontext():
                return function(**asked)

        shown = options(command)
        call.__signature__ = signature(shown, inspect.signature(function).return_annotation)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{listed(shown)}\n"
        return call

    return decorate


def _undrawn() -> AbstractContextManager[None]:
    from headstart.launch.random_state import undrawn  # with torch, which a comparison's options are read without

    return undrawn()


def signature(shown: list[Option], returns: Any) -> inspect.Signature:
    """Keyword parameters for `shown`."""
    parameters = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=_Written(one.type),
            default=_Unsaid() if one.default in (None, "...") else ast.literal_eval(one.default),
        )
        for one in shown
    ]
    return inspect.Signature(parameters, return_annotation=returns)


def listed(shown: list[Option], width: int = 116) -> str:
    """A line, or several, on every option."""
    return "\n".join(
        textwrap.fill(f"{one.name}: {one.about}", width, initial_indent="    ", subsequent_indent="        ")
        for one in shown
    )


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given in Python, as the command would give it: ``options=`` among the others, paths as strings, numbers
    of NumPy and torch as Python's, wherever in lists and mappings they are.

    Raises:
        UserError: ``options`` is no mapping, or names what is given beside it.
    """
    own = given.get("options", {})
    if not isinstance(own, Mapping):
        raise UserError("must be a dictionary", where="options", hint='such as options={"cells": 2}')
    rest = {name: value for name, value in given.items() if name != "options"}
    if twice := sorted(set(own) & set(rest)):
        raise UserError(f"names {', '.join(twice)}, which is given beside it, too", where="options")
    return {name: _plain_value(value) for name, value in {**rest, **own}.items()}


def _plain_value(value: Any) -> Any:
    """The value without types that are not Python's own; an object such as a detector in memory stays as it is."""
    if isinstance(value, Mapping):
        return {_plain_value(key): _plain_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        made = map(_plain_value, value)
        return tuple(made) if type(value) is tuple else list(made)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # A number of NumPy or torch, or an array of one or more (seeds=np.arange(3)): told by what they can do, for neither
    # is imported to find that an option is misspelt.
    dimensions = getattr(value, "ndim", None)
    return value.tolist() if isinstance(dimensions, int) and dimensions < 2 and hasattr(value, "tolist") else value
