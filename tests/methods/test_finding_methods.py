"""Methods of this package, of installed ones and of a user; what a file must declare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from headstart.cli.options import fields_of
from headstart.errors import UserError
from headstart.methods import find

METHOD = '''"""Mine: a summary."""
from pydantic import Field
from headstart.methods.base import Method
from headstart.settings import MethodSettings

class Settings(MethodSettings):
    own: int = Field(3, ge=1, description="something")

PRESETS = {"mild": {"own": 1, "batch": 4}}

class Mine(Method):
    def view_specs(self): return []
    def forward(self, views, progress): return self.student.weight.sum()
'''


def environment(site: Path) -> dict[str, str]:
    """That of this process, with a folder of installed packages more."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(METHOD)
    return path


def test_the_names_are_those_of_the_files() -> None:
    folder = Path(find.__file__).parent
    others = {"__init__", "base", "find", "schedules", "anchor", "weight_mean"}
    others |= {"held_out", "image_order", "namer", "sampling_plan", "side_by_side"}
    assert set(find.names()) == {path.stem for path in folder.glob("*.py")} - others


def test_names_are_listed_without_torch() -> None:
    code = "import sys; from headstart.methods import find; find.names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_users_file(mine: Path) -> None:
    declared = find.find(str(mine))
    assert (declared.name, declared.summary, declared.path) == ("mine", "Mine: a summary", mine)
    resolved = tiny.resolve({"data": "x", "method": str(mine)})
    assert (resolved.method.model_dump()["own"], resolved.run.batch) == (1, 4)
    overridden = tiny.resolve({"data": "x", "method": str(mine), "preset": "mild", "own": 9})
    assert overridden.method.model_dump()["own"] == 9


def test_an_installed_package_brings_a_method(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip leaves it: modules, and metadata that name an entry point; another one is broken."""
    site = tmp_path / "site"
    info = site / "their_pack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[headstart.methods]\ntheirs = their_pack_method\nbroken = not_there.sub\ntorn = torn\n"
    )
    (site / "their_pack_method.py").write_text(METHOD)
    (site / "torn.py").write_text("import nowhere_at_all\nclass Settings(Mine): pass\n")
    monkeypatch.syspath_prepend(str(site))
    assert {"theirs", "broken", "dino"} <= set(find.names())
    declared = find.find("theirs")
    assert (declared.name, declared.path.name) == ("theirs", "their_pack_method.py")
    assert tiny.resolve({"data": "x", "method": "theirs"}).run.batch == 4
    with pytest.raises(UserError, match="broken"):
        find.find("broken")
    found = find.options()  # the broken ones harm nobody who does not ask for them
    assert set(found) == {*find.built_in(), "theirs"}
    assert "own" in found["theirs"]
    assert "locals" in found["dino"]
    assert {"own", "locals"} <= set(fields_of("pretrain")), "the command's options"
    code = "import sys, headstart.jobs.signature as s; print(len(s.options('pretrain')) > 50)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(site)
    )
    assert run.stdout == "True\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("class Settings(MethodSettings)", "class Options(MethodSettings)"), "has no class Settings(MethodSettings)"),
        (("class Mine(Method)", "class Mine"), "must have one subclass of headstart.methods.base.Method, has 0"),
        (
            ("    def view_specs", "    def __init__(self, settings, run, student, widths): pass\n    def view_specs"),
            "Mine.__init__ must take (self, settings, context)",
        ),
        (("from pydantic import Field", "import a_package_of_mine"), "cannot be imported: ModuleNotFoundError"),
        (("from headstart.methods.base", "from headstart.method"), "it is headstart.methods.base now"),
        (
            ("    def view_specs", "    from headstart.methods.base import Needs\n    needs = Needs(teacher=True)\n"
             "    def view_specs"),
            "needs teacher, but its Settings are no TeacherOptions",
        ),
        (
            ("    def view_specs", "    from headstart.methods.base import Needs\n    needs = Needs(trains='all')\n"
             "    def view_specs"),
            "needs the head (trains all), but its Settings are no ProposalOptions",
        ),
    ],
)  # fmt: skip
def test_what_a_file_must_declare(mine: Path, change: tuple[str, str], said: str) -> None:
    mine.write_text(METHOD.replace(*change))
    with pytest.raises(UserError) as caught:
        find.find(str(mine))
    assert said in str(caught.value)
    assert str(mine) in str(caught.value)


def test_a_method_of_headstart_by_its_path() -> None:
    path = Path(find.__file__).parent / "dino.py"
    assert find.find(str(path))[:2] == ("dino", path)
    assert find.find(str(path)).settings is find.find("dino").settings


def test_a_misspelt_name() -> None:
    with pytest.raises(UserError, match="there is no method 'dinoo'\n  -> did you mean 'dino'"):
        find.find("dinoo")
    with pytest.raises(UserError, match="there is no method 'base'"):
        find.find("base")
    with pytest.raises(UserError, match=r"there is no method 'nowhere\.py'"):
        find.find("nowhere.py")
