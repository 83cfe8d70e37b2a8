"""What the demo says of itself to whoever called it."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from headstart.aside import empty
from headstart.comparison.results import read_results
from headstart.comparison.starts import parse_starts
from headstart.errors import UserError
from headstart.jobs import demo as module
from headstart.methods import selftrain
from headstart.run.folder import RunFolder
from headstart.settings.resolve import collect, resolve_pretrain
from headstart.settings.schema import CompareSettings, PretrainSettings


@pytest.mark.parametrize(
    ("run", "done", "status"),
    [
        ({"ok": True}, {"ok": True}, 0),
        ({"ok": True}, {"ok": False}, 1),  # a check failed, though every training ended
        ({"ok": False}, None, 1),  # nothing was handed back: there is nothing to compare
        ({"ok": False, "interrupted": True}, None, 130),
        ({"ok": True}, {"ok": False, "interrupted": True}, 130),
    ],
)
def test_the_status_is_0_only_where_all_went_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], done: dict[str, Any] | None, status: int
) -> None:
    ended = partial(_ended, tmp_path)
    monkeypatch.setattr(module, "draw_dataset", lambda folder, **_: folder / "data.yaml")
    (tmp_path / "headstart.pt").touch()
    monkeypatch.setattr(module, "pretrain", lambda **_: ended(run))
    monkeypatch.setattr(module, "compare", lambda **_: ended(done) if done else pytest.fail("compared"))
    assert module.demo(tmp_path / "demo") == status


def _ended(folder: Path, facts: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{"interrupted": False, "folder": folder, "report": None, "verdict": "", **facts})


def test_it_ends_with_the_verdict_the_report_and_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "headstart against things-longer: better with 4 seeds at 10 labelled images [+8.3 points]."
    report = tmp_path / "compare" / "report.html"
    monkeypatch.setattr(module, "draw_dataset", lambda folder, **_: folder / "data.yaml")
    (tmp_path / "headstart.pt").touch()
    monkeypatch.setattr(module, "pretrain", lambda **_: _ended(tmp_path, {"ok": True}))
    done = _ended(tmp_path / "compare", {"ok": True, "verdict": said, "report": report})
    monkeypatch.setattr(module, "compare", lambda **_: done)
    module.demo(tmp_path / "demo")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    at = lines.index(said)  # as it is: brackets are no markup
    assert lines[at + 1] == f"report: {report}"
    commands = lines[at + 3 :]
    assert [line.split()[:2] for line in commands] == [
        ["headstart", "pretrain"],
        ["yolo", "detect"],
        ["headstart", "compare"],
    ]
    assert "labels=" in commands[0]


def test_its_commands_have_options_that_there_are() -> None:
    known = {
        "pretrain": {*PretrainSettings.model_fields, *selftrain.Settings.model_fields},
        "compare": set(CompareSettings.model_fields),
    }
    for line in module.NEXT:
        program, command, *words = line.split()
        if program == "headstart":
            assert {word.partition("=")[0] for word in words} <= known[command], line


def test_what_it_trains_and_compares_is_what_a_user_could_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code as for anybody; both starts have seen as many steps, of the same detector and the same labels."""
    asked: dict[str, Any] = {}
    (tmp_path / "headstart.pt").write_bytes(b"weights")
    monkeypatch.setattr(module, "pretrain", lambda **given: asked.update(first=given) or _ended(tmp_path, {"ok": True}))
    monkeypatch.setattr(
        module, "compare", lambda **given: asked.update(compare=given) or _ended(tmp_path, {"ok": True})
    )
    monkeypatch.setattr(module, "SIGN_IMAGES", {"unlabelled": 0, "train": 12, "val": 2})
    monkeypatch.setattr(module, "THING_IMAGES", {"unlabelled": 0, "train": 2, "val": 1})
    assert module.demo(tmp_path / "demo", seed=7) == 0
    recipe = yaml.safe_load((tmp_path / "demo/recipe.yaml").read_text())
    reference, _, made = asked["compare"]["starts"]
    assert reference == f"things-longer={recipe['init']}"
    assert Path(recipe["init"]).read_bytes() == b"weights"
    assert made == f"headstart={tmp_path / 'demo/recipe.yaml'}"
    starts, problems = parse_starts(asked["compare"]["starts"], asked["compare"]["model"])
    assert not problems
    assert [(start.kind, start.as_is) for start in starts] == [
        ("checkpoint-longer", False), ("recipe", True), ("recipe", False),
    ]  # fmt: skip
    # A recipe is checked as a pretraining is, once it has its cells' labels.
    signs = str(asked["compare"]["data"])
    filled = {**recipe, "data": str(tmp_path / "demo/signs"), "labels": signs, "model": asked["compare"]["model"]}
    for given in (filled, asked["first"]):
        problems = []
        options = collect(given, problems)
        resolve_pretrain(options, selftrain.Settings, selftrain.PRESETS, method=given["method"], problems=problems)
    assert len(list((tmp_path / "demo/signs/images/train").iterdir())) == 12


def test_a_demo_at_work_is_not_replaced(tmp_path: Path) -> None:
    """Before, its folder was removed under it."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / module.NAME).touch()
    run = RunFolder.create(tmp_path / "demo" / "first")
    with pytest.raises(UserError, match="another run is at work"):
        module.demo(tmp_path / "demo", overwrite=True)
    assert (run.path / "checkpoints").is_dir()
    run.close()


def test_what_marks_a_folder_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is emptied, it is still ours, and can be emptied again."""
    for name in ("a", "mark", "z"):
        (tmp_path / name).touch()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path.parent)
    gone: list[str] = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (gone.append(path.name), unlink(path, **more)))
    empty(tmp_path, "mark")
    assert gone[-1] == "mark"
    assert not list(tmp_path.iterdir())
    assert tmp_path.parent.is_dir(), "a link is removed, not where it leads"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, of a size at which it can show nothing."""
    monkeypatch.setattr(module, "SIGN_IMAGES", {"unlabelled": 0, "train": 24, "val": 8})
    monkeypatch.setattr(module, "THING_IMAGES", {"unlabelled": 0, "train": 32, "val": 1})
    monkeypatch.setattr(module, "SEEDS", 1)
    monkeypatch.setattr(module, "FINETUNING", 2)
    monkeypatch.setitem(module.FIRST, "steps", 2)
    monkeypatch.setitem(module.RECIPE, "steps", 4)


def test_the_whole_way_as_a_user_goes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(monkeypatch)
    assert module.demo(tmp_path / "demo") == 0
    said = capsys.readouterr().out
    assert "headstart against things-longer: inconclusive" in said
    results = read_results(tmp_path / "demo/compare")
    steps = {cell.start: cell.epochs * 2 for cell in results.finished()}  # ten images are two steps of eight
    assert steps == {"headstart": 2, "headstart-as-is": 0, "things-longer": 6}
    made = YOLO(tmp_path / "demo/first/headstart.pt")
    assert made.names == {0: "thing"}


@pytest.mark.slow
def test_fresh_images_show_a_gain_as_well(tmp_path: Path) -> None:
    """About four minutes on two free cores; EXPERIMENTS.md has five such seeds."""
    assert module.demo(tmp_path / "demo", seed=6) == 0
    found = {one.start: one for one in read_results(tmp_path / "demo/compare").differences}
    assert found.keys() == {"headstart-as-is", "headstart"}
    difference = found["headstart"]
    assert difference.map50_95.t_low is not None
    assert difference.map50_95.t_low > 0


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "draw_dataset", full)
    with pytest.raises(UserError, match="the disk is full"):
        module.demo(tmp_path / "demo")
