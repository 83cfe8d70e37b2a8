from __future__ import annotations

import os
from pathlib import Path

import pytest

import headstart
from headstart.detectors.ultralytics.undisturbed import attribute, same_environment


def test_only_what_changed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("CHANGED", "1")
    monkeypatch.setenv("REMOVED", "1")
    before = dict(os.environ)
    written: list[str] = []
    monkeypatch.setattr(type(os.environ), "__setitem__", _noting(written, type(os.environ).__setitem__))
    with pytest.raises(KeyError):
        _change_and_fail(written)
    assert dict(os.environ) == before
    assert sorted(written) == ["CHANGED", "REMOVED"]


@same_environment()
def _change_and_fail(written: list[str]) -> None:
    os.environ["CHANGED"], os.environ["NEW"] = "2", "2"
    del os.environ["REMOVED"]
    written.clear()
    raise KeyError


def _noting(written: list[str], really: object) -> object:
    def set_item(self: object, key: str, value: str) -> None:
        written.append(key)
        really(self, key, value)  # type: ignore[operator]

    return set_item


def test_an_attribute_is_put_back_after_a_failure() -> None:
    class Owner:
        value = 1

    with pytest.raises(ZeroDivisionError), attribute(Owner, "value", 2):
        _ = 1 // (Owner.value - 2)
    assert Owner.value == 1


def test_the_product_patches_nothing_with_the_tools_of_tests() -> None:
    for path in Path(headstart.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "unittest" not in text, path
        assert "environ.clear" not in text, path
