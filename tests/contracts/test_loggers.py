"""The contract of a logger, over every one that is found; what was logged is read back from the files."""

from __future__ import annotations

import csv
import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from headstart.errors import UserError
from headstart.run.loggers import BUILT_IN, Logger, check_loggers, open_loggers

OWN = """
import json
from headstart.run.loggers import Logger
class Everything(Logger):
    def start(self, settings): self.write("start", settings)
    def metrics(self, step, values): self.write("metrics", step, values)
    def event(self, step, kind, message): self.write("event", step, kind, message)
    def image(self, step, name, path): self.write("image", step, name, str(path))
    def finish(self, status): self.write("finish", status)
    def write(self, *what):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "own.jsonl").open("a") as stream:
            stream.write(json.dumps(what) + "\\n")
"""
NAMES = [*BUILT_IN, "my_logger.py"]
SETTINGS = {"options": {"data": ["images"], "lr": 0.001}, "resolved": {"steps": 20}}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_logger.py").write_text(OWN)
    if request.param == "tensorboard":
        pytest.importorskip("tensorboardX")
    return request.param


def picture(folder: Path) -> Path:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 2] = 200  # red: OpenCV has blue first
    path = folder / "größe.png"
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def run(logger: Logger, folder: Path) -> None:
    """A short run, as the loop and the job tell of it."""
    logger.start(SETTINGS)
    logger.event(1, "alarm", "the loss [bold] \udce4 is odd")
    for step in (1, 10, 20):
        logger.metrics(step, {"loss": 2.0 / step, "lr": 0.1} | ({"probe_knn": 0.5} if step == 20 else {}))
    logger.image(20, "views", picture(folder))
    logger.finish("done")


def events(folder: Path) -> list[Any]:
    """The events of TensorBoard's files: length, checksum, message, checksum, as TFRecord has it."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def test_everything_is_taken_and_nothing_raises(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert check_loggers([name]) == []
    (logger,) = open_loggers([name], tmp_path / "out", said.append)
    run(logger, tmp_path)
    assert said == []
    assert any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_numbers_that_are_not_finite_are_taken(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    (logger,) = open_loggers([name], tmp_path / "out", said.append)
    logger.start(SETTINGS)
    logger.metrics(1, {"loss": math.nan, "lr": math.inf})
    logger.finish("failed")
    assert said == []


def test_a_run_that_goes_on_keeps_what_was_logged_before(name: str, tmp_path: Path) -> None:
    def bytes_() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())

    for _ in range(2):
        before = bytes_()
        (logger,) = open_loggers([name], tmp_path / "out")
        run(logger, tmp_path)
        assert bytes_() > before > -1
    assert bytes_() > 1.5 * before


def test_csv_is_read_back(tmp_path: Path) -> None:
    (logger,) = open_loggers(["csv"], tmp_path)
    run(logger, tmp_path)
    with (tmp_path / "csv/version_0/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["step"]), float(row["loss"]), row["probe_knn"]) for row in rows] == [
        (1, 2.0, ""),
        (10, 0.2, ""),
        (20, 0.1, "0.5"),
    ]
    with (tmp_path / "csv/version_0/events.csv").open(newline="", errors="surrogateescape") as stream:
        found = list(csv.reader(stream))
    assert [row[:2] for row in found] == [["step", "kind"], ["1", "alarm"], ["20", "image"]]
    assert found[2][2].startswith("views: ")


def test_what_was_logged_is_on_the_disk_before_the_end(tmp_path: Path) -> None:
    """A killed run leaves what it has logged."""
    (logger,) = open_loggers(["csv"], tmp_path)
    logger.metrics(7, {"loss": 3.0})
    assert (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines() == ["loss,step", "3.0,7"]


def test_tensorboard_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (logger,) = open_loggers(["tensorboard"], tmp_path)
    run(logger, tmp_path)
    found = [(event.step, value) for event in events(tmp_path / "tensorboard") for value in event.summary.value]
    losses = {step: value.simple_value for step, value in found if value.tag == "loss"}
    assert losses == pytest.approx({1: 2.0, 10: 0.2, 20: 0.1})
    texts = {
        value.tag.split("/")[0]: value.tensor.string_val[0].decode() for _, value in found if value.tensor.string_val
    }
    assert yaml.safe_load(texts["settings"].strip("`")) == SETTINGS
    assert texts["alarm"].startswith("the loss [bold]")
    assert texts["status"] == "done"
    (shown,) = [value.image for _, value in found if value.HasField("image")]
    pixels = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (4, 6, 3)
    assert (pixels == (0, 0, 200)).all()


@pytest.mark.parametrize("broken", ["start", "metrics", "event", "image", "finish"])
def test_a_logger_that_raises_is_said_once_and_left_out(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN + f"    def {broken}(self, *_): raise ValueError('no route to host\\nmore')\n")
    said: list[str] = []
    own, other = open_loggers([str(path), "csv"], tmp_path / "out", said.append)
    for logger in (own, other):
        run(logger, tmp_path)
        run(logger, tmp_path)
    assert said == [f"the logger {path} failed and is left out from here on: ValueError: no route to host"]
    assert (tmp_path / "out/csv/version_0/metrics.csv").is_file()


def test_a_failure_is_said_on_standard_error_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine[x].py").write_text(OWN + "    def start(self, settings): raise ValueError('[bold]no[/]')\n")
    (logger,) = open_loggers([str(tmp_path / "mine[x].py")], tmp_path)
    logger.start({})
    assert "mine[x].py failed and is left out from here on: ValueError: [bold]no[/]" in capsys.readouterr().err


def test_a_logger_cannot_change_what_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN + "    def metrics(self, step, values): values.clear()\n")
    (logger,) = open_loggers([str(tmp_path / "mine.py")], tmp_path)
    values = {"loss": 1.0}
    logger.metrics(1, values)
    assert values == {"loss": 1.0}


def test_all_problems_are_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.run.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        open_loggers(["cvs", "gone.py", "tensorboard", "csv", "csv"], tmp_path)
    assert str(caught.value) == (
        "4 problems:\n"
        "1. loggers: there is no logger 'cvs'\n  -> did you mean 'csv'?\n"
        "2. loggers: there is no file gone.py\n"
        "3. loggers: tensorboard needs a package that is not installed\n  -> pip install tensorboard\n"
        "4. loggers: names csv twice"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nowhere", "cannot be imported: ModuleNotFoundError"),
        ("x = 1", r"must have one subclass of headstart\.run\.loggers\.Logger, has 0"),
        ("from headstart.run.loggers import Logger\nclass A(Logger): ...", "cannot be made: TypeError: .*abstract"),
    ],
)
def test_files_that_are_no_logger(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=said):
        open_loggers([str(tmp_path / "mine.py")], tmp_path)
