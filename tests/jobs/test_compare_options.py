from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart import cli
from headstart.cli.command import parse
from headstart.cli.options import values
from headstart.comparison.budgets import Budget, parse_budgets
from headstart.comparison.starts import Start, parse_starts
from headstart.detectors.ultralytics.finetuning import ultralytics_arguments
from headstart.errors import UserError
from headstart.jobs.compare_options import command, resolve
from headstart.settings import schema


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "my.yaml").write_text("train: images\nval: images\nnames: [a]\n")
    (tmp_path / "w.pt").write_bytes(b"x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/headstart.pt").write_bytes(b"x")
    return {"data": str(tmp_path / "my.yaml"), "starts": f"scratch,coco={tmp_path}/w.pt,ssl={tmp_path}/run"}


def test_starts(given: dict[str, Any], tmp_path: Path) -> None:
    words = [f"coco={tmp_path}/w.pt", "coco-backbone", "scratch", f"{tmp_path}/run", f"b={tmp_path}/w.pt"]
    starts, problems = parse_starts(words, "yolo11n")
    assert not problems
    weights, run = str(tmp_path / "w.pt"), str(tmp_path / "run/headstart.pt")
    assert starts == [
        Start("coco", "coco", weights),
        Start("coco-backbone", "coco-backbone", weights),
        Start("scratch", "scratch", ""),
        Start("run", "checkpoint", run),
        Start("b", "checkpoint", weights),
    ]
    assert parse_starts(["coco"], "yolo11s.yaml")[0] == [Start("coco", "coco", "yolo11s.pt")]


@pytest.mark.parametrize("name", ["coco", "scratch", "coco-backbone"])
def test_a_file_is_not_called_as_other_weights_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.pt"
    path.write_bytes(b"x")
    starts, (problem,) = parse_starts([str(path)], "yolo11n")
    assert starts == []
    assert str(problem) == (
        f"starts: {path} would be called {name}, which stands for other weights\n  -> name it: mine={path}"
    )
    assert parse_starts([f"mine={path}"], "yolo11n")[0] == [Start("mine", "checkpoint", str(path))]


def test_own_weights_have_a_longer_training_by_their_name(given: dict[str, Any], tmp_path: Path) -> None:
    weights, run = str(tmp_path / "w.pt"), str(tmp_path / "run/headstart.pt")
    words = ["mine-longer", f"mine={weights}", f"ssl={run}"]
    starts, problems = parse_starts(words, "yolo11n")
    assert not problems
    assert starts[0] == Start("mine-longer", "checkpoint-longer", weights)
    alone, _ = parse_starts([f"mine-longer={weights}", f"ssl={run}"], "yolo11n")
    assert alone[0] == starts[0], "without the training of as many steps as the others"
    assert (starts[0].longer, starts[0].base, starts[1].base) == (True, "mine", "mine")
    # Without mine there are no weights; mine itself is no pretraining that it could be as long as.
    assert "'mine-longer' does not exist" in str(parse_starts(words[::2], "yolo11n")[1][0])
    (problem,) = parse_starts(words[:2], "yolo11n")[1]
    assert "mine-longer is fine-tuned for as many steps as a pretrained start takes in all" in str(problem)
    (tmp_path / "run/settings.yaml").write_text("")
    (problem,) = parse_starts([*words, "ssl-longer"], "yolo11n")[1]
    assert "ssl-longer: ssl is a pretraining, and takes steps of its own" in str(problem)
    (problem,) = parse_starts([f"other-longer={run}", f"ssl={run}"], "yolo11n")[1]
    assert "takes steps of its own" in str(problem)
    (tmp_path / "mine-longer").mkdir()  # elsewhere: what is meant is known by its name alone
    assert resolve({**given, "starts": ",".join(words), "reference": "mine"}).reference == "mine"


