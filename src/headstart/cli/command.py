"""The commands: what each is called, which options it has (the class of its settings), and the job that it runs.

Nothing here imports torch before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click

from headstart.cli.parser import Asked, Group
from headstart.cli.spec import Spec
from headstart.errors import RunError, UserError, arriving, is_out_of_memory, printable
from headstart.paths import temporary_folder

FAILED = 1
MISTAKE = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
_PATHS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What a system says of a path as soon as it is asked whether there is something, which any option may be."""
_LONG = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: done. 1: a run failed its own checks, memory or storage gave out, or a fine-tuning failed. 2: a mistake in what
    was asked. 130: interrupted.
    """
    from headstart.cli import completion

    try:
        if completion.answered(COMMANDS):
            return 0
        _write_all_characters()
        with arriving():  # help
            asked = parse(sys.argv[1:] if arguments is None else arguments)
        if asked and asked.command != "doctor":  # which has a line on it
            temporary_folder()
        return COMMANDS[asked.command].run(asked.given) if asked else 0
    except UserError as error:
        if not error.told:
            _tell(error)
        if error.at_once:
            os._exit(FAILED)
        return FAILED if isinstance(error, RunError) else MISTAKE
    except (KeyboardInterrupt, click.Abort) as error:
        if not getattr(error, "told", False):
            _tell("interrupted")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:  # torch has no class of its own for the memory of the machine
        if not is_out_of_memory(error):
            raise
        _tell("memory ran out\n  -> use a smaller batch, imgsz or model, or fewer workers")
        return FAILED
    except BrokenPipeError:  # the reader of our output went away, e.g. `headstart pretrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _PATHS or error.filename is None:
            raise
        path = str(error.filename)
        shown = path if len(path) < _LONG else f"{path[:_LONG]}…"
        _tell(f"{printable(shown)}: {str(error.strerror).lower()}")
        return MISTAKE


def _tell(what: object) -> None:
    """Say how a command ends; where nobody can be told, it ends so all the same."""
    with suppress(OSError):
        print(f"headstart: {what}", file=sys.stderr, flush=True)


def _write_all_characters() -> None:
    """A name that the encoding of the output lacks is written out: Latin-1 in an old locale, a pipe on Windows."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.errors == "strict" or out.encoding.lower() not in ("utf-8", "utf8")):
        out.reconfigure(errors="backslashreplace")


def parse(words: Sequence[str]) -> Asked | None:
    """What `words` ask for; None where they asked for help, which then was printed.

    Raises:
        UserError: There is no such command, or a word is no option.
    """
    try:
        asked = Group(COMMANDS).main(list(words), prog_name="headstart", standalone_mode=False)
    except click.BadOptionUsage as error:
        name = str(error.option_name).removeprefix("--")
        raise UserError("needs a value", where=name, hint="options are key=value or --key value") from error
    except click.ClickException as error:
        raise UserError(error.format_message()) from error
    except SystemExit as error:  # click's answer to a help that nobody reads to its end
        raise BrokenPipeError from error
    return asked if isinstance(asked, Asked) else None


def _values(command: str, given: dict[str, Any]) -> dict[str, Any]:
    from headstart.cli.options import values

    return values(command, given)


def _settings(command: str, given: dict[str, Any]) -> Any:
    """The options of a command that has one class of them, complete and valid."""
    from headstart.cli.options import settings_of
    from headstart.settings.resolve import resolve_options

    return resolve_options(settings_of(command), _values(command, given), command)


def _pretrain(given: dict[str, Any]) -> int:
    options = _values("pretrain", given)
    from headstart.jobs.pretrain import pretrain

    run = pretrain(**options)
    if run.interrupted:
        return INTERRUPTED
    return 0 if run.ok else FAILED


def _compare(given: dict[str, Any]) -> int:
    options = _values("compare", given)
    from headstart.jobs.compare import compare

    comparison = compare(**options)
    return INTERRUPTED if comparison.interrupted else 0 if comparison.ok else FAILED


def _report(given: dict[str, Any]) -> int:
    s = _settings("report", given)
    from headstart.report import is_comparison, write_report, write_side_by_side

    comparisons = [Path(folder) for folder in s.run if is_comparison(folder)]
    own = Path(s.out) if s.out and len(s.run) == 1 else None
    for folder in s.run:
        try:
            page = write_report(Path(folder), own)
            with arriving():
                print(page)
        except UserError as error:
            if len(comparisons) < 2 or not isinstance(error.__cause__, OSError):
                raise
            print(f"{error}; only the page of all comparisons is drawn", file=sys.stderr)
    if len(comparisons) > 1:
        page = write_side_by_side(comparisons, Path(s.out or "side-by-side.html"))
        with arriving():
            print(page)
    return 0


