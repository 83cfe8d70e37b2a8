"""Versions that the package was not tested with are told."""

from __future__ import annotations

import importlib.metadata

import pytest

from headstart.run import provenance

WANTED = [
    "ultralytics<=8.4.190,>=8.4.100",
    "torch<3,>=2.6",
    "numpy>=1.26",
    'tomli<2; python_version < "3"',  # of another Python
    "opencv-python<6,>=4.10",  # not there: its headless twin is
    'timm<2,>=1.0; extra == "timm"',
]
THERE = {"ultralytics": "8.4.191", "torch": "2.9.1+cu130", "numpy": "2.5.5", "tomli": "3.0", "timm": "0.9"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    there = dict(THERE)

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: WANTED)
    return there


def test_a_version_outside_the_tested_ones_is_told_with_what_to_do(installed: dict[str, str]) -> None:
    assert provenance.untested() == (
        "WARNING: ultralytics 8.4.191 was not tested with headstart (<=8.4.190,>=8.4.100): "
        "pip install 'ultralytics<=8.4.190,>=8.4.100'",
    )


@pytest.mark.parametrize(("version", "told"), [("8.4.99", 1), ("8.4.100", 0), ("8.4.190", 0), ("8.5.0rc1", 1)])
def test_the_bounds_themselves_are_tested_versions(installed: dict[str, str], version: str, told: int) -> None:
    installed["ultralytics"] = version
    assert len(provenance.untested()) == told


def test_without_metadata_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert provenance.untested() == ()
