"""The types of ``results.json``, format 2: what a comparison was given, what each training gave, what follows from it.

Figures are shares of 1. docs/comparison.md lists the file key by key.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from headstart.comparison.start_records import CheckOutcome, LeakFacts, Record, StartFacts
from headstart.comparison.statistics import Paired
from headstart.comparison.used_records import UsedFacts

FORMAT: Final = 2

CellKind = Literal["main", "search", "longer"]


class AskedSettings(BaseModel):
    """What the comparison was asked for: every option; those that are read again are declared."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    data: str
    model: str
    seeds: tuple[int, ...]
    epochs: int | None
    steps: int | None
    imgsz: int
    batch: int
    optimizer: str
    lr: tuple[float, ...]
    start_lr: dict[str, float] = {}
    reference: str | None = None


class DataFacts(Record):
    """The labelled data.

    Attributes:
        yaml: Its YAML.
        names: The classes.
        train_images: Images to cut budgets from.
        test_images: Images to measure on.
        labelled_test_images: Of these, those with a label file that is not empty; None where nobody looked.
        split: The part of the YAML that these are.
        test_sha256: Of their list.
        leak: Test images among the images to cut budgets from.
        recordings: Frames of one recording among both; None in older files.
    """

    yaml: str
    names: tuple[str, ...]
    train_images: int
    test_images: int
    labelled_test_images: int | None
    split: str
    test_sha256: str
    leak: LeakFacts
    recordings: LeakFacts | None = None


class BudgetFacts(Record):
    """A label budget: its name and the images that it comes to."""

    name: str
    images: PositiveInt


class ListFacts(Record):
    """The labelled images of one budget and seed: how many, the list's file, its sha256."""

    budget: str
    seed: int
    images: int
    file: str
    sha256: str


class GitFacts(Record):
    """State of the user's project."""

    commit: str
    branch: str | None
    changed: bool


class RateChoice(Record):
    """The learning rate of a start at a budget, and what each rate gave on the validation part (None: it failed)."""

    start: str
    budget: str
    lr: float
    validation_map50_95: dict[str, float | None]


class Point(NamedTuple):
    """An epoch, from 1; seconds of training so far; box mAP in [0, 1]."""

    epoch: int
    seconds: float
    map50_95: float
    map50: float


class ClassScore(Record):
    """A class on the test images: box mAP in [0, 1], and its objects there."""

    name: str
    map50_95: float
    map50: float
    objects: NonNegativeInt


class Arrived(Record):
    """Tensors of the start; of these, bitwise equal in the trainer's model and in its EMA before the first step."""

    tensors: int
    model: int
    ema: int


class Figures(Record):
    """What a finished training gave.

    Attributes:
        map50_95: Box mAP50-95 of the last epoch's weights.
        map50: Likewise mAP50.
        seconds: Of the whole process.
        curve: Every epoch.
        class_scores: The last epoch, class by class.
        rows_sha256: Of all losses and figures of all epochs.
        arrived: What became of the start.
        parameters: Weights of the network that was trained.
        initial_sha256: Of the trainer's weights before the first step.
        device: cpu, mps or cuda.
        versions: Of what trained.
        used: Images and objects that the trainer read; None where it did not say.
        breaks: Epochs after which it was stopped, and went on with its images in another order.
    """

    map50_95: float
    map50: float
    seconds: float
    curve: tuple[Point, ...] = Field(min_length=1)
    class_scores: tuple[ClassScore, ...]
    rows_sha256: str
    arrived: Arrived
    parameters: int
    initial_sha256: str
    device: str
    versions: dict[str, str]
    used: UsedFacts | None = None
    breaks: tuple[PositiveInt, ...] = ()


class CellResult(Record):
    """One training: what it was asked for, and what became of it.

    Attributes:
        kind: ``main``; ``search`` for a rate, on the validation part; ``longer``, scratch with the pretraining's time.
        start: Name of its start.
        budget: Name of its label budget.
        seed: Its seed.
        lr: Its learning rate.
        epochs: Passes over its images.
        images: Images that it trains on.
        folder: Below the comparison's folder.
        labels_sha256: Of its list of labelled images.
        start_sha256: Of the start's weights.
        settings_sha256: Of all else that it was asked for (image size, batch, optimizer, augmentation ...); "" where
            that was not written down.
        state: ``done``, ``failed``, or ``missing`` where it was not begun or was stopped.
        error: Why it failed.
        figures: What it gave; None unless it is done.
        meant: Images and objects of its lists; None in older files.
    """

    kind: CellKind
    start: str
    budget: str
    seed: int
    lr: float
    epochs: int
    images: int
    folder: str
    labels_sha256: str
    start_sha256: str
    settings_sha256: str = ""
    state: Literal["done", "failed", "missing"]
    error: str = ""
    figures: Figures | None = None
    meant: UsedFacts | None = None

    @model_validator(mode="after")
    def _figures_when_done(self) -> CellResult:
        if (self.state == "done") != (self.figures is not None):
            raise ValueError(f"a training that is {self.state} {'has' if self.figures else 'lacks'} figures")
        return self

    @property
    def measured(self) -> Figures:
        """The figures of a training that is done."""
        assert self.figures is not None
        return self.figures

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.start} at {self.budget}, seed {self.seed}"


