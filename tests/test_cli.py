from __future__ import annotations

import subprocess
import sys
import time

import pytest

from headstart import cli
from headstart.settings.resolve import method_names, read_method
from headstart.settings.schema import MethodSettings, PretrainSettings


def test_key_value_is_rewritten() -> None:
    assert cli.dashed(["pretrain", "data=a b", "--batch", "4", "batch=3", "--save-every=2"]) == [
        "pretrain", "--data=a b", "--batch", "4", "--batch=3", "--save_every=2",
    ]  # fmt: skip


def test_paths_with_an_equals_sign_are_left_alone() -> None:
    assert cli.dashed(["a/b=c", "./x=y", "-h"]) == ["a/b=c", "./x=y", "-h"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("3", 3), ("1e-3", "1e-3"), ("true", True), ("none", "none"), ("null", None), ("[0.4, 1]", [0.4, 1]),
     ("a: b", "a: b"), ("2020-01-01", "2020-01-01"), ("my/images", "my/images"), ("[broken", "[broken")],
)  # fmt: skip
def test_what_a_value_means(text: str, meant: object) -> None:
    assert cli.value(text) == meant


def run_cli(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(words)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_misspelt_command(capsys) -> None:
    assert run_cli(capsys, "pretran") == (
        2,
        "headstart: there is no command 'pretran'\n  -> did you mean 'pretrain'?\n",
    )


def test_misspelt_options_of_the_smaller_commands(capsys) -> None:
    status, text = run_cli(capsys, "demo", "outt=x")
    assert status == 2
    assert "there is no option 'outt'\n  -> did you mean 'out'?" in text


def test_no_command_prints_the_help(capsys) -> None:
    status, text = run_cli(capsys)
    assert status == 0
    assert "pretrain" in text


def test_help_shows_every_option_with_its_default(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["pretrain", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    kinds = [PretrainSettings, MethodSettings, *(read_method(name).settings for name in method_names())]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            assert f"--{name} " in text
            assert " ".join(field.description.split()[:3]) in " ".join(text.split())
    assert "(default: 0.001)" in " ".join(text.split())
    assert "(default: [0.05, 0.4])" in " ".join(text.split())


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_does_not_import_torch_and_is_quick(words: list[str]) -> None:
    code = "import sys; from headstart.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print(sorted(m for m in ('torch', 'ultralytics', 'lightly', 'cv2') if m in sys.modules))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    # Measured at 0.3 s; the wide margin is for a machine that is busy.
    assert time.perf_counter() - began < 5
