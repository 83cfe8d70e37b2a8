"""Finding loggers by name: files of this folder, entry points of ``headstart.loggers``, a user's own file.

A file of this folder has one subclass of `Logger`; the file's name is the logger's. It imports what it logs to when it
is made, so that looking for loggers costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from headstart import plugins
from headstart.errors import UserError, did_you_mean
from headstart.paths import expanded
from headstart.run.display import make_console
from headstart.run.loggers.base import Logger, Named
from headstart.run.loggers.guarded import Guarded
from headstart.settings.loggers import NamedLogger, named
from headstart.settings.resolve import build

GROUP = "headstart.loggers"


@cache
def built_in() -> dict[str, type[Logger]]:
    """The loggers that come with headstart, by name."""
    files = plugins.modules_of("headstart.run.loggers", leave=("base", "find", "guarded"))
    return {name: plugins.one_subclass(file, Logger) for name, file in files.items()}  # type: ignore[type-abstract]


def check_loggers(asked: Sequence[NamedLogger]) -> list[UserError]:
    """What is wrong with the loggers that a user names, found without importing what they log to.

    Args:
        asked: Names, and maps of a name to the settings of the logger.
    """
    loggers = named(asked)
    names = list(dict.fromkeys(name for name, _ in loggers))
    problems = [problem for name in names if (problem := _problem(name))]
    found = {problem.what for problem in problems}
    for name, settings in loggers:
        more = _of_settings(name, settings) if name in built_in() else []
        problems += [one for one in more if one.what not in found]
    count = [name for name, _ in loggers].count
    return problems + [UserError(f"names {name} twice", where="loggers") for name in names if count(name) > 1]


def open_loggers(
    asked: Sequence[NamedLogger],
    folder: Path,
    say: Callable[[str], None] | None = None,
    run: Named | None = None,
) -> list[Logger]:
    """The loggers that a user names; what they raise later on is said once and never ends the run.

    Args:
        asked: Names (``csv``, ``wandb``, the path of a Python file, what an installed package offers), and maps of a
            name to the settings of the logger.
        folder: Where they may write.
        say: Told of a logger that fails, and what loggers have to say; by default it is printed on standard error.
        run: What the run is called; by default as the folder above `folder`.

    Raises:
        UserError: A logger is not found, cannot be imported or made: all of them together.
    """
    problems = check_loggers(asked)
    told = say or make_console(stderr=True, soft_wrap=True).print
    found: list[Logger] = []
    for name, settings in [] if problems else named(asked):
        try:
            logger = _made(_class_of(name), name, folder, settings)
            logger.run, logger._tell = run or Named(folder.resolve().parent.name), told
            found.append(Guarded(logger, name, told))
        except UserError as problem:
            problems.append(problem)
    if problems:
        raise UserError.several(problems)
    return found


def _problem(name: str) -> UserError | None:
    if plugins.is_python_file(name):
        there = expanded(name).is_file()
        return None if there else UserError(f"there is no file {name}", where="loggers")
    known = [*built_in(), *plugins.installed(GROUP)]
    if name in known:
        return None
    hint = did_you_mean(name, known) or f"loggers: {', '.join(known)}, or the path of a Python file"
    return UserError(f"there is no logger {name!r}", where="loggers", hint=hint)


def _of_settings(name: str, settings: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with the settings of a logger of ours, and with what is installed for them."""
    kind = built_in()[name]
    problems: list[UserError] = []
    wrong: list[UserError] = []
    fields = kind.Settings.model_fields
    for key in settings:
        if key not in fields:
            can = f"it has {', '.join(fields)}" if fields else "it has none"
            hint = did_you_mean(key, fields) or can
            problems.append(UserError(f"there is no setting {key!r}", where=f"loggers: {name}", hint=hint))
    build(kind.Settings, {key: value for key, value in settings.items() if key in fields}, wrong)
    problems += [UserError(one.what, where=f"loggers: {name}: {one.where}", hint=one.hint) for one in wrong]
    missing = None if problems else kind.missing(settings)
    return [*problems, missing] if missing else problems


def _class_of(name: str) -> Callable[..., Any]:
    if name in built_in():
        return built_in()[name]
    if not plugins.is_python_file(name):
        found = plugins.load_installed(GROUP, name, where="loggers")
        if not callable(found):
            raise UserError(f"{name} is not a subclass of {Logger.__module__}.Logger", where="loggers")
        return found  # type: ignore[no-any-return]
    return plugins.one_subclass(plugins.import_file(name, where="loggers"), Logger, where="loggers")


def _made(kind: Callable[..., Any], name: str, folder: Path, settings: Mapping[str, Any]) -> Logger:
    try:
        made = kind(folder, **settings)
    except Exception as error:  # whatever a user's code raises
        raise UserError(f"{name} cannot be made: {type(error).__name__}: {error}", where="loggers") from error
    if not isinstance(made, Logger):
        raise UserError(f"{name} gives a {type(made).__name__}, not a {Logger.__module__}.Logger", where="loggers")
    return made
