"""Files of which nothing is known: whatever is in them, a value or a ValueError, in bounded time and memory.

The parsers themselves raise what their insides meet (``!!bool x`` is a KeyError, brackets by the thousand a
RecursionError), and a few lines of YAML with references to references are gigabytes once they are printed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from headstart.errors import RunError, UserError, gave_out

MOST_YAML = 4_000_000
"""Characters of a YAML: the parser takes about a minute for as many."""
MOST_VALUES = 1_000_000
"""Values in a YAML, those behind references counted as often as they are referred to."""


@contextmanager
def looked_at(path: str | Path) -> Iterator[None]:
    """Tell a file that is damaged, or not there, from one that cannot be read now, of which nothing is known.

    Raises:
        ValueError: Of whatever was raised within, in a line: the file is damaged or not there.
        RunError: Storage or memory gave out.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # a torn file raises whatever its damage provokes
        if gave_out(error):
            raise unread(path, error.__cause__ or error) from error
        if isinstance(error, UserError):
            raise
        raise ValueError(_reason(error)) from error


def unread(path: str | Path, error: BaseException) -> RunError:
    """What to tell of a file that cannot be read now, because of what `gave_out`."""
    hint = "nothing was removed or replaced: the same command goes on once it can be read"
    return RunError(f"cannot be read now: {_reason(error)}", where=str(path), hint=hint)


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error).strip()
    return str(said or type(error).__name__).splitlines()[0]


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


def _finite(word: str) -> float | None:
    return found if math.isfinite(found := float(word)) else None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that were cut short or damaged are left out, as is a missing file.

    Raises:
        RunError: Storage gave out: what it holds is not known.
    """
    text = ""
    with suppress(ValueError), looked_at(path):
        text = path.read_bytes().decode("utf-8", errors="replace")
    objects = []
    for line in text.split("\n"):
        with suppress(ValueError):
            # NaN is no JSON, and 1e999 no number of ours: a byte of it was changed.
            if isinstance(found := parse_json(line, parse_constant=lambda _: None, parse_float=_finite), dict):
                objects.append(found)
    return objects


def _check_values(content: Any) -> None:
    left, todo = MOST_VALUES, [content]
    while todo:
        one = todo.pop()
        parts = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else ()
        left -= len(parts)
        if left < 0:
            raise ValueError(f"its references make more than {MOST_VALUES:,} values")
        todo += parts
