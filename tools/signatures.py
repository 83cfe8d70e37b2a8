"""Write ``src/headstart/__init__.pyi``: the signatures that editors and type checkers see, from the settings.

python tools/signatures.py            # after an option was added or changed
python tools/signatures.py --check    # exits with 1 where the file is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from headstart.jobs.signature import Option, listed, options

PATH = Path(__file__).parent.parent / "src" / "headstart" / "__init__.pyi"

HEAD = '''\
"""Written by tools/signatures.py from the settings; change these, not this file."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from headstart import callbacks as callbacks
from headstart.detectors.ultralytics import load_into as load_into
from headstart.errors import UserError as UserError
from headstart.jobs.compare import Comparison as Comparison
from headstart.jobs.ending import Run as Run

__all__ = ["Comparison", "Run", "UserError", "callbacks", "compare", "load_into", "pretrain", "probe"]
'''

FUNCTIONS = {
    "pretrain": ("Pretrain a detector on unlabelled images.", "Run"),
    "compare": ("Fine-tune a detector from several starts, all else equal, and say which is better.", "Comparison"),
    "probe": ("Measure the features of a run or a checkpoint, without training.", "dict[str, dict[str, float]]"),
}


def stub() -> str:
    """The whole file."""
    return "\n".join([HEAD, *(function(name, *about) for name, about in FUNCTIONS.items())])


def function(name: str, about: str, returns: str) -> str:
    """One function, with a parameter a line. What must be given may be given without its name."""
    shown = options(cast(Any, name))
    needed = [parameter(one) for one in shown if one.default is None]
    others = [parameter(one) for one in shown if one.default is not None]
    parameters = "".join(f"    {line},\n" for line in [*needed, "*", *others])
    text = f"{about}\n\n    Args:\n{_indented(listed(shown, 112))}\n    "
    return f'def {name}(\n{parameters}) -> {returns}:\n    """{text}"""\n'


def parameter(one: Option) -> str:
    """``name: type = default``."""
    quoted = one._replace(type=one.type.replace("'", '"'))
    default = "" if one.default is None else f" = {one.default}".replace("'", '"')
    return f"{quoted.name}: {quoted.type}{default}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()).replace("\\", "\\\\")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(int(PATH.read_text(encoding="utf-8") != stub()))
    PATH.write_text(stub(), encoding="utf-8")
