"""YAML and JSON of which nothing is known: whatever is in them, a value or a ValueError, in bounded time and memory.

The parsers themselves raise what their insides meet (``!!bool x`` is a KeyError, brackets by the thousand a
RecursionError), and a few lines of YAML with references to references are gigabytes once they are printed.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

MOST_YAML = 4_000_000
"""Characters of a YAML: the parser takes about a minute for as many."""
MOST_VALUES = 1_000_000
"""Values in a YAML, those behind references counted as often as they are referred to."""


def parse_yaml(text: str) -> Any:
    """The value that a YAML holds; nothing but lists, mappings and plain values.

    Raises:
        ValueError: It is no YAML, or one of more than `MOST_YAML` characters or `MOST_VALUES` values.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it has {len(text):,} characters; {MOST_YAML:,} at most are read")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (Exception, RecursionError) as error:  # whatever the parser meets
        raise ValueError(f"it is not valid YAML ({type(error).__name__}: {error})") from error
    _check_values(content)
    return content


def parse_json(text: str | bytes, **more: Any) -> Any:
    """The value that a JSON text holds; `more` as for `json.loads`.

    Raises:
        ValueError: It is none, or nested too deeply.
    """
    try:
        return json.loads(text, **more)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_values(content: Any) -> None:
    left, todo = MOST_VALUES, [content]
    while todo:
        one = todo.pop()
        parts = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else ()
        left -= len(parts)
        if left < 0:
            raise ValueError(f"its references make more than {MOST_VALUES:,} values")
        todo += parts
