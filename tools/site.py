"""Build the documentation site into ``build/site``, strictly: a link that leads nowhere ends it.

uv run --group docs python tools/site.py

Zensical reads one folder, so the pages are laid into ``build/docs`` first, with those that lie elsewhere in the
repository (experiments, changes), whose links are set right.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"

PAGES = {
    "EXPERIMENTS.md": "experiments.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/tutorial_voc/README.md": "tutorial.md",
}
"""Pages of the site that lie elsewhere, by their place in the repository."""

LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
"""The path of a relative link."""


def lay_out(folder: Path) -> None:
    """Copy all pages, their pictures and the example files into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    shutil.copytree(ROOT / "examples" / "extending", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for page in (ROOT / "docs").glob("*.md"):
        (folder / page.name).write_text(relinked(page), encoding="utf-8")
    for place, name in PAGES.items():
        (folder / name).write_text(relinked(ROOT / place), encoding="utf-8")
    shutil.copyfile(ROOT / "LICENSE", folder / "licence.txt")


def relinked(page: Path) -> str:
    """A page with its links as they are on the site."""

    def place(link: re.Match[str]) -> str:
        target = (page.parent / link[1]).resolve()
        inside = str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else link[1]
        inside = {**PAGES, "LICENSE": "licence.txt"}.get(inside, inside)
        inside = inside.removeprefix("docs/").replace("examples/extending/", "examples/")
        return f"]({inside}"

    return LINK.sub(place, page.read_text(encoding="utf-8"))


def main() -> int:
    """Build it; the exit status of Zensical, or 1 where a docstring of the reference is not understood."""
    if find_spec("zensical") is None:
        print("zensical is not installed: uv run --group docs python tools/site.py", file=sys.stderr)
        return 2
    lay_out(BUILD / "docs")
    words = ["build", "--strict", "--clean", "--config-file", "mkdocs.yml"]
    done = subprocess.run(
        [sys.executable, "-m", "zensical", *words],
        cwd=ROOT, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    print(done.stdout)
    return done.returncode or int("griffe: " in done.stdout)


if __name__ == "__main__":
    sys.exit(main())
