"""The command: ``headstart pretrain | compare | report | probe | demo``, built from the settings.

Nothing here imports torch before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic_core import PydanticUndefined

from headstart.errors import UserError, did_you_mean
from headstart.methods import find
from headstart.settings.schema import CompareSettings, MethodSettings, Options, PretrainSettings

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 a mistake in what was asked, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except UserError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("headstart: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, e.g. `headstart pretrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    parser = _parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS) or f"commands: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {words[0]!r}", hint=hint)
    known, unknown = parser.parse_known_args(dashed(words))
    if not known.command:
        parser.print_help()
        return 0
    given = {name: value for name, value in vars(known).items() if name != "command" and value is not None}
    return COMMANDS[known.command][1]({**given, **_leftover(unknown)})


def dashed(words: Sequence[str]) -> list[str]:
    """Rewrite ``key=value`` to ``--key=value`` and ``--some-key`` to ``--some_key``.

    A word that is a path, such as ``a/b=c``, is left alone: a key is a plain name.
    """
    rewritten = []
    for word in words:
        key = re.match(r"(?:--)?([A-Za-z][\w-]*)(=|$)", word)
        if key and (key[2] or word.startswith("--")) and key[1] != "help":
            word = f"--{key[1].replace('-', '_')}{word[key.end(1) :]}"
        rewritten.append(word)
    return rewritten


def _leftover(words: list[str]) -> dict[str, Any]:
    """Options that the parser does not know, for the settings to complain of with a suggestion."""
    found: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            found[key] = value
        elif not found:
            raise UserError(f"{word!r} is not an option", hint="options are key=value or --key value")
    return found


def value(text: str) -> Any:
    """What a user means by `text`: a number, true or false, none, [a list], or the text itself."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # YAML reads dates and "a: b" mappings, which no option means.
    return found if found is None or isinstance(found, (bool, int, float, list, str)) else text


# -- commands ---------------------------------------------------------------------------------------------------------


def _pretrain(given: dict[str, Any]) -> int:
    from headstart.jobs.pretrain import pretrain

    options = {key: _plain(item) for key, item in given.items()}
    run = pretrain(**options)
    return INTERRUPTED if run.interrupted else int(not run.ok)


def _compare(given: dict[str, Any]) -> int:
    from headstart.jobs.compare import compare

    texts = ("data", "model", "device")  # names that may look like numbers
    comparison = compare(**{key: item if key in texts else value(item) for key, item in given.items()})
    return INTERRUPTED if comparison.interrupted else int(bool(comparison.failed))


def _plain(item: Any) -> Any:
    values = [value(word) for word in item] if isinstance(item, list) else [value(item)]
    return (
        values[0]
        if len(values) == 1
        else [part for one in values for part in (one if isinstance(one, list) else [one])]
    )


def _report(given: dict[str, Any]) -> int:
    from headstart.report import is_comparison, write_report, write_side_by_side

    _refuse_others(given, {"run", "out"})
    for folder in given["run"]:
        print(write_report(Path(folder)))
    comparisons = [Path(folder) for folder in given["run"] if is_comparison(folder)]
    if len(comparisons) > 1:
        print(write_side_by_side(comparisons, Path(given.get("out", "side-by-side.html"))))
    return 0


def _probe(given: dict[str, Any]) -> int:
    from headstart.jobs.probe import probe, table

    known = {"source", "data", "images", "imgsz", "labels", "device"}
    _refuse_others(given, known)
    if "data" not in given:
        raise UserError("is needed", where="data", hint="name the images to look at")
    options = {key: _plain(item) for key, item in given.items()}
    wrong = {"images": int, "imgsz": int, "labels": bool}
    problems = [
        UserError(f"must be {'true or false' if kind is bool else 'a whole number'}, not {options[key]!r}", where=key)
        for key, kind in wrong.items()
        if key in options and type(options[key]) is not kind
    ]
    if problems:
        raise UserError.several(problems)
    print(table(probe(options.pop("source"), options.pop("data"), **options)))
    return 0


def _demo(given: dict[str, Any]) -> int:
    from headstart.jobs.demo import demo

    _refuse_others(given, {"out", "overwrite"})
    return demo(out=given.get("out", "runs/demo"), overwrite=value(given.get("overwrite", "false")) is True)


def _refuse_others(given: dict[str, Any], known: set[str]) -> None:
    problems = [
        UserError(
            f"there is no option {key!r}", hint=did_you_mean(key, known) or f"options: {', '.join(sorted(known))}"
        )
        for key in given
        if key not in known
    ]
    if problems:
        raise UserError.several(problems)


COMMANDS = {
    "pretrain": ("pretrain a detector on unlabelled images", _pretrain),
    "compare": ("fine-tune from several starts, all else equal, and say which helped", _compare),
    "report": ("draw the report of a pretraining or comparison again, or of several side by side", _report),
    "probe": ("measure the features of a run or a checkpoint, without training", _probe),
    "demo": ("pretrain and fine-tune on images that it draws itself; needs nothing", _demo),
}


