"""One Ultralytics training from one start, in a process of its own.

The folder is an ordinary Ultralytics run, with five files more: ``finetune.json`` (what was asked for), ``train.log``,
``arrived.json`` (the start, compared with the trainer's model and EMA tensor by tensor), ``classes.json`` (the score
of each class) and ``result.json``.
Figures are those of the last epoch's weights. Ultralytics keeps and validates the epoch that scored best on the very
images that it is measured on; here that checkpoint is not kept.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from headstart.comparison import child, judged
from headstart.comparison.arrival import Arrival, check_arrival
from headstart.errors import UserError, did_you_mean

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
MEASURED = 20
"""Epochs of a training that are measured on the test images, about; of a shorter one all are."""
REQUEST, LOG, ARRIVED, RESULT, FAILED = "finetune.json", "train.log", "arrived.json", "result.json", "failed.json"

OWN = {"model": "start", "data": "data", "epochs": "epochs", "imgsz": "imgsz", "batch": "batch", "lr0": "lr0"}
OWN |= {"optimizer": "optimizer", "workers": "workers", "device": "device", "seed": "seed", "plots": "plots"}
OWN |= {"name": "name", "project": "out"}
_FIXED = {
    "pretrained": "every start is read from the file it names",
    "patience": "stopping early would choose the epoch by the test score",
    "time": "a time limit would change the number of steps",
    "resume": "a training that was cut short is run again from its start",
    "val": "the figures are those of the last epoch",
    "save": "the last epoch's weights are kept",
    "exist_ok": "the folder is looked after here",
    "save_dir": "the folder is out/name",
    "cfg": "give the arguments themselves",
    "mode": "this trains",
    "task": "the start knows its task",
}


@dataclass(frozen=True)
class FinetuneSettings:
    """What one training needs to know.

    Attributes:
        data: An Ultralytics dataset YAML.
        start: A checkpoint (``.pt``, on disk) or a model YAML (``.yaml``, random weights drawn from `seed`).
        out: The folder that holds the run; the run's own folder is ``out/name``.
        name: The run's name.
        epochs: Full passes over the training images; there is no early stopping.
        imgsz: Side of the images in pixels, as Ultralytics understands it.
        batch: Images in a batch.
        optimizer: One of `OPTIMIZERS`. "auto" is refused: it picks optimizer and rate by the number of iterations.
        lr0: Learning rate after the warm-up.
        seed: Initial weights of what does not come from the start, order of the images, augmentation.
        device: As Ultralytics has it, one device: "cpu", "0", "mps"; "" for the best one there is.
        workers: Processes that load images (Ultralytics uses none on a CPU).
        threads: CPU threads of this training; None for every core that the process may use.
        plots: Draw Ultralytics' plots.
        extra: Further Ultralytics arguments, e.g. ``{"close_mosaic": 0, "nbs": 16}``.
    """

    data: str | Path
    start: str | Path
    out: str | Path
    name: str
    epochs: int
    imgsz: int = 640
    batch: int = 16
    optimizer: str = "AdamW"
    lr0: float = 0.001
    seed: int = 0
    device: str = ""
    workers: int = 4
    threads: int | None = None
    plots: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return Path(self.out).resolve() / self.name

    def resolved(self) -> FinetuneSettings:
        """The same with absolute paths; a model YAML that is not on disk is one that Ultralytics ships."""
        start = Path(self.start).resolve() if Path(self.start).exists() else self.start
        data, out = Path(self.data).resolve(), Path(self.out).resolve()
        return dataclasses.replace(self, data=str(data), start=str(start), out=str(out))

    def check(self) -> None:
        """Raise one UserError that lists everything wrong with these settings."""
        problems = [*_file_problems(self), *_number_problems(self), *optimizer_problems(self.optimizer)]
        problems += extra_problems(self.extra)
        if problems:
            raise UserError.several(problems)

    def arguments(self) -> dict[str, Any]:
        """Everything that is passed to Ultralytics' ``train``, apart from the model itself."""
        own = {name: getattr(self, name) for name in ("epochs", "imgsz", "batch", "lr0", "seed", "device", "workers")}
        own |= {"optimizer": self.optimizer, "plots": self.plots, "data": str(Path(self.data).resolve())}
        own |= {"project": str(self.folder.parent), "name": self.folder.name, "exist_ok": True}
        own |= {"pretrained": Path(self.start).suffix == ".pt", "patience": 0, "val": True, "resume": False}
        # A checkpoint trained with single_cls hands that on, silently. The warm-up's bias rate of 0.1 is meant for SGD:
        # an Adam moves every bias, batch norm's too, by as much a step, and undoes what a good start brought
        # ("auto" sets it to 0 for the same reason).
        defaults = {"single_cls": False} | ({} if "SGD" in self.optimizer else {"warmup_bias_lr": 0.0})
        return {**defaults, **dict(self.extra), **own}


