from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from headstart import cli
from headstart.cli.command import FAILED, MISTAKE, main
from headstart.cli.help import GROUPS
from headstart.cli.line import as_options
from headstart.cli.options import fields_of, values
from headstart.errors import UserError, forget
from headstart.jobs.compare import Comparison
from headstart.jobs.pretrain import Run
from headstart.methods.find import find as read_method
from headstart.methods.find import names
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import PretrainSettings
from headstart.settings.words import Word

ROOT = Path(__file__).parent.parent


def given(line: str) -> dict[str, Any]:
    asked = cli.parse(shlex.split(line))
    assert asked is not None
    # What stands without a key where several may is what it is: a comma in a folder's name makes no list.
    words = [item for name, item in asked.given.items() if name != "run" or not isinstance(item, list)]
    assert all(type(one) is Word for item in words for one in (item if isinstance(item, list) else [item]))
    return asked.given


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("pretrain data='a b' --batch 4 imgsz=64", {"data": "a b", "batch": "4", "imgsz": "64"}),
        ("pretrain --save-every=2 --log_every 3", {"save_every": "2", "log_every": "3"}),
        ("pretrain save-every=2 local_imgsz=64", {"save_every": "2", "local_imgsz": "64"}),
        # The word after a key without = is its value, whatever it looks like.
        ("compare --starts ssl=runs/a --plan", {"starts": "ssl=runs/a", "plan": "true"}),
        ("compare --starts --plan plan=no", {"starts": "--plan", "plan": "no"}),
        ("compare starts=ssl=runs/a", {"starts": "ssl=runs/a"}),
        ("compare --starts=scratch,coco,ssl=runs/a", {"starts": "scratch,coco,ssl=runs/a"}),
        ("pretrain --lr -1 clip=-2", {"lr": "-1", "clip": "-2"}),
        # A truth value may stand alone, before anything.
        ("compare --plan data=x", {"plan": "true", "data": "x"}),
        ("compare --plan false data=x", {"plan": "false", "data": "x"}),
        ("compare data=x --overwrite --plan", {"overwrite": "true", "plan": "true", "data": "x"}),
        ("pretrain --guard data=x method=dino", {"guard": "true", "data": "x", "method": "dino"}),
        # What takes a list may be repeated; of anything else the last counts.
        ("pretrain data=a --data b data=[c,d]", {"data": ["a", "b", "[c,d]"]}),
        ("pretrain batch=2 batch=3", {"batch": "3"}),
        # Unknown options are left to the settings, which say all problems together.
        ("pretrain epoch=3 --local-imgz 64 data=x", {"epoch": "3", "local_imgz": "64", "data": "x"}),
        ("pretrain --epoch data=x", {"epoch": "data=x"}),
        ("compare close_mosaic=0 --mosaic 0.5", {"close_mosaic": "0", "mosaic": "0.5"}),
        # Without a key.
        ("report a/b=c ./x=y out=z", {"run": ["a/b=c", "./x=y"], "out": "z"}),
        ("probe runs/a data=x", {"source": "runs/a", "data": "x"}),
        ("probe source=runs/a data=x", {"source": "runs/a", "data": "x"}),
        ("completion bash --install", {"shell": "bash", "install": "true"}),
        ("pretrain data=", {"data": ""}),
    ],
)  # fmt: skip
def test_words_become_options(line: str, options: dict[str, Any]) -> None:
    assert given(line) == options


@pytest.mark.parametrize(
    "line", ["pretrain images", "pretrain data=x y", "probe a b data=x", "compare ./x=y", "demo -x"]
)
def test_a_word_that_is_no_option(line: str) -> None:
    with pytest.raises(UserError, match=r"is not an option\n  -> options are key=value or --key value"):
        cli.parse(line.split())


def test_a_list_that_a_shell_took_apart() -> None:
    with pytest.raises(UserError, match=r"in quotes, 'data=\[a, b, c\]'"):
        cli.parse(["pretrain", "data=[a,", "b,", "c]", "steps=3"])
    with pytest.raises(UserError, match=r"in quotes, 'extra=\{\"lr0\": 0.1\}'"):
        cli.parse(["compare", "data=x.yaml", 'extra={"lr0":', "0.1}"])


