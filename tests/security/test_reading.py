"""YAML and JSON of strangers: a value, or a ValueError that says why."""

from __future__ import annotations

import time

import pytest

from headstart import reading
from headstart.reading import parse_json, parse_yaml

BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['lol'] * 9)}]" for n in range(9))


@pytest.mark.parametrize(
    "text",
    [
        "!!bool perhaps", "!!int ''", "!!float x", "!!timestamp x", "2024-13-45", "{[]: 1}", "? {a: b}", "&a [*b]",
        "a: b: c", "!!python/object/apply:os.system [id]", "\x00", "[" * 5000, "!!set [a]", "- {a", "*a", "!!binary 0",
    ],
)  # fmt: skip
def test_what_is_no_yaml(text: str) -> None:
    with pytest.raises(ValueError):
        parse_yaml(text)


def test_references_to_references() -> None:
    began = time.perf_counter()
    for text in (BOMB, "&a [*a]", "&a {b: *a}"):
        with pytest.raises(ValueError, match="its references make more than 1,000,000 values"):
            parse_yaml(text)
    assert time.perf_counter() - began < 20
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_a_yaml_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_YAML", 10)
    assert parse_yaml("a: 3456789") == {"a": 3456789}
    with pytest.raises(ValueError, match="it has 11 characters; 10 at most are read"):
        parse_yaml("a: 34567890")


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "1" * 5000, "\x00"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
