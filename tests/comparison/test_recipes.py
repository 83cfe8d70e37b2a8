"""Starts that a comparison makes itself: made up in a moment, and once for real, in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_runner import FakeTraining, classified

import headstart
from headstart.comparison import child, cost, prepare, pretrainings, recipe_plans, runner
from headstart.comparison.child import Stopped
from headstart.comparison.pool import Slot
from headstart.comparison.recipes import INDIFFERENT, read_recipe
from headstart.comparison.results import read_results
from headstart.comparison.starts import build_start, build_starts
from headstart.errors import UserError
from headstart.images.labels import label_path
from headstart.jobs.compare_options import resolve
from headstart.jobs.going_on import MAY_CHANGE
from headstart.jobs.scenes import draw_dataset
from headstart.methods import namer
from headstart.training import checkpoint
from headstart.trust import granted
from small import small_yaml

METHOD = '''"""Learns from labels, as far as a comparison is concerned."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from headstart.methods.base import Method, pooled
from headstart.settings.method_options import MethodSettings
from headstart.views.spec import ViewSpec


class Settings(MethodSettings):
    """Options."""

    labels: str | None = Field(None, description="dataset YAML whose train part is the labelled images")


class Labelled(Method):
    """The mean of the features, pushed to zero; it writes down which labels it was given."""

    def __init__(self, settings, context):
        super().__init__(settings, context)
        Path("{seen}").open("a").write(f"{{settings.labels}}\\n")

    def view_specs(self):
        return [ViewSpec("view", self.context.imgsz, (0.5, 1.0))]

    def shown(self, batch):
        return 2 * batch

    def forward(self, views, progress):
        return pooled(self.student(views[0].images)).float().square().mean()
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("recipes") / "data", unlabelled=6, train=24, val=6, imgsz=64)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A method with an option ``labels``, in a file."""
    path = tmp_path / "labelled.py"
    path.write_text(METHOD.replace("{seen}", str(tmp_path / "seen.txt")).replace("{{", "{").replace("}}", "}"))
    return path


@pytest.fixture
def recipe(tmp_path: Path, labelled: Path) -> Path:
    """A recipe whose method is beside it."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"method": labelled.name, "steps": 40, "batch": 8, "imgsz": 64}))
    return path


@pytest.fixture
def options(data: Path, weights: Path, recipe: Path, tmp_path: Path) -> dict[str, Any]:
    given = {"data": data, "starts": f"coco={weights},mine={recipe}", "labels": "25%,100%", "seeds": 2, "epochs": 4}
    return {
        **given,
        "model": small_yaml(),
        "imgsz": 64,
        "lr": 0.001,
        "out": tmp_path / "out",
        "device": "cpu",
        "jobs": 2,
        "pictures": 0,
        "trust": True,
    }


class FakePretraining:
    """Stands in for the process of a pretraining: leaves what it leaves behind, and notes what it was asked for."""

    def __init__(self, weights: Path) -> None:
        self.weights, self.steps = weights, 0
        self.asked: list[dict[str, Any]] = []
        self.fail: Callable[[dict[str, Any]], None] = lambda asked: None

    def __call__(self, folder: Path, run: Path, place: Slot, stop: Any, *, resume: bool = False, **more: Any) -> None:
        given = yaml.safe_load((folder / "options.yaml").read_text())
        asked = {**given, "node": folder.name, "resume": resume, "device": place.device}
        self.asked.append(asked)
        (folder / "pretrain.log").write_text("said this\n")
        run.mkdir(exist_ok=True)
        steps = given.get("steps", self.steps)
        resolved = {"steps": steps, "shown": 2 * given["batch"], "search_seconds": 3.0, "images": 6}
        content = {"options": given, "asked": given, "resolved": resolved}
        (run / "settings.yaml").write_text(yaml.safe_dump(content))
        lines = [json.dumps({"step": step, "seconds": 2.0 * step}) + "\n" for step in range(1, 7)]
        (run / "metrics.jsonl").write_text("".join(lines))
        self.fail(asked)
        shutil.copy(self.weights, run / "headstart.pt")


@pytest.fixture
def fakes(
    monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FakeTraining, FakePretraining]:
    shared = tmp_path_factory.getbasetemp() / "recipe-starts"
    shared.mkdir(exist_ok=True)
    monkeypatch.setattr(prepare, "build_starts", lambda *given: build_starts(*given[:-1], shared))
    monkeypatch.setattr(runner, "build_start", lambda *given: build_start(*given[:-1], shared / given[-1].name))
    training, pretraining = FakeTraining(), FakePretraining(weights)
    monkeypatch.setattr(runner, "finetune", training)
    monkeypatch.setattr(pretrainings, "command", pretraining)
    return training, pretraining


Fakes = tuple[FakeTraining, FakePretraining]


