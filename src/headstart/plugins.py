"""Parts that are found by name: files of a package of ours, a user's own file, entry points of what is installed.

Nothing is imported before it is asked for, so that a broken part harms nobody else.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any, TypeVar

from headstart.errors import UserError
from headstart.paths import located

Part = TypeVar("Part")


def modules_of(package: str, leave: Iterable[str] = ()) -> dict[str, ModuleType]:
    """The modules of a package of ours, by name, in the order of their names; those in `leave` are no parts."""
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return {name: importlib.import_module(f"{package}.{name}") for name in names if name not in set(leave)}


def is_python_file(name: Any) -> bool:
    """Whether a user means a file of their own by `name`."""
    return isinstance(name, (str, Path)) and str(name).endswith(".py")


def import_file(path: str | Path, where: str | None = None) -> ModuleType:
    """Import a user's Python file.

    Args:
        path: The file.
        where: The option that names it, for messages; its path by default.

    Raises:
        UserError: There is no such file, or it cannot be imported.
    """
    file = located(path)
    if not file.is_file():
        raise UserError(f"there is no file {path}", where=where)
    # Two files of one name are two modules; the same file again is imported anew.
    name = f"headstart_user_{hashlib.sha1(str(file).encode()).hexdigest()[:8]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file", where=where)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}", where=where) from error
    return module


def one_subclass(module: ModuleType, base: type[Part], where: str | None = None) -> type[Part]:
    """The one subclass of `base` that a user's file defines.

    Args:
        module: As `import_file` gives it.
        base: The contract.
        where: The option that names the file, for messages.

    Raises:
        UserError: There is none, or several.
    """
    found = [
        item
        for item in vars(module).values()
        # In Python 3.10 an alias such as tuple[float, float] passes for a type.
        if isinstance(item, type) and not isinstance(item, GenericAlias)
        if issubclass(item, base) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        wanted = f"{base.__module__}.{base.__qualname__}"
        raise UserError(f"{module.__file__} must have one subclass of {wanted}, has {len(found)}", where=where)
    return found[0]


def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """What installed packages offer as entry points of `group` (``headstart.teachers``), by name; not imported."""
    return dict(_installed(group, tuple(sys.path)))


@functools.cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    """Those of all packages on the `path`: reading what each of them says takes a tenth of a second."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def load_installed(group: str, name: str, where: str) -> Any:
    """Import one entry point.

    Args:
        group: Such as ``headstart.teachers``.
        name: One of those that `installed` finds.
        where: The option that names it, for messages.

    Raises:
        UserError: It cannot be imported.
    """
    point = installed(group)[name]
    package = point.dist.name if point.dist else "an installed package"
    try:
        return point.load()
    except Exception as error:
        what = f"{name!r} of the package {package} cannot be imported: {type(error).__name__}: {error}"
        raise UserError(what, where=where, hint=f"update or remove {package}") from error
