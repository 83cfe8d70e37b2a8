"""The main job through its public function: files in, a checkpoint that Ultralytics trains from out."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO

import headstart
from gone import gone_at
from headstart import UserError
from headstart.detectors.find import load_detector
from headstart.errors import RunError
from headstart.run import health
from headstart.run.display import Display
from headstart.training import loop
from headstart.training.step import Step
from small import small_yaml

STEPS = 6
SMALL = {
    "model": small_yaml(),
    "batch": 4,
    "imgsz": 64,
    "local_imgsz": 32,
    "locals": 2,
    "steps": STEPS,
    "workers": 0,
    "precision": "32",
}


def pretrain(out: Path, data: Path, **options: Any) -> headstart.Run:
    fixed = {"data": str(data), "out": str(out), "device": "cpu", "log_every": 1, "report": False}
    return headstart.pretrain(**{**fixed, **SMALL, **options})


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(path: Path | str) -> dict[str, torch.Tensor]:
    return YOLO(str(path)).model.state_dict()


@pytest.fixture(scope="module")
def images(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 24 images, and three files that are none."""
    folder = tmp_path_factory.mktemp("data") / "images"
    shutil.copytree(image_folder, folder)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> headstart.Run:
    return pretrain(tmp_path_factory.mktemp("runs") / "a", images, model="yolo11n.yaml", report=True, steps=8)


# -- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_backbone_is_trained_and_the_rest_is_as_it_started(run: headstart.Run) -> None:
    torch.manual_seed(0)  # the default seed
    before = load_detector("yolo11n.yaml").module.state_dict()
    after = weights(run.checkpoint)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    backbone = {name for name in before if int(name.split(".")[1]) <= 10}
    assert changed == {name for name in backbone if not name.endswith("num_batches_tracked")} | {
        name for name in backbone if name.endswith("num_batches_tracked") and before[name] != after[name]
    }
    # Two global and two local crops a step pass through each batch norm of the student.
    assert {int(after[name]) for name in backbone if name.endswith("num_batches_tracked")} == {8 * 4}


def test_the_checkpoint_is_an_ordinary_one(run: headstart.Run) -> None:
    yolo, fresh = YOLO(str(run.checkpoint)), YOLO("yolo11n.yaml")
    assert yolo.task == "detect"
    assert yolo.names == fresh.model.names
    assert {tensor.dtype for tensor in yolo.model.state_dict().values()} == {torch.float32, torch.int64}
    assert yolo.ckpt["headstart"]["method"] == "dino"
    assert yolo.ckpt["headstart"]["trained"] == ["backbone"]


def test_what_arrived_is_said_tensor_by_tensor(run: headstart.Run) -> None:
    assert run.handback.ok
    state = YOLO("yolo11n.yaml").model.state_dict()
    layers = [int(name.split(".")[1]) for name in state]
    backbone, neck, head = (
        sum(low <= layer <= high for layer in layers) for low, high in ((0, 10), (11, 22), (23, 23))
    )
    assert run.handback.lines()[0] == (
        f"backbone {backbone} of {backbone} tensors, neck 0 of {neck} (not trained), head 0 of {head} (not trained)"
    )
    assert run.handback.lines()[1] == (
        f"all {len(state)} tensors bitwise equal in the file read back, the trainer's model, the trainer's EMA"
    )
    assert json.loads((run.folder / "handback.json").read_text())["lines"] == run.handback.lines()


def test_every_measure_of_every_step(run: headstart.Run) -> None:
    lines = metrics(run.folder)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["epoch"] == pytest.approx(8 * 4 / 27, abs=1e-4)
    expected = {"step", "epoch", "lr", "loss", "images_per_second", "data_wait", "seconds"}
    assert expected | {"teacher_entropy", "teacher_entropy_max", "feature_spread", "spread_alarm"} <= set(lines[0])
    assert all(0 < line["teacher_entropy"] <= line["teacher_entropy_max"] for line in lines)


def test_unreadable_files_are_counted_and_listed_with_their_reason(run: headstart.Run) -> None:
    with (run.folder / "skipped.csv").open(newline="") as stream:
        rows = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(stream)}
    assert set(rows) == {"empty.jpg", "text.png", "cut.jpg"}
    assert "empty" in rows["empty.jpg"]
    assert all(rows.values())