def test_a_recipe_with_labels_is_made_for_each_list_from_these_labels_alone(
    fakes: Fakes, options: dict[str, Any], data: Path, weights: Path, labelled: Path
) -> None:
    training, pretraining = fakes
    found = headstart.compare(**options)
    assert found.ok, found.failed
    asked = {one["node"]: one for one in pretraining.asked}
    assert asked.keys() == {f"mine-{budget}-seed{seed}" for budget in ("25pc", "100pc") for seed in (0, 1)}
    test = set((found.folder / "labels/test.txt").read_text().split())
    for node, one in asked.items():
        content = yaml.safe_load(Path(one["labels"]).read_text())
        assert content.keys() == {"train", "names"}, "nothing of the images that are measured on"
        listed = Path(content["train"]).read_text().split()
        cell = (found.folder / "labels" / f"{node.removeprefix('mine-')}.txt").read_text().split()
        assert listed == cell
        assert len(listed) == (6 if "25pc" in node else 24)
        pool = Path(one["data"]).read_text().split()
        assert len(pool) == 24, "the train part of the data set, where nobody names other images"
        assert not test & {*pool, *listed}
        assert (one["seed"], one["method"]) == (int(node[-1]), str(labelled))
        assert (one["model"], one["init"]) == (small_yaml(), str(weights)), "the comparison's COCO weights"
    used = {one.name: Path(one.start).name for one in training.asked if one.name.startswith("mine")}
    assert used == {f"mine-{name}": f"mine-{name}.pt" for name in [node.removeprefix("mine-") for node in asked]}
    assert found.results is not None
    start = next(one for one in found.results.starts if one.name == "mine")
    assert start.recipe is not None
    assert (start.kind, start.recipe.labelled, start.recipe.carriers) == ("recipe", True, {"init": str(weights)})
    assert [(run.budget, run.seed, run.state) for run in start.recipe.runs] == [
        ("25%", 0, "done"), ("100%", 0, "done"), ("25%", 1, "done"), ("100%", 1, "done"),
    ]  # fmt: skip
    lists = {(one.budget, one.seed): one.sha256 for one in found.results.lists}
    assert {(run.budget, run.seed): run.labels_sha256 for run in start.recipe.runs} == lists


