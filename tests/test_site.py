"""The documentation: every page in its place, every link leads somewhere, no figure that was not measured."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from headstart.settings.schema import CompareSettings, DemoSettings, PretrainSettings, ProbeSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SITE = ROOT / "build" / "site"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(nav: list[Any]) -> list[str]:
    """Pages of the navigation, in order."""
    values = [next(iter(one.values())) for one in nav]
    return [page for value in values for page in (listed(value) if isinstance(value, list) else [value])]


NAV = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_what_pages_take_from_elsewhere_is_up_to_date() -> None:
    assert tool("pages").outdated() == [], "run: python tools/pages.py"


def test_an_example_that_has_changed_is_noticed() -> None:
    pages = tool("pages")
    shown = DOCS.joinpath("adding-a-logger.md").read_text(encoding="utf-8")
    assert pages.filled(shown.replace("class JsonLines", "class Other")) == shown
    for name in ("method", "detector", "teacher", "logger"):
        code = (ROOT / "examples" / "extending" / f"my_{name}.py").read_text(encoding="utf-8")
        assert f"```python\n{code}```" in (DOCS / f"adding-a-{name}.md").read_text(encoding="utf-8")


def test_every_option_is_on_the_page() -> None:
    page = (DOCS / "options.md").read_text(encoding="utf-8")
    named = set(re.findall(r"<code>(\w+)=", page))
    for settings in (PretrainSettings, CompareSettings, ProbeSettings, DemoSettings):
        assert set(settings.model_fields) <= named
    files = (ROOT / "src" / "headstart" / "methods").glob("*.py")
    methods = {path.stem for path in files if re.search(r"^class Settings", path.read_text(), re.MULTILINE)}
    assert len(methods) == 10
    assert methods <= set(re.findall(r"^### method=(\w+)$", page, re.MULTILINE))
    assert "<code>teacher_temp=X</code> | temperature of the teacher's scores (default: 0.04) |" in page
    rows = [line for line in page.splitlines() if line.startswith("| <code>")]
    assert {line.count("|") for line in rows} == {3}, "a bar in a cell would be another column"


def test_every_page_is_in_the_navigation() -> None:
    elsewhere = set(tool("site").PAGES.values())
    assert len(NAV) == len(set(NAV))
    assert {path.name for path in DOCS.glob("*.md")} | elsewhere == set(NAV)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))], ids=str)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose)]
    inside = [target for target in targets if target and not re.match(r"\w+:", target)]
    assert [target for target in inside if not (page.parent / target).exists()] == []
    assert [target for target in inside if target.startswith("/")] == []


def test_links_are_set_right_for_the_site(tmp_path: Path) -> None:
    site = tool("site")
    site.ROOT = tmp_path
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "a.md"
    page.write_text(
        "[1](../EXPERIMENTS.md#x) [2](b.md#y) [3](https://c.d/e.md) [4](#z) ![5](pictures/p.webp) [6](../LICENSE)"
    )
    assert site.relinked(page) == (
        "[1](experiments.md#x) [2](b.md#y) [3](https://c.d/e.md) [4](#z) ![5](pictures/p.webp) [6](licence.txt)"
    )
    page = tmp_path / "EXPERIMENTS.md"
    page.write_text("[1](docs/evidence.md#x) [2](CHANGELOG.md)")
    assert site.relinked(page) == "[1](evidence.md#x) [2](changelog.md)"


MEASURED = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("docs/evidence.md", "EXPERIMENTS.md", "docs/speed.md")
)


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/choose.md", "docs/when-not.md"])
def test_no_figure_that_was_not_measured(name: str) -> None:
    """Versions, licences and learning rates aside, every decimal stands where the measurements are."""
    text = re.sub(
        r"[Pp]ython 3\.10|\d+\.\d+\.\d+|(Apache|AGPL|BSD)-\d\.\d|License 2\.0", "", (ROOT / name).read_text("utf-8")
    )
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)
    assert [one for one in figures if one not in MEASURED] == []


def test_the_picture_shows_the_figures_of_the_evidence() -> None:
    picture = tool("evidence_picture")
    assert picture.PATH.read_text(encoding="utf-8") == picture.drawing(), "run: python tools/evidence_picture.py"
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    for row in picture.ROWS:
        said = f"{row.mean:+.1f} [{row.low:+.1f}, {row.high:+.1f}]".replace("-", "−")
        assert said in page
    # Zero lies 8 of 24 parts of the way from the left end to the right one.
    assert picture.place(0) == pytest.approx(350 + 340 * 8 / 24, abs=0.1)


class Seen(HTMLParser):
    """Identifiers, and what a built page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {values["id"] or ""} if "id" in values else set()
        self.targets += [value for key in ("src", "href") if (value := values.get(key))]


@pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="zensical is not installed: uv sync --group docs"
)
def test_it_is_built_strictly() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "site.py")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in NAV:
        seen = Seen()
        seen.feed((SITE / page).with_suffix(".html").read_text(encoding="utf-8"))
        files = [target.split("#")[0].split("?")[0] for target in seen.targets if not re.match(r"\w+:|//|#", target)]
        assert [one for one in files if one and not (SITE / one).exists()] == [], page
        assert not [one for one in seen.targets if re.match(r"(https?:)?//fonts", one)], (
            "nothing is fetched to show a page"
        )
        if page == "api.md":
            assert {"headstart.pretrain", "headstart.jobs.ending.Run", "headstart.methods.base.Method"} <= seen.ids
