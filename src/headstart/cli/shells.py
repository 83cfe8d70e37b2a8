"""The protocol of each shell: how it hands over the line, and in which form it takes the answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from headstart.cli.line import VARIABLE
from headstart.errors import UserError

# After these a value goes on, so that no space may follow.
OPEN = ("=", "/", ",")

_BASH = """\
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -n $line ]] && COMPREPLY+=("$line")
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=/,] ]]; then
        compopt +o nospace 2>/dev/null
    fi
}
complete -o nospace -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -o nospace -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a response open open_shown closed closed_shown
    local value about
    response=("${(@f)$(env COMP_WORDS="${words[1,CURRENT]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for value about in "${response[@]}"; do
        if [[ $value == *[=/,] ]]; then
            open+=("$value"); open_shown+=("$value  $about")
        elif [[ -n $value ]]; then
            closed+=("$value"); closed_shown+=("$value  $about")
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_shown -a open
    (( $#closed )) && compadd -l -d closed_shown -a closed
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    env COMP_WORDS=(commandline -cp | string collect) COMP_CWORD=(commandline -ct | string collect) \\
        %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


Suggest = Callable[[Sequence[str], str], Iterable[tuple[str, str]]]
"""Complete words and an incomplete one -> what may stand there, and what each means."""


class _Ours(ShellComplete):
    """Answers from `suggest`, in place of click's own, which knows no ``key=value``."""

    suggest: Suggest

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        return [CompletionItem(word, help=about or None) for word, about in self.suggest(args, incomplete)]


class _Bash(_Ours, BashComplete):
    source_template: ClassVar[str] = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() and not line.endswith("\\ ") else words.pop()
        # Readline replaces what stands after the last of these; COMP_WORDS would have taken the word apart.
        breaks = re.escape("".join(set(os.environ.get("COMP_WORDBREAKS", "=:")) & set("=:")) or "\0")
        kept = re.match(rf".*[{breaks}]", incomplete)
        self.replaced_from = len(kept[0]) if kept else 0
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return re.sub(r"([\s\\'\"$`!&|;<>(){}\[\]*?#])", r"\\\1", str(item.value)[self.replaced_from :])


class _Zsh(_Ours, ZshComplete):
    source_template: ClassVar[str] = _ZSH

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.value}\n{item.help or ' '}"


class _Fish(_Ours, FishComplete):
    source_template: ClassVar[str] = _FISH

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.value}\t{item.help}" if item.help else str(item.value)


_SHELLS: dict[str, type[_Ours]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def _of(shell: str) -> _Ours:
    if shell not in _SHELLS:
        raise UserError(f"there is no completion for {shell!r}", hint=f"shells: {', '.join(_SHELLS)}")
    return _SHELLS[shell](click.Command("headstart"), {}, "headstart", VARIABLE)


def complete(shell: str, suggest: Suggest) -> str:
    """The answer to a shell that asks for completions."""
    found = _of(shell)
    found.suggest = suggest
    return found.complete()


def source(shell: str) -> str:
    """The script that makes the shell ask."""
    found = _of(shell)
    return found.source_template % found.source_vars()
