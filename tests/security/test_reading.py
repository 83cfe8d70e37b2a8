"""YAML and JSON of strangers: a value, or a ValueError that says why."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from headstart import reading
from headstart.comparison.starts import Start, pretraining_of
from headstart.errors import UserError
from headstart.images.dataset_yaml import DatasetYaml, read_dataset_yaml
from headstart.images.labels import read_labels
from headstart.reading import parse_json, parse_yaml
from headstart.report import write_report
from headstart.report.run_reader import find_run

BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['lol'] * 9)}]" for n in range(9))


@pytest.mark.parametrize(
    "text",
    [
        "!!bool perhaps", "!!int ''", "!!float x", "!!timestamp x", "2024-13-45", "{[]: 1}", "? {a: b}", "&a [*b]",
        "a: b: c", "!!python/object/apply:os.system [id]", "\x00", "[" * 5000, "!!set [a]", "- {a", "*a", "!!binary 0",
    ],
)  # fmt: skip
def test_what_is_no_yaml(text: str) -> None:
    with pytest.raises(ValueError):
        parse_yaml(text)


def test_references_to_references() -> None:
    began = time.perf_counter()
    for text in (BOMB, "&a [*a]", "&a {b: *a}"):
        with pytest.raises(ValueError, match="its references make more than 1,000,000 values"):
            parse_yaml(text)
    assert time.perf_counter() - began < 20
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_a_yaml_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_YAML", 10)
    assert parse_yaml("a: 3456789") == {"a": 3456789}
    with pytest.raises(ValueError, match="it has 11 characters; 10 at most are read"):
        parse_yaml("a: 34567890")


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "1" * 5000, "\x00"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


# What is made of them


def dataset(folder: Path, text: str) -> DatasetYaml:
    path = folder / "data.yaml"
    path.write_text(text)
    return read_dataset_yaml(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nc: 1000000000", "nc is 1000000000; 1,000,000 classes at most are read"),
        ("names: {.inf: a}", "class names that cannot be understood"),
        ("nc: 1\nkpt_shape: [0, 2]", r"kpt_shape must be such as \[17, 3\]"),
    ],
)
def test_numbers_of_a_dataset(text: str, words: str, tmp_path: Path) -> None:
    found = dataset(tmp_path, f"train: images\nval: images\n{text}\n")
    with pytest.raises(UserError, match=words):
        _ = found.class_names(), found.keypoints()


def test_paths_of_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names train with a character that no path has"):
        dataset(tmp_path, 'train: "a\\0b"\nval: a\nnames: [a]\n')
    found = dataset(tmp_path, f"train: {'a' * 5000}\nval: ../{'b' * 5000}\nnames: [a]\n")
    assert not found.there("train")
    assert "looked for" not in found.looked_for("val")


def test_a_label_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert str(read_labels(tmp_path / "pipe.txt").problems[0]) == "is not an ordinary file"
    (tmp_path / "many.txt").write_text("16777216 0.5 0.5 0.1 0.1\n16777215 0.5 0.5 0.1 0.1\n")
    found = read_labels(tmp_path / "many.txt")
    assert [row.label for row in found.rows] == [16777215]
    assert "has the class 16777216" in str(found.problems[0])
    monkeypatch.setattr("headstart.images.labels._MOST_BYTES", 10)
    assert "is too large" in str(read_labels(tmp_path / "many.txt").problems[0])


def test_a_run_that_no_run_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text("options: {steps: [1], batch: {}, imgsz: x}\nresolved: 3\n")
    lines = [f'{{"step": {step}, "name{step}": {"9" * 400}}}' for step in range(1, 50)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, "[" * 100_000, '{"step": 1e999}']))
    monkeypatch.setattr("headstart.report.run_reader._MOST_NUMBERS", 490)
    found = find_run(tmp_path)
    assert len(found.metrics["step"]) == 49
    assert len(found.metrics) == 10
    assert all(math.isnan(one) for one in found.metrics["name1"])


def test_a_page_that_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text("options: {}\n")
    monkeypatch.setattr("headstart.report.pretraining_page.judge", lambda run: 1 / 0)
    with pytest.raises(UserError, match=r"values that cannot be drawn \(ZeroDivisionError: division by zero\)"):
        write_report(tmp_path)


def test_a_pretraining_whose_record_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "headstart.pt").touch()
    (tmp_path / "settings.yaml").write_text("options: {data: a}\nresolved: {images: many, steps: [1]}\n")
    with pytest.raises(UserError, match="cannot be read"):
        pretraining_of(Start("a", "checkpoint", str(tmp_path / "headstart.pt")))
