"""Parts of installed packages: found by name, imported only when asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headstart import plugins
from headstart.errors import UserError
from headstart.run.loggers import check_loggers, open_loggers
from headstart.teachers.base import TeacherSource
from headstart.teachers.load import check_teacher, load_teacher
from installed import install

TEACHER = """
from torch import nn
def load():
    return nn.Conv2d(3, 5, 3, 2, 1)
"""
LOGGER = """
from headstart.run.loggers import Logger
class Lines(Logger):
    def metrics(self, step, values):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lines.txt").open("a") as stream:
            stream.write(f"{step} {values['loss']}\\n")
"""
POINTS = {
    "headstart.teachers": {"small": "extras_teacher:load", "broken": "extras_broken:load"},
    "headstart.loggers": {"lines": "extras_logger:Lines", "broken": "extras_broken:Lines", "gone": "nowhere:Lines"},
}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    broken = "raise RuntimeError('made for another version')"
    files = {"extras_teacher.py": TEACHER, "extras_logger.py": LOGGER, "extras_broken.py": broken}
    install(monkeypatch, tmp_path / "site", files, POINTS)
    yield
    for name in ("extras_teacher", "extras_logger"):
        sys.modules.pop(name, None)


def test_what_is_installed_is_listed_and_not_imported() -> None:
    assert {"small", "broken"} <= set(plugins.installed("headstart.teachers"))
    assert check_teacher(TeacherSource("small")) == []
    assert check_loggers(["lines", "broken", "gone", "csv"]) == []
    assert not {"extras_teacher", "extras_logger", "extras_broken"} & set(sys.modules)


def test_a_teacher_of_an_installed_package() -> None:
    teacher = load_teacher(TeacherSource("small"))
    assert (teacher.widths, teacher.strides) == ((5,), (2.0,))


def test_a_logger_of_an_installed_package(tmp_path: Path) -> None:
    (logger,) = open_loggers(["lines"], tmp_path / "out")
    logger.metrics(3, {"loss": 0.5})
    assert (tmp_path / "out/lines.txt").read_text() == "3 0.5\n"


def test_a_broken_part_names_itself_and_its_package_when_it_is_asked_for(tmp_path: Path) -> None:
    said = "'broken' of the package extras cannot be imported: RuntimeError: made for another version"
    with pytest.raises(UserError, match=said) as caught:
        load_teacher(TeacherSource("broken"))
    assert (caught.value.where, caught.value.hint) == ("teacher", "update or remove extras")
    with pytest.raises(UserError) as caught:
        open_loggers(["broken", "lines", "gone"], tmp_path)
    assert f"1. loggers: {said}" in str(caught.value)
    assert "2. loggers: 'gone' of the package extras cannot be imported: ModuleNotFoundError" in str(caught.value)


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"where = {folder!r}")
    first, second = (plugins.import_file(tmp_path / folder / "mine.py") for folder in ("a", "b"))
    assert (first.where, second.where) == ("a", "b")
    assert first.__name__ != second.__name__


def test_one_subclass_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Ours(Exception): ...\nalias = tuple[float, float]\nfrom argparse import ArgumentError\n")
    assert plugins.one_subclass(plugins.import_file(path), Exception).__name__ == "Ours"
    path.write_text("class A(Exception): ...\nclass B(A): ...\n")
    with pytest.raises(UserError, match=r"must have one subclass of builtins\.Exception, has 2"):
        plugins.one_subclass(plugins.import_file(path), Exception)
