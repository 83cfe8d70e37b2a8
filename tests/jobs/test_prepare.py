"""What was asked becomes one value: which method, which rate, which run to go on with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml
from ultralytics import YOLO

import headstart
from headstart.errors import UserError
from headstart.jobs import compare as comparing
from headstart.jobs import prepare as module
from headstart.jobs.prepare import prepare
from headstart.jobs.scenes import draw_dataset
from headstart.pseudolabels.fit import Fit
from headstart.report.pretraining_verdict import judge
from headstart.report.run_reader import find_run
from headstart.training import checkpoint
from small import small_checkpoint, small_yaml

FITS = Fit("trained", 24, score=0.3, again=0.9)
ASTRAY = Fit("trained", 24, score=0.0001, again=0.3)
SMALL: dict[str, Any] = {"batch": 4, "imgsz": 64, "workers": 0, "device": "cpu", "report": False, "precision": "32"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "trained.pt"
    torch.manual_seed(3)
    YOLO("yolo11n.yaml", verbose=False).save(path)
    return path


@pytest.fixture(autouse=True)
def fit(monkeypatch: pytest.MonkeyPatch) -> list[Fit]:
    """The trained weights of these tests find nothing; what the look at their objects says is the one in the list."""
    said = [FITS]
    monkeypatch.setattr(module, "fit_of", lambda *_: said[0])
    return said


def job(image_folder: Path, **options: Any) -> module.Job:
    return prepare({"data": str(image_folder), "device": "cpu", **options})


def test_a_version_that_was_not_tested_is_told_before_a_run(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "untested", lambda: ("WARNING: ultralytics 9 was not tested",))
    assert "WARNING: ultralytics 9 was not tested" in job(image_folder, model="yolo11n.yaml").why


def test_a_version_that_was_not_tested_is_told_before_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise UserError("enough")

    monkeypatch.setattr(comparing, "untested", lambda: ("WARNING: ultralytics 9 was not tested",))
    monkeypatch.setattr(comparing, "prepare", stop)
    settings, folder = SimpleNamespace(trust=False, plan=True), SimpleNamespace(path=tmp_path)
    with pytest.raises(UserError, match="enough"):
        comparing._compare(cast(Any, settings), cast(Any, folder), cast(Any, None))
    assert "WARNING: ultralytics 9 was not tested" in capsys.readouterr().err


# -- the default method -----------------------------------------------------------------------------------------------


def test_the_same_weights_mean_the_same_method_and_rate_however_they_are_given(
    image_folder: Path, weights: Path
) -> None:
    ways: list[dict[str, Any]] = [
        {"model": str(weights)},
        {"model": "yolo11n.yaml", "init": str(weights)},
        {"model": YOLO(str(weights))},
        {"model": weights},
    ]
    for given in ways:
        found = job(image_folder, **given)
        assert (found.declared.name, found.options.lr, found.run.batch) == ("objects", 1e-3, 128)
        assert found.why[0].startswith("method=objects: the run starts from trained weights")
        assert job(image_folder, method="byol", **given).options.lr == pytest.approx(2e-4)
        assert job(image_folder, method="byol", lr=1e-3, **given).options.lr == 1e-3


def test_random_weights_take_the_published_recipe(image_folder: Path) -> None:
    for model in ("yolo11n.yaml", "yolo11n", YOLO("yolo11n.yaml", verbose=False)):
        found = job(image_folder, model=model)
        assert (found.declared.name, found.run.preset, found.options.lr) == ("dino", "tutorial", 1e-3)


def test_a_head_that_boxes_cannot_train_takes_the_published_recipe(image_folder: Path, tmp_path: Path) -> None:
    YOLO("yolo11n-seg.yaml", verbose=False).save(tmp_path / "seg.pt")
    found = job(image_folder, model=str(tmp_path / "seg.pt"))
    assert (found.declared.name, found.options.lr) == ("dino", pytest.approx(2e-4))


def test_an_option_of_another_method_does_not_change_the_method_silently(image_folder: Path, weights: Path) -> None:
    with pytest.raises(UserError) as caught:
        job(image_folder, model=str(weights), locals=4, hidden_dim=32)
    text = str(caught.value)
    assert "locals: is an option of dino and lejepa, not of objects, the default from trained weights" in text
    assert "-> add method=dino, or leave locals= out" in text
    assert "hidden_dim: is an option of" in text
    assert job(image_folder, model=str(weights), locals=4, method="dino").declared.name == "dino"


def test_an_option_of_another_method_is_told_as_one(image_folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        job(image_folder, method="dino", teacher="vit", lokals=2)
    text = str(caught.value)
    assert (
        "teacher: is an option of distill, objects and selftrain, not of dino\n  -> give method=distill, or leave"
        in text
    )
    assert "there is no option 'lokals'\n  -> did you mean 'locals'" in text
    assert text.startswith("2 problems:")


def test_an_unrelated_option_changes_nothing(image_folder: Path, weights: Path) -> None:
    for more in ({"preset": "default"}, {"clusters": 8}, {"seed": 3}, {"weight_decay": 0.1}):
        assert job(image_folder, model=str(weights), **more).declared.name == "objects"
    with pytest.raises(UserError, match="method 'objects' has no preset 'tutorial'"):
        job(image_folder, model=str(weights), preset="tutorial")


def test_a_misspelt_option_is_said_with_all_else_that_is_wrong(image_folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        job(image_folder, epoch=3, batch="many", clustres=4, init="missing.pt")
    text = str(caught.value)
    assert all(word in text for word in ("did you mean 'epochs'", "batch:", "did you mean 'clusters'", "init: "))
    assert text.startswith("4 problems:")


def test_auto_keeps_what_the_user_gives(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = job(image_folder, model="yolo11n.yaml", method="auto", epochs=3, batch=8, lr=0.5)
    assert (found.declared.name, found.run.epochs, found.run.steps) == ("pyramid", 3, None)
    assert (found.run.batch, found.options.lr) == (8, 0.5)
    assert found.why[0].startswith("method=pyramid, from random weights")
    assert job(image_folder, model="yolo11n.yaml", method="auto").steps == 1_500


def test_auto_takes_weights_that_lie_beside(
    image_folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").write_bytes(weights.read_bytes())
    found = job(image_folder, model="yolo11n.yaml", method="auto")
    assert (found.declared.name, found.run.init, found.options.lr) == ("objects", str(tmp_path / "yolo11n.pt"), 1e-3)
    assert found.why[0].startswith(f"method=objects, continued from init={tmp_path / 'yolo11n.pt'}: ")
    assert found.why[2] == f"init={tmp_path / 'yolo11n.pt'} lies beside: the published weights of yolo11n.yaml"
    state = YOLO(str(weights)).model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.detector.module.state_dict().items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": 5}, "data: no such file or folder: 5"),
        ({"data": [5]}, "data: "),
        ({"loggers": True}, "loggers: a list, not True"),
        ({"resume": 1}, "resume: say which run to go on with"),
        ({"overwrite": "perhaps"}, "overwrite: must be true or false, not 'perhaps'"),
    ],
)
def test_ordinary_inputs_that_are_wrong_are_told(image_folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        job(image_folder, **{"method": "dino", **options})
    assert said in str(caught.value)


def test_none_in_a_file_and_from_a_program_is_none(image_folder: Path, tmp_path: Path) -> None:
    """YAML takes the word for a string; at a terminal it always meant none."""
    (tmp_path / "own.yaml").write_text("method: dino\nclip: none\ninit: None\nlr_for: none\nbudget: none\n")
    found = job(image_folder, cfg=str(tmp_path / "own.yaml"), cache_dir="none")
    options: Any = found.options
    assert (options.clip, options.lr_for) == (None, None)
    assert (found.run.init, found.run.budget, found.run.cache_dir) == (None, None, None)
    assert {found.asked[key] for key in ("clip", "init", "lr_for", "budget", "cache_dir")} == {None}
    with pytest.raises(UserError, match="lr: must be a number, not 'none'"):  # it cannot be none
        job(image_folder, method="dino", lr="none")
    # Of a method that is still to be chosen, too.
    options = job(image_folder, clip="none").options
    assert options.clip is None


def test_a_network_that_is_not_there_is_told_before_a_method_is_chosen(image_folder: Path, weights: Path) -> None:
    with pytest.raises(UserError) as caught:
        job(image_folder, model=str(weights), teacher="tf_efficientnet_lite99", proposals="nowhere.pt", epochs=0)
    for part in (
        "teacher: timm has no model 'tf_efficientnet_lite99'",
        "proposals: nowhere.pt does",
        "epochs: must be",
    ):
        assert part in str(caught.value)


def test_a_number_is_a_truth_value(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("")
    with pytest.raises(UserError, match="there is a run in this folder already"):
        job(image_folder, method="dino", out=str(tmp_path), overwrite=0)
    assert job(image_folder, method="dino", out=str(tmp_path), overwrite=1).run.overwrite is True


@pytest.mark.parametrize("name", ["model", "init"])
def test_what_a_run_starts_from_is_not_replaced_by_it(image_folder: Path, tmp_path: Path, name: str) -> None:
    """It would be removed with the run that it is in: the new one could never be gone on with."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "settings.yaml").write_text("")
    small_checkpoint(out / "headstart.pt", 3)
    given = {"method": "simclr", "model": small_yaml(), name: str(out / "headstart.pt"), "out": str(out)}
    with pytest.raises(UserError, match=rf"{name}: .*headstart\.pt lies in the run that overwrite=true replaces"):
        job(image_folder, **given, overwrite=True)
    assert (out / "headstart.pt").is_file()


