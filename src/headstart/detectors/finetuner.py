"""The contract of a fine-tuning: one training from one start, what it leaves in its folder, and what is read from it.

A comparison knows nothing else of a family of detectors. Nothing here imports torch: options are checked with it.

A run's folder holds ``finetune.json`` (what was asked for), ``train.log``, ``arrived.json`` (the start, compared with
the trainer's model and EMA tensor by tensor), ``results.csv`` (a row an epoch), ``classes.json`` (the scores of each
class), ``used.json`` (images and objects that were read), ``weights/last.pt`` and ``result.json``. Figures are those of
the last epoch's weights: an epoch chosen by its score on the test images would flatter.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headstart.detectors.handback import PARTS, Part
from headstart.detectors.scores import CLASSES, ClassScore, read_scores
from headstart.detectors.used import USED, Used, read_used
from headstart.errors import UserError, did_you_mean
from headstart.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

MEASURED = 20
"""Epochs of a training that are measured on the test images, about; of a shorter one all are."""
REQUEST, LOG, CURVE, FAILED = "finetune.json", "train.log", "results.csv", "failed.json"
UNDER_WAY = "under-way.pt"  # what a training that was stopped goes on from; see `headstart.detectors.under_way`
ARRIVED, RESULT = "arrived.json", "result.json"
FIGURES = (CURVE, ARRIVED, RESULT, CLASSES, USED)
"""Files that the figures of a training are in."""
LAST = Path("weights") / "last.pt"
COLUMNS = ("epoch", "time", "metrics/mAP50-95(B)", "metrics/mAP50(B)")
"""Columns that ``results.csv`` has in any case, named as Ultralytics names them; ``time`` is in seconds."""


def measured_epochs(epochs: int) -> set[int]:
    """Those of `epochs` epochs, from 1, that are measured: all of many would take longer than the training."""
    every = max(1, math.ceil(epochs / MEASURED))
    return {*range(every, epochs + 1, every), epochs}


@dataclass(frozen=True)
class FinetuneSettings:
    """What one training needs to know.

    Attributes:
        model: Name of the architecture, which says the family ("yolo11n.yaml", "torchvision:fcos_resnet50_fpn").
        data: A dataset YAML.
        start: A checkpoint on disk; for Ultralytics also a model YAML (random weights drawn from `seed`).
        out: The folder that holds the run; the run's own folder is ``out/name``.
        name: The run's name.
        epochs: Full passes over the training images, without early stopping; 0: the start is measured as it is.
        imgsz: Side of the images in pixels.
        batch: Images in a batch.
        optimizer: One of the family's `Finetuner.optimizers`.
        lr0: Learning rate after the warm-up.
        seed: Initial weights of what does not come from the start, order of the images, augmentation.
        device: One device: "cpu", "0", "mps"; "" for the best one there is.
        workers: Processes that load images (none on a CPU).
        threads: CPU threads of this training; None for every core that the process may use.
        plots: Draw the family's plots, where it has some.
        extra: Further arguments of the family, e.g. ``{"close_mosaic": 0, "nbs": 16}``.
        key: Equal for trainings that must give the same: one that was stopped goes on; without it, it begins again.
    """

    model: str
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
    key: str = ""

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return Path(self.out).resolve() / self.name

    def resolved(self) -> FinetuneSettings:
        """The same with absolute paths; a start that is not on disk is a name that the family looks up."""
        start = Path(self.start).resolve() if Path(self.start).exists() else self.start
        data, out = Path(self.data).resolve(), Path(self.out).resolve()
        return dataclasses.replace(self, data=str(data), start=str(start), out=str(out))

    def measured(self, epoch: int) -> bool:
        """Whether epoch `epoch`, from 1, is measured on the test images."""
        return epoch in measured_epochs(self.epochs)


@dataclass(frozen=True)
class Epoch:
    """One row of ``results.csv``: epoch from 1 (0 before any), seconds of training so far, box mAP in [0, 1]."""

    epoch: int
    seconds: float
    map50_95: float
    map50: float


@dataclass(frozen=True)
class Arrival:
    """How much of the start stood in the trainer when the first step began.

    Attributes:
        tensors: Tensors that the start has (0 for a model YAML).
        model: Of these, bitwise equal in the trainer's model.
        ema: Of these, bitwise equal in the trainer's EMA; as `model` where the family trains without one.
        skipped: Tensors of the start left behind because their shape or rows depend on the classes.
        trained: Tensors that the trained model has.
        parameters: Weights that the trained model has; two starts that differ here are different architectures.
        initial: sha256 of the trainer's initial weights.
        versions: Of the packages that train.
        before: Seconds of training that it had when it was stopped; it went on from there.
        breaks: Epochs after which it was stopped, and went on with its images in another order.
    """

    tensors: int
    model: int
    ema: int
    skipped: tuple[str, ...]
    trained: int
    parameters: int
    initial: str
    versions: Mapping[str, str]
    before: float = 0.0
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class FinetuneResult:
    """What a training gave.

    Attributes:
        map50_95: Box mAP50-95 of the last epoch's weights, in [0, 1].
        map50: Likewise mAP50.
        curve: Every epoch.
        seconds: Wall-clock time of the whole process, or processes.
        folder: The run folder; its weights are ``weights/last.pt``.
        arrival: What became of the start.
        classes: The last epoch's score of every class that the test images show.
        used: What it read; None where that was not written down.
    """

    map50_95: float
    map50: float
    curve: tuple[Epoch, ...]
    seconds: float
    folder: Path
    arrival: Arrival
    classes: tuple[ClassScore, ...] = ()
    used: Used | None = None


@dataclass(frozen=True)
class StartSettings:
    """What the initial weights of a training follow from.

    Attributes:
        model: The architecture; its random weights are drawn from `seed`.
        names: The user's classes.
        seed: Of everything that does not come from `weights`, the same for every start.
        weights: A checkpoint of the same architecture, or the name of published weights.
        parts: What is taken of it.
        kpt_shape: Of a pose model's data.
    """

    model: str
    names: Sequence[str]
    seed: int
    weights: str | None = None
    parts: Sequence[Part] = PARTS
    kpt_shape: Sequence[int] | None = None


@dataclass(frozen=True)
class Built:
    """A start that was written.

    Attributes:
        taken: Part -> tensors that hold the given weights bit by bit.
        total: Part -> tensors that the model has.
        state: The model's state.
        parameters: Weights of the model.
        foreign: Why the given weights are not COCO's published ones, in words; "" where nothing in the file tells that.
        classified: Whether the given weights have the user's classes, in their order.
    """

    taken: Mapping[Part, int]
    total: Mapping[Part, int]
    state: Mapping[str, Tensor]
    parameters: int
    foreign: str = ""
    classified: bool = False


class Finetuner(ABC):
    """How a family of detectors is fine-tuned and measured. What it is asked before a training needs no torch.

    Attributes:
        optimizers: Names of the optimizers that it trains with.
        suffixes: Of the checkpoints that a start may be read from.
        environment: Environment variables of a training's process; None removes one.
    """

    optimizers: ClassVar[tuple[str, ...]]
    suffixes: ClassVar[tuple[str, ...]] = (".pt",)
    environment: ClassVar[Mapping[str, str | None]] = {}

    @abstractmethod
    def architecture(self, model: str) -> str:
        """The architecture that `model` means: ``yolo11n.pt`` is taken for ``yolo11n.yaml``."""

    @abstractmethod
    def check_model(self, model: str) -> list[UserError]:
        """What is wrong with the ``model=`` of a comparison; nothing is built or downloaded."""

    @abstractmethod
    def published(self, model: str) -> str:
        """The name of the published weights of `model`, as `build_start` takes it."""

    @abstractmethod
    def arguments(self) -> Mapping[str, Any]:
        """The further arguments that a training takes, and their defaults."""

    def optimizer_problems(self, optimizer: str) -> list[UserError]:
        """What is wrong with the name of an optimizer."""
        if optimizer in self.optimizers:
            return []
        hint = did_you_mean(optimizer, self.optimizers) or f"one of {', '.join(self.optimizers)}"
        return [UserError(f"{optimizer!r} is not known", where="optimizer", hint=hint)]

    def extra_problems(self, extra: Mapping[str, Any]) -> list[UserError]:
        """What is wrong with further arguments."""
        known = self.arguments()
        return [
            UserError("there is no such argument", where=f"extra.{key}", hint=did_you_mean(key, known))
            for key in extra
            if key not in known
        ]

    def fetch_dataset(self, yaml: Path) -> None:
        """Download a dataset whose YAML says how, where its images are not there yet.

        Raises:
            UserError: It cannot be downloaded.
        """
        raise UserError("its images are not there, and nothing is downloaded for this model", where=str(yaml))

    def data_problems(self, model: str, content: Mapping[str, Any]) -> list[UserError]:
        """What `content` of a dataset YAML says that no start of `model` can be trained on."""
        return []

    def learns_keypoints(self, model: str) -> bool:
        """Whether `model` learns poses, not boxes alone."""
        return False

    def rejected(self, images: Sequence[str]) -> dict[str, str]:
        """Those of `images`, which are there, that a training leaves out or ends at, and why, by their paths."""
        return {}

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that build starts and train."""

    @abstractmethod
    def build_start(self, settings: StartSettings, path: Path) -> Built:
        """Write to `path` the checkpoint that a training with the user's classes starts from.

        Raises:
            UserError: The weights cannot be read, or are of another architecture.
        """

    @abstractmethod
    def train(self, settings: FinetuneSettings) -> None:
        """Train once, in this process, and leave ``arrived.json``, the curve, the class scores and the last weights.

        Raises:
            UserError: The start did not arrive whole, or it cannot be trained.
        """

    @abstractmethod
    def detect(
        self, weights: Path, images: Sequence[str], *, imgsz: int, device: str, least: float
    ) -> list[list[list[float]]]:
        """What a trained detector finds.

        Args:
            weights: ``weights/last.pt`` of a run.
            images: Paths.
            imgsz: Side of the images in pixels, as it was trained at.
            device: As in `FinetuneSettings`.
            least: Confidence below which nothing is reported, in [0, 1].

        Returns:
            Per image and object: class, confidence, x0, y0, x1, y1 as shares of the image's sides.
        """

    def check(self, settings: FinetuneSettings) -> None:
        """Raise one UserError that lists everything wrong with `settings`."""
        problems = [*_file_problems(settings, self.suffixes), *_number_problems(settings)]
        problems += [*self.optimizer_problems(settings.optimizer), *self.extra_problems(settings.extra)]
        if problems:
            raise UserError.several(problems)