def test_who_names_is_decided_once_for_all_runs_of_a_recipe(
    fakes: Fakes, options: dict[str, Any], recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One run might reach the network's weights when another does not: they would be other starts of one name."""
    loaded: list[str] = []
    monkeypatch.setattr(namer, "load_teacher", lambda source: loaded.append(source.teacher))
    recipe.write_text(yaml.safe_dump({"method": "selftrain", "steps": 40, "batch": 8, "imgsz": 64}))
    found = headstart.compare(**options)
    assert found.ok, found.failed
    assert loaded == ["tf_efficientnet_lite0"]
    assert {one["teacher"] for one in fakes[1].asked} == {"tf_efficientnet_lite0"}
    assert capsys.readouterr().err.count("mine: teacher=tf_efficientnet_lite0: it names what the detector finds") == 1
    assert found.results is not None
    start = next(one for one in found.results.starts if one.name == "mine")
    assert start.recipe is not None
    assert start.recipe.carriers["teacher"] == "tf_efficientnet_lite0"


def test_a_recipe_whose_network_cannot_be_had_is_made_without(
    fakes: Fakes, options: dict[str, Any], recipe: Path, capsys: Any
) -> None:
    recipe.write_text(yaml.safe_dump({"method": "selftrain", "steps": 40, "batch": 8, "imgsz": 64}))
    found = headstart.compare(**options)
    assert found.ok, found.failed
    assert {one["teacher"] for one in fakes[1].asked} == {None}
    assert capsys.readouterr().err.count("mine: timm cannot load 'tf_efficientnet_lite0'") == 1


@pytest.mark.parametrize("there", [True, False])
def test_runs_that_are_there_are_kept_whether_the_network_can_be_had_now_or_not(
    there: bool, fakes: Fakes, options: dict[str, Any], recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A recipe that leaves its network open, gone on with where timm is installed since, or is not any more."""
    recipe.write_text(yaml.safe_dump({"method": "selftrain", "steps": 40, "batch": 8, "imgsz": 64}))
    name = "tf_efficientnet_lite0" if there else None
    with monkeypatch.context() as patch:
        if there:
            patch.setattr(namer, "load_teacher", lambda source: None)
        assert headstart.compare(**{**options, "seeds": 1}).ok
    assert {one["teacher"] for one in fakes[1].asked} == {name}
    fakes[1].asked.clear()
    capsys.readouterr()
    if not there:
        monkeypatch.setattr(namer, "load_teacher", lambda source: None)
    assert headstart.compare(**options).ok
    assert sorted(one["node"] for one in fakes[1].asked) == ["mine-100pc-seed1", "mine-25pc-seed1"]
    assert {one["teacher"] for one in fakes[1].asked} == {name}
    assert ("mine: as in its runs that are there, the detector names" in capsys.readouterr().err) is not there


def test_what_is_done_is_kept_and_what_changed_is_made_anew(
    fakes: Fakes,
    options: dict[str, Any],
    recipe: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(data.parent, tmp_path / "copy")
    options["data"] = tmp_path / "copy" / data.name
    training, pretraining = fakes
    found = headstart.compare(**options)

    def again(**more: Any) -> list[str]:
        pretraining.asked.clear()
        training.asked.clear()
        assert headstart.compare(**{**options, **more}).ok
        return sorted(one["node"] for one in pretraining.asked)

    assert again() == []
    assert training.asked == []
    assert again(seeds=3) == ["mine-100pc-seed2", "mine-25pc-seed2"]
    assert "made anew" not in capsys.readouterr().err
    few = {seed: (found.folder / f"labels/25pc-seed{seed}.txt").read_text() for seed in (0, 1, 2)}
    pool = (found.folder / "labels/100pc-seed0.txt").read_text().split()
    image = next(path for path in pool if not any(path in text for text in few.values()))
    label_path(image).write_text(label_path(image).read_text().rstrip() + "  \n")
    assert again(seeds=3) == [f"mine-100pc-seed{seed}" for seed in (0, 1, 2)], "a corrected label"
    told = "recipe, labels, images or the version of headstart are others than those of the run that is there"
    said = capsys.readouterr().err
    for seed in (0, 1, 2):
        assert re.search(rf"made anew, for {told}: .*pretraining of mine, 100%, seed {seed}", said)
    test = (found.folder / "labels/test.txt").read_text().split()[0]
    label_path(test).write_text(label_path(test).read_text().rstrip() + "  \n")
    assert again(seeds=3) == [], "a test label is none of its business"
    for record in (found.folder / "pretrainings").glob("*/pretraining.json"):  # as an earlier version wrote it
        content = json.loads(record.read_text())
        del content["meaning"]
        record.write_text(json.dumps(content))
    assert again(seeds=3) == []
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "steps": 41}))
    assert len(again(seeds=3)) == 6
    assert len(again(seeds=3, unlabelled=str(tmp_path / "copy/images/unlabelled"))) == 6
    assert {one["data"] for one in pretraining.asked} == {str(tmp_path / "copy/images/unlabelled")}


@pytest.mark.parametrize("labels", [True, False])
def test_labels_that_mean_something_else_make_another_pretraining(
    fakes: Fakes, options: dict[str, Any], recipe: Path, data: Path, tmp_path: Path, labels: bool
) -> None:
    """The names of two classes swapped: the numbers in the label files are the same."""
    shutil.copytree(data.parent, tmp_path / "copy")
    options |= {"data": tmp_path / "copy" / data.name, "labels": "100%", "seeds": 1}
    if not labels:
        recipe.write_text(yaml.safe_dump({"method": "dino", "steps": 40, "batch": 8, "imgsz": 64}))
    headstart.compare(**options)
    content = yaml.safe_load(options["data"].read_text())
    names = content["names"] if isinstance(content["names"], list) else list(content["names"].values())
    options["data"].write_text(yaml.safe_dump({**content, "names": [names[1], names[0], *names[2:]]}))
    training, pretraining = fakes
    training.asked.clear()
    pretraining.asked.clear()
    headstart.compare(**options)
    assert [(one["node"], one["resume"]) for one in pretraining.asked] == [("mine-100pc-seed0", False)] * labels
    assert len(training.asked) == 2, "of a method without labels the trainings alone"


def test_ctrl_c_keeps_trainings_of_recipes_that_nobody_had_looked_at(fakes: Fakes, options: dict[str, Any]) -> None:
    training, pretraining = fakes
    assert headstart.compare(**{**options, "labels": "25%", "jobs": 1}).ok
    first = read_results(options["out"])
    training.asked.clear()
    pretraining.asked.clear()

    def stop(settings: Any) -> bool:
        if len(training.asked) > 1:
            raise Stopped
        return False

    training.fail = stop
    assert headstart.compare(**{**options, "labels": "25%", "jobs": 1, "seeds": [2, 0, 1]}).interrupted
    now = read_results(options["out"])
    new = [cell for cell in now.finished() if cell.seed == 2]
    assert [cell.shown for cell in new] == ["coco at 25%, seed 2"]
    key = lambda cell: (cell.start, cell.seed)  # noqa: E731
    assert sorted((c for c in now.finished() if c not in new), key=key) == sorted(first.finished(), key=key)
    assert [one["node"] for one in pretraining.asked] == ["mine-25pc-seed2"]
    (mine,) = [one for one in now.starts if one.name == "mine"]
    assert mine.recipe is not None
    assert [(one.seed, one.state) for one in mine.recipe.runs] == [(2, "done"), (0, "done"), (1, "done")]


@pytest.mark.parametrize("jobs", [1, 4])
def test_ctrl_c_in_a_pretraining_more_keeps_the_figures(fakes: Fakes, options: dict[str, Any], jobs: int) -> None:
    """Whether those that are done were to be looked at with it, or after it."""
    given = {**options, "labels": "25%", "jobs": jobs}
    assert headstart.compare(**given).ok
    before = {name: (options["out"] / name).read_bytes() for name in ("results.json", "results.md", "report.html")}

    def stop(asked: dict[str, Any]) -> None:
        raise Stopped

    fakes[1].fail = stop
    assert headstart.compare(**{**given, "seeds": [2, 0, 1]}).interrupted
    assert {name: (options["out"] / name).read_bytes() for name in before} == before
    (options["out"] / "results.json").unlink()
    assert headstart.compare(**{**given, "seeds": [2, 0, 1]}).interrupted
    assert len(read_results(options["out"]).finished()) == 4, "all that is there"


def test_a_run_that_was_stopped_goes_on(fakes: Fakes, options: dict[str, Any]) -> None:
    training, pretraining = fakes

    def stop(asked: dict[str, Any]) -> None:
        if asked["node"] == "mine-25pc-seed1":
            raise Stopped

    pretraining.fail = stop
    assert headstart.compare(**{**options, "jobs": 1}).interrupted
    assert {one.seed for one in training.asked} == {0}, "cells wait for the pretrainings of their seed, and no others"
    pretraining.fail = lambda asked: None
    pretraining.asked.clear()
    assert headstart.compare(**{**options, "jobs": 1}).ok
    assert [(one["node"], one["resume"]) for one in pretraining.asked] == [
        ("mine-25pc-seed1", True),
        ("mine-100pc-seed1", False),
    ]


def _torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["headstart.pt", "settings.yaml"])
@pytest.mark.parametrize("saved", [True, False])
def test_a_pretraining_whose_files_are_damaged_is_gone_on_with_or_made_anew(
    fakes: Fakes, options: dict[str, Any], name: str, saved: bool
) -> None:
    """Before, it failed for ever: of each later call all its cells were lost, until its folder was removed by hand."""
    _, pretraining = fakes
    options |= {"labels": "100%", "seeds": 1}
    found = headstart.compare(**options)
    run = found.folder / "pretrainings/mine-100pc-seed0/run"
    if saved:
        checkpoint.save(run / "checkpoints", {"step": 3, "weights": torch.ones(2)})
    _torn(run / name) if name == "headstart.pt" else (run / name).write_text("options: {")
    pretraining.asked.clear()
    again = headstart.compare(**options)
    assert again.ok, again.failed
    assert again.results is not None
    assert found.results is not None
    assert again.results.scores == found.results.scores
    resumes = name == "headstart.pt" and saved
    assert [(one["node"], one["resume"]) for one in pretraining.asked] == [("mine-100pc-seed0", resumes)]
    pretraining.asked.clear()
    assert headstart.compare(**options).ok
    assert pretraining.asked == []


def test_a_stopped_pretraining_without_a_whole_checkpoint_is_made_anew(fakes: Fakes, options: dict[str, Any]) -> None:
    _, pretraining = fakes
    options |= {"labels": "100%", "seeds": 1}
    pretraining.fail = lambda asked: (_ for _ in ()).throw(Stopped())
    assert headstart.compare(**options).interrupted
    folder = Path(options["out"]) / "pretrainings/mine-100pc-seed0/run/checkpoints"
    _torn(checkpoint.save(folder, {"step": 3, "weights": torch.ones(2)}))
    pretraining.fail = lambda asked: None
    pretraining.asked.clear()
    assert headstart.compare(**options).ok
    assert [one["resume"] for one in pretraining.asked] == [False]


def test_what_changes_nothing_of_what_is_learnt_keeps_a_pretraining(
    fakes: Fakes, options: dict[str, Any], recipe: Path
) -> None:
    _, pretraining = fakes
    options |= {"labels": "100%", "seeds": 1}
    assert headstart.compare(**options).ok
    told = {"workers": 1, "log_every": 2, "save_every": 3, "probe_every": 4, "report": False, "cache": "ram"}
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | told | {"loggers": "tensorboard"}))
    pretraining.asked.clear()
    assert headstart.compare(**options).ok
    assert pretraining.asked == []
    assert {*told, "loggers"} <= {*INDIFFERENT} <= MAY_CHANGE, "a run that is gone on with takes them, too"


@pytest.mark.parametrize("stopped", [True, False])
def test_weights_that_a_pretraining_downloads_keep_it(
    fakes: Fakes, options: dict[str, Any], recipe: Path, weights: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, stopped: bool,
) -> None:  # fmt: skip
    """Named when it began, a file later on: before, what was done was removed, and made anew."""
    _, pretraining = fakes
    monkeypatch.chdir(tmp_path)
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"model": "yolo11s.pt"}))
    options |= {"labels": "100%", "seeds": 1}

    def download(asked: dict[str, Any]) -> None:
        shutil.copy(weights, "yolo11s.pt")
        if stopped:
            raise Stopped

    pretraining.fail = download
    first = headstart.compare(**options)
    assert first.interrupted if stopped else first.ok
    if stopped:  # killed, it has written nothing down since it began
        record = tmp_path / "out/pretrainings/mine-100pc-seed0/pretraining.json"
        Path("yolo11s.pt").rename("elsewhere.pt")
        monkeypatch.setattr(pretraining, "fail", lambda asked: (_ for _ in ()).throw(Stopped()))
        assert headstart.compare(**options).interrupted
        Path("elsewhere.pt").rename("yolo11s.pt")
        assert "seconds" not in json.loads(record.read_text())
    pretraining.fail = lambda asked: None
    pretraining.asked.clear()
    assert headstart.compare(**options).ok
    assert [one["resume"] for one in pretraining.asked] == [True] * stopped
    shutil.copy(weights, "yolo11s.pt")
    Path("yolo11s.pt").write_bytes(Path("yolo11s.pt").read_bytes() + b"0")
    pretraining.asked.clear()
    assert headstart.compare(**options).ok
    assert [one["resume"] for one in pretraining.asked] == [False], "other weights"


def test_pretrainings_keep_every_place_busy(fakes: Fakes, options: dict[str, Any], recipe: Path) -> None:
    """Two a seed: four places want two seeds at once; where time ends a pretraining all come first."""

    def seeds_of_waves(**changed: Any) -> list[list[int]]:
        training, pretraining = fakes
        said: list[Any] = []
        pretraining.fail = lambda asked: said.append(("made", asked["seed"]))
        training.fail = lambda settings: bool(said.append(("trained", settings.seed)))
        headstart.compare(**{**options, "seeds": 3, "overwrite": True, **changed})
        waves: list[list[int]] = []
        for number, (what, seed) in enumerate(said):
            if what == "made" and (not number or said[number - 1][0] == "trained"):
                waves.append([])
            if what == "made" and seed not in waves[-1]:
                waves[-1].append(seed)
        return [sorted(wave) for wave in waves]

    assert seeds_of_waves(jobs=1) == [[0], [1], [2]]
    assert seeds_of_waves(jobs=4) == [[0, 1], [2]]
    limited = yaml.safe_load(recipe.read_text()) | {"budget": "1m"}
    del limited["steps"]
    recipe.write_text(yaml.safe_dump(limited))
    pretraining = fakes[1]
    pretraining.steps = 40
    assert seeds_of_waves(jobs=1) == [[0, 1, 2]]


def test_a_recipe_that_fails_sinks_its_own_cells(fakes: Fakes, options: dict[str, Any]) -> None:
    training, pretraining = fakes

    def fail(asked: dict[str, Any]) -> None:
        if asked["node"] == "mine-25pc-seed1":
            raise UserError("it diverged", where="a log")

    pretraining.fail = fail
    found = headstart.compare(**options)
    assert found.failed == ("mine, 25%, seed 1: not trained, for its pretraining failed: a log: it diverged",)
    assert len(training.asked) == 7
    assert [check.key for check in found.failed_checks] == ["complete"]
    pretraining.fail = lambda asked: None
    assert headstart.compare(**options).ok


def test_the_search_for_a_rate_starts_from_its_own_lists(fakes: Fakes, options: dict[str, Any]) -> None:
    training, pretraining = fakes
    found = headstart.compare(**{**options, "labels": "50%,100%", "lr": [0.001, 0.01], "seeds": [3, 4]})
    assert found.ok, found.failed
    nodes = [one["node"] for one in pretraining.asked]
    assert sorted(nodes[:2]) == ["mine-100pc-seed3-search", "mine-50pc-seed3-search"], (
        "the first seed, and first of all"
    )
    assert len(nodes) == 2 + 4
    for one in pretraining.asked[:2]:
        name = one["node"].removeprefix("mine-").removesuffix("-search")
        held = set((found.folder / "labels" / f"{name}-validation.txt").read_text().split())
        listed = Path(yaml.safe_load(Path(one["labels"]).read_text())["train"]).read_text().split()
        assert held
        assert not held & set(listed)
    starts = {
        one.folder.parent.name: Path(one.start).name for one in training.asked if one.name.startswith("mine-50pc")
    }
    assert starts["search"] == "mine-50pc-seed3-search.pt"
    assert starts["cells"] in ("mine-50pc-seed3.pt", "mine-50pc-seed4.pt")


def test_a_recipe_without_labels_is_made_once_a_seed(
    fakes: Fakes, options: dict[str, Any], recipe: Path, data: Path
) -> None:
    _, pretraining = fakes
    recipe.write_text(yaml.safe_dump({"method": "pyramid", "steps": 40, "batch": 8, "imgsz": 64}))
    found = headstart.compare(**{**options, "lr": [0.001, 0.01], "labels": "50%,100%"})
    assert found.ok, found.failed
    assert [one["node"] for one in pretraining.asked] == ["mine-seed0", "mine-seed1"], "the search's is that of a seed"
    assert all("labels" not in one for one in pretraining.asked)


def test_a_runs_own_settings_are_a_recipe(
    fakes: Fakes, options: dict[str, Any], weights: Path, data: Path, tmp_path: Path
) -> None:
    _, pretraining = fakes
    asked = {"data": [str(data.parent / "images/unlabelled")], "method": "pyramid", "steps": 40, "batch": 8, "seed": 7}
    record = {"asked": {**asked, "device": "cuda", "out": "runs/a"}, "options": asked, "resolved": {}}
    (tmp_path / "a").mkdir()
    (tmp_path / "a/settings.yaml").write_text(yaml.safe_dump(record))
    found = headstart.compare(**{**options, "starts": f"coco={weights},{tmp_path}/a/settings.yaml"})
    assert found.ok, found.failed
    assert {(one["node"], one["seed"]) for one in pretraining.asked} == {("a-seed0", 0), ("a-seed1", 1)}
    assert {one["device"] for one in pretraining.asked} == {"cpu"}
    assert pretraining.asked[0]["data"] == asked["data"]


def test_a_run_whose_labels_chose_its_method_is_a_recipe_of_that_method(tmp_path: Path) -> None:
    """Of the run's own labels nothing is left, nor of the folder that it wrote labels to."""
    asked = {"data": ["images"], "labels": "few.yaml", "export_labels": "labels", "steps": 40}
    used = {**asked, "method": "selftrain", "lr": 0.001}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"asked": asked, "options": used, "resolved": {}}))
    problems: list[UserError] = []
    recipe = read_recipe(tmp_path / "settings.yaml", problems)
    assert problems == []
    assert recipe is not None
    assert recipe.options == {"data": ["images"], "steps": 40, "method": "selftrain"}
    assert recipe.labelled


