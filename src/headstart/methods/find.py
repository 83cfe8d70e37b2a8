"""Finding the method that an option names, in its file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import GenericAlias
from typing import Any

from headstart.errors import UserError
from headstart.methods.base import Method
from headstart.settings.resolve import MethodInfo


def method_class(info: MethodInfo) -> type[Method]:
    """Import the file of a method and return its one `Method` subclass.

    Raises:
        UserError: The file cannot be imported, or does not have exactly one.
    """
    module = _import(info.path, info.name)
    found = [
        item
        for item in vars(module).values()
        # In Python 3.10 an alias such as tuple[float, float] passes for a type.
        if isinstance(item, type) and not isinstance(item, GenericAlias)
        if issubclass(item, Method) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(
            f"must have one subclass of headstart.methods.base.Method, has {len(found)}", where=str(info.path)
        )
    return found[0]


def _import(path: Path, name: str) -> Any:
    if path.parent == Path(__file__).parent:
        return importlib.import_module(f"headstart.methods.{name}")
    spec = importlib.util.spec_from_file_location(f"headstart_user_method_{name}", path)
    if spec is None or spec.loader is None:
        raise UserError("is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"cannot be imported: {type(error).__name__}: {error}", where=str(path)) from error
    return module
