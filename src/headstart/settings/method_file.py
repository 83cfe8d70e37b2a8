"""The options of a method, read from its file without running it.

A method's file imports torch, which takes seconds; its help, its completion and the signatures need the declarations
alone. What is read is ``class Settings`` with its fields, ``PRESETS``, and the first line of the docstring, as far as
they are literal. `read` says `NotLiteralError` of anything else; the file then has to be imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import Field, create_model

from headstart.errors import UserError
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import Options

# Light modules, whose names a declaration may use.
_KNOWN = ("typing", "pydantic", "pydantic.fields", "pathlib", "collections.abc", "headstart.settings", "builtins")
_BUILTINS = {"int", "float", "str", "bool", "list", "tuple", "dict"}


class NotLiteralError(Exception):
    """The file declares its options in a way that only running it can tell."""


class MethodFile(NamedTuple):
    """What the file of a method declares.

    Attributes:
        name: The method's name: that of its file.
        path: The file.
        summary: The first line of its docstring, without the period.
        settings: A class with the fields, types, ranges, defaults and descriptions of its ``Settings``.
        presets: Name -> values of options; empty where there are none.
    """

    name: str
    path: Path
    summary: str
    settings: type[MethodSettings]
    presets: dict[str, dict[str, Any]]


def read(path: Path) -> MethodFile:
    """Read what a method's file declares.

    Raises:
        NotLiteralError: Its options can only be known by importing it.
        UserError: It cannot be read, is no Python, or has no ``class Settings(MethodSettings)``.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from error
    declared = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"), None)
    if declared is None:
        if any(_binds(node, "Settings") for node in tree.body):
            raise NotLiteralError("Settings is not declared in the file")
        raise UserError("has no class Settings(MethodSettings)", where=str(path))
    scope = _Scope(tree)
    summary = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
    return MethodFile(path.stem, path, summary, _settings(declared, scope), _presets(tree))


def _binds(node: ast.stmt, name: str) -> bool:
    if isinstance(node, (ast.ImportFrom, ast.Import)):
        return any((one.asname or one.name) == name or one.name == "*" for one in node.names)
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and _assigns(node, name)


class _Scope:
    """What the names in a declaration stand for, from the imports of the file; looked up when asked for."""

    def __init__(self, tree: ast.Module) -> None:
        self._origins: dict[str, tuple[str, str | None]] = {name: ("builtins", name) for name in _BUILTINS}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self._origins |= {one.asname or one.name: (node.module, one.name) for one in node.names}
            elif isinstance(node, ast.Import):
                self._origins |= {one.asname: (one.name, None) for one in node.names if one.asname}
                self._origins |= {one.name: (one.name, None) for one in node.names if not one.asname}

    def __getitem__(self, name: str) -> Any:
        module, attribute = self._origins.get(name, ("", None))
        if module not in _KNOWN and not module.startswith("headstart.settings."):
            raise NotLiteralError(f"{name} is not known without running the file")
        found = importlib.import_module(module)
        if attribute is None:
            return found
        if not hasattr(found, attribute):
            raise NotLiteralError(f"{module} has no {attribute}")
        return getattr(found, attribute)


def _settings(declared: ast.ClassDef, scope: _Scope) -> type[MethodSettings]:
    if declared.decorator_list or declared.keywords:
        raise NotLiteralError("Settings is decorated")
    bases = tuple(_type(base, scope) for base in declared.bases)
    known = all(isinstance(base, type) and issubclass(base, Options) for base in bases)
    if not known or not any(issubclass(base, MethodSettings) for base in bases):
        raise NotLiteralError("Settings inherits from a class of another kind")
    fields: dict[str, Any] = {}
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields[node.target.id] = (_type(node.annotation, scope), _default(node.value, scope))
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) and not isinstance(
            node, ast.Pass
        ):
            raise NotLiteralError("Settings holds more than fields")  # a validator, say
    return cast(Any, create_model)("Settings", __base__=bases, __doc__=ast.get_docstring(declared), **fields)  # type: ignore[no-any-return]


def _default(node: ast.expr | None, scope: _Scope) -> Any:
    """The default of a field: ``...`` where it has none, a literal, or the call of pydantic's ``Field``."""
    if node is None:
        return ...
    if not isinstance(node, ast.Call):
        return _literal(node)
    if _type(node.func, scope) is not Field or any(word.arg is None for word in node.keywords):
        raise NotLiteralError("a default is computed")
    words = {str(word.arg): _literal(word.value) for word in node.keywords}
    return Field(*(_literal(item) for item in node.args), **words)


def _presets(tree: ast.Module) -> dict[str, dict[str, Any]]:
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and _assigns(node, "PRESETS"):
            found = _literal(node.value)
            if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
                raise NotLiteralError("PRESETS is not a dictionary of dictionaries")
            return found
    return {}


def _assigns(node: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise NotLiteralError(f"not literal: {ast.unparse(node)}") from error


def _type(node: ast.expr, scope: _Scope) -> Any:
    """The type that an annotation means: names of known modules, their subscripts, and unions of them."""
    for kind, read_it in _READERS.items():
        if isinstance(node, kind):
            return read_it(node, scope)
    raise NotLiteralError(f"not known without running the file: {ast.unparse(node)}")


def _subscript(node: Any, scope: _Scope) -> Any:
    outer = _type(node.value, scope)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    inner = tuple(_argument(item, scope) for item in items)
    return outer[inner if isinstance(node.slice, ast.Tuple) else inner[0]]


def _argument(node: ast.expr, scope: _Scope) -> Any:
    """What stands in brackets: types, the values of ``Literal``, the ``Field`` of ``Annotated``."""
    if isinstance(node, ast.Call):
        return _default(node, scope)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a choice of Literal
        return node.value
    return _type(node, scope)


def _constant(node: Any, scope: _Scope) -> Any:
    """None, ``...``, numbers in ``Literal``, or a type written as a string."""
    return _type(ast.parse(node.value, mode="eval").body, scope) if isinstance(node.value, str) else node.value


def _union(node: Any, scope: _Scope) -> Any:
    if not isinstance(node.op, ast.BitOr):
        raise NotLiteralError(f"not known without running the file: {ast.unparse(node)}")
    return operator.or_(_type(node.left, scope), _type(node.right, scope))


_READERS: Mapping[type[ast.expr], Callable[[Any, _Scope], Any]] = {
    ast.Name: lambda node, scope: scope[node.id],
    ast.Attribute: lambda node, scope: getattr(_type(node.value, scope), node.attr),
    ast.Constant: _constant,
    ast.Subscript: _subscript,
    ast.BinOp: _union,
    ast.UnaryOp: lambda node, scope: _literal(node),
}
