"""Completion of the command in bash, zsh and fish: commands, ``key=`` names, choices, files.

The shell runs ``headstart`` with the line so far in its environment (click's protocol), and offers what it prints. The
scripts are our own, because ``key=value`` is: bash takes ``=`` for the end of a word, and no space may follow ``key=``.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.line import VARIABLE, last_value, plain
from headstart.errors import UserError
from headstart.paths import expanded, home

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from headstart.cli.spec import Spec

STARTS = ("scratch", "coco", "coco-backbone")

Suggestion = tuple[str, str]
"""A word, and what it means."""


def answered(specs: Mapping[str, Spec]) -> bool:
    """Answer a shell that asks for completions of these commands; False where none does."""
    instruction = os.environ.get(VARIABLE, "")
    if not instruction:
        return False
    from headstart.cli.shells import complete

    print(complete(instruction.partition("_")[0], functools.partial(suggestions, specs)))
    return True


def suggestions(specs: Mapping[str, Spec], words: Sequence[str], incomplete: str) -> list[Suggestion]:
    """What may stand at the end of a line.

    Args:
        specs: The commands.
        words: The words after ``headstart`` that are complete.
        incomplete: The word to complete, which may be empty.
    """
    if not words:
        found = [(name, spec.summary) for name, spec in specs.items()]
        return _starting(incomplete, [*found, ("--help", "show the commands"), ("--version", "show the version")])
    if words[0] not in specs:
        return []
    try:
        return list(_options(specs[words[0]], words[1:], incomplete))
    except UserError:  # there is no such method: nothing to offer, and no place to say so
        return []


def _options(spec: Spec, words: Sequence[str], incomplete: str) -> Iterator[Suggestion]:
    from headstart.cli.help import SHOWN_OF, shown_first
    from headstart.cli.options import CFG, fields_of, settings_of
    from headstart.settings.method_options import MethodSettings

    method = None
    if spec.name == "pretrain":
        method = last_value("method", words) or (SHOWN_OF["labels"] if last_value("labels", words) else None)
    known = fields_of(spec.name, method)
    if spec.name == "pretrain" and method is None:  # options of methods that nobody chose are not offered
        known = {**settings_of(spec.name).model_fields, **MethodSettings.model_fields, **shown_first(), "cfg": CFG}
    key = _awaiting(words, known)
    assigned = re.match(r"(?:--)?([A-Za-z][\w-]*)=", incomplete)
    if key is None and assigned is None:
        if spec.positional:
            yield from _values(spec.positional, known[spec.positional], incomplete, words)
        yield from _keys(known, words, incomplete)
        return
    before = "" if key or assigned is None else assigned[0]
    name = key or (plain(assigned[1]) if assigned else "")
    if name in known:
        for value, about in _values(name, known[name], incomplete[len(before) :], words):
            yield before + value, about


def _awaiting(words: Sequence[str], known: Mapping[str, FieldInfo]) -> str | None:
    """The key whose value comes next: the last word is ``--key``, and not itself a value."""
    from headstart.cli.options import stands_alone

    waiting: str | None = None
    for word in words:
        key = waiting is None and word.startswith("--") and "=" not in word
        waiting = plain(word) if key and not (plain(word) in known and stands_alone(known[plain(word)])) else None
    return waiting


def _keys(known: Mapping[str, FieldInfo], words: Sequence[str], incomplete: str) -> Iterator[Suggestion]:
    """The names of options that were not given yet."""
    from headstart.cli.options import stands_alone
    from headstart.settings.words import takes_many

    dashes = "--" if incomplete.startswith("-") else ""
    for name, field in known.items():
        if last_value(name, words) is None or takes_many(field):
            word = f"{dashes}{name}" if dashes and stands_alone(field) else f"{dashes}{name}="
            yield from _starting(incomplete, [(word, str(field.description))])
    if dashes:
        yield from _starting(incomplete, [("--help", "show the options")])


def _values(name: str, field: FieldInfo, incomplete: str, words: Sequence[str]) -> Iterator[Suggestion]:
    """Values of an option; of a list, the one after the last comma."""
    from headstart.jobs.signature import names_files
    from headstart.methods import find
    from headstart.settings.words import alternatives, choices, takes_many

    before = ""
    if takes_many(field) and name != "run" and "," in incomplete:
        before, comma, incomplete = incomplete.rpartition(",")
        before += comma
    if name == "starts" and "=" in incomplete:  # name=path
        label, sign, incomplete = incomplete.partition("=")
        before += label + sign
    found: list[Suggestion] = [(str(choice), "") for choice in choices(field.annotation)]
    found += [("true", ""), ("false", "")] if bool in alternatives(field.annotation) else []
    if name == "method":
        found += [(one, _summary(one)) for one in find.names()] + [("auto", "chosen by what is there")]
    elif name == "preset":
        found += _presets(last_value("method", words))
    elif name == "starts" and not before.endswith("="):
        found += [(one, "") for one in STARTS]
    for value, about in _starting(incomplete, found):
        yield before + value, about
    if names_files(name, field):
        for path in _files(incomplete, {".py"} if name == "method" else None):
            yield before + path, ""


def _summary(method: str) -> str:
    from headstart.cli.options import read_method

    return read_method(method).summary


def _presets(method: str | None) -> list[Suggestion]:
    from headstart.cli.options import read_method
    from headstart.methods import find

    methods = [read_method(one) for one in ([method] if method else find.names())]
    return [(name, f"of {one.name}") for one in methods for name in one.presets]


def _files(start: str, suffixes: set[str] | None) -> list[str]:
    """Files and folders whose path begins with `start`; a folder ends with a slash."""
    head, slash, tail = start.rpartition("/")
    try:
        entries = sorted(expanded(f"{head}{slash}" or ".").iterdir())
    except OSError:
        return []
    shown = [one for one in entries if one.name.startswith(tail) and (tail or not one.name.startswith("."))]
    return [
        f"{head}{slash}{one.name}{'/' if one.is_dir() else ''}"
        for one in shown
        if suffixes is None or one.is_dir() or one.suffix in suffixes
    ]


def _starting(incomplete: str, found: Iterable[Suggestion]) -> list[Suggestion]:
    return [one for one in found if one[0].startswith(incomplete)]


def script(shell: str) -> str:
    """What the shell must read to complete the command."""
    from headstart.cli.shells import source

    return source(shell)


def install(shell: str) -> str:
    """Write the script to where the shell looks for it.

    Returns:
        What was written, and what is left to do. No file of the user's is changed.

    Raises:
        UserError: It cannot be written.
    """
    from headstart.files import write_text

    path = _place(shell, os.environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, script(shell))
    except (OSError, UserError) as error:
        what = error.what if isinstance(error, UserError) else f"cannot be written: {error.strerror}"
        hint = f"headstart completion {shell} prints the script"
        raise UserError(what, where=str(path), hint=hint) from error
    left = {
        "bash": "A new shell completes the command if the package bash-completion is installed; if not, add this line\n"
        f"to ~/.bashrc: source {path}",
        "zsh": f"Add this line to ~/.zshrc, after compinit: source {path}",
        "fish": "A new shell completes the command.",
    }
    return f"written: {path}\n{left[shell]}\n"


def _place(shell: str, environment: Mapping[str, Any]) -> Path:
    """The user's folder of completions: of the package bash-completion, and of fish; zsh has none."""
    data = Path(environment.get("XDG_DATA_HOME") or home() / ".local" / "share")
    config = Path(environment.get("XDG_CONFIG_HOME") or home() / ".config")
    if shell == "bash":
        folder = Path(environment.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion")
        return folder / "completions" / "headstart"
    return data / "headstart" / "completion.zsh" if shell == "zsh" else config / "fish/completions/headstart.fish"
