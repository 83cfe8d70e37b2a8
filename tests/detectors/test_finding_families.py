"""Families of other packages, found by entry points: real ones, in a folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headstart.detectors import find
from headstart.errors import UserError

GOOD = """
from pathlib import Path
from headstart.errors import UserError

class Live: ...

def accepts(model):
    return isinstance(model, Live)

def check(model):
    return [] if model in ("toy:one",) or accepts(model) else [UserError(f"no toy is called {model!r}", where="model")]

def load(model, init=None):
    return ("toy", model, init)
"""


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that works, one whose import fails, and one that lacks what a family has."""
    (tmp_path / "toy_family.py").write_text(GOOD)
    (tmp_path / "broken_family.py").write_text("import no_such_package\n")
    (tmp_path / "empty_family.py").write_text("def accepts(model): return True\n")
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    names = "".join(f"{name} = {name}_family\n" for name in ("broken", "empty", "toy"))
    (info / "entry_points.txt").write_text(f"[{find.GROUP}]\n{names}")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("broken", "empty", "toy"):
        monkeypatch.delitem(sys.modules, f"{name}_family", raising=False)


def test_a_family_of_another_package_is_found_by_its_prefix() -> None:
    assert find.check_model("toy:one") == []
    assert find.load_detector("toy:one", init="x.pt") == ("toy", "toy:one", "x.pt")
    assert "no toy is called 'toy:two'" in str(find.check_model("toy:two")[0])
    assert "toy" in find.families()


def test_a_live_object_of_another_package_is_found() -> None:
    import toy_family  # type: ignore[import-not-found]

    live = toy_family.Live()
    assert find.load_detector(live) == ("toy", live, None)


def test_what_a_family_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match="the detectors of 'toy' have no fine-tuning, so they cannot be compared"):
        find.finetuner("toy:one")
    assert find.check_init("toy:one", "none.pt")[0].what == "none.pt does not exist"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("broken:x", "the detectors 'broken' (broken_family) cannot be imported: ModuleNotFoundError: No module named"),
        ("empty:x", "the detectors 'empty' (empty_family) have no check and no load"),
        ("tory:x", "no family of detectors is called 'tory'\n  -> did you mean 'toy'?"),
    ],
)
def test_a_broken_one_is_told_when_it_is_asked_for(model: str, message: str) -> None:
    (problem,) = find.check_model(model)
    assert message in str(problem)


def test_a_broken_one_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    assert find.check_model("yolo11n") == []
    assert find.check_model("torchvision:fcos_resnet50_fpn") == []
    assert set(find.families()) == {"toy", "torchvision", "ultralytics"}
    (tmp_path / "a.pt").write_bytes(b"x")
    assert find.check_model(tmp_path / "a.pt") == []
    with pytest.raises(UserError, match=r"a builtins\.int is not a detector that can be pretrained"):
        find.load_detector(3)


def test_names_and_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find.split_name("torchvision:fcos_resnet50_fpn") == ("torchvision", "fcos_resnet50_fpn")
    for bare in ("yolo11n", "C:\\yolo11n.pt", "https://host/yolo11n.pt", "runs/a/headstart.pt"):
        assert find.split_name(bare) == ("", bare)
    monkeypatch.chdir(tmp_path)
    Path("toy:file.pt").touch()
    assert find.split_name("toy:file.pt") == ("", "toy:file.pt")