def _probe(given: dict[str, Any]) -> int:
    s = _settings("probe", given)
    from headstart.jobs.probe import probe, table

    found = table(probe(**dict(s)))
    with arriving():
        print(found)
    return 0


def _doctor(given: dict[str, Any]) -> int:
    try:
        temporary_folder()
    except UserError:  # the last that was tried: imports ask for one, and that it cannot be written to is found below
        tempfile.tempdir = str(Path.cwd())
    s = _settings("doctor", given)
    from headstart.jobs.doctor import doctor, show

    with redirect_stdout(sys.stderr):  # what libraries print must not stand in the JSON
        found = doctor(s)
    show(found, s.json)
    return 0 if found.ok else FAILED


def _embed(given: dict[str, Any]) -> int:
    s = _settings("embed", given)
    from headstart.jobs.embed import embed

    return _tidily(lambda: embed(s).lines())


def _pack(given: dict[str, Any]) -> int:
    s = _settings("pack", given)
    from headstart.jobs.pack import pack

    return _tidily(lambda: pack(s).lines())


def _export(given: dict[str, Any]) -> int:
    s = _settings("export", given)
    from headstart.jobs.export import export

    return _tidily(lambda: export(s).lines())


def _tidily(work: Callable[[], Iterable[str]]) -> int:
    """Work that a system may end as Ctrl-C does: what is half written is removed, or put back."""
    from headstart.run.stopping import ended_by_signals

    with ended_by_signals():
        lines = work()
    return _printed(lines)


def _printed(lines: Iterable[str]) -> int:
    from headstart.run.display import make_console

    console = make_console(soft_wrap=True)
    for line in lines:
        console.print(line)
    return 0


def _demo(given: dict[str, Any]) -> int:
    s = _settings("demo", given)
    from headstart.jobs.demo import demo

    return demo(out=s.out, overwrite=s.overwrite, seed=s.seed)


def _cache(given: dict[str, Any]) -> int:
    s = _settings("cache", given)
    from headstart.jobs.cache import cache

    lines = cache(s)
    with arriving():
        for line in lines:
            print(printable(line))
    return 0


def _completion(given: dict[str, Any]) -> int:
    s = _settings("completion", given)
    from headstart.cli import completion

    text = completion.install(s.shell) if s.install else completion.script(s.shell)
    with arriving():
        print(text, end="")
    return 0


COMMANDS = {
    spec.name: spec
    for spec in (
        Spec("pretrain", "pretrain a detector on unlabelled images", "data=IMAGES [key=value ...]", _pretrain),
        Spec(
            "compare",
            "fine-tune from several starts, all else equal, and say which is better",
            "data=DATA.yaml [key=value ...] [--plan]",
            _compare,
        ),
        Spec(
            "report",
            "draw the report of a pretraining or comparison again, or of several side by side",
            "FOLDER ... [key=value ...]",
            _report,
            positional="run",
            many=True,
        ),
        Spec(
            "probe",
            "measure the features of a run or a checkpoint, without training",
            "RUN_OR_CHECKPOINT data=IMAGES [key=value ...]",
            _probe,
            positional="source",
        ),
        Spec(
            "doctor",
            "look at the machine and at a data set: what is wrong, and what to do",
            "[data=DATA.yaml] [key=value ...] [--json]",
            _doctor,
        ),
        Spec(
            "embed",
            "features of images and boxes as Parquet, near-duplicates, and what to label next",
            "data=IMAGES [key=value ...]",
            _embed,
        ),
        Spec(
            "pack",
            "images in a few large tar files (shards), for object stores and network drives",
            "data=IMAGES out=FOLDER [key=value ...]",
            _pack,
        ),
        Spec(
            "export",
            "the backbone as safetensors, ONNX or a timm model, checked, with a model card",
            "RUN_OR_PT [format=safetensors|onnx|timm] [key=value ...]",
            _export,
            positional="source",
        ),
        Spec(
            "demo",
            "the whole way on images that it draws itself: needs nothing, shows a gain",
            "[key=value ...]",
            _demo,
        ),
        Spec("cache", "list the decoded images that are kept, or remove them", "[clear=true] [key=value ...]", _cache),
        Spec(
            "completion",
            "let your shell complete the command",
            "bash|zsh|fish [--install]",
            _completion,
            positional="shell",
        ),
    )
}