def test_a_method_that_a_run_says_it_used_runs_for_no_recipe(tmp_path: Path) -> None:
    """Reading the recipe would import it, to know whether it has labels."""
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nSettings = type('Settings', (), {{}})\n")
    content = {"asked": {"data": "a"}, "options": {"labels": "few.yaml", "method": str(tmp_path / "own.py")}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(content))
    problems: list[UserError] = []
    assert read_recipe(tmp_path / "settings.yaml", problems) is None
    assert "names a Python file, which would run" in str(problems[0])
    assert not (tmp_path / "ran").exists()


def test_what_a_recipe_makes_is_measured_as_it_is(fakes: Fakes, options: dict[str, Any], tmp_path: Path) -> None:
    """Of one pretraining, beside what is fine-tuned or alone."""
    training, pretraining = fakes
    pretraining.weights = classified(tmp_path / "own.pt")
    given = {**options, "labels": "25%", "seeds": 1, "starts": f"mine-as-is,{options['starts']}"}
    found = headstart.compare(**given)
    assert found.ok, found.failed
    assert [one["node"] for one in pretraining.asked] == ["mine-25pc-seed0"]
    asked = {one.name: (one.epochs, Path(one.start).name) for one in training.asked if "coco" not in one.name}
    assert asked == {
        "mine-as-is-25pc-seed0": (0, "mine-25pc-seed0.pt"),
        "mine-25pc-seed0": (4, "mine-25pc-seed0.pt"),
    }
    assert found.results is not None
    own = {start.name: start for start in found.results.starts if start.kind == "recipe"}
    assert own["mine-as-is"].recipe == own["mine"].recipe
    costs = {one.start: one.pretraining_seconds for one in found.results.costs}
    assert costs["mine-as-is"] == costs["mine"] > 0
    alone = {**given, "starts": options["starts"].replace("mine=", "mine-as-is="), "out": tmp_path / "alone"}
    found = headstart.compare(**alone)
    assert found.ok, found.failed
    assert found.results is not None
    assert [start.name for start in found.results.starts] == ["coco", "mine-as-is"]
    assert {one.name for one in training.asked[-2:]} == {"coco-25pc-seed0", "mine-as-is-25pc-seed0"}
    # The same weights from every seed: the seed of the recipe reached nothing.
    twins = headstart.compare(**{**alone, "seeds": 2})
    assert [one.key for one in twins.failed_checks] == ["seeds"]


