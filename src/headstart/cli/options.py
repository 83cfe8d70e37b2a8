"""Which options a command has, from the classes of the settings and the files of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic.fields import FieldInfo

from headstart.errors import UserError
from headstart.methods import find
from headstart.settings import method_file, schema, tools
from headstart.settings.method_file import MethodFile, NotLiteralError
from headstart.settings.schema import RENAMED, Options
from headstart.settings.words import Word, guessed, understood

_OPTIONAL: Any = str | None
CFG = FieldInfo.from_annotated_attribute(
    _OPTIONAL, Field(None, description="a YAML file with options; those on the command line override it")
)


def settings_of(command: str) -> type[Options]:
    """The class that declares the options of a command."""
    name = f"{command.capitalize()}Settings"
    found: type[Options] = getattr(schema, name, None) or getattr(tools, name)
    return found


def stands_alone(field: FieldInfo) -> bool:
    """Whether an option may be given without a value, for true: a truth value, or one that a string says more of."""
    return field.annotation is bool or field.annotation == bool | str


def read_method(name: str) -> MethodFile:
    """What a method's file declares, read without running it where that tells everything, imported elsewhere.

    Raises:
        UserError: There is no such method, or its file cannot be read.
    """
    try:
        found = method_file.read(find.path_of(name))
    except NotLiteralError:
        return MethodFile(*find.find(name)[:5])
    return found if name.endswith(".py") else found._replace(name=name)


def preset_of(method: MethodFile, asked: str | None = None) -> tuple[str | None, dict[str, Any]]:
    """Name and values of the preset that a run uses: the one asked for, else the method's first, if it has any."""
    if asked in method.presets:
        return asked, method.presets[asked]
    return next(iter(method.presets.items()), (None, {}))


def fields_of(command: str, method: str | None = None) -> dict[str, FieldInfo]:
    """The options of a command, by name.

    Args:
        command: Its name.
        method: For ``pretrain``, the method whose options are among them. Without one, or where it cannot be read (the
            settings complain of it), every method's are.
    """
    fields = dict(settings_of(command).model_fields)
    if command in ("pretrain", "compare"):
        fields["cfg"] = CFG
    if command != "pretrain":
        return fields
    for name in [method] if method else find.names():
        try:
            fields = {**read_method(name).settings.model_fields, **fields}
        except UserError:  # with no method named: a broken one of an installed package
            if method:
                return fields_of(command)
    return fields


def values(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The words that were `given` as the values that they mean, by the types of the command's options."""
    method = given.get("method")
    known = method in find.names() or str(method).endswith(".py")
    fields = fields_of(command, method if known else None)
    fields |= {old: fields[new] for old, new in RENAMED.items() if command == "pretrain" and new in fields}
    found = understood(fields, given)
    if command == "compare":  # what is left are arguments of Ultralytics, whose types are not declared
        found = {key: guessed(item) if isinstance(item, Word) else item for key, item in found.items()}
    return found
