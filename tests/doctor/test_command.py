"""The command as it is typed: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

import packs
from headstart import cli, machine
from headstart.cli.options import stands_alone
from headstart.doctor import system
from headstart.doctor.findings import Finding, Report
from headstart.doctor.start import fit_findings
from headstart.errors import RunError
from headstart.jobs.doctor import doctor, show
from headstart.jobs.scenes import draw_dataset
from headstart.pseudolabels.fit import Fit
from headstart.settings.tools import DoctorSettings


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set, and beside it the file of a detector with random weights."""
    folder = tmp_path_factory.mktemp("scenes")
    draw_dataset(folder / "d", unlabelled=2, train=6, val=4, imgsz=96)
    YOLO("yolo11n.yaml", verbose=False).save(folder / "net.pt")
    return folder


def test_json_alone_and_in_a_file(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", f"data={scenes / 'd' / 'scenes.yaml'}", "model=no.pt", "device=cpu"]
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["format"], printed["ok"]) == (1, True)
    assert cli.main([*words, f"json={tmp_path / 'found.json'}"]) == 0
    assert "train: 6 images are used" in capsys.readouterr().out
    written = json.loads((tmp_path / "found.json").read_text())
    assert [one["about"] for one in written["findings"]] == [one["about"] for one in printed["findings"]]


def test_what_spoils_a_training_is_the_exit_status(scenes: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(scenes / "d", tmp_path / "d")
    shutil.rmtree(tmp_path / "d" / "labels" / "train")
    assert cli.main(["doctor", f"data={tmp_path / 'd' / 'scenes.yaml'}", "model=no.pt", "device=cpu"]) == 1
    assert "WRONG  train: every image has no label file, so that nothing can be learnt" in capsys.readouterr().out
    assert cli.main(["doctor", f"data={tmp_path / 'x.yaml'}"]) == 2


def test_the_measure_by_a_real_detector(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights that were saved pass for trained ones: they find next to nothing, so objects is not advised."""
    words = ["doctor", f"data={scenes / 'd' / 'scenes.yaml'}", f"model={scenes / 'net.pt'}", "device=cpu", "--json"]
    assert cli.main(words) == 0
    found = {one["about"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    facts = found["start.measure"]["facts"]
    assert facts["images"] == 6
    lines = [line for file in (scenes / "d" / "labels" / "train").iterdir() for line in file.read_text().splitlines()]
    assert facts["labelled"] == len(lines)
    assert found["start.likely"]["facts"]["likely"] == "coco"


def test_only_what_a_string_makes_more_precise_stands_alone() -> None:
    alone = [name for name, field in DoctorSettings.model_fields.items() if stands_alone(field)]
    assert alone == ["json", "trust"]


# -- the machine ------------------------------------------------------------------------------------------------------


def told(found: list[Finding], about: str) -> Finding:
    (one,) = [one for one in found if one.about == about]
    return one


def test_this_machine_computes() -> None:
    found = system.device_findings()
    assert "precision=" in told([one for one in found if one.facts.get("device") == "cpu"], "devices.computes").words
    assert not [one for one in found if one.outcome == "wrong"]


def test_a_device_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: self)
    assert system._computes(machine.Device("cpu")).words == "cpu computes wrongly: 4096.0 is not 262144"


def test_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", absent)
    (found,) = system._operators()
    assert found.outcome == "wrong"
    assert "nms does not exist" in found.words


def test_versions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy>=99", "no-such-package>=1", "click>=1", "timm>=99 ; extra == 'timm'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needed)
    words = [one.words for one in system._unfit()]
    assert len(words) == 2
    assert words[0].startswith("numpy is ")
    assert words[0].endswith("; numpy>=99 is needed")
    assert words[1] == "no-such-package is not installed; no-such-package>=1 is needed"


@pytest.mark.parametrize(("outcome", "expected"), [("wrong", "wrong"), ("note", "note")])
def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, expected: str
) -> None:
    def refuse(dir: Path) -> None:  # as a read-only file system does; the tests may run as root
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = system._folder("runs", tmp_path / "a" / "b", "runs", outcome, "give out=")
    assert (found.outcome, found.do) == (expected, "give out=")
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX")
def test_without_a_folder_for_temporary_files_it_looks_all_the_same(tmp_path: Path) -> None:
    """A limit of no bytes a file is a full disk, in each of the folders that Python tries."""
    command = 'ulimit -f 0; exec "$0" -m headstart doctor --json'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = {one["about"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["folders.temporary"]["outcome"] == "wrong"
    assert found["folders.temporary"]["do"] == "set TMPDIR to a folder that can be written to"
    assert found["devices.computes"]["outcome"] == "ok"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_findings_that_a_full_disk_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(RunError, match="the output cannot be written: No space left on device"):
            show(Report(()), True)


def test_little_space_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Callable[[Path], object] = lambda path: type("Usage", (), {"free": 10})()  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    assert system._folder("runs", tmp_path, "runs", "wrong", "give out=").outcome == "note"
    assert list(tmp_path.iterdir()) == []


def test_the_advice_is_a_command_that_can_be_typed() -> None:
    fit = Fit("coco", 64, 0.5, 0.9, 65, 60)
    for data, wanted in (
        ("my data/a.yaml", "measure it: headstart compare data='my data/a.yaml' starts="),
        ("", "label some of them and measure it: headstart compare data=YOUR.yaml starts="),
    ):
        found = {one.about: one for one in fit_findings(fit, "yolo11n.pt", 80, data)}
        assert found["start.likely"].do.startswith(wanted)


def test_images_alone_are_no_data_set_to_compare_on(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("headstart.jobs.doctor.fit_findings", lambda fit, path, classes, data: given.append(data) or [])
    images, model = str(scenes / "d" / "images" / "val"), str(scenes / "net.pt")
    monkeypatch.setattr("headstart.jobs.doctor.fit_of", lambda *_: None)
    doctor(DoctorSettings(data=images, model=model, device="cpu"))
    doctor(DoctorSettings(images=images, model=model, device="cpu"))
    doctor(DoctorSettings(data=images, labels=str(scenes / "d" / "scenes.yaml"), model=model, device="cpu"))
    assert given == ["", "", str(scenes / "d" / "scenes.yaml")]


def test_a_line_break_in_a_name_makes_no_line() -> None:
    finding = Finding("a", "wrong", "a\nb", "c\nd", ("x.txt\n  ok     all is well",))
    assert finding.lines() == ["  WRONG  a\\nb", "           x.txt\\n  ok     all is well", "         -> c\\nd"]


def test_many_shards_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        packs.tar(tmp_path / f"s/{number:02d}.tar", {"1.png": packs.picture(1)})
    for part in ("s/{00..11}.tar", "s"):
        (tmp_path / "a.yaml").write_text(f"train: '{part}'\nval: {part}\nnames: [a]\n")
        assert cli.main(["doctor", f"data={tmp_path / 'a.yaml'}", "model=no.pt", "device=cpu"]) == 1
        printed = capsys.readouterr().out
        told = f"train: {tmp_path}/s/00.tar, one of 12, is a shard: images with labels are read from files here"
        assert printed.count(told) == 1
        assert printed.count(".tar") == 2
        assert "-> unpack it (tar -xf, unzip) and name the folder" in printed