def test_coco_is_as_long_as_what_is_measured_as_it_is(fakes: Fakes, options: dict[str, Any], tmp_path: Path) -> None:
    """With several rates as well: the search has to know how long it takes."""
    training, pretraining = fakes
    pretraining.weights = classified(tmp_path / "own.pt")
    starts = f"coco-longer,{options['starts'].replace('mine=', 'mine-as-is=')}"
    found = headstart.compare(**{**options, "labels": "100%", "seeds": 1, "lr": [0.001, 0.01], "starts": starts})
    assert found.ok, found.failed
    assert [one["node"] for one in pretraining.asked] == ["mine-100pc-seed0-search", "mine-100pc-seed0"]
    assert {one.name: one.epochs for one in training.asked}["coco-longer-100pc-seed0"] == 24, (
        "40 steps of 16: 20 epochs"
    )
    assert found.results is not None
    (longer,) = [one.longer for one in found.results.starts if one.longer]
    assert [one.follows for one in longer] == ["mine-as-is"]


def test_what_learns_without_labels_is_not_measured_as_it_is(
    fakes: Fakes, options: dict[str, Any], tmp_path: Path
) -> None:
    """Told before anything is made, once."""
    (tmp_path / "ssl.yaml").write_text(yaml.safe_dump({"method": "dino", "steps": 4, "batch": 8, "imgsz": 64}))
    with pytest.raises(UserError) as caught:
        headstart.compare(**{**options, "starts": f"{options['starts']},ssl={tmp_path}/ssl.yaml,ssl-as-is"})
    assert str(caught.value).count("dino learns without labels") == 1
    assert not fakes[1].asked


