"""Write what pages of ``docs/`` take from elsewhere: the options from the settings, the examples from their files.

python tools/pages.py            # after an option or an example was changed
python tools/pages.py --check    # exits with 1 where a page is out of date
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from headstart.cli import COMMANDS
from headstart.cli.help import GROUPS, assigned, row, shown_first
from headstart.cli.options import CFG, fields_of, preset_of, read_method
from headstart.methods import find
from headstart.settings.method_file import MethodFile
from headstart.settings.method_options import MethodSettings
from headstart.settings.schema import PretrainSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

HEAD = """\
# Every option

Written by `tools/pages.py` from the settings. On the command line an option is `key=value` or `--key value`; in Python
it is an argument of `headstart.pretrain`, `compare` or `probe`; in a file given as `cfg=` it is a line of YAML. All
three read the same declarations: `headstart pretrain --help method=NAME` shows those of a method. `none` means that an
option has no value, in all three.
"""

FENCE = re.compile(r"(<!-- from (examples/\S+?\.py) -->\n```python\n).*?(```\n)", re.DOTALL)
"""Where a page shows a file of the examples."""


def pages() -> dict[Path, str]:
    """The pages that are written here, whole, as they should be."""
    shown = {path: filled(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}
    return {**shown, DOCS / "options.md": options()}


def filled(page: str) -> str:
    """A page with the examples that it shows, as their files have them."""
    return FENCE.sub(lambda at: at[1] + (ROOT / at[2]).read_text(encoding="utf-8") + at[3], page)


def options() -> str:
    """The page of all options."""
    parts = [HEAD]
    for name, spec in COMMANDS.items():
        parts.append(f"## headstart {name}\n\n{spec.summary[0].upper()}{spec.summary[1:]}.\n")
        shown = {**PretrainSettings.model_fields, **shown_first(), "cfg": CFG}
        fields = shown if name == "pretrain" else fields_of(name)
        parts += _grouped(name, fields)
        if name == "pretrain":
            parts += [_method(read_method(one)) for one in find.built_in()]
    return "\n".join(parts)


def _grouped(command: str, fields: Mapping[str, FieldInfo]) -> list[str]:
    """The options of a command under the headings of its help, and those that all methods share."""
    groups = {title: [one for one in names if one in fields] for title, names in GROUPS.get(command, {}).items()}
    shown = {one for names in groups.values() for one in names}
    rest = [one for one in fields if one not in shown]
    parts = [
        f"### {title}\n\n{table(row(command, one, fields[one]) for one in names)}" for title, names in groups.items()
    ]
    if rest:
        heading = f"### More options of {command}\n\n" if groups else ""
        parts.append(heading + table(row(command, one, fields[one]) for one in rest))
    if command == "pretrain":
        common = MethodSettings.model_fields
        rows = table(row(command, one, field) for one, field in common.items())
        parts.append(f"### Optimization, every method\n\n{rows}")
    return parts


def _method(method: MethodFile) -> str:
    """What a method adds, and what its first preset sets otherwise than the defaults that all methods share."""
    used, preset = preset_of(method)
    fields, common = method.settings.model_fields, MethodSettings.model_fields
    own = table(row("pretrain", one, fields[one], preset) for one in fields if one not in common)
    other: dict[str, Any] = {one: preset.get(one, fields[one].default) for one in common}
    other = {one: value for one, value in other.items() if value != common[one].default}
    other |= {one: value for one, value in preset.items() if one in PretrainSettings.model_fields}
    presets = f"Presets: {', '.join(f'`{one}`' for one in method.presets)}. " if method.presets else ""
    said = f"Without `preset=` it is `{used}`, which is shown here. " if used else ""
    sets = f"It sets `{assigned(other)}`." if other else ""
    about = f"{presets}{said}{sets}".strip()
    return f"### method={method.name}\n\n{method.summary}.\n\n{about + chr(10) + chr(10) if about else ''}{own}"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Options in two columns, escaped for Markdown of any kind."""
    lines = [f"| <code>{_cell(given)}</code> | {_cell(about)} |" for given, about in rows]
    return "\n".join(["| option | what it does |", "|---|---|", *lines]) + "\n"


def _cell(text: str) -> str:
    return html.escape(text.replace("\xa0", " "), quote=False).replace("|", "&#124;").replace("*", "&#42;")


def outdated() -> list[Path]:
    """Pages that are not as they should be."""
    return [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(int(bool(outdated())))
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