# -- the parser -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    about = "Pretrain a YOLO detector on your own unlabelled images, and prove whether it helped."
    parser = argparse.ArgumentParser("headstart", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"headstart {version('headstart')}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    parsers = {}
    for name, (summary, _) in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
        )
    _add_pretrain(parsers["pretrain"])
    _add_compare(parsers["compare"])
    parsers["report"].add_argument("run", nargs="+", help="folders of pretrainings and comparisons")
    out = "page that puts several comparisons side by side (default: side-by-side.html)"
    parsers["report"].add_argument("--out", help=out, metavar="FILE")
    _add_probe(parsers["probe"])
    parsers["demo"].add_argument("--out", help="folder (default: runs/demo)", metavar="FOLDER")
    parsers["demo"].add_argument("--overwrite", help="replace what is in out= (default: false)", metavar="true|false")
    return parser


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.usage = "headstart pretrain data=IMAGES [key=value ...]"
    parser.epilog = "Options are key=value or --key value. Example: headstart pretrain data=images model=yolo11n.yaml"
    general = parser.add_argument_group("options")
    general.add_argument(
        "--cfg", help="a YAML file with options; those given on the command line override it", metavar="FILE"
    )
    _add_options(general, PretrainSettings)
    seen = set(PretrainSettings.model_fields)
    shared = parser.add_argument_group("optimization, every method (a preset may change the defaults)")
    _add_options(shared, MethodSettings)
    shown = {**PretrainSettings.model_fields, **MethodSettings.model_fields}
    seen |= set(MethodSettings.model_fields)
    for name in find.names():
        info = find.find(name)
        presets = f"presets: {', '.join(info.presets)}" if info.presets else "no presets"
        group = parser.add_argument_group(
            f"method={name}: {info.summary} ({presets})", _differing(info.settings, shown)
        )
        _add_options(group, info.settings, without=seen)
        seen |= set(info.settings.model_fields)
        shown = {**info.settings.model_fields, **shown}


def _differing(kind: type[Options], shown: dict[str, Any]) -> str | None:
    """Options that are listed further up, as far as this method means or sets something else by them."""
    texts = []
    for name, field in kind.model_fields.items():
        if name in shown and field.description != shown[name].description:
            texts.append(f"{name}: {field.description} (default: {_shown(field.default)})")
        elif name in shown and field.default != shown[name].default:
            texts.append(f"{name} (default: {_shown(field.default)})")
    return f"beside its own: {'; '.join(texts)}" if texts else None


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a finished run's folder, or a .pt")
    for name, shown, about in (
        ("data", "IMAGES", "images to look at (needed)"),
        ("images", "N", "how many of them (default: 256)"),
        ("imgsz", "N", "side to which they are stretched, pixels (default: 224)"),
        ("labels", "true|false", "use labels that lie beside the images for a kNN of boxes (default: true)"),
        ("device", "DEVICE", "cpu, cuda, mps, or the index of a GPU (default: cpu)"),
    ):
        parser.add_argument(f"--{name}", help=about, metavar=shown, action="append" if name == "data" else "store")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.usage = "headstart compare data=DATA.yaml [key=value ...] [--plan]"
    parser.epilog = (
        "Options are key=value or --key value; other arguments of Ultralytics' train are taken, too (close_mosaic=0). "
        "Example: headstart compare data=my.yaml starts=scratch,coco,ssl=runs/a labels=10%,100% epochs=50"
    )
    group = parser.add_argument_group("options")
    group.add_argument("--cfg", help="a YAML file with options", metavar="FILE")
    _add_options(group, CompareSettings)


def _add_options(group: Any, kind: type[Options], without: set[str] | None = None) -> None:
    for name, field in kind.model_fields.items():
        if name in (without or set()):
            continue
        needed = field.default is PydanticUndefined
        default = "needed" if needed else f"default: {_shown(field.default)}"
        text = f"{field.description} ({default})".replace("%", "%%")
        many = name == "data" and kind is PretrainSettings
        switch = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        group.add_argument(
            f"--{name}", help=text, metavar=_metavar(field.annotation), action="append" if many else None, **switch
        )


def _shown(item: Any) -> str:
    if isinstance(item, bool) or item is None:
        return str(item).lower()
    return str(list(item)) if isinstance(item, tuple) else f"{item:g}" if isinstance(item, float) else str(item)


def _metavar(annotation: Any) -> str:
    """What stands for the value in the help: the choices of a Literal, else the kind of value."""
    parts = [annotation, *get_args(annotation)]
    choices = [str(choice) for part in parts for choice in get_args(part) if isinstance(choice, str)]
    if choices and bool in parts:
        return "|".join([*choices, "true", "false"])
    if choices:
        return "|".join(choices) if int not in parts else f"{'|'.join(choices)}|N"
    for kind, shown in {bool: "true|false", int: "N", float: "X"}.items():
        if annotation is kind or kind in get_args(annotation):
            return shown if get_args(annotation)[:2] != (float, float) else "[LO,HI]"
    return "VALUE"


if __name__ == "__main__":
    sys.exit(main())