def test_a_failed_run_is_told_once(fakes: Fakes, options: dict[str, Any]) -> None:
    def fail(asked: dict[str, Any]) -> None:
        raise UserError("there is no room")

    fakes[1].fail = fail
    found = headstart.compare(**{**options, "labels": "25%", "seeds": 1, "starts": f"{options['starts']},mine-as-is"})
    assert found.report is not None
    assert found.report.read_text().count("pretrainings/mine-25pc-seed0/run") == 1


def test_a_recipe_that_knows_other_classes_is_not_measured_as_it_is(fakes: Fakes, options: dict[str, Any]) -> None:
    found = headstart.compare(**{**options, "labels": "25%", "seeds": 1, "starts": f"mine-as-is,{options['starts']}"})
    assert not found.ok
    (failed,) = found.failed
    assert "not measured as it is, for what was pretrained is no detector of the classes of data" in failed


def test_coco_longer_follows_a_recipe(fakes: Fakes, options: dict[str, Any]) -> None:
    training, _ = fakes
    found = headstart.compare(**{**options, "starts": f"coco-longer,{options['starts']}"})
    assert found.ok, found.failed
    # 40 steps show 16 images each: 40 batches of 16. At 25 % an epoch is one batch, at 100 % two.
    epochs = {one.name: one.epochs for one in training.asked}
    assert (epochs["coco-longer-25pc-seed0"], epochs["coco-longer-100pc-seed0"]) == (44, 24)


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1, 2}])
def test_coco_longer_is_of_one_length_where_a_pretraining_fails(
    fakes: Fakes, options: dict[str, Any], recipe: Path, failing: set[int]
) -> None:
    """Of two recipes the longer one fails for some seeds: what is missing are its own trainings alone."""
    training, pretraining = fakes
    long = recipe.with_name("long.yaml")
    long.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"steps": 80}))

    def fail(asked: dict[str, Any]) -> None:
        if asked["steps"] == 80 and asked["seed"] in failing:
            raise UserError("out of memory", where="a log")

    pretraining.fail = fail
    starts = f"{options['starts']},long={long},coco-longer"
    found = headstart.compare(**{**options, "starts": starts, "labels": "25%", "seeds": 3, "jobs": 1})
    # 80 steps that show 16 images each are 80 batches of 16, and at 25 % an epoch is one batch; 40 of the other recipe.
    more = 40 if len(failing) == 3 else 80
    longer = {one.seed: one.epochs for one in training.asked if one.name.startswith("coco-longer")}
    assert longer == dict.fromkeys((0, 1, 2), 4 + more)
    assert [check.key for check in found.failed_checks] == ["complete"]
    assert {line.partition(":")[0] for line in found.failed} == {f"long, 25%, seed {seed}" for seed in failing}
    assert found.results is not None
    (coco,) = [one for one in found.results.starts if one.name == "coco-longer"]
    assert [(one.follows, one.steps) for one in coco.longer] == [("mine" if more == 40 else "long", more)]


