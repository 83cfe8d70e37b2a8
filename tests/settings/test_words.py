"""What a typed word means depends on the option's type alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field

from headstart.cli.help import shown_default
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import CompareSettings, Options, PretrainSettings
from headstart.settings.words import Word, guessed, none_meant, takes_many, typed, understood

Auto = Annotated[int, Field(ge=0)] | Literal["auto"]


@pytest.mark.parametrize(
    ("kind", "word", "value"),
    [
        # Strings stay what they are, however much they look like something else.
        (str, "007", "007"), (str, "12:30", "12:30"), (str, "~", "~"), (str, "true", "true"), (str, "none", "none"),
        (str, "1e3", "1e3"), (str, "[a]", "[a]"), (str, "", ""), (Any, "7", "7"),
        # None, only where it is allowed.
        (str | None, "none", None), (str | None, "NULL", None), (float | None, "none", None), (Any, "none", None),
        (int, "none", "none"), (str | None, "~", "~"),
        # Truth values, only where one is meant.
        (bool, "true", True), (bool, "True", True), (bool, "off", False), (bool, "no", False), (bool, "maybe", "maybe"),
        (bool | Literal["auto"], "auto", "auto"), (bool | Literal["auto"], "yes", True),
        (Literal["auto", "off"], "off", "off"), (Literal["auto", "true", "false"], "true", "true"),
        (Literal[1, 2], "2", 2), (Literal["32", "16"], "32", "32"),
        # Numbers, only where one is meant.
        (int, "12", 12), (int, "-1", -1), (int, "007", 7), (int, "1.5", 1.5), (int, "many", "many"),
        (int, "1_000", "1_000"), (int, "1" * 5000, "1" * 5000),
        (float, "3", 3.0), (float, "1e-3", 1e-3), (float, ".5", 0.5), (float, "inf", "inf"), (float, "nan", "nan"),
        (float, "1,5", "1,5"), (Auto, "auto", "auto"), (Auto, "4", 4), (Auto, "few", "few"),
        # Lists and tuples.
        (tuple[float, float], "[0.4, 1]", [0.4, 1.0]), (tuple[float, float], "0.4,1", [0.4, 1.0]),
        (tuple[float, float], "0.5", "0.5"), (tuple[int, str], "007,007", [7, "007"]),
        (tuple[int, ...], "1,2,3", [1, 2, 3]),
        (tuple[float, float] | None, "none", None), (list[str], "a,b", ["a", "b"]), (list[str], "a", ["a"]),
        (list[str], "[007, 1]", ["007", "1"]), (list[str], '["a,b", "c"]', ["a,b", "c"]), (list[str], "[]", []),
        (list[str], "['a, b', c]", ["a, b", "c"]), (list[int | str], "1,x", [1, "x"]),
        (list[list[int]], "[[1, 2], [3]]", [[1, 2], [3]]),
        (list[tuple[int, str]], "[[1, 2]]", [[1, "2"]]), (list[str], "scratch,ssl=runs/a", ["scratch", "ssl=runs/a"]),
        (str | list[str], "a,b", "a,b"), (str | list[str], "[a, b]", ["a", "b"]), (list[str], "[%a, b]", ["%a", "b"]),
        # A single value is left to a validator that gives it a meaning of its own.
        (Annotated[list[int], BeforeValidator(range)], "3", 3),
        # Dictionaries are JSON.
        (dict[str, Any], '{"a": [1, true]}', {"a": [1, True]}), (dict[str, Any], "a", "a"),
        (dict[str, Any], "[1]", "[1]"),
    ],
)  # fmt: skip
def test_typed(kind: Any, word: str, value: Any) -> None:
    found = typed(kind, Word(word))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("word", "value"),
    [("0", 0), ("0.5", 0.5), ("true", True), ("none", None), ("disk", "disk"), ("[1, x]", [1, "x"]),
     ('{"a": 1}', {"a": 1})],
)  # fmt: skip
def test_guessed(word: str, value: Any) -> None:
    assert guessed(word) == value
    assert type(guessed(word)) is type(value)


def test_understood_takes_words_alone() -> None:
    given = {
        "data": [Word("a"), Word("[b, c]")],
        "batch": Word("8"),
        "epochs": "3",
        "out": Word("007"),
        "odd": Word("1"),
    }
    found = understood(PretrainSettings.model_fields, given)
    assert found == {"data": ["a", "b", "c"], "batch": 8, "epochs": "3", "out": "007", "odd": "1"}
    assert type(found["odd"]) is Word  # its type is not known here
    assert type(found["out"]) is str


def test_none_is_none_wherever_it_is_written() -> None:
    """Of an option that may be none, but for a choice of this name; a list of it and a path are what they are."""

    class Some(Options):
        teacher: Any = None
        rate: float | None = None
        mode: Literal["none", "all"] | None = "all"
        name: str = "x"
        both: list[str] | None = None

    given = {"teacher": "none", "rate": " None ", "mode": "none", "name": "none", "both": ["none"], "other": "none"}
    assert none_meant(Some.model_fields, given) == {**given, "teacher": None, "rate": None}
    same = {"teacher": "./none", "rate": 0.5, "mode": "all"}
    assert none_meant(Some.model_fields, same) == same
    assert none_meant(Some.model_fields, {"teacher": "null"}) == {"teacher": None}


def test_several_starts_and_seeds() -> None:
    fields = CompareSettings.model_fields
    given = {"starts": [Word("scratch"), Word("ssl=runs/a")], "seeds": [Word("1"), Word("2")]}
    assert understood(fields, given) == {"starts": ["scratch", "ssl=runs/a"], "seeds": [1, 2]}
    assert CompareSettings(data="x", seeds=typed(fields["seeds"], "3")).seeds == [0, 1, 2]
    assert CompareSettings(data="x", seeds=typed(fields["seeds"], "3,5")).seeds == [3, 5]
    assert CompareSettings(data="x", lr=typed(fields["lr"], "0.01")).lr == [0.01]
    assert CompareSettings(data="x", longer=typed(fields["longer"], "true")).longer == "true"
    assert [takes_many(fields[name]) for name in ("starts", "seeds", "model")] == [True, True, False]


@pytest.mark.parametrize("kind", [PretrainSettings, MethodSettings, CompareSettings])
def test_every_default_can_be_typed(kind: type) -> None:
    """``key=value`` with the value that the help shows gives the default."""
    for name, field in kind.model_fields.items():
        if not field.is_required():
            value = typed(field, Word(shown_default(field.default)))
            built = kind(**({"data": "x"} if "data" in kind.model_fields else {}), **{name: value})
            assert getattr(built, name) == field.default, name
