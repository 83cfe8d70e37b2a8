"""What stands around the code: one version everywhere, forms and hooks that can be read, checks that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def content(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_version_is_the_newest_of_the_release_notes() -> None:
    notes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)(?: \(unreleased\)| \(\d{4}-\d{2}-\d{2}\))?$", notes, re.MULTILINE)
    assert len(versions) == len(re.findall(r"^## ", notes, re.MULTILINE)), "a section is a version"
    assert versions == sorted(versions, key=lambda one: [int(part) for part in one.split(".")], reverse=True)
    project = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert project is not None
    assert project[1] == versions[0] == content("CITATION.cff")["version"]
    assert len(re.findall(r"\(unreleased\)", notes)) <= 1


def test_a_citation_has_what_it_needs() -> None:
    citation = content("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize("path", [one for one in FORMS if one.name != "config.yml"], ids=lambda path: path.name)
def test_forms_for_issues(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    for part in form["body"]:
        assert part["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["label"]


def test_hooks_run_what_is_there() -> None:
    hooks = [hook for repo in content(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    words = [hook["entry"].split() for hook in hooks]
    assert {two[2] for two in words} >= {"ruff", "mypy"}
    for script in (word for two in words for word in two if word.endswith(".py")):
        assert (ROOT / script).is_file()
    for pattern in (hook["files"] for hook in hooks if "files" in hook):
        assert any(re.search(pattern, str(path.relative_to(ROOT))) for path in (ROOT / "src").rglob("*.py"))


def test_the_image_gets_what_the_package_is_built_from() -> None:
    docker, ignored = ((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", ".dockerignore"))
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE) for word in line.split()]
    assert set(copied) == {"pyproject.toml", "README.md", "LICENSE", "src"}
    assert {line[1:] for line in ignored.splitlines() if line.startswith("!")} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