def test_test_images_among_what_a_recipe_learns_from_are_refused(
    fakes: Fakes, options: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(data.parent / "images/val/00003.jpg", tmp_path / "more/x.jpg")
    with pytest.raises(UserError, match="1 of 1 files have the content of a test image"):
        headstart.compare(**options, unlabelled=str(tmp_path / "more"))
    assert fakes[1].asked == []


def test_every_problem_of_a_recipe_is_told_before_anything_is_made(
    fakes: Fakes, options: dict[str, Any], recipe: Path
) -> None:
    recipe.write_text("method: pyramid\nstepz: 3\nbatch: x\nteacher: a.pt\ninit: nowhere.pt\n")
    with pytest.raises(UserError) as caught:
        headstart.compare(**{**options, "epochs": 0})
    for part in ("'stepz'", "did you mean 'steps'?", "batch: must be a whole number", "teacher: is an option of"):
        assert part in str(caught.value)
    assert f"recipe mine ({recipe})" in str(caught.value)
    assert "epochs: must be at least 1" in str(caught.value), "with those of the comparison"
    assert fakes[1].asked == []


@pytest.mark.parametrize(
    ("recipe_says", "told"),
    [
        ("method: selftrain\nteacher: tf_efficientnet_lite99", "teacher: timm has no model 'tf_efficientnet_lite99'"),
        ("method: selftrain\nteacher: nowhere.pt", "teacher: nowhere.pt does not exist"),
        ("method: selftrain\nteacher: nowhere.py", "teacher: there is no file nowhere.py"),
        ("method: selftrain\nteacher_weights: nowhere.safetensors", "teacher_weights: there is no file nowhere"),
        ("method: objects\nproposals: nowhere.pt", "proposals: nowhere.pt does not exist"),
        ("init: nowhere.pt\nsteps: 3", "init: nowhere.pt does not exist"),
        ("data: nowhere\nsteps: 3", "data: no such file or folder: "),
        # Of a method that is chosen when the weights have been read.
        ("teacher: tf_efficientnet_lite99\nsteps: 3", "teacher: timm has no model 'tf_efficientnet_lite99'"),
        ("proposals: nowhere.pt\nsteps: 3", "proposals: nowhere.pt does not exist"),
    ],
)
def test_what_a_recipe_names_is_looked_for_before_anything_is_made(
    options: dict[str, Any], recipe: Path, recipe_says: str, told: str
) -> None:
    recipe.write_text(f"{recipe_says}\n")
    with granted(True), pytest.raises(UserError) as caught:
        resolve({**options, "data": str(options["data"]), "out": str(options["out"]), "trust": True})
    assert f"recipe mine ({recipe}): {told}" in str(caught.value)


def test_none_in_a_recipe_is_none(tmp_path: Path) -> None:
    """And where a run was asked for none, its settings as a recipe ask for none, not for the default."""
    (tmp_path / "none").mkdir()  # a word, not what is called so
    (tmp_path / "a.yaml").write_text("method: selftrain\nteacher: none\nsettle: none\nlr: none\n")
    found = read_recipe(tmp_path / "a.yaml", [])
    assert found is not None
    assert found.options == {"method": "selftrain", "teacher": None, "settle": None, "lr": "none"}
    asked = {"method": "selftrain", "teacher": None, "out": None, "seed": None}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"asked": asked, "options": asked, "resolved": {}}))
    found = read_recipe(tmp_path / "settings.yaml", [])
    assert found is not None
    assert found.options == {"method": "selftrain", "teacher": None}


@pytest.mark.parametrize("key", ["out", "seed", "labels", "resume", "overwrite", "cfg", "export_labels"])
def test_what_the_comparison_sets_is_refused_in_a_recipe(options: dict[str, Any], recipe: Path, key: str) -> None:
    recipe.write_text(f"method: pyramid\nsteps: 3\n{key}: 1\n")
    with pytest.raises(UserError, match=rf"recipe mine .*: {key}: cannot be set in a recipe: "):
        headstart.compare(**options)


def test_paths_are_those_of_the_recipes_folder_first(options: dict[str, Any], tmp_path: Path, weights: Path) -> None:
    from headstart.comparison.recipes import read_recipe

    (tmp_path / "r/images").mkdir(parents=True)
    shutil.copy(weights, tmp_path / "r/w.pt")
    (tmp_path / "r/a.yaml").write_text("data: images\ninit: w.pt\nmethod: dino\nmodel: yolo11n.yaml\n")
    found = read_recipe(tmp_path / "r/a.yaml", [])
    assert found is not None
    assert found.options == {
        "data": str(tmp_path / "r/images"), "init": str(tmp_path / "r/w.pt"), "method": "dino", "model": "yolo11n.yaml",
    }  # fmt: skip


