"""The loggers that a user names, with their settings: words, lists and maps of them as one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from headstart.reading import parse_yaml

NamedLogger = str | dict[str, dict[str, Any]]


def listed(value: Any) -> Any:
    """``csv,tensorboard``, ``[csv, {wandb: {project: x}}]`` or ``{csv: {}, wandb: {project: x}}`` as a list.

    Each item is a name, or a map of one name to the logger's settings. What is none of these stays as it is, for the
    settings to complain of.
    """
    if isinstance(value, str):
        return _words(value)
    if isinstance(value, Mapping):
        return [{str(name): settings} if settings else str(name) for name, settings in value.items()]
    if isinstance(value, (int, float, Path)) and not isinstance(value, bool):
        return [str(value)]
    if not isinstance(value, (list, tuple)):
        return value
    found: list[Any] = []
    for one in value:
        many = listed(one) if isinstance(one, (Mapping, int, float, Path)) or _braced(one) else one
        found += many if isinstance(many, list) else [many]
    return found


def named(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """The names and the settings of what `listed` gives; what is neither a name nor has one is left out."""
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    pairs: list[tuple[Any, Any]] = []
    for one in items:
        pairs += one.items() if isinstance(one, Mapping) else [(one, {})]
    return [(name, dict(got) if isinstance(got, Mapping) else {}) for name, got in pairs if isinstance(name, str)]


def names(value: Any) -> Iterable[str]:
    """The names alone, of what a user gave."""
    return [name for name, _ in named(listed(value))]


def renamed(one: Any, rename: Callable[[Any], Any]) -> Any:
    """An item of what `listed` gives, with another name."""
    return {rename(name): got for name, got in one.items()} if isinstance(one, Mapping) else rename(one)


def _words(value: str) -> Any:
    """A string as it is typed: with a brace it is YAML, without one names between commas."""
    inner = value.strip()
    if "{" in inner and inner[0] in "[{":
        try:
            found = parse_yaml(inner)
        except ValueError:
            return value
        return listed(found) if isinstance(found, (list, Mapping)) else value
    inner = inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner
    return [part.strip() for part in inner.split(",") if part.strip()]


def _braced(value: Any) -> bool:
    return isinstance(value, str) and value.strip().startswith("{")


Loggers = Annotated[list[NamedLogger], BeforeValidator(listed)]
