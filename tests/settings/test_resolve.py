from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml

from headstart.errors import UserError
from headstart.images.index_cache import default_folder
from headstart.methods import dino, find
from headstart.paths import expanded
from headstart.settings.resolve import as_plain, build, in_memory, resolve_options, resolve_pretrain
from headstart.settings.tools import EmbedSettings


def message(**options: object) -> str:
    with pytest.raises(UserError) as caught:
        tiny.resolve(options)
    return str(caught.value)


def test_defaults_are_the_tutorial() -> None:
    resolved = tiny.resolve({"data": "images"})
    assert (resolved.run.imgsz, resolved.run.local_imgsz, resolved.run.method) == (224, 96, "dino")
    assert (resolved.method.optimizer, resolved.method.lr) == ("adam", 1e-3)
    head = resolved.method.model_dump()
    assert (head["hidden_dim"], head["bottleneck_dim"], head["output_dim"], head["locals"]) == (512, 64, 2048, 6)
    assert (head["ema_start"], head["ema_end"]) == (0.996, 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epoch": 3}, "there is no option 'epoch'\n  -> did you mean 'epochs'?"),
        ({"outputdim": 3}, "did you mean 'output_dim'?"),
        ({"epochs": -1}, "epochs: must be greater than 0, not -1"),
        ({"epochs": "inf"}, "epochs: must be a number that is not infinite, not 'inf'"),
        ({"every": float("nan")}, "every: must be a number that is not infinite, not nan"),
        ({"lr": float("inf")}, "lr: must be a number that is not infinite, not inf"),
        ({"out": "a\0b"}, "out: holds what no name or path may: 'a\\x00b'"),
        ({"out": "\ud800"}, "out: holds what no name or path may: '\\ud800'"),
        ({"out": "~no-such-user/x", "epoch": 3}, "there is no option 'epoch'"),
        ({"batch": 1}, "batch: must be at least 2 or must be 'auto', not 1"),
        ({"batch": "many"}, "batch: must be a whole number or must be 'auto', not 'many'"),
        ({"batch": 1.5}, "batch: must be a whole number or must be 'auto', not 1.5"),
        ({"resume": "perhaps"}, "resume: must be true or false, not 'perhaps'"),
        ({"precision": "fp8"}, "precision: must be 'auto', '32', 'bf16' or '16', not 'fp8'"),
        ({"method": "dinno"}, "method: there is no method 'dinno'\n  -> did you mean 'dino'?"),
        ({"method": "nowhere.py"}, "there is no method 'nowhere.py'"),
        ({"preset": "tutoral"}, "preset: method 'dino' has no preset 'tutoral'\n  -> did you mean 'tutorial'?"),
        ({"epochs": 1, "steps": 2}, "epochs, steps: give one of the two, not both"),
        ({"local_scale": 0.3}, "local_scale: must be a pair such as [0.4, 1.0], not 0.3"),
        ({"cfg": "no/such.yaml"}, "cfg: cannot read 'no/such.yaml'"),
        ({"workers": "few"}, "workers: must be a whole number or must be 'auto', not 'few'"),
    ],
)
def test_a_mistake_is_said_in_words(options: dict[str, object], said: str) -> None:
    assert said in message(data="images", **options)


def test_data_is_needed() -> None:
    assert "data: is needed" in message()


def test_all_problems_are_reported_together() -> None:
    text = message(epoch=3, batch="many", lr=-1, preset="x")
    assert text.startswith("5 problems:")
    assert all(word in text for word in ("data: is needed", "'epochs'", "batch:", "lr:", "preset"))


def test_problems_found_elsewhere_join_them() -> None:
    def check(given: Mapping[str, Any]) -> list[UserError]:
        return [UserError(f"imgsz is {given['imgsz']}", where="elsewhere")]

    with pytest.raises(UserError) as caught:
        resolve_pretrain({"batch": 0}, dino.Settings, dino.PRESETS, method="dino", problems=[], check=check)
    assert "batch:" in str(caught.value)
    assert "elsewhere: imgsz is 224" in str(caught.value)


def test_cfg_gives_options_and_the_command_overrides_them(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"data": "a", "batch": 8, "output_dim": 32}))
    resolved = tiny.resolve({"cfg": str(path), "batch": 16})
    assert (resolved.run.data, resolved.run.batch, resolved.method.model_dump()["output_dim"]) == ("a", 16, 32)