@pytest.mark.parametrize(("line", "name"), [("report a run=b", "run"), ("probe a source=b data=x", "source")])
def test_a_value_with_and_without_its_key(line: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: is given twice: as 'a' and with {name}=\n  -> leave out one"):
        cli.parse(line.split())


def test_a_key_without_a_value() -> None:
    with pytest.raises(UserError, match="batch: needs a value"):
        cli.parse(["pretrain", "--batch"])


def test_the_rewriting_leaves_paths_alone() -> None:
    assert as_options(["a/b=c", "./x=y", "a=b=c", "--", "d=e"], []) == ["a/b=c", "./x=y", "--a=b=c", "--", "d=e"]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("pretrain out=007 epochs=3 steps=none", {"out": "007", "epochs": 3.0, "steps": None}),
        ("pretrain data=007 seed=007", {"data": "007", "seed": 7}),
        ("pretrain data=a data=[b,c] out=12:30 init=~", {"data": ["a", "b", "c"], "out": "12:30", "init": "~"}),
        ("pretrain cache=off report=off precision=16", {"cache": "off", "report": False, "precision": "16"}),
        ("pretrain data=a clip=none global_scale=0.4,1", {"data": "a", "clip": None, "global_scale": [0.4, 1.0]}),
        ("pretrain data=a method=pyramid read_at=all", {"data": "a", "method": "pyramid", "read_at": "all"}),
        ("pretrain data=a method=nothing batch=4", {"data": "a", "method": "nothing", "batch": 4}),
        ("compare starts=scratch,ssl=runs/1", {"starts": ["scratch", "ssl=runs/1"]}),
        ("compare --starts ssl=runs/1 labels=1%,200", {"starts": "ssl=runs/1", "labels": ["1%", "200"]}),
        ("compare data=a starts=scratch starts=coco seeds=3", {"data": "a", "starts": ["scratch", "coco"], "seeds": 3}),
        ("compare data=a device=0 longer=true", {"data": "a", "device": "0", "longer": "true"}),
        ("compare data=a mosaic=0.5 nbs=16 cos_lr=true", {"data": "a", "mosaic": 0.5, "nbs": 16, "cos_lr": True}),
        ("pretrain colour=2 most=3", {"colour": 2.0, "most": 3}),  # old names, which the settings understand
        ("probe 007 data=1 labels=no", {"source": "007", "data": "1", "labels": False}),
    ],
)  # fmt: skip
def test_words_are_read_by_the_type_of_their_option(line: str, meant: dict[str, Any]) -> None:
    found = values(line.split()[0], given(line))
    assert found == meant
    assert {name: type(item) for name, item in found.items()} == {name: type(item) for name, item in meant.items()}


def run_cli(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(words)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_misspelt_command(capsys) -> None:
    assert run_cli(capsys, "pretran") == (
        2,
        "headstart: there is no command 'pretran'\n  -> did you mean 'pretrain'?\n",
    )


# -- exit statuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ok", "interrupted", "status"), [(True, False, 0), (False, False, 1), (True, True, 130)])
def test_statuses_of_pretrain(ok: bool, interrupted: bool, status: int, tmp_path: Path, monkeypatch) -> None:
    class Checked(Run):
        pass

    Checked.ok = ok  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "headstart.jobs.pretrain.pretrain", lambda **options: Checked(tmp_path, None, None, 3, interrupted)
    )
    assert cli.main(["pretrain", "data=x"]) == status


@pytest.mark.parametrize(("failed", "interrupted", "status"), [((), False, 0), (("a",), False, 1), ((), True, 130)])
def test_statuses_of_compare(
    failed: tuple[str, ...], interrupted: bool, status: int, tmp_path: Path, monkeypatch
) -> None:
    ended = Comparison(tmp_path, {}, None, failed, interrupted)
    monkeypatch.setattr("headstart.jobs.compare.compare", lambda **options: ended)
    assert cli.main(["compare", "data=x"]) == status


