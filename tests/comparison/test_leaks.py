"""What a comparison knows of test images behind its starts: by unlabelled=, and behind what these began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.comparison.dataset import Dataset
from headstart.comparison.leaks import leak_of, look_for_leaks
from headstart.comparison.recipes import Recipe, RecipeStart
from headstart.comparison.start_records import LeakFacts
from headstart.comparison.starts import Start, pretraining_of
from headstart.errors import UserError
from headstart.jobs.scenes import draw_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("leaks") / "data", unlabelled=5, train=4, val=3, imgsz=64)


def images(data: Path, part: str) -> list[str]:
    return sorted(str(path) for path in (data.parent / "images" / part).iterdir())


def run_folder(folder: Path, data: object, count: int, **options: object) -> Path:
    """What a pretraining leaves behind, as far as leaks are concerned; its weights."""
    folder.mkdir()
    (folder / "headstart.pt").write_bytes(b"weights")
    given = {"data": str(data), "method": "dino", "model": "yolo11n.yaml", "batch": 8, **options}
    (folder / "settings.yaml").write_text(yaml.safe_dump({"options": given, "resolved": {"images": count}}))
    return folder / "headstart.pt"


def known_of(data: Path, starts: Mapping[str, Any], named: list[str], tmp_path: Path) -> dict[str, LeakFacts]:
    """What is known of starts: weights, or the options of a recipe."""
    kinds = {name: "recipe" if isinstance(given, dict) else "checkpoint" for name, given in starts.items()}
    asked = [Start(name, kinds[name], "" if kinds[name] == "recipe" else str(given)) for name, given in starts.items()]
    recipes = {
        name: RecipeStart(Recipe(tmp_path / f"{name}.yaml", given, labelled=False), given.get("data") or named, 5, "")
        for name, given in starts.items()
        if kinds[name] == "recipe"
    }
    facts = {start.name: found for start in asked if (found := pretraining_of(start))}
    pool, test = tuple(images(data, "train")), tuple(images(data, "val"))
    dataset = Dataset(data, ("a",), pool, test, "val", {})
    return look_for_leaks(dataset, asked, facts, recipes, named, tmp_path / "looks.npz").starts


def test_images_that_a_recipe_learns_from_say_nothing_of_other_starts(data: Path, tmp_path: Path) -> None:
    named = images(data, "unlabelled")
    previous = tmp_path / "previous.pt"
    previous.write_bytes(b"weights")
    gone = run_folder(tmp_path / "gone", tmp_path / "no more", 5)
    starts = {"mine": previous, "old": gone}
    found = known_of(data, {**starts, "new": {"method": "dino"}}, named, tmp_path)
    assert found["mine"] == LeakFacts(outcome="not known", words="its pretraining images are not known")
    assert found["old"] == LeakFacts(outcome="not known", words="its pretraining images are not there any more")
    assert found["new"].words == "none of 5 images that it learns from is a test image"
    alone = known_of(
        data, {**starts, "new": {"method": "dino", "data": str(data.parent / "images/train")}}, named, tmp_path
    )
    assert alone["mine"].words == "none of 5 pretraining images, named by unlabelled=, is a test image"
    assert alone["mine"].outcome == "passed"
    assert alone["old"] == found["old"], "its run folder names its images, and these are others"


@pytest.mark.parametrize("key", ["init", "model", "proposals", "teacher", "teacher_weights"])
def test_weights_that_nobody_knows_leave_a_leak_unknown(data: Path, tmp_path: Path, key: str) -> None:
    """Of a recipe, and of a run folder that began with them (which says nothing of its teacher's file)."""
    previous = tmp_path / "previous.pt"
    previous.write_bytes(b"weights")
    folder = str(data.parent / "images/unlabelled")
    run = run_folder(tmp_path / "run", folder, 5, **{key: str(previous)})
    found = known_of(data, {"new": {"method": "dino", "data": folder, key: str(previous)}, "old": run}, [], tmp_path)
    words = f"what {key}=previous.pt learnt from is not known"
    assert found["new"].words == f"none of 5 images that it learns from is a test image; {words}"
    assert found["new"].outcome == "not known"
    if key != "teacher_weights":
        assert found["old"].words == f"none of 5 pretraining images is a test image; {words}"
        assert found["old"].outcome == "not known"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "yolo11s.pt", "proposals": "yolo11x.pt"},
        {"init": "weights/yolo11n.pt", "teacher": "vit_small_patch14_dinov2.lvd142m"},
        {"model": "torchvision:fcos_resnet50_fpn", "init": "torchvision:fcos_resnet50_fpn:coco", "teacher": "auto"},
    ],
)
def test_published_weights_are_taken_as_they_are(data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    folder = str(data.parent / "images/unlabelled")
    found = known_of(data, {"new": {"method": "dino", "data": folder, **options}}, [], tmp_path)
    assert found["new"] == LeakFacts(outcome="passed", words="none of 5 images that it learns from is a test image")


def test_weights_of_a_run_are_followed_to_its_images(data: Path, tmp_path: Path) -> None:
    folder = str(data.parent / "images/unlabelled")
    first = run_folder(tmp_path / "first", data.parent / "images/train", 4)
    second = run_folder(tmp_path / "second", folder, 5, init=str(first))
    asked = {"new": {"method": "dino", "data": folder, "init": str(second)}}
    found = known_of(data, asked, [], tmp_path)["new"]
    told = "nor is one of the 9 behind init=first/headstart.pt and init=second/headstart.pt"
    assert (found.outcome, found.words) == ("passed", f"none of 5 images that it learns from is a test image; {told}")
    content = yaml.safe_load((tmp_path / "first/settings.yaml").read_text())
    content["options"]["data"] = str(tmp_path / "gone")
    (tmp_path / "first/settings.yaml").write_text(yaml.safe_dump(content))
    found = known_of(data, asked, [], tmp_path)["new"]
    assert found.outcome == "not known"
    assert found.words.endswith("of init=first/headstart.pt: its pretraining images are not there any more")
    content["options"]["data"] = str(data.parent / "images/val")
    (tmp_path / "first/settings.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(
        UserError, match=r"what init=first/headstart.pt of new learnt from: 3 of 3 files have the content"
    ):
        known_of(data, asked, [], tmp_path)


def test_a_run_that_says_it_began_with_itself_is_looked_at_once(data: Path, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", data.parent / "images/train", 4, init=str(tmp_path / "run/headstart.pt"))
    assert known_of(data, {"old": run}, [], tmp_path)["old"].outcome == "passed"


def test_images_named_for_a_part_of_a_pretraining_whose_folder_names_none(tmp_path: Path) -> None:
    run = pretraining_of(Start("old", "checkpoint", str(run_folder(tmp_path / "run", "", 1000))))
    found = leak_of(Start("old", "checkpoint", "a.pt"), run, [], 3)
    words = "3 of its 1,000 pretraining images were named by unlabelled=, and none of these is a test image"
    assert (found.outcome, found.words) == ("not known", words)
