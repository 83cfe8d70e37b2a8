"""Importing a method: of this folder, of an installed package (entry points), or a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic.fields import FieldInfo

from headstart import plugins
from headstart.errors import UserError, did_you_mean
from headstart.paths import expanded
from headstart.settings import method_file
from headstart.settings.method_options import LabelOptions, MethodSettings, ProposalOptions, TeacherOptions
from headstart.settings.schema import Options, PretrainSettings

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
    return sorted({*built_in(), *plugins.installed(GROUP)})


def built_in() -> list[str]:
    """The methods that come with headstart."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if _declares(path))


def options() -> dict[str, dict[str, FieldInfo]]:
    """The options of every method that can be named, read without importing it where its file tells them.

    A broken method of an installed package is left out: whoever asks for it is told.
    """
    found = {}
    for name in names():
        with suppress(UserError):
            found[name] = options_of(name)
    return found


def options_of(name: str) -> dict[str, FieldInfo]:
    """The options of one method, likewise.

    Raises:
        UserError: There is no such method, or its file cannot be read.
    """
    try:
        return method_file.read(path_of(name)).settings.model_fields
    except method_file.NotLiteralError:
        return find(name).settings.model_fields


def all_options(name: object = None) -> dict[str, FieldInfo]:
    """The options of a pretraining with a method; with every method's where `name` is none that can be read."""
    with suppress(UserError):
        if isinstance(name, str) and (name.endswith(".py") or name in names()):
            return {**options_of(name), **PretrainSettings.model_fields}
    known = {key: field for fields in options().values() for key, field in fields.items()}
    return {**known, **PretrainSettings.model_fields}


def path_of(name: str) -> Path:
    """The file of a method: a path that ends in ``.py``, a file of this folder, or the module of an entry point.

    Raises:
        UserError: There is no such method.
    """
    own = name.endswith(".py")
    path = expanded(name) if own else _FOLDER / f"{name}.py"
    if path.is_file() and (own or (path.parent == _FOLDER and _declares(path))):
        return path.absolute()
    if point := plugins.installed(GROUP).get(name):
        try:
            spec = importlib.util.find_spec(point.module)
        except Exception:  # a package above it is missing, or breaks as it is imported
            spec = None
        if spec and spec.origin:
            return Path(spec.origin)
        raise UserError(f"its module {point.module} is not there", where=f"method {name}", hint="reinstall its package")
    hint = did_you_mean(name, names()) or f"methods: {', '.join(names())}, or the path of a .py file"
    raise UserError(f"there is no method {name!r}", where="method", hint=hint)


def _declares(path: Path) -> bool:
    return _SETTINGS.search(path.read_text(encoding="utf-8")) is not None


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

    found = plugins.one_subclass(module, Method, where="method")  # type: ignore[type-abstract]
    if len(inspect.signature(found.__init__).parameters) != 3:
        what = f"{found.__name__}.__init__ must take (self, settings, context)"
        raise UserError(what, where=str(path), hint="what it needs is declared in its class, needs = Needs(...)")
    _check_needs(found.needs, module.Settings, path)
    return found


def _check_needs(needs: Needs, settings: type[MethodSettings], path: Path) -> None:
    """What a method needs is asked for with options that its ``Settings`` must have."""
    of_clusters = needs.trains == "all" and not needs.labels  # the head then has an output for each cluster
    wanted: list[tuple[bool, str, type[Options]]] = [
        (needs.teacher, "teacher", TeacherOptions),
        (needs.pseudolabels, "pseudolabels", ProposalOptions),
        (of_clusters, "the head (trains all)", ProposalOptions),
        (needs.labels, "labels", LabelOptions),
    ]
    for needed, what_for, group in wanted:
        if needed and not issubclass(settings, group):
            what = f"needs {what_for}, but its Settings are no {group.__name__}"
            raise UserError(what, where=str(path), hint=f"class Settings(MethodSettings, {group.__name__})")


def _import(path: Path, name: str) -> ModuleType:
    try:
        if path.parent == _FOLDER:
            return importlib.import_module(f"headstart.methods.{path.stem}")
        if name.endswith(".py"):
            return plugins.import_file(path, where="method")
        found = plugins.load_installed(GROUP, name, where="method")
        return found if isinstance(found, ModuleType) else sys.modules[found.__module__]
    except UserError as error:
        cause = getattr(error.__cause__, "name", None)
        if cause in _MOVED:
            raise UserError(error.what, where=error.where, hint=f"it is {_MOVED[cause]} now") from error
        raise