def test_ctrl_c_anywhere(monkeypatch, capsys) -> None:
    def interrupted(**options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.jobs.demo.demo", interrupted)
    assert run_cli(capsys, "demo") == (130, "headstart: interrupted\n")


def test_an_error_of_a_job_is_not_swallowed(monkeypatch) -> None:
    def broken(**options: Any) -> None:
        raise EOFError("half a file")  # click would call this an interruption

    monkeypatch.setattr("headstart.jobs.demo.demo", broken)
    with pytest.raises(EOFError):
        cli.main(["demo"])


def test_all_problems_of_the_smaller_commands(capsys) -> None:
    status, text = run_cli(capsys, "probe", "imagesz=3", "images=1", "imgsz=100")
    assert status == 2
    for said in (
        "5 problems:", "did you mean 'images' or 'imgsz'?", "source: is needed", "data: is needed",
            "images: must be at least 2, not 1",
        "imgsz: ",
    ):  # fmt: skip
        assert said in text


# -- help -------------------------------------------------------------------------------------------------------------


def page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str, columns: int = 100) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    status, text = run_cli(capsys, *words)
    assert status == 0
    return text


def flat(text: str) -> str:
    return " ".join(text.split())


def test_no_command_prints_the_commands(capsys, monkeypatch) -> None:
    for words in ((), ("--help",), ("-h",)):
        text = page(capsys, monkeypatch, *words)
        assert all(f"  {name} " in text for name in cli.COMMANDS)
    assert re.fullmatch(r"headstart \d+\.\d+.*\n", page(capsys, monkeypatch, "--version"))


def test_the_help_says_what_the_machine_makes_of_a_default(capsys: pytest.CaptureFixture[str]) -> None:
    from headstart.settings.length import WITHOUT_GPU

    assert cli.main(["pretrain", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default: 224; 640 with selftrain, {WITHOUT_GPU} on a CPU)" in said


def test_help_of_pretrain_is_one_screen(capsys, monkeypatch) -> None:
    text = page(capsys, monkeypatch, "pretrain", "--help")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 103
    shown = {name for names_ in GROUPS["pretrain"].values() for name in names_}
    assert {
        "data",
        "model",
        "method",
        "epochs",
        "steps",
        "budget",
        "batch",
        "imgsz",
        "device",
        "out",
        "resume",
    } <= shown
    assert all(re.search(rf"^  {name}=", text, re.MULTILINE) for name in shown)
    assert "else objects from trained weights" in flat(text)
    assert "(default: default)" not in text
    assert "the method's own number at most (default: 64; 128 with objects)" in flat(text)
    assert "--help method=NAME" in text.splitlines()[-1]
    assert "--help all" in text.splitlines()[-1]
    assert all(name in text.splitlines()[-2] for name in names())


def test_help_of_the_method_that_chooses_is_the_page_of_all(capsys, monkeypatch) -> None:
    assert page(capsys, monkeypatch, "pretrain", "-h", "method=auto") == page(capsys, monkeypatch, "pretrain", "-h")


def test_help_all_has_every_option(capsys, monkeypatch) -> None:
    text = flat(page(capsys, monkeypatch, "pretrain", "--help", "all"))
    assert text == flat(page(capsys, monkeypatch, "pretrain", "method=all", "-h"))
    kinds = [PretrainSettings, MethodSettings, *(read_method(name).settings for name in names())]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            assert f" {name}=" in text
            assert field.description is not None
            if kind in (PretrainSettings, MethodSettings) or name not in MethodSettings.model_fields:
                assert flat(field.description) in text, name
    assert "local_scale=[LO,HI] share of the image's area that a local crop covers (default: [0.05, 0.4])" in text


@pytest.mark.parametrize("name", names())
def test_help_of_a_method_shows_the_defaults_that_it_runs_with(name: str, capsys, monkeypatch) -> None:
    text = flat(page(capsys, monkeypatch, "pretrain", "--help", f"method={name}"))
    needed = {"teacher": "x"} if name == "distill" else {}
    resolved = tiny.resolve({"data": "x", "method": name, **needed})
    for option, field in read_method(name).settings.model_fields.items():
        row = re.search(rf" {option}=\S* {re.escape(flat(str(field.description)))} \(([^)]*)\)", text)
        assert row is not None or getattr(resolved.method, option) is None, option
        if row and row[1] != "needed" and option != "lr_for":
            assert row[1] == f"default: {shown(getattr(resolved.method, option))}", option
    assert (f"own number at most (default: {resolved.run.batch})" in text) == (resolved.run.batch != 64)


def shown(value: Any) -> str:
    """A value as the help writes it, worked out anew: numbers short, pairs in brackets, words in lower case."""
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{one:g}" for one in value) + "]"
    return (
        str(value).lower()
        if isinstance(value, bool) or value is None
        else str(value)
        if isinstance(value, (str, int))
        else f"{value:g}"
    )


