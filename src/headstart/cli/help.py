"""The help of a command, from the settings: names, types, descriptions, and the defaults that a run uses."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from headstart.cli.line import last_value
from headstart.cli.options import CFG, fields_of, preset_of, read_method
from headstart.cli.overview import section, writer
from headstart.cli.spec import Spec
from headstart.errors import UserError, did_you_mean
from headstart.methods import find
from headstart.settings.length import WITHOUT_GPU
from headstart.settings.method_file import MethodFile
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import PretrainSettings
from headstart.settings.words import alternatives, choices

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "pretrain": {
        "Images and detector": ("data", "labels", "model", "init"),
        "Method": ("method", "preset", "teacher"),
        "Training, with one of epochs, steps and budget": ("epochs", "steps", "budget", "batch", "imgsz", "device"),
        "Run": ("out", "resume", "overwrite", "cfg"),
    },
    "compare": {
        "What is compared": ("data", "model", "starts", "labels", "seeds", "split", "longer", "unlabelled"),
        "Every fine-tuning": ("epochs", "steps", "imgsz", "batch", "optimizer", "lr", "lr_val", "start_lr", "extra"),
        "Machine": ("device", "jobs", "workers"),
        "Results": ("out", "plan", "overwrite", "pictures", "report", "cfg"),
    },
}
"""What the help shows first, by heading."""

SHOWN_OF = {"labels": "selftrain", "teacher": "objects"}
"""Options of methods that are shown first, each as the method has it that a run with it takes by default."""

_BY_MACHINE = {"imgsz": f", {WITHOUT_GPU} on a CPU"}
"""What the machine makes of a default."""

_FOOT = {
    "pretrain": "Methods: {methods}, or my.py.\n"
    "A method's options, with its defaults: headstart pretrain --help method=NAME. Everything: --help all.",
    "compare": "Other arguments of Ultralytics' train are taken, too: close_mosaic=0.",
}


def page(spec: Spec, words: list[str]) -> str:
    """The help of a command.

    Args:
        spec: The command.
        words: What else was typed: for ``pretrain``, ``method=NAME`` asks for a method's options, ``all`` for all.

    Raises:
        UserError: There is no such method or preset.
    """
    text = writer()
    method = last_value("method", words)
    everything = "all" in words or method == "all"
    text.write(f"Usage: headstart {spec.name} {spec.usage}\n")
    if spec.name == "pretrain" and method not in (None, "all", "auto") and not everything:
        _method_page(text, read_method(method), last_value("preset", words))
        return _spaced(text)
    text.write(f"{spec.summary[0].upper()}{spec.summary[1:]}. Options are key=value or --key value.\n")
    fields = _fields(spec.name)
    grouped = GROUPS.get(spec.name, {})
    for title, names in grouped.items():
        section(text, title, [row(spec.name, name, fields[name]) for name in names])
    shown = {name for names in grouped.values() for name in names}
    rest = [row(spec.name, name, field) for name, field in fields.items() if name not in shown]
    if rest and (everything or spec.name != "pretrain"):
        section(text, "More options" if grouped else "Options", rest)
    if everything and spec.name == "pretrain":
        _every_method(text, shown)
    if spec.name in _FOOT:
        text.write("\n" + _FOOT[spec.name].format(methods=", ".join(find.names())))
    return _spaced(text)


def _spaced(text: click.HelpFormatter) -> str:
    """The text of a page; a default is kept on one line by spaces that do not break."""
    return text.getvalue().replace("\xa0", " ").rstrip("\n")


def _fields(command: str) -> dict[str, FieldInfo]:
    """The options that the page of a command shows; of ``pretrain``, those of every method, and labels and teacher."""
    if command != "pretrain":
        return fields_of(command)
    return {**PretrainSettings.model_fields, **shown_first(), "cfg": CFG}


def shown_first() -> dict[str, FieldInfo]:
    """The options of `SHOWN_OF`."""
    return {name: read_method(method).settings.model_fields[name] for name, method in SHOWN_OF.items()}


# -- methods ----------------------------------------------------------------------------------------------------------


def _method_page(text: click.HelpFormatter, method: MethodFile, asked: str | None) -> None:
    """The options of one method, with the defaults that a run with it uses."""
    name, preset = preset_of(method, asked)
    if asked is not None and asked not in method.presets and method.presets:
        hint = did_you_mean(asked, method.presets) or f"presets of {method.name}: {', '.join(method.presets)}"
        raise UserError(f"method {method.name!r} has no preset {asked!r}", where="preset", hint=hint)
    text.write(f"{method.summary}.\n")
    if method.presets:
        rows = [
            (f"preset={one}", assigned(values) + (" (used without preset=)" if one == preset_of(method)[0] else ""))
            for one, values in method.presets.items()
        ]
        section(text, "Presets", rows)
    fields = method.settings.model_fields
    own = [one for one in fields if one not in MethodSettings.model_fields]
    section(text, f"Options of {method.name}", [row("pretrain", one, fields[one], preset) for one in own])
    shared = [one for one in fields if one in MethodSettings.model_fields]
    section(text, "Optimization", [row("pretrain", one, fields[one], preset) for one in shared])
    general = [one for one in preset if one in PretrainSettings.model_fields]
    if general:
        rows = [row("pretrain", one, PretrainSettings.model_fields[one], preset) for one in general]
        section(text, f"Other defaults with preset={name}", rows)
    text.write("\nWhat every run needs: headstart pretrain --help. All options: headstart pretrain --help all.")


def _every_method(text: click.HelpFormatter, shown: set[str]) -> None:
    """The optimization that methods share, and below it what each method adds or sets otherwise."""
    common = MethodSettings.model_fields
    section(text, "Optimization, every method", [row("pretrain", name, field) for name, field in common.items()])
    for name in find.names():
        method = read_method(name)
        used, preset = preset_of(method)
        fields = method.settings.model_fields
        rows = [row("pretrain", one, fields[one], preset) for one in fields if one not in common]
        other = {one: preset.get(one, fields[one].default) for one in common}
        other = {one: value for one, value in other.items() if value != common[one].default}
        other |= {one: value for one, value in preset.items() if one in PretrainSettings.model_fields}
        about = f"with preset={used} (presets: {', '.join(method.presets)}): " if method.presets else ""
        about = f"{method.summary}.\n\n{about}{assigned(other)}" if other or about else f"{method.summary}."
        section(text, f"method={name}", rows, about)


def assigned(values: Mapping[str, Any]) -> str:
    """Values of options, as they would be typed."""
    return " ".join(f"{name}={shown_default(value).replace(', ', ',')}" for name, value in values.items()) or "as below"


# -- one option -------------------------------------------------------------------------------------------------------


def row(command: str, name: str, field: FieldInfo, preset: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """An option as two columns: how it is given, and what it does, with its default.

    Args:
        command: That has it.
        name: Its name.
        field: Its declaration.
        preset: Values that take the place of the declared default.
    """
    default = _default(command, name, field, preset)
    default = default.replace(" ", "\xa0") if len(default) < 30 else default
    shown = _VALUES.get(name) or metavar(field.annotation)
    return f"{name}={shown}", f"{field.description} ({default})" if default else str(field.description)


def _default(command: str, name: str, field: FieldInfo, preset: Mapping[str, Any] | None) -> str:
    """The default that a run uses, in words."""
    if preset is not None and name in preset:
        return f"default: {shown_default(preset[name])}"
    if field.is_required():
        return "needed"
    if command == "pretrain" and name == "method":  # which it is by default is what the description says
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None and "none:" not in str(field.description):  # what happens then is what the description says
        return ""
    shown = f"default: {shown_default(value)}"
    if command == "pretrain" and preset is None and name in PretrainSettings.model_fields:
        others = _of_methods(name)
        shown += "".join(f"; {value} with {', '.join(methods)}" for value, methods in others.items())
        shown += _BY_MACHINE.get(name, "")
    return shown


def _of_methods(name: str) -> dict[str, list[str]]:
    """Defaults of a general option that methods' presets change: default -> names of the methods."""
    found: dict[str, list[str]] = {}
    for method, (_, preset) in _presets_used().items():
        if name in preset:
            found.setdefault(shown_default(preset[name]), []).append(method)
    return found