@dataclass(frozen=True)
class Epoch:
    """One row of Ultralytics' results.csv: epoch from 1, seconds of training so far, box mAP in [0, 1]."""

    epoch: int
    seconds: float
    map50_95: float
    map50: float


@dataclass(frozen=True)
class FinetuneResult:
    """What a training gave.

    Attributes:
        map50_95: Box mAP50-95 of the last epoch's weights (EMA), in [0, 1].
        map50: Likewise mAP50.
        curve: Every epoch.
        seconds: Wall-clock time of the whole process.
        folder: The run folder; its weights are ``weights/last.pt``.
        arrival: What became of the start.
        classes: The last epoch's score of every class that the test images show.
    """

    map50_95: float
    map50: float
    curve: tuple[Epoch, ...]
    seconds: float
    folder: Path
    arrival: Arrival
    classes: tuple[judged.ClassScore, ...] = ()


def _file_problems(settings: FinetuneSettings) -> list[UserError]:
    """What is wrong with the paths. A model YAML that Ultralytics ships has no path of its own: it looks it up."""
    problems = []
    if Path(settings.data).suffix not in (".yaml", ".yml"):
        problems.append(UserError(f"{settings.data} is no dataset YAML", where="data", hint="name a .yaml file"))
    elif not Path(settings.data).is_file():
        problems.append(UserError(f"{settings.data} does not exist", where="data"))
    start = Path(settings.start)
    if start.suffix not in (".pt", ".yaml"):
        problems.append(UserError(f"{start} is neither a checkpoint nor a model", where="start", hint="a .pt or .yaml"))
    elif start.suffix == ".pt" and not start.is_file():
        problems.append(UserError(f"{start} does not exist", where="start", hint="nothing is downloaded here"))
    if not settings.name or settings.name in (".", "..") or Path(settings.name).name != settings.name:
        problems.append(UserError(f"{settings.name!r} is no folder name", where="name"))
    return problems


def _number_problems(settings: FinetuneSettings) -> list[UserError]:
    problems = [
        UserError(f"{getattr(settings, name)} is too small", where=name, hint=f"give {least} or more")
        for name, least in {"epochs": 1, "imgsz": 32, "batch": 1, "workers": 0, "seed": 0}.items()
        if getattr(settings, name) < least
    ]
    if not 0 < settings.lr0 < math.inf:
        problems.append(UserError(f"{settings.lr0} is no learning rate", where="lr0", hint="try 0.001 with AdamW"))
    if settings.threads is not None and settings.threads < 1:
        problems.append(UserError(f"{settings.threads} is too small", where="threads", hint="give 1 or more"))
    if "," in settings.device:
        hint = "one training takes one device; run several trainings side by side"
        problems.append(UserError(f"{settings.device!r} names several devices", where="device", hint=hint))
    return problems


def optimizer_problems(optimizer: str) -> list[UserError]:
    """What is wrong with the name of an optimizer; "auto" is explained."""
    if optimizer in OPTIMIZERS:
        return []
    if optimizer == "auto":
        what = "'auto' chooses optimizer and learning rate by the number of iterations, and ignores lr0"
        return [UserError(what, where="optimizer", hint="name one, e.g. optimizer=AdamW lr0=0.001")]
    hint = did_you_mean(optimizer, OPTIMIZERS) or f"one of {', '.join(OPTIMIZERS)}"
    return [UserError(f"{optimizer!r} is not known", where="optimizer", hint=hint)]


