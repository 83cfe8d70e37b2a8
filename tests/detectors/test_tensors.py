from __future__ import annotations

import hashlib
import struct

import torch

from headstart.detectors.handback import HandBack
from headstart.detectors.tensors import differences, fingerprint, mismatches, not_finite, same_bits


def test_bits_are_compared_not_numbers() -> None:
    nan = torch.tensor([float("nan")])
    other_nan = torch.tensor([struct.unpack("f", b"\x01\x00\xc0\x7f")[0]])
    assert same_bits(nan, nan.clone())
    assert not same_bits(nan, other_nan)
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))
    assert not same_bits(torch.zeros(2, 3), torch.zeros(3, 2))
    spread = torch.arange(6.0).reshape(2, 3).T
    assert same_bits(spread, spread.contiguous())


def test_each_difference_is_named() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    other = {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)}
    assert differences(state, other, "x") == {"b": "has shape (4,) in x, not (3,)", "c": "is not in x"}
    changed = {**state, "a": torch.tensor([0.0, 1e-45])}
    assert mismatches(state, changed, "x") == {"a": "has other values in x"}


def test_what_is_not_finite() -> None:
    state = {"a": torch.tensor([1.0, float("inf")]), "b": torch.ones(2), "c": torch.tensor([float("nan")])}
    assert not_finite({**state, "steps": torch.tensor(7)}) == ("a", "c")


def test_a_hand_back_of_nan_is_not_well() -> None:
    found = HandBack.compared(["a", "b"], {}, lambda name: "backbone", ["a"], places=("the file",), not_finite=("b",))
    assert not found.ok
    assert found.lines() == ["backbone 1 of 2 tensors", "NOT FINITE, 1 with NaN or infinity: b"]
    assert found.as_dict()["not_finite"] == ["b"]


def test_what_starts_fresh_with_other_classes_is_said_by_whose_the_classes_are() -> None:
    names = ["stem", "box", "cls"]
    facts = {"fresh": ("cls",), "classes": (3, 4), "places": ("the file",)}
    found = HandBack.compared(names, {}, lambda name: "head", names, **facts)
    assert found.lines()[-1] == "with your own classes (4 tried in place of 3) 1 tensors start fresh: cls"
    of_user = HandBack.compared(names, {}, lambda name: "head", names, **facts, of_user=True)
    assert of_user.lines()[-1] == (
        "your 3 classes are its own: a training on them takes every tensor; with others (4 tried in place of 3) "
        "1 tensors start fresh: cls"
    )


def test_the_fingerprint_is_of_names_shapes_and_bytes() -> None:
    expected = hashlib.sha256(
        b"a (2,) torch.float32;" + struct.pack("<2f", 1.0, 2.0) + b"b () torch.int64;" + struct.pack("<q", 3)
    )
    assert fingerprint({"b": torch.tensor(3), "a": torch.tensor([1.0, 2.0])}) == expected.hexdigest()