def test_settings_are_complete(run: headstart.Run) -> None:
    content = yaml.safe_load((run.folder / "settings.yaml").read_text())
    assert content["options"]["imgsz"] == 64
    assert content["options"]["lr"] == 0.001
    assert content["resolved"]["images"] == 27
    assert content["resolved"]["precision"] == "32-true"
    assert content["resolved"]["detector"]["backbone"] == {"stride": 32, "width": 256}
    assert content["versions"]["ultralytics"]


def test_checkpoints_load_without_unpickling_code(run: headstart.Run) -> None:
    (path,) = (run.folder / "checkpoints").iterdir()
    assert torch.load(path, weights_only=True)["step"] == 8


def test_the_report_is_one_page_that_needs_nothing_else(run: headstart.Run) -> None:
    page = (run.folder / "report.html").read_text()
    assert page.count("data:image/") == 3  # views, neighbours, components
    assert 'src="http' not in page
    assert "cut.jpg" in page


def test_the_log_tells_the_story(run: headstart.Run) -> None:
    log = (run.folder / "log.txt").read_text()
    assert "27 images, yolo11n (detect), backbone 256 wide at stride 32" in log
    assert "bitwise equal" in log


def test_ultralytics_trains_from_it(run: headstart.Run, tmp_path: Path) -> None:
    """Through the ``yolo`` command, as a user would."""
    from headstart.jobs.scenes import draw_dataset

    data = draw_dataset(tmp_path / "scenes", unlabelled=0, train=8, val=4, imgsz=64)
    arguments = f"epochs=1 imgsz=64 batch=4 workers=0 device=cpu plots=False project={tmp_path} name=tuned"
    command = [str(Path(sys.executable).parent / "yolo"), "detect", "train", f"model={run.checkpoint}", f"data={data}"]
    done = subprocess.run([*command, *arguments.split()], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    # Ultralytics' own count: all but the class logits, which have 8 rows here and 80 there.
    assert "Transferred 493/499 items from pretrained weights" in done.stdout + done.stderr
    assert (tmp_path / "tuned" / "weights" / "last.pt").is_file()


def test_ultralytics_takes_the_settings_that_a_run_advises(
    images: Path, run: headstart.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The very command of the closing lines, with a training made small."""
    from headstart.jobs.scenes import draw_dataset

    advised = pretrain(tmp_path / "a run", images, steps=1, report=True)
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("fine-tune: "))
    words = shlex.split(said.removeprefix("fine-tune: "))
    assert words[:3] == ["yolo", "detect", "train"]
    assert words[3:] == [f"cfg={advised.folder / 'finetune.yaml'}", f"model={advised.checkpoint}", "data=your.yaml"]
    page = (advised.folder / "report.html").read_text()
    assert "finetune.yaml" in page
    data = draw_dataset(tmp_path / "scenes", unlabelled=0, train=8, val=4, imgsz=64)
    settings = run.folder / "finetune.yaml"
    small = f"epochs=1 batch=4 workers=0 device=cpu plots=False project={tmp_path} name=tuned data={data}"
    command = [str(Path(sys.executable).parent / "yolo"), *words[1:3], f"cfg={settings}", f"model={run.checkpoint}"]
    done = subprocess.run([*command, *small.split()], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    used = yaml.safe_load((tmp_path / "tuned" / "args.yaml").read_text())
    expected = {"optimizer": "AdamW", "lr0": 0.001, "lrf": 0.01, "warmup_epochs": 3.0, "warmup_bias_lr": 0.0, "nbs": 16}
    assert {name: used[name] for name in expected} == expected
    assert (used["imgsz"], used["close_mosaic"], used["epochs"]) == (64, 10, 1)


def test_every_advised_setting_says_what_it_rests_on(run: headstart.Run) -> None:
    text = (run.folder / "finetune.yaml").read_text()
    settings = yaml.safe_load(text)
    assert settings["epochs"] == 32  # by hand: 300 images are 19 batches of 16, the last of 12; 600 / 19 = 31.6
    assert text.startswith(f"# yolo detect train cfg={run.folder / 'finetune.yaml'} model={run.checkpoint} data=")
    for name in settings:
        comment = text[: text.index(f"\n{name}:")].split("\n\n")[-1]
        assert comment.startswith("# "), name
        assert "measured" in comment, name


def test_a_start_that_detects_already_is_advised_to_learn_little_more() -> None:
    detector = load_detector("yolo11n.yaml")
    settings = detector.finetune_settings(160, 297, detects=True)
    assert settings is not None
    assert settings["epochs"].value == 5  # by hand: 297 images are 19 batches of 16, the last of 9; 100 / 19 = 5.3
    assert settings["lr0"].value == 0.0001
    assert "EXPERIMENTS.md" in settings["lr0"].why
    assert [settings[name].value for name in ("mosaic", "scale", "translate")] == [0.0] * 3
    assert "close_mosaic" not in settings


@pytest.mark.parametrize(
    ("labelled", "detects", "epochs"),
    [
        (1, True, 100),  # one image is a batch: an epoch is a step
        (16, True, 100),
        (17, True, 50),  # two batches, of 16 and of 1
        (24, True, 50),  # two batches, of 16 and of 8
        (32, False, 300),
        (5000, True, 1),  # 313 batches: less than one epoch
    ],
)
def test_the_epochs_that_are_advised_have_the_measured_number_of_steps(
    labelled: int, detects: bool, epochs: int
) -> None:
    settings = load_detector("yolo11n.yaml").finetune_settings(160, labelled, detects=detects)
    assert settings is not None
    assert settings["epochs"].value == epochs


# -- ways to start ----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(images: Path, tmp_path: Path) -> None:
    seeds = {"first": 1, "again": 1, "other": 2}
    runs = [pretrain(tmp_path / name, images, steps=2, seed=seed) for name, seed in seeds.items()]
    first, again, other = (weights(run.checkpoint) for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.0.conv.weight"], other["model.0.conv.weight"])


def test_a_start_from_other_weights_and_from_a_live_object(run: headstart.Run, images: Path, tmp_path: Path) -> None:
    live = YOLO(str(run.checkpoint))
    kept = {name: tensor.clone() for name, tensor in live.model.state_dict().items()}
    slow = {
        "method": "dino",
        "lr": 1e-12,
        "steps": 1,
        "weight_decay": 0,
    }  # so small that weights stay where they started
    by_init = weights(
        pretrain(tmp_path / "init", images, model="yolo11n.yaml", init=str(run.checkpoint), **slow).checkpoint
    )
    began = yaml.safe_load((tmp_path / "init" / "settings.yaml").read_text())["resolved"]["files"]
    assert began == {"init": hashlib.blake2b(run.checkpoint.read_bytes(), digest_size=16).hexdigest()}
    by_live = weights(pretrain(tmp_path / "live", images, model=live, **slow).checkpoint)
    for name, tensor in kept.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(by_init[name], tensor, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(by_live[name], tensor, rtol=1e-5, atol=1e-7)
        assert torch.equal(live.model.state_dict()[name], tensor)  # the user's object is left as it was


def test_the_teacher_can_be_exported(images: Path, tmp_path: Path) -> None:
    """A teacher with momentum 0 is the student of the step before; one with momentum 1 is the start."""
    start = {"steps": 2, "export": "teacher"}
    torch.manual_seed(0)
    before = load_detector(SMALL["model"]).module.state_dict()
    still = weights(pretrain(tmp_path / "still", images, ema_start=1, ema_end=1, **start).checkpoint)
    torch.testing.assert_close(still["model.0.conv.weight"], before["model.0.conv.weight"], rtol=0, atol=0)
    follows = weights(pretrain(tmp_path / "follows", images, ema_start=0, ema_end=0, **start).checkpoint)
    student = weights(pretrain(tmp_path / "one", images, steps=1, ema_start=0, ema_end=0).checkpoint)
    torch.testing.assert_close(follows["model.0.conv.weight"], student["model.0.conv.weight"], rtol=0, atol=0)


# -- interruption and resume ------------------------------------------------------------------------------------------


def press_ctrl_c_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    show = Display.update

    def update(self: Display, now: int, *rest: Any) -> None:
        show(self, now, *rest)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Display, "update", update)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    whole = pretrain(tmp_path / "whole", images, workers=workers)
    with monkeypatch.context() as patch:
        press_ctrl_c_at(3, patch)
        half = pretrain(tmp_path / "half", images, workers=workers)
    assert half.interrupted
    assert half.checkpoint is None
    assert half.step == 3
    said = capsys.readouterr().err
    assert "stopped at step 3 of 6; everything is saved. To go on:" in said
    assert f"headstart pretrain resume=true out={tmp_path / 'half'}" in said

    rest = headstart.pretrain(resume=True, out=str(tmp_path / "half"))
    expected, found = weights(whole.checkpoint), weights(rest.checkpoint)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    measures = ("step", "epoch", "lr", "loss", "teacher_entropy", "feature_spread")
    lines = [[{name: line[name] for name in measures} for line in metrics(one.folder)] for one in (whole, rest)]
    assert lines[0] == lines[1]
    assert {row["path"] for row in csv.DictReader((whole.folder / "skipped.csv").open())} == {
        row["path"] for row in csv.DictReader((rest.folder / "skipped.csv").open())
    }


def test_a_run_of_a_live_object_can_be_resumed(
    run: headstart.Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = YOLO(str(run.checkpoint))
    with monkeypatch.context() as patch:
        press_ctrl_c_at(1, patch)
        pretrain(tmp_path / "half", images, model=live, steps=2, method="dino")
    del live
    rest = headstart.pretrain(resume=True, out=str(tmp_path / "half"))
    whole = pretrain(tmp_path / "whole", images, model=YOLO(str(run.checkpoint)), steps=2, method="dino")
    expected, found = weights(whole.checkpoint), weights(rest.checkpoint)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_killed_run_goes_on_from_its_last_checkpoint(images: Path, tmp_path: Path) -> None:
    with gone_at(5):
        pretrain(tmp_path / "killed", images, save_every=2)
    rest = headstart.pretrain(resume=True, out=str(tmp_path / "killed"))
    assert [line["step"] for line in metrics(rest.folder)] == list(range(1, STEPS + 1))
    whole = pretrain(tmp_path / "whole", images)
    assert torch.equal(
        weights(rest.checkpoint)["model.0.conv.weight"], weights(whole.checkpoint)["model.0.conv.weight"]
    )


@pytest.mark.parametrize(("log_every", "gone"), [(1, 5), (1000, STEPS)])
def test_a_run_of_slow_steps_is_saved_by_the_clock(
    log_every: int, gone: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 steps may take half an hour: a run that is killed on the way began anew."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with gone_at(gone):
        pretrain(tmp_path / "killed", images, save_every=1000, log_every=log_every)
    saved = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").glob("step-*.pt"))
    assert saved[-1] == f"step-0000000{gone - 1}.pt"


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_gone_on_from(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gone_at(STEPS):
        pretrain(tmp_path / "killed", images, save_every=1)
    saved = sorted((tmp_path / "killed" / "checkpoints").glob("step-*.pt"))
    content = bytearray(saved[-1].read_bytes())
    content[len(content) // 2] ^= 16  # one bit of a weight
    saved[-1].write_bytes(content)
    capsys.readouterr()
    rest = headstart.pretrain(resume=True, out=str(tmp_path / "killed"))
    told = f"checkpoint {saved[-1].name} is damaged and is not used: its bytes are not those that were written"
    assert told in capsys.readouterr().err
    assert told in (rest.folder / "log.txt").read_text()
    whole = pretrain(tmp_path / "whole", images)
    expected, found = weights(whole.checkpoint), weights(rest.checkpoint)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    image_folder: Path, run: headstart.Run, tmp_path: Path
) -> None:
    """Also of a detector in memory; the pseudo-labels that it found are kept."""
    given: dict[str, Any] = {**SMALL, "steps": 2, "method": "objects", "clusters": 4, "device": "cpu", "log_every": 1}
    del given["locals"], given["model"]
    given |= {"data": str(image_folder), "report": False, "out": str(tmp_path / "run")}
    with gone_at(1):
        headstart.pretrain(**given, model=YOLO(str(run.checkpoint)))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    found = (tmp_path / "run" / "pseudolabels.pt").read_bytes()
    rest = headstart.pretrain(resume=True, out=given["out"])
    assert [line["step"] for line in metrics(rest.folder)] == [1, 2]
    assert (tmp_path / "run" / "pseudolabels.pt").read_bytes() == found
    (tmp_path / "run" / "checkpoints" / "step-00000002.pt").unlink()
    with pytest.raises(UserError, match="there is no checkpoint to go on from"):  # never trained anew in silence
        headstart.pretrain(resume=True, out=given["out"])


def test_a_run_can_be_gone_on_with_from_another_folder_and_says_if_images_are_missing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "here" / "images")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with monkeypatch.context() as patch:
        press_ctrl_c_at(1, patch)
        pretrain(Path("half"), Path("images"), steps=2)
    (tmp_path / "here" / "images" / "01.jpg").unlink()
    monkeypatch.chdir(tmp_path / "there")
    rest = headstart.pretrain(resume=True, out="../here/half", data="../here/images")
    assert rest.step == 2
    assert "the images are not those that the run began with (27 then, 26 now)" in capsys.readouterr().err


def test_a_run_that_could_not_hand_back_is_resumed_at_its_end(images: Path, tmp_path: Path) -> None:
    whole = pretrain(tmp_path / "a", images, steps=2)
    expected = weights(whole.checkpoint)
    whole.checkpoint.unlink()
    again = headstart.pretrain(resume=True, out=str(tmp_path / "a"))
    found = weights(again.checkpoint)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_resume_keeps_the_settings(run: headstart.Run) -> None:
    with pytest.raises(UserError) as caught:
        headstart.pretrain(resume=True, out=str(run.folder), batch=8, lr=0.1)
    assert "batch: was 4 when the run began, is 8 now" in str(caught.value)
    assert "lr: was 0.001 when the run began, is 0.1 now" in str(caught.value)
    assert "leave these options out, or start a new run" in str(caught.value)


def test_a_run_is_not_replaced_by_one_that_fails_before_its_first_step(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(tmp_path / "a", images, steps=2)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    def fail(self: Step, *_: Any) -> None:
        raise RuntimeError("a fault of the driver")

    monkeypatch.setattr(Step, "__call__", fail)
    with pytest.raises(RuntimeError, match="a fault of the driver"):
        pretrain(tmp_path / "a", images, steps=1, overwrite=True)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    assert f"the run that was in {run.folder} before is there again" in capsys.readouterr().err
    with pytest.raises(UserError, match="resume, overwrite: give one of the two, not both"):
        headstart.pretrain(data=str(images), out=str(tmp_path / "a"), resume=True, overwrite=True)


def test_overwrite_starts_anew(images: Path, tmp_path: Path) -> None:
    pretrain(tmp_path / "a", images, steps=2)
    again = pretrain(tmp_path / "a", images, steps=1, overwrite=True)
    assert [line["step"] for line in metrics(again.folder)] == [1]
    assert [path.name for path in (again.folder / "checkpoints").iterdir()] == ["step-00000001.pt"]


PHASES = {
    "cache": "headstart.jobs.pretrain.open_cache",
    "budget": "headstart.training.budget.measure",
    "first step": "",
    "hand-back": "headstart.jobs.pretrain._Pretraining._hand_back",
    "report": "headstart.jobs.pretrain.draw",
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_that_a_system_ends_at_any_time_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], phase: str
) -> None:
    """As Slurm does, with a warning; with the command that began it, and resume=true."""
    monkeypatch.setattr("headstart.training.budget.steps_within", lambda *_, **__: 3)
    given = {"steps": None, "budget": "1h"} if phase == "budget" else {"steps": 3}
    given |= {"report": phase == "report", "locals": 0, "hidden_dim": 32, "output_dim": 64}

    def ended(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("not ended")

    with monkeypatch.context() as patch:
        if phase == "first step":
            press_ctrl_c_at(1, patch, signal.SIGUSR1)
            assert pretrain(tmp_path / "cut", images, **given).interrupted
        else:
            patch.setattr(PHASES[phase], ended)
            with pytest.raises(KeyboardInterrupt):
                pretrain(tmp_path / "cut", images, **given)
    assert f"headstart pretrain resume=true out={tmp_path / 'cut'}" in capsys.readouterr().err
    rest = headstart.pretrain(**{**SMALL, "data": str(images), **given}, out=str(tmp_path / "cut"), resume=True)
    assert [line["step"] for line in metrics(rest.folder)] == [1, 2, 3]
    whole = pretrain(tmp_path / "whole", images, **{**given, "report": False})
    expected, found = weights(whole.checkpoint), weights(rest.checkpoint)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    record = yaml.safe_load((rest.folder / "settings.yaml").read_text())
    assert record["resolved"]["steps"] == 3
    assert record["options"]["resume"] is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_run_that_is_stopped_before_it_has_settings_promises_nothing(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    replaces: bool,
) -> None:
    """While its other processes come up: there is nothing yet that could be gone on with."""
    out = tmp_path / "cut"
    before: dict[Path, bytes] = {}
    if replaces:
        pretrain(out, images, steps=1)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        capsys.readouterr()

    def stopped(*_: Any) -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("not ended")

    monkeypatch.setattr("headstart.jobs.pretrain.share", stopped)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(out, images, steps=1, overwrite=replaces)
    finally:
        signal.signal(signal.SIGINT, handler)
    said = capsys.readouterr().err
    assert "resume=true" not in said
    assert "checkpoint" not in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if replaces:
        assert f"the run that was in {out} before is there again" in said
    else:
        assert "stopped before anything was saved: the same command begins it again" in said
        assert not out.exists()


# -- what goes wrong while it runs ------------------------------------------------------------------------------------


def test_a_collapse_is_said_while_it_happens(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "Health", lambda: health.Health(warmup=1, patience=2))
    hot = {"teacher_temp": 1000, "warmup_teacher_temp": 1000}  # every answer is uniform
    done = pretrain(tmp_path / "hot", images, steps=3, **hot)
    said = capsys.readouterr().err
    assert "! Teacher entropy" in said
    assert "the teacher gives the same uniform answer for every image" in said
    assert "ALARM: uniform" in said
    (event,) = [json.loads(line) for line in (done.folder / "events.jsonl").read_text().splitlines()]
    assert (event["step"], event["kind"]) == (2, "alarm")


def test_a_loss_that_is_not_a_number_ends_the_run_with_what_to_do(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss_at(3, monkeypatch)
    with pytest.raises(RunError) as caught:
        pretrain(tmp_path / "hot", images, steps=20, log_every=100, save_every=1, probe_every=0)
    told = "the loss at step 3, or its gradients, is not a number, so the weights are no longer usable"
    assert told in str(caught.value)
    assert "start again with overwrite=true and a lower rate, e.g. lr=0.0001" in str(caught.value)
    assert told in (tmp_path / "hot" / "log.txt").read_text()
    names = sorted(path.name for path in (tmp_path / "hot" / "checkpoints").iterdir())
    assert names == ["step-00000001.pt", "step-00000002.pt"]
    kept = torch.load(tmp_path / "hot" / "checkpoints" / names[-1], weights_only=True)["method"]
    assert all(bool(torch.isfinite(one).all()) for one in kept.values() if one.is_floating_point())


def spoil_loss_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Step._gradients

    def gradients(self: Step, views: Any, progress: Any) -> torch.Tensor:
        loss = real(self, views, progress)
        return loss * torch.nan if progress.step + 1 == step else loss

    monkeypatch.setattr(Step, "_gradients", gradients)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_rate_that_explodes_is_not_healthy(images: Path, tmp_path: Path, lr: float) -> None:
    """Batch normalization hides it from the loss, which is finite all the way at a rate of 1e6."""
    with pytest.raises(RunError, match=r"the weights at step 1 have grown to .* times their norm at the start, beyond"):
        pretrain(tmp_path / "hot", images, lr=lr)
    assert not list((tmp_path / "hot" / "checkpoints").iterdir())
    (event,) = [json.loads(line) for line in (tmp_path / "hot" / "events.jsonl").read_text().splitlines()]
    assert event["message"].startswith("The weights have grown to ")


@pytest.mark.parametrize("option", ["model", "init", "teacher"])
def test_a_start_that_holds_nan_is_refused_by_name(
    run: headstart.Run, images: Path, tmp_path: Path, option: str
) -> None:
    broken = torch.load(run.checkpoint, weights_only=False)
    with torch.no_grad():
        broken["model"].state_dict()["model.2.cv1.conv.weight"].view(-1)[7] = torch.nan
    torch.save(broken, tmp_path / "broken.pt")
    given = {"method": "distill"} if option == "teacher" else {"method": "dino"}
    with pytest.raises(
        UserError, match=rf"{option}: .* holds NaN or infinity in 1 of \d+ tensors: .*2\.cv1\.conv\.weight"
    ):
        headstart.pretrain(
            data=str(images), out=str(tmp_path / "run"), device="cpu", **{**given, option: str(tmp_path / "broken.pt")}
        )
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_said_and_the_last_checkpoint_stays(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def full(content: Any, path: Any, *rest: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(content, path, *rest)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="the disk is full\n  -> free some space, or choose another folder"):
        pretrain(tmp_path / "full", images, save_every=2)
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-00000002.pt"]


def test_a_folder_of_broken_images_is_an_error_that_says_why(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        pretrain(tmp_path / "run", tmp_path)
    assert "data: none of the 3 images can be read; 3 of them:" in str(caught.value)


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images found"):
        pretrain(tmp_path / "run", tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_few_good_images_among_many_broken_ones_are_enough(images: Path, tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.jpg").write_bytes(b"")
    shutil.copy(images / "03.jpg", tmp_path / "x.jpg")
    shutil.copy(images / "04.jpg", tmp_path / "y.jpg")
    done = pretrain(tmp_path / "run", tmp_path, steps=1, report=True)
    assert done.handback.ok
    assert len((done.folder / "skipped.csv").read_text().splitlines()) == 301
    assert (done.folder / "report.html").is_file()


# -- loggers, budgets, cfg --------------------------------------------------------------------------------------------

LOGGER = '''
import json
from headstart.run.loggers import Logger


class Notes(Logger):
    """Writes down what it is told."""

    def _note(self, *what):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "notes.jsonl").open("a") as stream:
            stream.write(json.dumps(what) + "\\n")

    def start(self, settings):
        self._note("start", settings["asked"]["batch"])

    def metrics(self, step, values):
        self._note("metrics", step, values["loss"])

    def event(self, step, kind, message):
        self._note("event", kind)

    def image(self, step, name, path):
        self._note("image", name, path.is_file())

    def finish(self, status):
        self._note("finish", status)
'''


def test_loggers_are_told_of_a_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.py").write_text(LOGGER)
    given = {"loggers": ["csv", str(tmp_path / "notes.py")], "steps": 3, "report": True}
    with monkeypatch.context() as patch:
        press_ctrl_c_at(1, patch)
        pretrain(tmp_path / "run", images, **given)
    headstart.pretrain(resume=True, out=str(tmp_path / "run"), loggers=given["loggers"])
    folder = tmp_path / "run" / "loggers"
    notes = [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    steps = [note[1:] for note in notes if note[0] == "metrics"]
    assert steps == [[number, loss] for number, loss in enumerate(losses, 1)]
    assert [note for note in notes if note[0] in ("start", "finish", "event")] == [
        ["start", 4], ["event", "info"], ["finish", "interrupted"], ["start", 4], ["finish", "done"],
    ]  # fmt: skip
    assert [note[1:] for note in notes if note[0] == "image"] == [
        [name, True] for name in ("views", "neighbours", "components")
    ]
    tables = sorted(folder.rglob("metrics.csv"))
    rows = [row for table in tables for row in csv.DictReader(table.open())]
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses)


def test_a_logger_that_does_not_exist_is_said_before_the_run(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loggers: there is no logger 'tensorbord'"):
        pretrain(tmp_path / "run", images, loggers="tensorbord")
    assert not (tmp_path / "run").exists()


def test_a_logger_that_cannot_be_imported_is_said_before_the_search(
    images: Path, run: headstart.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("import nowhere_at_all")
    monkeypatch.setattr("headstart.jobs.pretrain.pseudolabels_of", lambda *_: pytest.fail("searched"))
    given = {"method": "objects", "model": str(run.checkpoint), "clusters": 4}
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        headstart.pretrain(data=str(images), out=str(tmp_path / "run"), loggers=str(tmp_path / "mine.py"), **given)
    assert not (tmp_path / "run").exists()


def test_a_report_that_cannot_be_drawn_ends_no_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(*_: Any) -> None:
        raise ValueError("no fonts")

    monkeypatch.setattr("headstart.jobs.pretrain.draw", draw)
    out = tmp_path / "a b"
    assert pretrain(out, images, steps=1, report=True).ok
    told = f"report could not be drawn: ValueError: no fonts; headstart report '{out}' draws it"
    said = capsys.readouterr().err
    assert told in said
    assert "report:    " not in said
    assert told in (out / "log.txt").read_text()


def test_measures_may_be_tensors(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a method of a user's own has them."""
    measured = {"mine": torch.tensor(0.5), "other": np.float32(0.25)}
    monkeypatch.setattr("headstart.methods.dino.DINO.measures", lambda self: measured)
    assert pretrain(tmp_path / "run", images, steps=1).ok
    (line,) = [json.loads(one) for one in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert (line["mine"], line["other"]) == (0.5, 0.25)


def test_pictures_that_cannot_be_drawn_cost_no_report(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: each is said, and the page has everything else."""

    def save(*_: Any, **__: Any) -> None:
        raise ValueError("no fonts")

    monkeypatch.setattr("headstart.probes.sheets.save", save)
    assert pretrain(tmp_path / "run", images, steps=1, report=True).ok
    log = (tmp_path / "run" / "log.txt").read_text()
    for name in ("views", "neighbours", "components"):
        assert f"picture {name} could not be drawn: ValueError: no fonts" in log
    assert (tmp_path / "run" / "report.html").is_file()
    assert not list((tmp_path / "run" / "assets").glob("*.png"))


def test_a_comparisons_report_that_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from headstart.jobs.compare import _draw

    def write_report(folder: Path) -> None:
        raise ValueError("no fonts")

    monkeypatch.setattr("headstart.report.write_report", write_report)
    said: list[str] = []
    running: Any = SimpleNamespace(say=said.append)
    assert _draw(Path("a b"), running) is None
    assert said == ["report could not be drawn: ValueError: no fonts; headstart report 'a b' draws it"]


@pytest.mark.parametrize("last", [True, False])
def test_a_budget_is_measured_as_the_run_computes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """Weights with the channels last take less time: a run would be too short by that."""
    seen: list[set[bool]] = []

    def lies(method: torch.nn.Module) -> set[bool]:
        weights = (one for one in method.parameters() if one.dim() == 4 and min(one.shape) > 1)
        return {one.is_contiguous(memory_format=torch.channels_last) for one in weights}

    def measured(step: Step, *_: Any, **__: Any) -> float:
        seen.append(lies(step.method))
        return 1.0

    monkeypatch.setattr("headstart.training.budget.measure", measured)
    monkeypatch.setattr("headstart.training.budget.steps_within", lambda *_, **__: 1)
    pretrain(tmp_path / "a", images, steps=None, budget="1h", channels_last=last)
    assert seen == [{last}]


def test_a_budget_bounds_the_search_for_objects(
    image_folder: Path, run: headstart.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One batch of four images is searched; the run learns from these alone, a resumed one too."""
    from headstart.pseudolabels.base import PseudoLabels
    from headstart.training import budget

    monkeypatch.setattr(budget, "SEARCH", 1e-9)
    given = {**SMALL, "steps": None, "budget": "60s", "locals": None, "local_imgsz": 32, "method": "objects"}
    del given["locals"]
    given |= {"model": str(run.checkpoint), "data": str(image_folder), "device": "cpu", "report": False, "clusters": 4}
    monkeypatch.setattr(budget, "steps_within", lambda *_, **__: 3)
    headstart.pretrain(**given, out=str(tmp_path / "run"))
    assert "budget=60s is enough to search 4 of 24 images: the run uses these" in capsys.readouterr().err
    labels, rows, seconds = PseudoLabels.load(tmp_path / "run" / "pseudolabels.pt")
    assert rows is not None
    assert len(rows) == len(labels.first) - 1 == 4
    record = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert (record["resolved"]["images"], record["resolved"]["steps"]) == (4, 3)
    assert record["resolved"]["search_seconds"] == seconds > 0
    again = headstart.pretrain(**given, out=str(tmp_path / "run"), resume=True)
    assert again.step == 3


def test_a_run_is_repeated_from_its_settings(images: Path, tmp_path: Path, run: headstart.Run) -> None:
    again = headstart.pretrain(cfg=str(run.folder / "settings.yaml"), out=str(tmp_path / "again"), report=False)
    first, second = weights(run.checkpoint), weights(again.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)
