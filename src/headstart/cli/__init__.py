"""The command ``headstart``: words become the options of a job, by the types of the settings."""

from headstart.cli.command import COMMANDS, main, parse

__all__ = ["COMMANDS", "main", "parse"]