def test_a_start_is_measured_as_it_is_by_its_name(given: dict[str, Any], tmp_path: Path) -> None:
    weights, run = str(tmp_path / "w.pt"), str(tmp_path / "run/headstart.pt")
    (tmp_path / "r.yaml").write_text("method: selftrain\n")
    recipe = str(tmp_path / "r.yaml")
    words = [f"mine={weights}", "mine-as-is", f"{tmp_path}/run", "run-as-is", "st-as-is", f"st={recipe}"]
    starts, problems = parse_starts(words, "yolo11n")
    assert not problems
    assert starts == [
        Start("mine", "checkpoint", weights),
        Start("mine-as-is", "checkpoint", weights, as_is=True),
        Start("run", "checkpoint", run),
        Start("run-as-is", "checkpoint", run, as_is=True),
        Start("st-as-is", "recipe", recipe, as_is=True),
        Start("st", "recipe", recipe),
    ]
    assert [start.base for start in starts] == ["mine", "mine", "run", "run", "st", "st"]
    assert parse_starts([f"st-as-is={recipe}"], "yolo11n")[0] == [starts[4]], "without its fine-tuning"
    for word in ("coco-as-is", "scratch-as-is", f"coco-as-is={weights}"):
        (problem,) = parse_starts([f"coco={run}", word], "yolo11n")[1]
        assert "neither random weights nor those called COCO's are measured as they are" in str(problem)
    (problem,) = parse_starts([f"mine={weights}", f"mine-as-is={run}"], "yolo11n")[1]
    assert "mine-as-is is mine before it is fine-tuned, and another file is given for it" in str(problem)
    assert "'mine-longer-as-is' does not exist" in str(parse_starts([*words, "mine-longer-as-is"], "yolo11n")[1][0])
    resolve({**given, "starts": "coco,run-as-is,run=" + run, "start_lr": {"run": 0.1}, "reference": "run-as-is"})
    with pytest.raises(UserError, match="start_lr: run-as-is is no start that is fine-tuned"):
        resolve({**given, "starts": "coco,run-as-is,run=" + run, "start_lr": {"run-as-is": 0.1}})
    numbers = resolve({**given, "starts": "coco,1=" + run, "start_lr": {1: 0.1}, "reference": 1})
    assert (numbers.reference, numbers.start_lr) == ("1", {"1": 0.1}), "names as YAML and Python give them"


def test_budgets() -> None:
    assert [problem.what for problem in parse_budgets(["²"])[1]] == ["'²' is not a label budget"]
    budgets, problems = parse_budgets(["1%", "2.5%", "200"])
    assert not problems
    assert budgets == [Budget("1%", 0.01, None), Budget("2.5%", 0.025, None), Budget("200", None, 200)]
    assert [budget.images(5948) for budget in budgets] == [59, 149, 200]
    assert budgets[0].images(10) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "auto"}, "'auto' chooses optimizer and learning rate by the number of iterations"),
        ({"optimizer": "adam"}, "did you mean 'Adam' or 'RAdam'?"),
        ({"optimizer": "auto"}, "optimizer=AdamW lr=0.001"),
        ({"mosaic": 2}, "extra.mosaic: 'mosaic=2' is an invalid value"),
        ({"extra": {"box": "x"}}, "extra.box: 'box=x' is of invalid type"),
        ({"weight_decay": None}, "extra.weight_decay: 'weight_decay=None' is invalid"),
        # Each ended all trainings in their first step, or had the comparison called worthless after the last one.
        ({"single_cls": True}, "extra.single_cls: the starts have the classes of data"),
        ({"single_cls": True}, "give a dataset YAML of one class, whose labels are all of class 0"),
        ({"distill_model": "yolo11x.pt"}, "extra.distill_model: a teacher beside the network"),
        ({"quantize": 8}, "extra.quantize: trainings and figures of a comparison are not quantized"),
        ({"extra": {"split": "train"}}, "extra.split: cannot be changed: the figures are those of the test images"),
        ({"single_cls": False, "distill_model": None, "quantize": None}, None),
        ({"starts": "scratchh"}, "did you mean 'scratch' or 'scratch-longer'?"),
        ({"starts": "coco-longer"}, "coco-longer is fine-tuned for as many steps as a pretrained start takes in all"),
        ({"starts": "coco-longer=w.pt"}, "starts from the weights of coco"),
        ({"starts": "scratch,scratch"}, "'scratch' is there twice"),
        ({"starts": "scratch=w.pt"}, "starts from random weights, not from a file"),
        ({"starts": []}, "starts: names nothing"),
        ({"reference": "cocoo"}, "reference: 'cocoo' is no start"),
        ({"reference": "ssl"}, None),
        ({"labels": "10"}, None),
        ({"labels": "0%"}, "'0%' is not a label budget"),
        ({"labels": "5%,5%"}, "a budget is there twice"),
        ({"seeds": [1, 1]}, "seeds: holds a value twice"),
        ({"seeds": "0,00"}, "seeds: holds a value twice"),
        ({"seeds": ["1", 1]}, "seeds: holds a value twice"),
        ({"seeds": [2147483646, 2147483645]}, None),
        ({"lr": "0.001,1e-3"}, "lr: holds a value twice"),
        ({"lr": [0.001, "0.0010"]}, "lr: holds a value twice"),
        ({"lr": [0.001, 0.0010000001]}, "lr: holds a value twice"),  # folders are named by six digits
        ({"lr": [0.001, 0.00101]}, None),
        ({"lr": ["x", "x"]}, "lr: must be a number"),
        ({"longer": True, "starts": "coco"}, "longer: no start is scratch, of which it is a longer training"),
        ({"longer": True}, None),
        ({"longer": "auto", "starts": "coco"}, None),
        ({"seeds": 0}, "seeds: names nothing"),
        ({"seeds": -1}, "seeds: must be at least 1, not -1"),
        ({"seeds": 2024}, "seeds: must be 1,000 at most, or the seeds themselves as [2024], not 2024"),
        ({"seeds": "1" * 5000}, "seeds: must be a whole number, not '111"),
        ({"seeds": [2024]}, None),
        ({"labels": "1" * 5000}, "is not a label budget"),
        ({"labels": [None, "5%"]}, "labels: must be a string, not [None, '5%']"),
        ({"starts": [["scratch"]]}, "starts: must be a string, not [['scratch']]"),
        ({"extra": {1: 2}}, "extra.1: Ultralytics has no such argument"),
        ({"device": "1" * 5000}, None),
        ({"lr": [0.0]}, "lr: must be greater than 0"),
        ({"epochs": 3, "steps": 3}, "give one of the two, not both"),
        ({"seedz": 3}, "did you mean 'seeds'?"),
        ({"seed": 3}, "did you mean 'seeds'?"),
        ({"lr0": 0.1}, "did you mean 'lr'?"),
        ({"model": "yolo11nn"}, "did you mean 'yolo11n'"),
        ({"data": "nowhere.yaml"}, "data: nowhere.yaml does not exist"),
        ({"data": "VOC.yaml"}, None),
    ],
)
def test_what_is_refused(given: dict[str, Any], change: dict[str, Any], message: str | None) -> None:
    if message is None:
        resolve({**given, **change})
        return
    with pytest.raises(UserError) as caught:
        resolve({**given, **change})
    assert message in str(caught.value)


