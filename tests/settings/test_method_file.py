"""What is read from a method's file without running it is what running it gives."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headstart.cli.help import metavar
from headstart.cli.options import preset_of, read_method
from headstart.errors import UserError
from headstart.methods.find import names, path_of
from headstart.settings.method_file import NotLiteralError, read


@pytest.mark.parametrize("name", names())
def test_reading_a_method_is_importing_it(name: str) -> None:
    module = importlib.import_module(f"headstart.methods.{name}")
    found = read(path_of(name))
    ours, theirs = found.settings.model_fields, module.Settings.model_fields
    assert list(ours) == list(theirs)
    for option, field in ours.items():
        other = theirs[option]
        assert repr(field.annotation) == repr(other.annotation), option  # bounds within a union are equal by name alone
        assert (field.is_required(), field.default) == (other.is_required(), other.default), option
        assert (field.description, field.metadata) == (other.description, other.metadata), option
        assert metavar(field.annotation) == metavar(other.annotation)
    assert found.presets == getattr(module, "PRESETS", {})
    assert (found.name, found.summary) == (name, module.__doc__.strip().split("\n")[0].rstrip("."))
    assert found.settings.__mro__[1:] == module.Settings.__mro__[1:]


HEAD = '''"""Mine: a summary.

More.
"""

from __future__ import annotations
import a_module_that_does_not_exist
import typing as t
import pydantic
from typing import Annotated, Any, Literal, Optional as Maybe
from pydantic import Field
from headstart.settings import MethodSettings
from headstart.settings import method_options
from headstart.settings.method_options import Scale
from headstart.settings.schema import split
'''


def write(folder: Path, body: str, base: str = "MethodSettings", more: str = "") -> Path:
    path = folder / "mine.py"
    path.write_text(f"{HEAD}\nclass Settings({base}):\n    {body}\n\n{more}\n")
    return path


def test_what_a_users_file_may_say(tmp_path: Path) -> None:
    body = """'''Options.'''
    plain: int = 3
    needed: str
    field: t.Literal["a", "b"] = pydantic.Field("a", description="a choice")
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    maybe: Maybe["int"] = None
    either: int | Literal["auto"] | None = Field(default=-1, gt=-2)
    pair: Scale = (0.5, 1.0)
    whole: dict[str, list[int]] = Field({}, description="of lists")
    lr: float = Field(0.5, gt=0, description="another rate")"""
    path = write(tmp_path, body, "method_options.AdamWSettings", "PRESETS: dict[str, Any] = {'mild': {'plain': 1}}")
    found = read(path)
    assert (found.name, found.path, found.summary) == ("mine", path, "Mine: a summary")
    assert found.presets == {"mild": {"plain": 1}}
    fields = found.settings.model_fields
    assert (fields["plain"].default, fields["plain"].annotation) == (3, int)
    assert fields["needed"].is_required()
    assert (fields["field"].default, fields["field"].description, metavar(fields["field"].annotation)) == (
        "a",
        "a choice",
        "a|b",
    )
    assert fields["maybe"].annotation == (int | None)
    assert (fields["lr"].default, fields["warmup"].default) == (0.5, 0.05)  # its own; that of AdamWSettings
    built: Any = found.settings(needed="x", pair=[0.1, 0.2])
    assert (built.pair, built.either, built.share) == ((0.1, 0.2), -1, 0.5)
    for wrong in ({"share": 2}, {"field": "c"}, {"either": -2}, {"either": "no"}, {"odd": 1}, {"lr": 0}):
        with pytest.raises(ValidationError):
            found.settings(needed="x", **wrong)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("own: int = Field(2 + 3)", ""),
        ("own: int = Field(SIZE)", "SIZE = 3"),
        ("own: int = Field(default_factory=int)", ""),
        ("own: int = Field(**{'ge': 1})", ""),
        ("own: int = compute()", ""),
        ("own: Size = 3", "Size = int"),
        ("own: Annotated[int, check] = 3", "from other import check"),
        ("own: a_module_that_does_not_exist.Size = 3", ""),
        ("own: int = 3\n    def method(self): pass", ""),
        ("own: int = 3\n    other = 4", ""),
        ("own: int = 3", "PRESETS = {name: {} for name in 'ab'}"),
        ("own: int = 3", "PRESETS = [1]"),
    ],
)
def test_what_only_running_the_file_can_tell(body: str, more: str, tmp_path: Path) -> None:
    with pytest.raises(NotLiteralError):
        read(write(tmp_path, body, more=more))


@pytest.mark.parametrize(
    "base", ["pydantic.BaseModel", "a_module_that_does_not_exist.Base", "MethodSettings, frozen=True"]
)
def test_other_bases(base: str, tmp_path: Path) -> None:
    with pytest.raises(NotLiteralError):
        read(write(tmp_path, "own: int = 3", base))


def test_options_of_another_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from headstart.methods.dino import DINO as Theirs, Settings\nclass Mine(Theirs): pass\n")
    with pytest.raises(NotLiteralError):
        read(path)
    assert read_method(str(path)).settings.model_fields["output_dim"].default == 2048  # by importing it


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = 1\n", r"has no class Settings\(MethodSettings\)"), ("def (:\n", "cannot be read"), ("\0", "cannot be read")],
)
def test_no_method(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_the_preset_that_a_run_uses() -> None:
    assert preset_of(read(path_of("dino"))) == ("tutorial", {})
    assert preset_of(read(path_of("objects"))) == ("default", {"batch": 128})
    assert preset_of(read(path_of("byol"))) == (None, {})
    assert preset_of(read(path_of("distill")), "cosine") == ("cosine", {"smooth_l1": 0.0, "cka": 0.0})