def _file_problems(settings: FinetuneSettings, suffixes: Sequence[str]) -> list[UserError]:
    """What is wrong with the paths. A model YAML that a family ships has no path of its own: it looks it up."""
    problems = []
    if Path(settings.data).suffix not in (".yaml", ".yml"):
        problems.append(UserError(f"{settings.data} is not a dataset YAML", where="data", hint="name a .yaml file"))
    elif not Path(settings.data).is_file():
        problems.append(UserError(f"{settings.data} does not exist", where="data"))
    start = Path(settings.start)
    if start.suffix not in (*suffixes, ".yaml"):
        problems.append(UserError(f"{start} is neither a checkpoint nor a model", where="start", hint="a .pt or .yaml"))
    elif start.suffix in suffixes and not start.is_file():
        problems.append(UserError(f"{start} does not exist", where="start", hint="nothing is downloaded here"))
    if not settings.name or settings.name in (".", "..") or Path(settings.name).name != settings.name:
        problems.append(UserError(f"{settings.name!r} is not a folder name", where="name"))
    return problems


def _number_problems(settings: FinetuneSettings) -> list[UserError]:
    problems = [
        UserError(f"{value} is too small", where=name, hint=f"give {least} or more")
        for name, least in {"epochs": 0, "imgsz": 32, "batch": 1, "workers": 0, "seed": 0, "threads": 1}.items()
        if (value := getattr(settings, name)) is not None and value < least
    ]
    if not 0 < settings.lr0 < math.inf:
        problems.append(UserError(f"{settings.lr0} is not a learning rate", where="lr0", hint="try 0.001 with AdamW"))
    if "," in settings.device:
        hint = "one training takes one device; run several trainings side by side"
        problems.append(UserError(f"{settings.device!r} names several devices", where="device", hint=hint))
    return problems


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass, or plain values, atomically."""
    content = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def read_curve(path: Path) -> tuple[Epoch, ...]:
    """Every epoch of a ``results.csv``, whose mAP is that of the last epoch measured so far.

    Raises:
        UserError: There are no rows, or no (finite) box mAP.
    """
    found = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    if any(None in row for row in found):
        raise UserError("is damaged: a row has more values than there are columns", where=str(path))
    rows = [{key.strip(): value for key, value in row.items()} for row in found]
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UserError("has no box mAP", where=str(path), hint="detect, segment, pose and obb models can be compared")
    try:
        curve = tuple(Epoch(int(row[COLUMNS[0]]), *(float(row[name]) for name in COLUMNS[1:])) for row in rows)
    except (TypeError, ValueError) as error:  # a row that a lost machine cut
        raise UserError(f"is damaged: {error}", where=str(path)) from error
    if not all(math.isfinite(point.map50_95) for point in curve):
        raise UserError("the training diverged (mAP is not a number)", where=str(path), hint="lower lr0")
    return curve


def read_result(folder: str | Path) -> FinetuneResult:
    """The result of a finished run, from its folder alone.

    Raises:
        UserError: The run was not finished.
    """
    root = Path(folder)
    try:
        seconds = json.loads((root / RESULT).read_text(encoding="utf-8"))["seconds"]
        raw = json.loads((root / ARRIVED).read_text(encoding="utf-8"))
        curve = read_curve(root / CURVE)
        arrival = Arrival(**raw | {"skipped": tuple(raw["skipped"]), "breaks": tuple(raw.get("breaks", ()))})
        scores, used = read_scores(root), read_used(root)
    except FileNotFoundError as error:
        raise UserError("is not a finished training", where=str(root), hint=f"{error.filename} is missing") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"a file of this training is damaged: {error}", where=str(root)) from error
    seconds = round(seconds + arrival.before, 2)
    return FinetuneResult(curve[-1].map50_95, curve[-1].map50, curve, seconds, root, arrival, scores, used)
