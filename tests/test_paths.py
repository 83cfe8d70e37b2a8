"""Paths as users write them: links keep their names, and ``~`` is a home wherever a path is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.comparison.dataset import read_dataset
from headstart.comparison.starts import parse_starts, pretraining_of
from headstart.detectors.find import finetuner
from headstart.images.index import find_images
from headstart.jobs.prepare import absolute_paths
from headstart.jobs.scenes import draw_dataset
from headstart.paths import homes, located
from headstart.settings.resolve import collect
from headstart.settings.words import Word

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/a.pt", "{}/a.pt"),
        ("~", "{}"),
        ("mine=~/a.pt", "mine={}/a.pt"),
        ("scratch,mine=~/a,~/b", "scratch,mine={}/a,{}/b"),
        ("[~/a, ~/b]", "[{}/a, {}/b]"),
        ('["mine=~/a","~/b"]', '["mine={}/a","{}/b"]'),
        ("a~/b", "a~/b"),
        ("images/~old", "images/~old"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        (["~/a", "mine=~/b", 3], ["{}/a", "mine={}/b", 3]),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_homes(given: Any, meant: Any, home: str) -> None:
    def filled(one: Any) -> Any:
        return one.replace("{}", home) if isinstance(one, str) else one

    assert homes(given) == (list(map(filled, meant)) if isinstance(meant, list) else filled(meant))


def test_a_word_stays_one(home: str) -> None:
    found = homes(Word("~/a"))
    assert type(found) is Word
    assert found == f"{home}/a"


def test_a_path_stays_one(home: str) -> None:
    assert homes(Path("~/a")) == Path(home, "a")


@pytest.mark.parametrize(
    "option", ["model", "init", "proposals", "teacher_weights", "method", "starts", "source", "run"]
)
def test_every_option_of_a_file_or_a_line_knows_homes(option: str, home: str, tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({option: "~/a"}))
    assert collect({"cfg": "~/options.yaml"}, [])[option] == f"{home}/a"
    assert collect({option: "~/a"}, [])[option] == f"{home}/a"


@needs_links
def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "abc").write_text("")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "folder" / "w.pt").symlink_to("abc")
    assert located(tmp_path / "folder" / "w.pt") == tmp_path.resolve() / "real" / "w.pt"
    assert located(tmp_path / "real" / "..") == tmp_path.resolve()


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A data set whose YAML is a link to a folder with other images, which have the same places there."""
    mine = draw_dataset(tmp_path / "mine", unlabelled=0, train=5, val=2, imgsz=64)
    content = {key: value for key, value in yaml.safe_load(mine.read_text()).items() if key != "path"}
    other = draw_dataset(tmp_path / "other", unlabelled=0, train=3, val=1, imgsz=64)
    other.write_text(yaml.safe_dump(content))
    mine.unlink()
    mine.symlink_to(other)
    return mine


@needs_links
def test_what_a_linked_dataset_yaml_names_lies_beside_the_link(linked: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    theirs = Path(str(check_det_dataset(str(linked))["train"]))
    compared = read_dataset(str(linked), "val", finetuner("yolo11n")).pool
    labels = str(absolute_paths({"labels": str(linked)})["labels"])
    given = find_images([], labels=labels)
    assert {Path(image).parent for image in compared} == {theirs} == {Path(image).parent for image in given}
    assert len(compared) == len(given) == 5


@needs_links
def test_a_checkpoint_in_the_cache_of_a_hub_keeps_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    link = tmp_path / "best.pt"
    link.symlink_to("blob")
    ((start,), problems) = parse_starts([f"mine={link}"], "yolo11n")
    assert not problems
    assert Path(start.path).name == "best.pt"
    assert Path(str(absolute_paths({"model": str(link)})["model"])).name == "best.pt"


@needs_links
def test_a_link_to_a_runs_checkpoint_tells_of_that_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "headstart.pt").write_bytes(b"weights")
    record = {"options": {"data": ["images"], "method": "dino"}, "resolved": {"steps": 5}}
    (run / "settings.yaml").write_text(yaml.safe_dump(record))
    (tmp_path / "headstart.pt").symlink_to(run / "headstart.pt")
    ((start,), _) = parse_starts([f"mine={tmp_path / 'headstart.pt'}"], "yolo11n")
    found = pretraining_of(start)
    assert found is not None
    assert Path(found.folder) == run.resolve()