@functools.cache
def _presets_used() -> dict[str, tuple[str | None, dict[str, Any]]]:
    """The preset that each method uses where none is named."""
    return {name: preset_of(read_method(name)) for name in find.names()}


def shown_default(value: Any) -> str:
    """A value as it would be typed."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(shown_default(one) for one in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


_VALUES = {
    "out": "PATH",
    "cfg": "FILE",
    "init": "FILE",
    "method": "NAME",
    "preset": "NAME",
    "budget": "TIME",
    "json": "FILE",
}


def metavar(annotation: Any) -> str:
    """What stands for the value: the choices of a ``Literal``, and the kind of value otherwise."""
    kinds = alternatives(annotation)
    words = [str(choice) for choice in choices(annotation)]
    words += ["true|false"] if bool in kinds else []
    words += ["N"] if int in kinds else ["X"] if float in kinds else []
    words += [_items(one) for one in kinds if get_origin(one) is tuple]
    if str not in kinds:
        words += [_listed(one) for one in kinds if get_origin(one) is list]
    return "|".join(words) or (
        "JSON" if str not in kinds and any(get_origin(one) is dict for one in kinds) else "VALUE"
    )


def _listed(kind: Any) -> str:
    item = metavar(get_args(kind)[0])
    return "A,B" if item == "VALUE" else f"{item},{item}"


def _items(kind: Any) -> str:
    inner = [metavar(one) for one in get_args(kind)]
    return "[LO,HI]" if inner == ["X", "X"] else f"[{','.join(inner)}]"