class Mean(Record):
    """Mean of a score over seeds and its 95 % t interval; None for one seed, and where all seeds agree exactly."""

    mean: float
    low: float | None
    high: float | None


class Score(Record):
    """A start at a budget."""

    start: str
    budget: str
    seeds: tuple[int, ...]
    map50_95: Mean
    map50: Mean


class Difference(Record):
    """A start less a reference at a budget, paired by seed."""

    start: str
    reference: str
    budget: str
    seeds: tuple[int, ...]
    map50_95: Paired
    map50: Paired


class Reached(Record):
    """Epochs until a start is as good as scratch in the end, seed by seed; None: never. `of`: epochs of a training."""

    start: str
    budget: str
    seeds: tuple[int, ...]
    epochs: tuple[int | None, ...]
    median: float | None
    of: int


class Cost(Record):
    """What one training costs with a start at a budget: means over seeds; None: not known, or there was none.

    Attributes:
        start: The start.
        budget: The budget.
        seeds: Those that it is the mean of.
        search_seconds: Looking for objects before the first step of its pretraining, teacher included.
        pretraining_seconds: The pretraining itself.
        pretraining_steps: Its steps, of its own batch.
        finetuning_seconds: The fine-tuning, tests included.
        finetuning_steps: Its batches.
        seconds: In all.
        steps: In all, at the batch of the fine-tuning: those of the pretraining count by the images that are shown.
    """

    start: str
    budget: str
    seeds: tuple[int, ...]
    search_seconds: float | None
    pretraining_seconds: float | None
    pretraining_steps: int | None
    finetuning_seconds: float
    finetuning_steps: int
    seconds: float | None
    steps: int | None


class Gain(Record):
    """What the last third of its trainings brought a reference, in mAP50-95: the mean over seeds.

    Attributes:
        start: The reference.
        budget: The budget.
        seeds: Those that it is the mean of.
        last_third: Score of the last epoch less that after two thirds of them.
        stopped: Whether that is less than half a point, and less than a tenth of the score in the end.
    """

    start: str
    budget: str
    seeds: tuple[int, ...]
    last_third: float
    stopped: bool


class LabelsWorth(Record):
    """The labelled images with which a reference does as well as a start, read off its own curve over the budgets.

    Attributes:
        start: The start.
        reference: The reference.
        budget: The start's budget.
        images: Labelled images of that.
        seeds: Those that both were trained with.
        least: The smallest budget of the reference, in images: where it does as well there already, `needed` is this.
        most: The largest.
        needed: Images; None: more than `most`.
        interval: 95 %, from a bootstrap over seeds; an end that is None is more than `most`. None for one seed.
    """

    start: str
    reference: str
    budget: str
    images: int
    seeds: tuple[int, ...]
    least: int
    most: int
    needed: float | None
    interval: tuple[float | None, float | None] | None


class Check(Record):
    """One thing that a fair comparison needs.

    Attributes:
        key: Its name in a word.
        claim: What holds where it passed.
        outcome: passed, failed, or not known where the facts are missing.
        evidence: The facts in words; where it failed, what is wrong, beginning in lower case and without a full stop.
    """

    key: str
    claim: str
    outcome: CheckOutcome
    evidence: str


class Facts(Record):
    """What is known before the first training."""

    name: str
    command: str
    settings: AskedSettings
    side_by_side: str
    data: DataFacts
    starts: tuple[StartFacts, ...] = Field(min_length=1)
    budgets: tuple[BudgetFacts, ...]
    lists: tuple[ListFacts, ...]
    versions: dict[str, str]
    git: GitFacts | None


class Results(Facts):
    """The whole of ``results.json``."""

    format: Literal[2] = FORMAT
    rates: tuple[RateChoice, ...]
    cells: tuple[CellResult, ...]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    reached: tuple[Reached, ...]
    checks: tuple[Check, ...]
    costs: tuple[Cost, ...] = ()
    gains: tuple[Gain, ...] = ()
    labels_worth: tuple[LabelsWorth, ...] = ()
    verdict: str = ""

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The checks that failed, those that make the figures worthless first."""
        failed = [check for check in self.checks if check.outcome == "failed"]
        return tuple(sorted(failed, key=lambda check: check.key in LIMITS))

    @property
    def trusted(self) -> bool:
        """Whether no check failed that makes the figures worthless."""
        return all(check.key in LIMITS for check in self.failed_checks)

    def finished(self, kind: CellKind = "main") -> list[CellResult]:
        """The trainings of a kind that are done."""
        return [cell for cell in self.cells if (cell.kind, cell.state) == (kind, "done")]

    def of(self, start: str, budget: str) -> list[CellResult]:
        """The finished main trainings of a start at a budget."""
        return [cell for cell in self.finished() if (cell.start, cell.budget) == (start, budget)]


LIMITS = ("complete",)
"""Checks that say, where they fail, that figures are missing; those that are there hold."""


def plain(record: BaseModel) -> dict[str, Any]:
    """A record as JSON can hold it."""
    return record.model_dump(mode="json")