def test_one_longer_training_beside_all_of_them_is_refused(given: dict[str, Any]) -> None:
    more = {**given, "starts": f"{given['starts']},scratch-longer"}
    assert resolve(more).longer == "auto"
    with pytest.raises(UserError, match="longer: scratch-longer is that training already, at every budget and seed"):
        resolve({**more, "longer": "True"})


def test_all_problems_together(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="4 problems"):
        resolve({**given, "epochs": 0, "optimizer": "auto", "labels": "x", "seedz": 1})


def test_ultralytics_own_arguments_are_taken(given: dict[str, Any]) -> None:
    assert resolve({**given, "close_mosaic": 0, "extra": {"nbs": 16}}).extra == {"nbs": 16, "close_mosaic": 0}
    with pytest.raises(UserError, match="cannot be changed: stopping early"):
        resolve({**given, "patience": 3})


def test_extra_of_the_file_and_of_the_line_are_merged(given: dict[str, Any], tmp_path: Path) -> None:
    """The line wins; the file may hold the trainer's own arguments as the line may."""
    cfg = tmp_path / "c.yaml"
    cfg.write_text("extra: {mosaic: 0.0, nbs: 16}\nclose_mosaic: 3\nbatch: 2\n")
    given = {**given, "cfg": str(cfg)}
    assert resolve(given).extra == {"mosaic": 0.0, "nbs": 16, "close_mosaic": 3}
    found = resolve({**given, "close_mosaic": 0, "extra": {"nbs": 32}})
    assert (found.extra, found.batch) == ({"mosaic": 0.0, "nbs": 32, "close_mosaic": 0}, 2)


def test_a_word_of_the_file_means_what_it_means_on_the_line(given: dict[str, Any], tmp_path: Path) -> None:
    """YAML 1.1 reads 5e-4 as a string: without a point it is no number there."""
    (tmp_path / "c.yaml").write_text("weight_decay: 5e-4\nextra: {warmup_bias_lr: 1e-2, cos_lr: 'on'}\n")
    found = resolve({**given, "cfg": str(tmp_path / "c.yaml")}).extra
    assert found == {"weight_decay": 0.0005, "warmup_bias_lr": 0.01, "cos_lr": True}


