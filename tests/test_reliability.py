"""The page that names the test of every kind of fault names tests that there are."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| (?!\*\*|kind |---)(?P<kind>[^|]+) \| (?P<tests>[^|]*) \|")


@cache
def content(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    table = PAGE[PAGE.index("## Faults and the tests") :]
    return {found["kind"]: re.findall(r"`([^`]+)`", found["tests"]) for found in ROW.finditer(table)}


def test_every_kind_of_fault_has_a_test_that_there_is() -> None:
    assert len(rows()) > 40
    missing = []
    for kind, named in rows().items():
        assert named, f"{kind} names no test"
        for one in named:
            path, _, name = one.partition("::")
            if f"\ndef {name}(" not in content(path):
                missing.append(one)
    assert not missing