def test_the_home_folder_is_understood(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert job(image_folder, method="dino", out="~/run").run.out == str(tmp_path / "run")


# -- objects that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"method": "auto"}, {"method": "auto", "lr": 1e-4}, {"seed": 3}])
def test_a_run_whose_objects_do_not_fit_takes_pyramid(
    image_folder: Path, weights: Path, fit: list[Fit], given: dict[str, Any]
) -> None:
    fit[0] = ASTRAY
    found = job(image_folder, model=str(weights), **given)
    assert found.declared.name == found.run.method == "pyramid"
    assert found.fit == ASTRAY
    assert found.why[0].startswith("method=pyramid")
    assert "objects" not in str(found.used())  # nothing of the other method's is left


@pytest.mark.parametrize("given", [{"method": "objects"}, {"clusters": 8}, {"teacher": "resnet18"}])
def test_who_asks_for_objects_gets_them(
    image_folder: Path, weights: Path, fit: list[Fit], given: dict[str, Any]
) -> None:
    fit[0] = ASTRAY
    found = job(image_folder, model=str(weights), **given)
    assert (found.declared.name, found.fit) == ("objects", ASTRAY)


def test_auto_with_a_teacher_distills_where_objects_do_not_fit(
    image_folder: Path, weights: Path, fit: list[Fit]
) -> None:
    fit[0] = ASTRAY
    found = job(image_folder, model=str(weights), method="auto", teacher=str(weights))
    assert found.declared.name == "distill"


def test_the_method_that_was_chosen_goes_on(
    image_folder: Path, weights: Path, tmp_path: Path, fit: list[Fit], capsys: pytest.CaptureFixture[str]
) -> None:
    fit[0] = ASTRAY
    given = begin(image_folder, tmp_path / "run", method=None, model=str(weights), hidden_dim=None)
    record = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert record["options"]["method"] == "pyramid"
    assert record["resolved"]["objects"] == {"fits": False, "found": ASTRAY.sentence(), "used": False}
    said = capsys.readouterr().err
    assert said.index("do not fit these images") < said.index("method=pyramid in place of objects")
    fit[0] = FITS  # is not asked again
    run = headstart.pretrain(**{**given, "resume": True})
    assert (run.step, run.ok) == (2, True)


def test_objects_all_the_same_are_warned_of_in_terminal_log_and_report(
    image_folder: Path, weights: Path, tmp_path: Path, fit: list[Fit], capsys: pytest.CaptureFixture[str]
) -> None:
    fit[0] = ASTRAY
    given = {**SMALL, "data": str(image_folder), "model": str(weights), "method": "objects", "clusters": 4, "steps": 1}
    run = headstart.pretrain(**given, out=str(tmp_path / "run"))
    warning = f"WARNING: {ASTRAY.sentence()}"
    assert warning in capsys.readouterr().err
    log = (run.folder / "log.txt").read_text()
    assert log.index(warning) < log.index("searching 4 images")
    verdict = judge(find_run(run.folder))
    assert (verdict.tone, verdict.label) == ("warn", "Doubtful objects")
    assert f"Beware: {ASTRAY.sentence()}" in " ".join(verdict.sentences)


# -- the length -------------------------------------------------------------------------------------------------------


def test_the_default_length_is_that_of_auto(image_folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for more, expected in (({}, 500), ({"device": "cuda"}, 2_000)):
        if more:
            monkeypatch.setattr(module, "parse_device", lambda _: SimpleNamespace(kind="cuda"))
        for method in ("default", "auto" if not more else "objects"):
            assert job(image_folder, model=str(weights), method=method).steps == expected
    assert job(image_folder, model="yolo11n.yaml").steps == 5_000


def test_a_length_that_is_given_is_kept(image_folder: Path) -> None:
    assert job(image_folder, model="yolo11n.yaml", steps=7).steps == 7
    assert job(image_folder, model="yolo11n.yaml", epochs=8).steps == 3  # 8 * 24 / 64
    assert job(image_folder, model="yolo11n.yaml", method="dino", preset="tutorial").steps == 15_000
    found = job(image_folder, model="yolo11n.yaml")
    assert found.run.steps == 1_500
    assert (
        found.why[-1] == "1,500 steps for 24 images, random weights and no GPU; steps=, epochs= or budget= set others"
    )
    assert job(image_folder, model="yolo11n.yaml", budget="30m").run.steps is None


# -- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, "auto", "byol"])
def test_the_model_is_loaded_once_and_the_images_are_indexed_once(
    image_folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, method: str | None
) -> None:
    calls: list[str] = []
    for name in ("load_detector", "find_images"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1])
    job(image_folder, model=str(weights), **({"method": method} if method else {}))
    assert sorted(calls) == ["find_images", "load_detector"]


def test_what_cannot_be_exported_is_said_before_anything_begins(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export: method 'simclr' has no teacher whose weights could be handed back"):
        headstart.pretrain(
            data=str(image_folder), method="simclr", export="teacher", out=str(tmp_path / "run"), **SMALL
        )
    assert not (tmp_path / "run").exists()


# -- the command that began a run goes on with it ---------------------------------------------------------------------


def begin(image_folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    given = {**SMALL, "data": str(image_folder), "method": "byol", "hidden_dim": 32, "steps": 2, "out": str(out)}
    given["model"] = small_yaml()
    given = {key: value for key, value in {**given, **options}.items() if value is not None}
    headstart.pretrain(**given)
    state = checkpoint.newest(out / "checkpoints")[0]
    (out / "checkpoints" / "step-00000002.pt").unlink()
    checkpoint.save(out / "checkpoints", {**state, "step": 1})
    return given


@pytest.mark.parametrize(
    "again",
    [
        {},
        {"steps": 2.0, "lr": "1e-3", "batch": "4"},  # the same, written otherwise
        {"lr": 2e-4},  # the rate as it was used
        {"save_every": 7, "log_every": 1},
    ],
)
def test_the_same_command_resumes(image_folder: Path, tmp_path: Path, again: dict[str, Any]) -> None:
    weights = tmp_path / "start.pt"
    YOLO(small_yaml(), verbose=False).save(weights)
    began = {"lr": 1e-3} if "batch" in again else {}
    given = begin(image_folder, tmp_path / "run", init=str(weights), **began)
    assert headstart.pretrain(**{**given, **again, "resume": True}).step == 2
    rates = [json.loads(line)["lr"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(rates) <= (1e-3 if began else 2e-4)


def test_another_run_is_not_resumed(image_folder: Path, tmp_path: Path) -> None:
    given = begin(image_folder, tmp_path / "run")
    with pytest.raises(UserError) as caught:
        headstart.pretrain(**{**given, "steps": 5, "lr": 0.1, "hiden_dim": 3, "method": "simclr", "resume": True})
    text = str(caught.value)
    assert "steps: was 2 when the run began, is 5 now" in text
    assert "lr: was 0.001 when the run began, is 0.1 now" in text
    assert "method: was 'byol' when the run began, is 'simclr' now" in text
    assert "there is no option 'hiden_dim'\n  -> did you mean 'hidden_dim'?" in text


def test_auto_and_a_budget_are_resumed_by_their_command(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.training.budget.steps_within", lambda *_, **__: 2)
    out = tmp_path / "run"
    begin(image_folder, out, method="auto", hidden_dim=64, steps=None, budget="40s", model="yolo11n.yaml", boxes=2)
    record = yaml.safe_load((out / "settings.yaml").read_text())
    assert (record["asked"]["method"], record["options"]["method"]) == ("auto", "pyramid")
    assert record["asked"]["budget"] == "40s"
    again = {**SMALL, "data": str(image_folder), "method": "auto", "hidden_dim": 64, "budget": "40s", "boxes": 2}
    run = headstart.pretrain(**again, model="yolo11n.yaml", resume=True, out=str(out))
    assert run.step == record["resolved"]["steps"]


def test_a_run_of_an_older_version_goes_on(image_folder: Path, tmp_path: Path) -> None:
    """Without what was asked, and with options by their old names."""
    given = begin(image_folder, tmp_path / "run")
    path = tmp_path / "run" / "settings.yaml"
    record = yaml.safe_load(path.read_text())
    del record["asked"]
    record["options"]["colour"] = record["options"].pop("color")
    record["options"]["preset"] = "tutorial"
    path.write_text(yaml.safe_dump(record))
    assert headstart.pretrain(**given, resume=True).step == 2


# -- a hand-back that is not whole ------------------------------------------------------------------------------------


def test_tensors_that_are_not_finite_are_told(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from headstart.detectors.ultralytics.detector import UltralyticsDetector

    graft = UltralyticsDetector.graft

    def spoil(self: UltralyticsDetector, tensors: Any) -> None:
        graft(self, tensors)
        self.module.state_dict()["model.0.conv.weight"].fill_(float("inf"))

    monkeypatch.setattr(UltralyticsDetector, "graft", spoil)
    given = {**SMALL, "data": str(image_folder), "model": small_yaml(), "method": "byol", "hidden_dim": 32, "steps": 1}
    assert not headstart.pretrain(**given, out=str(tmp_path / "run")).ok
    assert "NOT HANDED BACK WHOLE: 1 tensors hold NaN or infinity; unverified.pt" in capsys.readouterr().err


def test_a_dropped_tensor_fails_the_run(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint is written with one tensor altered, as by a fault of a family's writer."""
    from headstart import cli
    from headstart.detectors.ultralytics.detector import UltralyticsDetector

    save = UltralyticsDetector.save

    def forgetful(self: UltralyticsDetector, path: Path, info: Any) -> None:
        weight = self.module.state_dict()["model.0.conv.weight"]
        kept = weight.clone()
        weight.zero_()
        save(self, path, info)
        weight.copy_(kept)

    monkeypatch.setattr(UltralyticsDetector, "save", forgetful)
    words = [f"{key}={value}" for key, value in SMALL.items() if key != "report"]
    out = tmp_path / "run"
    words += [f"data={image_folder}", "method=byol", "hidden_dim=32", "steps=1", f"out={out}", f"model={small_yaml()}"]
    assert cli.main(["pretrain", *words]) == 1
    said = capsys.readouterr().err
    assert "NOT HANDED BACK WHOLE: 1 tensors did not arrive" in said
    assert "fine-tune:" not in said
    assert not (out / "headstart.pt").exists()
    assert json.loads((out / "handback.json").read_text())["ok"] is False
    monkeypatch.undo()
    run = headstart.pretrain(out=str(out), resume=True)
    assert run.ok
    assert run.checkpoint == out / "headstart.pt"
    assert not (out / "unverified.pt").exists()


@pytest.mark.parametrize(
    ("model", "method", "imgsz", "used"),
    [
        ("yolo11n.yaml", "pyramid", 100, 128),
        ("yolo11n.yaml", "dino", 100, 100),  # the backbone alone joins no maps
        ("yolo12n.yaml", "dino", 200, 224),  # that of YOLO12 cuts its map into four strips
        ("yolov8n-p6.yaml", "pyramid", 224, 256),  # four maps, of strides up to 64
        ("yolov8n-p6.yaml", "selftrain", 96, 128),
    ],
)
def test_images_have_sides_that_the_maps_fit(
    model: str, method: str, imgsz: int, used: int, image_folder: Path, tmp_path: Path
) -> None:
    given = {**SMALL, "data": str(image_folder), "model": model, "method": method, "imgsz": imgsz, "steps": 1}
    if method == "selftrain":
        data = draw_dataset(tmp_path / "data", unlabelled=4, train=4, val=2, imgsz=64)
        given |= {"labels": str(data), "data": str(data.parent / "images"), "teacher": "none", "steps": 3}
    job = prepare(given)
    assert job.run.imgsz == used
    told = [line for line in job.why if line.startswith("imgsz=")]
    assert told == ([] if used == imgsz else [f"imgsz={used} in place of {imgsz}: {told[0].split(': ')[1]}"])
    run = headstart.pretrain(**{**given, "out": str(tmp_path / "run")})
    assert run.ok
    assert headstart.pretrain(**{**given, "out": str(tmp_path / "run"), "resume": True}).ok


@pytest.mark.parametrize(("batch", "parts"), [(8, 4), (24, 4)])
def test_steps_of_fewer_images_are_taken_in_fewer_parts(batch: int, parts: int, tmp_path: Path) -> None:
    """Without mosaics a step has a quarter of the batch: of 8 images in 4 parts each had none."""
    data = draw_dataset(tmp_path / "data", unlabelled=6, train=6, val=2, imgsz=64)
    given = {**SMALL, "data": str(data.parent / "images"), "labels": str(data), "model": "yolo11n.yaml", "imgsz": 64}
    run = headstart.pretrain(
        **{**given, "method": "selftrain", "teacher": "none", "steps": 6, "close_mosaic": 0.5, "batch": batch},
        accumulate=parts, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert run.ok