def test_extra_that_is_not_a_mapping_is_told(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extra: "):
        resolve({**given, "extra": "x", "close_mosaic": 0})
    with pytest.raises(UserError, match="cfg: cannot read"):
        resolve({**given, "cfg": str(tmp_path / "none.yaml")})


def test_values_as_they_come_from_python(given: dict[str, Any]) -> None:
    assert schema.strings("runs/a[1]") == ["runs/a[1]"]
    assert schema.strings("[runs/a[1], b]") == ["runs/a[1]", "b"]
    with pytest.raises(UserError, match=r"labels: '0\.1' is not a label budget"):
        resolve({**given, "labels": 0.1})
    with pytest.raises(UserError, match="seeds: "):
        resolve({**given, "seeds": "\N{SUPERSCRIPT TWO}"})
    assert [schema.truth(one) for one in (True, 1, "true", "on", 0, None, "perhaps")] == [True] * 4 + [False] * 3


def test_the_command_line_gives_the_same(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Ended:
        interrupted, failed, ok = False, (), True

    def compare(**found: Any) -> Ended:
        seen.update(resolve(found).model_dump())
        return Ended()

    monkeypatch.setattr("headstart.jobs.compare.compare", compare)
    words = ["compare", f"data={given['data']}", f"starts={given['starts']}", "labels=1%,200", "seeds=2", "--plan"]
    assert cli.main([*words, "lr=[0.01,0.001]", "device=0", "mosaic=0.5"]) == 0
    assert seen["starts"] == given["starts"].split(",")
    assert (seen["labels"], seen["seeds"], seen["lr"]) == (["1%", "200"], [0, 1], [0.01, 0.001])
    assert (seen["plan"], seen["device"], seen["extra"]) == (True, "0", {"mosaic": 0.5})


def test_the_options_import_no_torch() -> None:
    code = "import sys, headstart.jobs.compare_options; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_option_says_what_it_does() -> None:
    for name, field in schema.CompareSettings.model_fields.items():
        assert field.description, name


def test_none_in_a_file_is_none(given: dict[str, Any], tmp_path: Path) -> None:
    """Of an argument of the trainer, too, as at a terminal."""
    (tmp_path / "cfg.yaml").write_text("reference: none\nsteps: none\nunlabelled: none\nfreeze: none\n")
    found = resolve({**given, "cfg": str(tmp_path / "cfg.yaml")})
    assert (found.reference, found.steps, found.unlabelled, found.extra) == (None, None, None, {"freeze": None})
    with pytest.raises(UserError, match="imgsz: must be a whole number, not 'none'"):
        resolve({**given, "imgsz": "none"})


def test_the_command_that_goes_on_asks_for_the_same(tmp_path: Path) -> None:
    """Names with commas, quotation marks and spaces among it; a list of one; a number that was a default."""
    (tmp_path / "my data.yaml").write_text("train: a\nval: b\nnames: [a]\n")
    (tmp_path / "a, b's.pt").write_bytes(b"")
    given: dict[str, Any] = {
        "data": str(tmp_path / "my data.yaml"), "starts": ["scratch", f"mine={tmp_path}/a, b's.pt"], "seeds": [5],
        "labels": ["25%", "100%"], "lr": [0.001], "start_lr": {"mine": 1e-4}, "plan": False, "overwrite": True,
        "steps": 30, "report": False, "close_mosaic": 0, "unlabelled": "it's here",
    }  # fmt: skip
    settings = resolve(given)
    words = parse(shlex.split(command(settings, Path("runs/a b")))[1:])
    assert words is not None
    again = resolve(values("compare", words.given))
    assert again == settings.model_copy(update={"overwrite": False, "out": "runs/a b"})
    # What was stopped while it planned is not to train when it is typed as printed.
    assert "plan" not in words.given
    assert "plan=true" in shlex.split(command(resolve({**given, "plan": True}), Path("runs/a b")))


def test_steps_are_batches_and_not_updates() -> None:
    """Ultralytics gathers the gradients of `nbs` images: with batch=16, 2,500 batches are about 625 updates."""
    told = schema.CompareSettings.model_fields["steps"].description or ""
    assert "optimizer step" not in told
    assert "batches" in told
    assert "whole epochs" in told
    assert f"nbs ({ultralytics_arguments()['nbs']}) images" in told