def extra_problems(extra: Mapping[str, Any]) -> list[UserError]:
    """What is wrong with further arguments: fields of our own, fixed ones, and those that Ultralytics does not have."""
    known = ultralytics_arguments()
    problems = []
    for key in extra:
        if key in OWN:
            problems.append(UserError("has a field of its own", where=f"extra.{key}", hint=f"set {OWN[key]}"))
        elif key in _FIXED:
            problems.append(UserError(f"cannot be changed: {_FIXED[key]}", where=f"extra.{key}"))
        elif key not in known:
            problems.append(
                UserError("Ultralytics has no such argument", where=f"extra.{key}", hint=did_you_mean(key, known))
            )
    return problems


def ultralytics_arguments() -> dict[str, Any]:
    """Ultralytics' arguments and their defaults, read from its own file without importing it."""
    spec = find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise UserError("ultralytics is not installed", hint="pip install ultralytics")
    text = (Path(spec.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def finetune(settings: FinetuneSettings, stop: threading.Event | None = None) -> FinetuneResult:
    """Train once, wait for the end, and read what came out.

    An unfinished or earlier run of the same name is removed first; a folder that is no such run is left alone.

    Args:
        settings: The training.
        stop: Once set, the training is ended.

    Raises:
        Stopped: `stop` was set, or Ctrl-C reached the training.
        UserError: Settings that cannot work, a start that did not arrive whole, or a training that failed; then with
            the last lines of its log.
    """
    settings.check()
    folder = settings.folder
    if folder.exists() and any(folder.iterdir()) and not (folder / REQUEST).is_file():
        raise UserError("holds something that is no run of this kind", where=str(folder), hint="choose another name")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    _write_json(folder / REQUEST, _plain(settings.resolved()))
    module = "headstart.comparison.finetune"
    code = child.run(module, [str(folder / REQUEST)], folder / LOG, settings.threads, stop)
    if code != 0:
        raise _failure(folder, code)
    curve = read_curve(folder / "results.csv")
    if len(curve) != settings.epochs:
        raise UserError(
            f"{len(curve)} of {settings.epochs} epochs were trained", where=str(folder), hint=child.tail(folder / LOG)
        )
    seconds = round(time.monotonic() - started, 2)
    _write_json(folder / RESULT, {**_plain(curve[-1]), "seconds": seconds})
    return read_result(folder)


def read_result(folder: str | Path) -> FinetuneResult:
    """The result of a finished run, from its folder alone.

    Raises:
        UserError: The run was not finished.
    """
    root = Path(folder)
    try:
        seconds = json.loads((root / RESULT).read_text(encoding="utf-8"))["seconds"]
        raw = json.loads((root / ARRIVED).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("is not a finished training", where=str(root), hint=f"{error.filename} is missing") from None
    curve = read_curve(root / "results.csv")
    arrival = Arrival(**{**raw, "skipped": tuple(raw["skipped"])})
    return FinetuneResult(curve[-1].map50_95, curve[-1].map50, curve, seconds, root, arrival, judged.read(root))


def read_curve(path: Path) -> tuple[Epoch, ...]:
    """Every epoch of Ultralytics' results.csv, whose mAP is that of the EMA weights of the last epoch measured so far.

    Raises:
        UserError: There are no rows, or no (finite) box mAP.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    columns = ("epoch", "time", "metrics/mAP50-95(B)", "metrics/mAP50(B)")
    if not rows or not set(columns) <= set(rows[0]):
        raise UserError("has no box mAP", where=str(path), hint="detect, segment, pose and obb models can be compared")
    curve = tuple(Epoch(int(row[columns[0]]), *(float(row[name]) for name in columns[1:])) for row in rows)
    if not all(math.isfinite(point.map50_95) for point in curve):
        raise UserError("the training diverged (mAP is not a number)", where=str(path), hint="lower lr0")
    return curve


def _failure(folder: Path, code: int) -> UserError:
    """What to tell the user of a child that failed: its own words, or else the end of its log."""
    failed = folder / FAILED
    if failed.is_file():
        return UserError(**json.loads(failed.read_text(encoding="utf-8")))
    why = f"was killed by signal {-code} (out of memory?)" if code < 0 else "failed"
    return UserError(f"the training {why}; the end of its log:\n{child.tail(folder / LOG)}", where=str(folder / LOG))


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON can hold it."""
    return {key: str(item) if isinstance(item, Path) else item for key, item in dataclasses.asdict(value).items()}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """``python -m headstart.comparison.finetune REQUEST.json``: train as the request says; 0 when all went well."""
    child.end_with_parent()
    request = Path(arguments[0])
    settings = FinetuneSettings(**json.loads(request.read_text(encoding="utf-8")))
    try:
        _train(settings)
    except UserError as error:
        _write_json(request.parent / FAILED, {"what": error.what, "where": error.where, "hint": error.hint})
        return 1
    return 0


def _train(settings: FinetuneSettings) -> None:
    """Run Ultralytics' own trainer; only its final evaluation is replaced."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import load_checkpoint

    _stay_offline()
    _leave_data_alone()
    start, names = {}, {}
    if Path(settings.start).suffix == ".pt":
        # Read anew from the file, not taken from the YOLO object: it is the file that must arrive.
        module, _ = load_checkpoint(str(settings.start))
        start, names = {key: value.clone() for key, value in module.state_dict().items()}, module.names

    def on_train_start(trainer: Any) -> None:
        arrival = check_arrival(trainer, start, names, str(settings.start))
        _write_json(settings.folder / ARRIVED, _plain(arrival))

    def on_train_epoch_start(trainer: Any) -> None:
        # Many short epochs, as of a small budget, would be measured for longer than they train. The last one always is.
        trainer.args.val = (trainer.epoch + 1) % math.ceil(settings.epochs / MEASURED) == 0

    yolo = YOLO(str(settings.start))
    yolo.add_callback("on_train_start", on_train_start)
    yolo.add_callback("on_train_epoch_start", on_train_epoch_start)
    yolo.add_callback("on_fit_epoch_end", judged.Judged(settings.folder).write)
    yolo.train(trainer=_without_choice(yolo.task_map[yolo.task]["trainer"]), **settings.arguments())


def _without_choice(trainer: Any) -> Any:
    """The trainer, except that it ends with the last epoch's weights and does not keep the epoch that scored best.

    Ultralytics ends by validating best.pt, chosen by its score on the images that it is measured on.
    """

    class LastEpochTrainer(trainer):  # type: ignore[misc]  # which trainer it is depends on the task
        best: Path

        def final_eval(self) -> None:
            self.best.unlink(missing_ok=True)
            if self.args.plots:  # the plots of precision, recall and confusion are made here
                self.best = self.last
            super().final_eval()

    return LastEpochTrainer


def _stay_offline() -> None:
    """No trackers, no telemetry, and no look for a font on the network, which can hang where a firewall drops packets.

    Ultralytics' settings are changed in memory alone: the user's file keeps what it says.
    """
    from ultralytics.utils import SETTINGS, downloads

    trackers = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")
    dict.update(SETTINGS, {**dict.fromkeys(trackers, False), "api_key": ""})
    look = downloads.is_url
    downloads.is_url = lambda url, check=False: not check and look(url)


def _leave_data_alone() -> None:
    """Write no label caches beside the labels.

    One file serves all lists of a folder: trainings side by side delete it under each other's hands, and fail.
    """
    from ultralytics.data import dataset

    def keep_in_memory(prefix: str, path: Path, x: dict[str, Any], version: str) -> None:
        x["version"] = version

    dataset.save_dataset_cache_file = keep_in_memory


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
