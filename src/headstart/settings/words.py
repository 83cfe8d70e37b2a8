"""Words typed at a terminal, turned into values by the type of the option that they are given for.

``out=007`` stays a string and ``epochs=007`` is a number, because the first option means a string and the second a
number. What does not fit the type stays a string, and the settings then complain of it in their own words.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

NONE = {"none", "null"}
TRUE, FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
_WHOLE = re.compile(r"[+-]?\d+")
_DIGITS = 300
"""A number of more digits is none that an option means, and from 4,300 on Python reads none."""
_BRACKETED = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_SOMETHING = Union[bool, int, float, dict[str, Any], str, None]  # noqa: UP007 - a value, which `|` is not to mypy


class Word(str):
    """A string typed at a terminal, which may mean a number, a list, or nothing at all."""

    __slots__ = ()


class _Unfit:
    """Says that a word is not a value of a type; None and false are values."""


_UNFIT = _Unfit()


def typed(kind: Any, word: str) -> Any:
    """The value that `word` means for an option.

    Args:
        kind: The option's type (with ``Annotated``, unions, ``Literal``, lists, tuples, dicts), or its pydantic field.
        word: What was typed.

    Returns:
        ``none`` and ``null`` as None where the type allows it; ``true``, ``yes``, ``on`` and their opposites as truth
        values where one is meant; a number where a number is meant; a list for ``[a, b]`` and ``a,b`` where a list or
        tuple is meant; a dict for JSON. Anything else as a plain string.
    """
    found = _value(kind.rebuild_annotation() if isinstance(kind, FieldInfo) else kind, str(word))
    return str(word) if isinstance(found, _Unfit) else found


def understood(fields: Mapping[str, FieldInfo], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with every `Word` turned into the value that it means for its field.

    An option that was given several times holds a list of words; their values make one list. Values that are no words,
    and words of options that `fields` does not have, stay as they are.
    """
    found = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is not None and isinstance(value, Word):
            value = typed(field, value)
        elif field is not None and isinstance(value, list) and any(isinstance(one, Word) for one in value):
            parts = [typed(field, one) if isinstance(one, Word) else one for one in value]
            value = [item for part in parts for item in (part if isinstance(part, list) else [part])]
        found[name] = value
    return found


def says_none(value: Any) -> bool:
    """Whether a value is the word for none."""
    return isinstance(value, str) and value.strip().lower() in NONE


def none_meant(fields: Mapping[str, FieldInfo], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with None for the word ``none``, of each option that may be none.

    Help and pages say ``none``, so files and programs do, too; YAML takes it for a string like any other.
    """
    return {
        name: None if says_none(value) and name in fields and typed(fields[name], value) is None else value
        for name, value in given.items()
    }


def guessed(word: str) -> Any:
    """The value of `word` where no type is declared (arguments of Ultralytics): a number, truth value, none or list."""
    return _as_list(_SOMETHING, word) if _BRACKETED.fullmatch(word) else typed(_SOMETHING, word)


def takes_many(field: FieldInfo) -> bool:
    """Whether an option takes a list, so that it may be given several times."""
    return any(get_origin(one) is list or one is list for one in alternatives(field.annotation))


def alternatives(kind: Any) -> list[Any]:
    """The members of a union, each without its ``Annotated``; the type itself where it is no union."""
    if get_origin(kind) is Annotated:
        return alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in alternatives(part)]
    return [kind]


def choices(kind: Any) -> list[Any]:
    """The values that the ``Literal`` types in `kind` name."""
    return [value for one in alternatives(kind) if get_origin(one) is Literal for value in get_args(one)]


# -- one type after the other, the most special first -----------------------------------------------------------------


def _value(kind: Any, word: str) -> Any:
    for choice in choices(kind):
        if word == str(choice):
            return choice
    kinds = alternatives(kind)
    plain = word.strip()
    if says_none(plain) and (type(None) in kinds or Any in kinds):
        return None
    if bool in kinds and plain.lower() in TRUE | FALSE:
        return plain.lower() in TRUE
    if not isinstance(number := _number(kinds, plain), _Unfit):
        return number
    for one in kinds:
        if not isinstance(found := _container(one, word, alone=str not in kinds, kind=kind), _Unfit):
            return found
    return word if str in kinds or Any in kinds else _UNFIT


def _number(kinds: Sequence[Any], word: str) -> int | float | _Unfit:
    """A number for ``int`` and ``float``. A fraction for ``int`` is left to the settings, which refuse it."""
    if int in kinds and _WHOLE.fullmatch(word) and len(word) <= _DIGITS:
        return int(word)
    if int not in kinds and float not in kinds:
        return _UNFIT
    try:
        number = float(word)
    except ValueError:
        return _UNFIT
    # float() also reads 1_000, which nobody types, and inf and nan, which no option means.
    return number if math.isfinite(number) and "_" not in word else _UNFIT


def _container(one: Any, word: str, *, alone: bool, kind: Any) -> Any:
    """A list, tuple or dict. Where the option may also be a string (not `alone`), a list needs its brackets."""
    origin = get_origin(one) or one
    if origin is dict:
        return _as_dict(word)
    if origin not in (list, tuple, Sequence):
        return _UNFIT
    items = get_args(one) or (Any,)
    if "{" in word and any(get_origin(part) is dict for part in alternatives(items[0])):
        return word  # maps among the items: the option's own validator reads them
    bracketed = bool(_BRACKETED.fullmatch(word))
    if bracketed or (alone and "," in word):
        return _as_list(items if origin is tuple else items[0], word)
    if not alone or origin is tuple:
        return _UNFIT
    # A field with a validator of its own may mean more by a single value: seeds=3 are the seeds 0, 1 and 2.
    lone = typed(items[0], word)
    return lone if _validated(kind) else [lone]


def _validated(kind: Any) -> bool:
    return get_origin(kind) is Annotated and any(hasattr(one, "func") for one in get_args(kind)[1:])


def _as_list(items: Any, word: str) -> Any:
    """The list in ``[a, b]`` or ``a,b``, each part by its own type; `items` is a tuple of types for a tuple."""
    parts: Any = None
    if _BRACKETED.fullmatch(word):
        try:  # every scalar stays a string, so that the items' type decides; JSON is read as well
            parts = yaml.load(word, yaml.BaseLoader)
        except yaml.YAMLError:
            parts = None
        word = word.strip()[1:-1]
    if not isinstance(parts, list):
        parts = [part.strip() for part in word.split(",") if part.strip()]
    return [_item(items, place, part) for place, part in enumerate(parts)]


def _item(items: Any, place: int, part: Any) -> Any:
    if isinstance(items, tuple):
        items = items[0] if items[-1] is Ellipsis else items[min(place, len(items) - 1)]
    if isinstance(part, list):
        nested = next((one for one in alternatives(items) if get_origin(one) in (list, tuple)), Any)
        inner = get_args(nested) or (Any,)
        inner = inner if get_origin(nested) is tuple else inner[0]
        return [_item(inner, number, one) for number, one in enumerate(part)]
    return typed(items, part) if isinstance(part, str) else part


def _as_dict(word: str) -> Any:
    try:
        found = json.loads(word)
    except ValueError:
        return _UNFIT
    return found if isinstance(found, dict) else _UNFIT
