"""A command line as words: ``key=value`` made an option, and what an option was given before it is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

HELP = {"--help", "-h"}
VARIABLE = "_HEADSTART_COMPLETE"
"""Of the environment: a shell that asks for completions says so in it."""
_KEY = re.compile(r"(?:--)?([A-Za-z][\w-]*)=")
_TRUTHS = {"true", "false", "yes", "no", "on", "off"}


def as_options(words: Sequence[str], switches: Iterable[str]) -> list[str]:
    """Rewrite ``key=value`` to ``--key=value``, so that both are options to the parser.

    A word that is a path, such as ``a/b=c``, is left alone: a key is a plain name. So is the word after a ``--key``
    without ``=``: it is that key's value, whatever it looks like. The keys in `switches` may stand alone, for true;
    they take the next word only where that is a truth value.
    """
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        if key := _KEY.match(word):
            found.append(f"--{key[1].replace('-', '_')}={word[key.end() :]}")
        elif word.startswith("--") and plain(word) in switches:
            found.append(f"{word}={rest.pop(0) if rest and rest[0].lower() in _TRUTHS else 'true'}")
        else:
            found += [word, *(rest.pop(0) for _ in rest[:1] if word.startswith("--") and "=" not in word)]
    return found


def plain(word: str) -> str:
    """``--some-key`` as ``some_key``."""
    return word.removeprefix("--").replace("-", "_")


def last_value(name: str, words: Sequence[str]) -> str | None:
    """What the option `name` was given last among `words`, before they are parsed; None where it was not."""
    found = None
    for word, following in zip(words, [*words, None][1:], strict=True):
        if word == f"--{name}":
            found = following
        elif key := re.match(rf"(?:--)?{name}=(.*)", word, re.DOTALL):
            found = key[1]
    return found