def test_help_of_a_preset(capsys, monkeypatch) -> None:
    text = flat(page(capsys, monkeypatch, "pretrain", "--help", "method=dino", "preset=lightlytrain"))
    assert "output_dim=N scores of the projection head, K (default: 1024)" in text
    assert run_cli(capsys, "pretrain", "--help", "method=dino", "preset=lightlytrian") == (
        2,
        "headstart: preset: method 'dino' has no preset 'lightlytrian'\n  -> did you mean 'lightlytrain'?\n",
    )


OWN = '''"""Rotation: which way is up."""
{first}
from pydantic import Field
from headstart.settings import AdamWSettings

class Settings(AdamWSettings):
    """Options."""
    turns: int = Field({turns}, ge=1, description="how many turns there are")

PRESETS = {{"small": {{"batch": 8, "turns": 2}}, "large": {{}}}}
'''


def test_help_of_a_users_own_method_does_not_run_it(tmp_path: Path, capsys, monkeypatch) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN.format(first="raise SystemExit('this file must not be run')", turns=4))
    text = flat(page(capsys, monkeypatch, "pretrain", "--help", f"method={path}"))
    assert "Rotation: which way is up." in text
    assert "turns=N how many turns there are (default: 2)" in text
    assert "own number at most (default: 8)" in text
    assert "preset=small batch=8 turns=2 (used without preset=)" in text


def test_help_of_a_method_whose_options_are_computed_imports_it(tmp_path: Path, capsys, monkeypatch) -> None:
    path = tmp_path / "own_computed.py"
    body = "from headstart.methods.base import Method\nCOUNT = 2 + 3\n"
    path.write_text(OWN.format(first=body, turns="COUNT") + "\nclass Mine(Method):\n    pass\n")
    text = flat(page(capsys, monkeypatch, "pretrain", "--help", f"method={path}", "preset=large"))
    assert "turns=N how many turns there are (default: 5)" in text


def test_help_of_a_method_that_is_not_there(capsys) -> None:
    status, text = run_cli(capsys, "pretrain", "--help", "method=dinoo")
    assert (status, text) == (2, "headstart: method: there is no method 'dinoo'\n  -> did you mean 'dino'?\n")


@pytest.mark.parametrize("command", ["compare", "probe", "report", "demo", "pack", "cache", "completion"])
def test_help_of_the_other_commands_has_every_option(command: str, capsys, monkeypatch) -> None:
    text = page(capsys, monkeypatch, command, "--help")
    for name, field in fields_of(command).items():
        assert re.search(rf"^  {name}=", text, re.MULTILINE), name
        assert flat(str(field.description)) in flat(text)


@pytest.mark.parametrize(
    "words",
    [["--help"], *([name, "--help"] for name in cli.COMMANDS), ["pretrain", "--help", "all"],
     ["pretrain", "-h", "method=dino"]],
)  # fmt: skip
def test_help_does_not_import_torch_and_is_quick(words: list[str]) -> None:
    code = "import sys; from headstart.cli import main\nassert main(sys.argv[1:]) == 0\n"
    code += "print(sorted(m for m in ('torch', 'ultralytics', 'lightly', 'cv2', 'numpy') if m in sys.modules))"
    code += "\nprint('pydantic' in sys.modules)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", str(words != ["--help"])]
    # Measured at 0.12 s for --help and 0.5 s for the others; the wide margin is for a machine that is busy.
    assert time.perf_counter() - began < 5


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "headstart", "pretran"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'pretrain'?" in done.stderr


