"""Words to options: click parses, the settings say which options there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from headstart.cli.line import HELP, as_options, last_value, plain
from headstart.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from headstart.cli.spec import Spec


class Asked(NamedTuple):
    """What was asked for: a command, and its options as they were typed."""

    command: str
    given: dict[str, Any]


class Command(click.Command):
    """A command whose options are the fields of its settings."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(
            spec.name,
            short_help=spec.summary,
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        self.spec = spec

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer ``--help``, or parse the options that this command has with the method that is named."""
        if HELP & set(args):
            from headstart.cli import help

            click.echo(help.page(self.spec, [word for word in args if word not in HELP]))
            ctx.exit()
        from headstart.cli.options import fields_of, stands_alone

        fields = fields_of(self.spec.name, last_value("method", args))
        ctx.meta["fields"] = fields
        return super().parse_args(ctx, as_options(args, {name for name in fields if stands_alone(fields[name])}))

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """An option for every field, in both spellings."""
        from headstart.settings.words import takes_many

        found: list[click.Parameter] = []
        for name, field in ctx.meta.get("fields", {}).items():
            spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
            found.append(click.Option([name, *spellings], type=click.UNPROCESSED, multiple=takes_many(field)))
        return found

    def invoke(self, ctx: click.Context) -> Asked:
        """What was asked for, every value of an option a `Word`; the caller runs it."""
        from headstart.settings.words import Word

        given: dict[str, Any] = {}
        for name, value in ctx.params.items():
            if isinstance(value, tuple) and value:
                given[name] = Word(value[0]) if len(value) == 1 else [Word(one) for one in value]
            elif isinstance(value, str):
                given[name] = Word(value)
        others, words = _leftover(ctx.args)
        given |= {name: Word(value) for name, value in others.items()}
        positional = self._positional(words, given)
        if twice := next(iter(positional.keys() & given.keys()), None):
            hint = "leave out one of the two" + (", or give all without a key" if self.spec.many else "")
            raise UserError(f"is given twice: as {words[0]!r} and with {twice}=", where=twice, hint=hint)
        return Asked(self.spec.name, {**positional, **given})

    def _positional(self, words: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given without a key, beside what was given with one."""
        from headstart.settings.words import Word

        name, many = self.spec.positional, self.spec.many
        if words and (name is None or (len(words) > 1 and not many)):
            stray = words[0] if name is None else words[1]
            raise UserError(f"{stray!r} is not an option", hint=_how_to_write(words, given))
        if not words or name is None:
            return {}
        return {name: words if many else Word(words[0])}  # of several each is one, whatever is in it


def _how_to_write(words: Sequence[str], given: Mapping[str, Any]) -> str:
    """What words that are no options were probably meant for: a shell takes a list with spaces apart."""
    for name, value in given.items():
        if isinstance(value, str) and value.lstrip().startswith(("[", "{")) and not value.rstrip().endswith(("]", "}")):
            whole = " ".join([f"{name}={value}", *words])
            return f"a shell ends {name}={value} at the space: write it without spaces, or in quotes, '{whole}'"
    return "options are key=value or --key value"


def _leftover(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options that the parser does not know, for the settings to complain of with a suggestion, and other words."""
    options: dict[str, str] = {}
    others: list[str] = []
    key = None
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, has_value, value = word.partition("=")
            options[plain(name)] = value if has_value else "true"
            key = None if has_value else plain(name)
        elif key:
            options[key], key = word, None
        else:
            others.append(word)
    return options, others


class Group(click.Group):
    """The command ``headstart`` itself: it holds the others."""

    def __init__(self, specs: dict[str, Spec]) -> None:
        super().__init__("headstart", add_help_option=False)
        self.specs = specs

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer ``--help`` and ``--version``, which come before a command."""
        if not args or args[0] in HELP:
            from headstart.cli import overview

            click.echo(overview.page(self.specs))
            ctx.exit()
        if args[0] == "--version":
            from importlib.metadata import version

            click.echo(f"headstart {version('headstart')}")
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used."""
        return list(self.specs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of that name.

        Raises:
            UserError: There is none.
        """
        if cmd_name not in self.specs:
            hint = did_you_mean(cmd_name, self.specs) or f"commands: {', '.join(self.specs)}"
            raise UserError(f"there is no command {cmd_name!r}", hint=hint)
        return Command(self.specs[cmd_name])
