"""Which options a command has, from the classes of the settings and the files of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.fields import FieldInfo

from headstart.errors import UserError
from headstart.settings import method_file, schema
from headstart.settings.method_file import MethodFile, NotLiteralError
from headstart.settings.schema import Options
from headstart.settings.words import Word, guessed, understood

_OPTIONAL: Any = str | None
CFG = FieldInfo.from_annotated_attribute(
    _OPTIONAL, Field(None, description="a YAML file with options; those on the command line override it")
)


def settings_of(command: str) -> type[Options]:
    """The class that declares the options of a command."""
    found: type[Options] = getattr(schema, f"{command.capitalize()}Settings")
    return found


def read_method(name: str) -> MethodFile:
    """What a method's file declares, read without running it where that tells everything, imported elsewhere.

    Raises:
        UserError: There is no such method, or its file cannot be read.
    """
    path = method_file.find(name)
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, changed: int) -> MethodFile:
    """A page of help asks for every method many times; a file that has changed since is read again."""
    try:
        return method_file.read(path)
    except NotLiteralError:
        return _imported(path)


def _imported(path: Path) -> MethodFile:
    from headstart.methods.find import find

    found = find(str(path))
    return MethodFile(found.name, path, found.summary, found.settings, found.presets)


def preset_of(method: MethodFile, asked: str | None = None) -> tuple[str, dict[str, Any]]:
    """Name and values of the preset that a run uses: the one asked for, else the first; "none" where there are none."""
    for name in (asked, next(iter(method.presets), None)):
        if name in method.presets:
            return str(name), method.presets[name]
    return "none", {}


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
    for name in [method] if method else method_file.names():
        try:
            fields = {**read_method(name).settings.model_fields, **fields}
        except UserError:
            return fields_of(command)
    return fields


def values(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The words that were `given` as the values that they mean, by the types of the command's options."""
    method = given.get("method")
    known = method in method_file.names() or str(method).endswith(".py")
    found = understood(fields_of(command, method if known else None), given)
    if command == "compare":  # what is left are arguments of Ultralytics, whose types are not declared
        found = {key: guessed(item) if isinstance(item, Word) else item for key, item in found.items()}
    return found