def test_output_that_nobody_reads_to_its_end_is_no_failure(tmp_path: Path) -> None:
    """Neither the help, which click prints, nor lines that are still to be written when the command has ended."""
    for words in (["--help"], ["pretrain", "--help"], ["cache", f"cache_dir={tmp_path}"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([sys.executable, "-m", "headstart", *words], stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"], ["cache"]])
def test_output_that_a_full_disk_does_not_take_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what was asked for: the command has failed."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == FAILED
    assert capsys.readouterr().err == "headstart: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_an_error_that_nobody_can_be_told_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["pretrian"]) == MISTAKE
        forget(full)  # or closing it raises


def test_without_a_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before: a traceback of torch, which asks for one as it is imported."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null/none"])
    assert main(["pretrain", "data=x"]) == MISTAKE
    assert capsys.readouterr().err == (
        "headstart: TMPDIR: there is no folder for temporary files that can be written to\n"
        "  -> free some space, or set TMPDIR to a folder that can be written to\n"
    )


def test_a_path_that_the_output_cannot_hold(tmp_path: Path) -> None:
    folder = tmp_path / "名"
    folder.mkdir()
    words = [sys.executable, "-m", "headstart", "cache", f"cache_dir={folder}"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=True)
    assert b"\\u540d" in done.stdout


def test_a_path_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "data=gone.yaml", f"starts={'a' * 300}"]) == 2
    assert capsys.readouterr().err == f"headstart: {'a' * 100}…: file name too long\n"

    def refused(given: dict[str, Any]) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/home/other/a.pt")

    def broken(given: dict[str, Any]) -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/a")

    monkeypatch.setitem(cli.COMMANDS, "demo", cli.COMMANDS["demo"]._replace(run=refused))
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "headstart: /home/other/a.pt: permission denied\n"
    monkeypatch.setitem(cli.COMMANDS, "demo", cli.COMMANDS["demo"]._replace(run=broken))
    with pytest.raises(FileNotFoundError):
        cli.main(["demo"])


# -- documentation ----------------------------------------------------------------------------------------------------

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(path: Path) -> list[str]:
    """The commands in a page: whole lines of its code blocks, and what stands in backticks with options."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^(?: {4,}|\$ )?(?:uv run )?headstart +([a-z]+ .*)$", text, re.MULTILINE)
    inline = re.findall(r"`headstart ([a-z]+ [^`]+)`", text)
    found = [flat(re.sub(r" #.*", "", one)) for one in (*blocks, *inline) if one.split()[0] in cli.COMMANDS]
    return [one.replace("=NAME", "=dino").replace("my_method.py", "dino") for one in found]


def test_there_are_commands_to_look_at() -> None:
    assert {command.split()[0] for path in DOCUMENTS for command in commands(path)} >= {"pretrain", "compare", "probe"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_the_documentation_parses(path: Path, capsys) -> None:
    from headstart.detectors.find import finetuner

    for line in commands(path):
        line = re.sub(r"method=(NAME|my_method\.py)", "method=dino", line)
        asked = cli.parse(shlex.split(line))
        assert asked is not None or "--help" in line, line
        if asked is not None:
            known = set(fields_of(asked.command, asked.given.get("method")))
            known |= set(finetuner("yolo11n").arguments()) if asked.command == "compare" else set()
            assert set(asked.given) <= known, line


def test_probe_passes_on_all_that_it_is_given(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    asked: dict[str, Any] = {}

    def probe(source: str, data: Any, **more: Any) -> dict[str, dict[str, float]]:
        asked.update(source=source, data=data, **more)
        return {}

    monkeypatch.setattr("headstart.jobs.probe.probe", probe)
    words = {"every": 2.0, "images": 3, "imgsz": 64, "labels": False, "device": "cpu", "trust": True}
    assert cli.main(["probe", "a.pt", "data=d", *(f"{key}={str(value).lower()}" for key, value in words.items())]) == 0
    assert asked == {"source": "a.pt", "data": "d", **words}


@pytest.mark.parametrize(
    ("command", "words"), [("embed", "data=d out=o.parquet"), ("pack", "data=d out=o"), ("export", "a.pt")]
)
def test_a_signal_of_the_system_ends_a_command_as_ctrl_c_does(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    tidied: list[bool] = []

    def work(settings: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            tidied.append(True)

    monkeypatch.setattr(f"headstart.jobs.{command}.{command}", work)
    assert run_cli(capsys, command, *words.split()) == (130, "headstart: interrupted\n")
    assert tidied == [True]
