"""The contract of a logger, over every one that is found; what was logged is read back from the files."""

from __future__ import annotations

import csv
import json
import math
import shutil
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from headstart.cli.command import parse
from headstart.cli.options import values
from headstart.errors import UserError
from headstart.run.loggers import Logger, Named, check_loggers, open_loggers
from headstart.run.loggers.find import built_in
from headstart.run.loggers.guarded import Guarded
from headstart.run.loggers.tensorboard import tag
from headstart.settings.loggers import listed
from headstart.settings.schema import PretrainSettings

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
NAMES = [*built_in(), "my_logger.py"]
PATIENCE = "headstart.run.loggers.guarded.PATIENCE"  # these tests are of what is logged, however slow the machine
SETTINGS = {"options": {"data": ["images"], "lr": 0.001}, "resolved": {"steps": 20}}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_logger.py").write_text(OWN)
    if request.param in built_in():
        pytest.importorskip({"tensorboard": "tensorboardX"}.get(request.param, request.param))
    if request.param == "mlflow":
        request.getfixturevalue("database")
    return request.param


@pytest.fixture(autouse=True)
def _no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(PATIENCE, 600.0)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As MLflow makes it, once: it takes seconds."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PATIENCE, 600.0)
        (logger,) = open_loggers(["mlflow"], folder, lambda _: None, Named("first"))
        logger.start({})
        logger.finish("done")
    return folder / "mlflow" / "mlflow.db"


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> str:
    """The store beside a run whose loggers write into ``out``."""
    (tmp_path / "out" / "mlflow").mkdir(parents=True)
    shutil.copy(empty_database, tmp_path / "out" / "mlflow")
    return f"sqlite:///{tmp_path}/out/mlflow/mlflow.db"


def of_failures(said: list[str]) -> list[str]:
    """Without what loggers say of where they log."""
    return [line for line in said if "left out" in line]


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
    assert of_failures(said) == []
    assert any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_numbers_that_are_not_finite_are_taken(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    (logger,) = open_loggers([name], tmp_path / "out", said.append)
    logger.start(SETTINGS)
    logger.metrics(1, {"loss": math.nan, "lr": math.inf})
    logger.finish("failed")
    assert of_failures(said) == []


def test_a_run_that_goes_on_keeps_what_was_logged_before(name: str, tmp_path: Path) -> None:
    if name == "mlflow":
        pytest.skip("a database is not longer by what it holds: see below")

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
    losses = {step: value.simple_value for step, value in found if value.tag == "loss/loss"}
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


def test_measures_stand_in_few_sections_of_tensorboard() -> None:
    names = {
        "loss": "loss/loss", "loss_box": "loss/box", "teacher_mean_score": "teacher/mean_score", "lr": "train/lr",
        "probe_rankme": "probe/rankme", "time_step": "time/step", "data_wait": "time/data_wait",
        "losses": "train/losses", "map50_95": "test/map50_95", "final/map50": "final/map50",
    }  # fmt: skip
    assert {name: tag(name) for name in names} == names


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


def test_a_logger_that_leaves_the_process_is_left_out_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN + "    def metrics(self, *_): raise SystemExit(3)\n")
    said: list[str] = []
    (own,) = open_loggers([str(path)], tmp_path / "out", said.append)
    run(own, tmp_path)
    assert said == [f"the logger {path} failed and is left out from here on: SystemExit: 3"]


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
    for module in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setattr(f"headstart.run.loggers.{module}.find_spec", lambda name: None)
    asked = ["cvs", "gone.py", "tensorboard", "csv", "csv", "wandb", {"mlflow": {"nam": 1, "tags": 2}}]
    with pytest.raises(UserError) as caught:
        open_loggers(asked, tmp_path)
    assert str(caught.value) == (
        "7 problems:\n"
        "1. loggers: there is no logger 'cvs'\n  -> did you mean 'csv'?\n"
        "2. loggers: there is no file gone.py\n"
        "3. loggers: tensorboard needs a package that is not installed\n  -> pip install tensorboard\n"
        "4. loggers: wandb is not installed\n  -> pip install 'headstart[wandb]'\n"
        "5. loggers: mlflow: there is no setting 'nam'\n  -> did you mean 'name'?\n"
        "6. loggers: mlflow: tags: a map, not 2\n  -> tags of the run\n"
        "7. loggers: names csv twice"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nowhere", "cannot be imported: ModuleNotFoundError"),
        ("x = 1", r"must have one subclass of headstart\.run\.loggers\.base\.Logger, has 0"),
        ("from headstart.run.loggers import Logger\nclass A(Logger): ...", "cannot be made: TypeError: .*abstract"),
    ],
)
def test_files_that_are_no_logger(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UserError, match=said):
        open_loggers([str(tmp_path / "mine.py")], tmp_path)