def test_a_folder_that_is_called_as_a_method_is_a_teacher_or_a_model_is_none_of_them(tmp_path: Path) -> None:
    """Of a run with ``out=selftrain``, beside the recipe."""
    for name in ("selftrain", "hog", "yolo11n.yaml"):
        (tmp_path / name).mkdir()
    given = {"method": "selftrain", "teacher": "hog", "model": "yolo11n.yaml", "data": "hog"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(given))
    problems: list[UserError] = []
    found = read_recipe(tmp_path / "a.yaml", problems)
    assert not problems
    assert found is not None
    assert found.labelled
    assert found.options == {**given, "data": str(tmp_path / "hog")}


def test_a_recipe_with_labels_learns_images_of_the_size_that_is_measured_with(
    fakes: Fakes, options: dict[str, Any], recipe: Path, capsys: Any
) -> None:
    recipe.write_text(yaml.safe_dump({"method": "selftrain", "steps": 40, "batch": 8, "teacher": "none"}))
    assert headstart.compare(**options).ok
    assert {one["imgsz"] for one in fakes[1].asked} == {64}
    assert "learns images of" not in capsys.readouterr().err
    recipe.write_text(yaml.safe_dump({"method": "selftrain", "steps": 40, "batch": 8, "teacher": "none", "imgsz": 160}))
    fakes[1].asked.clear()
    assert headstart.compare(**options).ok
    assert {one["imgsz"] for one in fakes[1].asked} == {160}
    told = "mine learns images of 160 px, and is fine-tuned and measured with others of 64 px: imgsz=160 here"
    assert capsys.readouterr().err.replace("\n", " ").count(told) == 1
    recipe.write_text(yaml.safe_dump({"method": "dino", "steps": 40, "batch": 8}))
    fakes[1].asked.clear()
    assert headstart.compare(**options).ok
    assert {one.get("imgsz") for one in fakes[1].asked} == {None}, "crops are no images to detect in"


def test_torchvisions_published_weights_are_no_file(options: dict[str, Any], recipe: Path) -> None:
    given = {**options, "model": "torchvision:fcos_resnet50_fpn", "starts": f"scratch,mine={recipe}"}
    match = "coco=path among the starts, or name init= or model= in the recipe"
    with granted(True), pytest.raises(UserError, match=match):
        resolve({**given, "data": str(given["data"])})


def test_the_plan_shows_the_runs_of_recipes(
    fakes: Fakes, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "finetune", FakeTraining())
    monkeypatch.setattr(recipe_plans, "_SAMPLE", 12)
    monkeypatch.setenv("COLUMNS", "160")
    given = {**options, "starts": f"coco-longer,{options['starts']}", "labels": "50%,100%", "lr": [0.001, 0.01]}
    headstart.compare(**given, plan=True)
    (asked,) = fakes[1].asked
    assert (asked["steps"], asked["log_every"]) == (8, 1)
    text = capsys.readouterr().out
    rows = [[word.strip() for word in line.split("│")] for line in text.splitlines() if "│" in line]
    row = next(row for row in rows if row[0] == "recipe mine")
    # Two lists of the search, four of the comparison. 2 s a step and 3 s of search for 12 images: 80 + 6 s.
    assert row[1:6] == ["each list", "24", "40 steps", "6", "1 min 26 s"]
    longer = {row[1]: row[3] for row in rows if row[0] == "coco-longer" or (row[0] == "" and row[4] == "2")}
    # 16 images a step are 40 batches: at 50 % (12 images, one batch) 40 epochs more, at 100 % 20.
    assert longer == {"50%": "44", "100%": "24"}
    assert not (options["out"] / "probe").exists()


def test_a_real_recipe(options: dict[str, Any], recipe: Path, weights: Path, data: Path, tmp_path: Path) -> None:
    """Stopped in the midst, gone on with, and fine-tuned from: everything through real processes."""
    recipe.write_text(
        yaml.safe_dump(
            {
                "method": "labelled.py", "steps": 3, "batch": 4, "imgsz": 64, "workers": 0, "report": False,
                "data": str(data.parent / "images/unlabelled"), "precision": "32", "save_every": 1,
            }
        )
    )  # fmt: skip
    given = {**options, "labels": "8", "seeds": 1, "epochs": 1, "batch": 4, "workers": 0}
    found = headstart.compare(**given)
    assert found.ok, found.failed
    seen = (tmp_path / "seen.txt").read_text().split()
    assert seen == [str(found.folder / "labels/8-seed0-labels.yaml")]
    assert found.results is not None
    start = next(one for one in found.results.starts if one.name == "mine")
    assert start.recipe is not None
    (run,) = start.recipe.runs
    assert run.pretraining is not None
    assert (run.pretraining.steps, run.pretraining.shown) == (3, 8)
    assert start.taken["backbone"] == (24, 24), "four convolutions, each with the five tensors of a batch norm"
    cell = next(one for one in found.results.cells if one.start == "mine")
    assert cell.measured.initial_sha256 == run.sha256
    (found.folder / "pretrainings/mine-8-seed0/run/headstart.pt").unlink()
    record = found.folder / "pretrainings/mine-8-seed0/pretraining.json"
    record.write_text(json.dumps({"key": json.loads(record.read_text())["key"], "spent": 5.0}))
    again = headstart.compare(**given)
    assert again.results is not None
    new = next(one for one in again.results.starts if one.name == "mine")
    assert new.sha256 == start.sha256, "gone on with, it ends as it ended before"


def test_a_process_works_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    log = tmp_path / "log.txt"
    assert child.run("pretend", [], log, 1, threading.Event(), folder=tmp_path / "here") == 1
    assert "No module named pretend" in log.read_text()
