"""Finding methods: those of this folder, of installed packages (entry points), and a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from headstart.errors import UserError, did_you_mean
from headstart.settings.schema import MethodSettings, Options, ProposalOptions, TeacherOptions

if TYPE_CHECKING:  # names are listed without torch, which the contract imports
    from headstart.methods.base import Method, Needs

GROUP = "headstart.methods"
_FOLDER = Path(__file__).parent
_SETTINGS = re.compile(r"^class Settings\(", re.MULTILINE)
_MOVED = {
    "headstart.method": "headstart.methods.base",
    "headstart.probes": "headstart.probes.metrics",
    "headstart.schedules": "headstart.methods.schedules",
    "headstart.views": "headstart.views.spec",
}


class Declared(NamedTuple):
    """A method as its file declares it.

    Attributes:
        name: The file's name without suffix, or that of the entry point.
        path: The file.
        summary: First line of the file's docstring.
        settings: Its options.
        presets: Name -> values of options, its own and those of every run; the first is the default.
        method: The class.
    """

    name: str
    path: Path
    summary: str
    settings: type[MethodSettings]
    presets: dict[str, dict[str, Any]]
    method: type[Method]


def names() -> list[str]:
    """Every method that can be named: the files of this folder that declare ``Settings``, and entry points."""
    own = [path.stem for path in _FOLDER.glob("*.py") if _SETTINGS.search(path.read_text(encoding="utf-8"))]
    return sorted({*own, *(point.name for point in entry_points(group=GROUP))})


def path_of(name: str) -> Path:
    """The file of a method: a path that ends in ``.py``, a file of this folder, or a module of an entry point.

    Raises:
        UserError: There is none.
    """
    path = Path(name) if name.endswith(".py") else _FOLDER / f"{name}.py"
    if path.is_file() and (name.endswith(".py") or name in names()):
        return path.absolute()
    if point := _entry_point(name):
        spec = importlib.util.find_spec(point.module)
        if spec and spec.origin:
            return Path(spec.origin)
    hint = did_you_mean(name, names()) or f"methods: {', '.join(names())}, or the path of a .py file"
    raise UserError(f"there is no method {name!r}", where="method", hint=hint)


def find(name: str) -> Declared:
    """Import a method and read what it declares.

    Raises:
        UserError: There is none of this name, it cannot be imported, or does not declare what a method must.
    """
    path = path_of(name)
    module = _import(path, name)
    settings = getattr(module, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, MethodSettings)):
        raise UserError("has no class Settings(MethodSettings)", where=str(path))
    summary = (module.__doc__ or "").strip().split("\n")[0].rstrip(".")
    shown = name if not name.endswith(".py") else path.stem
    return Declared(shown, path, summary, settings, getattr(module, "PRESETS", {}), _method_class(module, path))


def _method_class(module: ModuleType, path: Path) -> type[Method]:
    from headstart.methods.base import Method

    found = [
        item
        for item in vars(module).values()
        # In Python 3.10 an alias such as tuple[float, float] passes for a type.
        if isinstance(item, type) and not isinstance(item, GenericAlias)
        if issubclass(item, Method) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"must have one subclass of headstart.methods.base.Method, has {len(found)}", where=str(path))
    if len(inspect.signature(found[0].__init__).parameters) != 3:
        what = f"{found[0].__name__}.__init__ must take (self, settings, context)"
        raise UserError(what, where=str(path), hint="what it needs is declared in its class, needs = Needs(...)")
    _check_needs(found[0].needs, module.Settings, path)
    return found[0]


def _check_needs(needs: Needs, settings: type[MethodSettings], path: Path) -> None:
    """What a method needs is asked for with options that its ``Settings`` must have."""
    wanted: dict[str, type[Options]] = {"teacher": TeacherOptions, "pseudolabels": ProposalOptions}
    for need, group in wanted.items():
        if getattr(needs, need) and not issubclass(settings, group):
            what = f"needs {need}, but its Settings are no {group.__name__}"
            raise UserError(what, where=str(path), hint=f"class Settings(MethodSettings, {group.__name__})")


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=name)), None)


def _import(path: Path, name: str) -> ModuleType:
    try:
        if path.parent == _FOLDER:
            return importlib.import_module(f"headstart.methods.{name}")
        if not name.endswith(".py") and (point := _entry_point(name)):
            return importlib.import_module(point.module)
        return _import_file(path)
    except UserError:
        raise
    except Exception as error:
        moved = _MOVED.get(getattr(error, "name", None) or "")
        hint = f"it is {moved} now" if moved else None
        what = f"cannot be imported: {type(error).__name__}: {error}"
        raise UserError(what, where=str(path), hint=hint) from error


def _import_file(path: Path) -> ModuleType:
    name = f"headstart_user_method_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError("is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a class's types up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