def test_cfg_with_a_misspelt_key(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("data: a\nbatchs: 8\n")
    assert "did you mean 'batch'?" in message(cfg=str(path))


def test_numbers_are_taken_as_names() -> None:
    resolved = tiny.resolve({"data": "images", "device": 0, "precision": 32, "lr": "1e-4"})
    assert (resolved.run.device, resolved.run.precision, resolved.method.lr) == ("0", "32", 1e-4)


def test_settings_are_frozen() -> None:
    resolved = tiny.resolve({"data": "images"})
    with pytest.raises(Exception, match="frozen"):
        resolved.run.batch = 3


def test_a_runs_own_settings_are_a_cfg(tmp_path: Path) -> None:
    """What was asked of it, not what it came to; not its folder."""
    record = {"asked": {"data": ["a"], "epochs": 2, "out": "runs/a"}, "options": {"data": ["a"], "steps": 9, "lr": 0.5}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(record))
    resolved = tiny.resolve({"cfg": str(tmp_path / "settings.yaml"), "batch": 8})
    assert (resolved.run.epochs, resolved.run.steps, resolved.run.out, resolved.run.batch) == (2, None, None, 8)
    assert resolved.method.lr == 1e-3


def test_old_names_are_understood_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    resolved = tiny.resolve({"data": "x", "method": "byol", "colour": 0.5})
    assert resolved.method.model_dump()["color"] == 0.5
    assert capsys.readouterr().err == "colour= is called color= now\n"
    assert "colour: is the old name of color" in message(data="x", method="byol", colour=0.5, color=0.5)


def test_old_names_of_other_commands_are_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_options(EmbedSettings, {"data": "x", "out": "f.parquet", "most": 5}, "embed")
    assert "there is no option 'most'" in str(caught.value)
    assert not capsys.readouterr().err


def test_objects_in_memory_are_told_again() -> None:
    class Net:
        ckpt_path = "a.pt"

    assert as_plain(Net()) == {"in_memory": "Net", "origin": "a.pt"}
    assert in_memory(as_plain(Net()))
    assert as_plain((1, "b", Path("c"), None)) == [1, "b", "c", None]
    assert yaml.safe_load(yaml.safe_dump(as_plain([np.float64(0.5), np.str_("a"), True]))) == [0.5, "a", True]
    assert not in_memory("live YOLO (a.pt)")


def test_a_home_is_that_of_a_user_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a user who is not there nor one without a home, as in a container, ends a command with a traceback."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tiny.resolve({"data": "images", "out": "~/x"}).run.out == str(tmp_path / "x")
    assert tiny.resolve({"data": "images", "out": "~no-such-user/x"}).run.out == "~no-such-user/x"
    (tmp_path / "a.yaml").write_text("epochs: 3")
    assert tiny.resolve({"data": "images", "cfg": "~/a.yaml"}).run.epochs == 3
    assert default_folder() == Path(os.environ.get("HEADSTART_CACHE") or tmp_path / ".cache" / "headstart")
    for name in ("HOME", "HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda name: name)  # of a user who is a number
    assert expanded("~/x") == Path("~/x")
    with pytest.raises(UserError, match="this user has no home folder to write to\n  -> set HOME; HEADSTART_CACHE is"):
        default_folder()


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("dino", "global_scale", [0, 1], "global_scale: must be greater than 0, not [0, 1]"),
        ("dino", "global_scale", [-1, 0], "global_scale: must be greater than 0, not [-1, 0]"),
        ("dino", "local_scale", [2, 5], "local_scale: must be at most 1, not [2, 5]"),
        ("lejepa", "local_scale", [0.5, 0.1], "local_scale: must be the smaller number and then the larger one"),
        ("selftrain", "view_scale", [0.5], "view_scale: has too few values, not [0.5]"),
        ("pyramid", "box_scale", [0.9, 0.1], "box_scale: must be the smaller number and then the larger one"),
        ("pyramid", "box_ratio", [0, 0], "box_ratio: must be greater than 0, not [0, 0]"),
        ("pyramid", "box_ratio", [0.5, 3], ""),
        ("selftrain", "view_scale", [1, 1], ""),
        ("distill", "teacher_mean", [0.1, 0.2], "teacher_mean: has too few values, not [0.1, 0.2]"),
    ],
)
def test_a_pair_is_two_numbers_in_their_order_and_range(name: str, option: str, value: Any, message: str) -> None:
    problems: list[UserError] = []
    built = build(find.find(name).settings, {option: value}, problems)
    assert (built is None) == bool(message)
    assert message in "; ".join(map(str, problems))