# -- W&B --------------------------------------------------------------------------------------------------------------


def wandb_records(file: Path) -> list[Any]:
    """The records of a ``.wandb`` file, once the process that writes it has written the last, ``exit``."""
    for _ in range(300):
        if (found := wandb_records_so_far(file)) and found[-1].HasField("exit"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} was not ended within 30 s")


def wandb_records_so_far(file: Path) -> list[Any]:
    """Blocks of 32 KiB of parts with checksum, length and place, as LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, found = file.read_bytes(), 7, b"", []
    assert data[:4] in (b":W&B", b"")
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, place = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if place in (1, 4):  # whole, or the last part
            found.append(Record.FromString(part))
            part = b""
    return found


def test_wandb_is_read_back_and_a_run_that_goes_on_is_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    said: list[str] = []
    asked = {"wandb": {"project": "bolts", "tags": ["a", "b"]}}
    for _ in range(2):
        (logger,) = open_loggers([asked], tmp_path / "out", said.append, Named("coco-seed0", "my comparison"))
        run(logger, tmp_path)
    files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert of_failures(said) == []
    assert said[0].startswith("wandb logs offline, for this machine is not logged in")
    assert said[0].endswith(f"wandb sync {files[0].parent}")
    runs = [next(one.run for one in wandb_records(file) if one.HasField("run")) for file in files]
    assert len({one.run_id for one in runs}) == 1
    assert {(one.project, one.display_name, one.run_group) for one in runs} == {
        ("bolts", "coco-seed0", "my comparison")
    }
    assert list(runs[0].tags) == ["a", "b"]
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["options"] == {"data": ["images"], "lr": 0.001}
    records = wandb_records(files[0])
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.history.item}
        for one in records
        if one.HasField("history")
    ]
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == [(1, 2.0), (10, 0.2), (20, 0.1)]
    (alert,) = [one.alert for one in records if one.HasField("alert")]
    assert "the loss [bold] ? is odd" in alert.text
    (shown,) = files[0].parent.glob("files/media/images/*.png")
    assert (cv2.imread(str(shown)) == (0, 0, 200)).all()
    assert [one.exit.exit_code for one in records if one.HasField("exit")] == [0]


def test_wandb_whose_server_does_not_answer_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.setattr("headstart.run.loggers.wandb.BEGIN", 1.0)
        (logger,) = open_loggers([{"wandb": {"mode": "online"}}], tmp_path / "out", said.append)
        run(logger, tmp_path)
    assert len(said) == 1
    assert said[0].startswith("wandb logs offline, for its server cannot be logged to (")
    (file,) = (tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb")
    assert sum(one.HasField("history") for one in wandb_records(file)) == 4


# -- MLflow -----------------------------------------------------------------------------------------------------------


def test_mlflow_is_read_back_and_a_run_that_goes_on_is_the_same_run(database: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    said: list[str] = []
    for status in ("interrupted", "done"):
        named = Named("coco-seed0", "my comparison")
        (logger,) = open_loggers([{"mlflow": {"tags": {"who": "me"}}}], tmp_path / "out", said.append, named)
        logger.start(SETTINGS)
        logger.event(3, "alarm", "odd \udce4")
        logger.event(3, "alarm", "and another")
        logger.metrics(10 if status == "done" else 5, {"loss": 0.5, "kNN (5)": 1.0})
        logger.image(20, "views", picture(tmp_path))
        logger.finish(status)  # type: ignore[arg-type]
    assert said == [f"mlflow logs to {database}; to see it: mlflow ui --backend-store-uri {database}"] * 2
    client = MlflowClient(database)
    (found,) = client.search_runs([client.get_experiment_by_name("my comparison").experiment_id])
    assert (found.info.run_name, found.info.status) == ("coco-seed0", "FINISHED")
    assert found.data.params == {"data": "['images']", "lr": "0.001"}
    assert found.data.tags["alarm at step 3"] == "odd ?\nand another"
    assert (found.data.tags["who"], found.data.tags["headstart.group"]) == ("me", "my comparison")
    assert [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, "loss")] == [
        (5, 0.5), (10, 0.5),
    ]  # fmt: skip
    assert found.data.metrics["kNN _5_"] == 1.0
    (artifact,) = client.list_artifacts(found.info.run_id, "pictures")
    (file,) = (tmp_path / "out" / "mlflow" / "artifacts").rglob("*.png")
    assert artifact.file_size == file.stat().st_size


def test_a_run_that_was_deleted_from_the_store_is_a_new_one(database: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    ids = []
    for _ in range(2):
        (logger,) = open_loggers(["mlflow"], tmp_path / "out", lambda _: None)
        run(logger, tmp_path)
        ids.append(json.loads((tmp_path / "out/mlflow.json").read_text())["run_id"])
        MlflowClient(database).delete_run(ids[-1])
    assert len(set(ids)) == 2


def test_mlflow_needs_a_database_only_beside_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.run.loggers.mlflow.find_spec", lambda name: name == "mlflow")
    (problem,) = check_loggers(["mlflow"])
    assert problem.what == "mlflow needs sqlalchemy and alembic for a database beside the run"
    assert check_loggers([{"mlflow": {"tracking_uri": "http://127.0.0.1:1"}}]) == []


# -- nobody waits -----------------------------------------------------------------------------------------------------


class Stuck(Logger):
    """Waits for ever where it is told to."""

    remote = True

    def __init__(self, folder: Path, at: str) -> None:
        super().__init__(folder)
        self.at, self.told, self.free = at, [], threading.Event()

    def metrics(self, step: int, values: Any) -> None:
        self._do("metrics")

    def start(self, settings: Any) -> None:
        self._do("start")

    def finish(self, status: str) -> None:
        self._do("finish")

    def _do(self, what: str) -> None:
        if what == self.at:
            self.free.wait(20)
        self.told.append(what)


@pytest.mark.parametrize("at", ["start", "metrics", "finish"])
def test_nobody_waits_for_a_logger_that_hangs(tmp_path: Path, at: str) -> None:
    said: list[str] = []
    stuck = Stuck(tmp_path, at)
    logger = Guarded(stuck, "stuck", said.append, patience=0.2)
    run(logger, tmp_path)
    stuck.free.set()
    assert said == ["the logger stuck has not answered for 0 s and is left out from here on"]
    assert logger.failed


def test_a_logger_that_works_beside_the_run_is_told_all_in_order(tmp_path: Path) -> None:
    fine = Stuck(tmp_path, "nowhere")
    run(Guarded(fine, "fine", pytest.fail), tmp_path)
    assert fine.told == ["start", "metrics", "metrics", "metrics", "finish"]


def test_one_that_fails_beside_the_run_is_said_once_and_not_waited_for(tmp_path: Path) -> None:
    class Broken(Stuck):
        def metrics(self, step: int, values: Any) -> None:
            raise ConnectionError("no route to host")

    said: list[str] = []
    logger = Guarded(Broken(tmp_path, "nowhere"), "broken", said.append, patience=20)
    run(logger, tmp_path)
    assert said == ["the logger broken failed and is left out from here on: ConnectionError: no route to host"]


# -- how they are named -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "[csv, {wandb: {project: x, tags: [a, b]}}]",
        "{csv: {}, wandb: {project: x, tags: [a, b]}}",
        ["csv", '{"wandb": {"project": "x", "tags": ["a", "b"]}}'],
        {"csv": None, "wandb": {"project": "x", "tags": ["a", "b"]}},
    ],
)
def test_settings_of_a_logger(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["csv", {"wandb": {"project": "x", "tags": ["a", "b"]}}]
    assert listed(given) == wanted
    words = given if isinstance(given, list) else [given]
    if isinstance(given, (str, list)):
        found = values("pretrain", parse(["pretrain", "data=a", *(f"loggers={word}" for word in words)]).given)
        assert PretrainSettings(**found).loggers == wanted
    assert PretrainSettings(data="a", loggers=given).loggers == wanted


def test_a_logger_of_ones_own_gets_its_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        OWN + "    def __init__(self, folder, port=80):\n        super().__init__(folder)\n        self.port = port\n"
        "    def metrics(self, step, values): self.say(f'port {self.port} of {self.run.name}')\n"
    )
    said: list[str] = []
    (logger,) = open_loggers([{str(tmp_path / "mine.py"): {"port": 81}}], tmp_path / "run" / "loggers", said.append)
    logger.metrics(1, {})
    assert said == ["port 81 of run"]
    with pytest.raises(UserError, match=r"cannot be made: TypeError: .*unexpected keyword argument 'prt'"):
        open_loggers([{str(tmp_path / "mine.py"): {"prt": 81}}], tmp_path)
