"""The types of ``results.json`` that say what a start is and how it was made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

CheckOutcome = Literal["passed", "failed", "not known"]
StartKind = Literal[
    "scratch", "coco", "coco-backbone", "scratch-longer", "coco-longer", "checkpoint", "checkpoint-longer", "recipe"
]


AS_IS = "-as-is"
"""What is added to the name of a start for the detector that it is before any fine-tuning."""


class Record(BaseModel):
    """A part of the file: frozen, without fields that are not declared, without infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LeakFacts(Record):
    """Whether test images are among images that something was trained on: passed where none is, and in words."""

    outcome: CheckOutcome
    words: str


class PretrainingFacts(Record):
    """What a start's run folder tells of its pretraining; None where it does not.

    Attributes:
        folder: The run folder.
        data: What it was given as images.
        images: How many it used.
        method: The method.
        model: The detector or checkpoint that it began with.
        steps: Steps planned.
        shown: Images that the network is shown in a step; where the run does not say, its batch.
        search_seconds: Time spent in the search for objects before the first step, teacher included.
        seconds: Time spent in training; None where its record of it is not there.
        device: The device, in torch's words.
        fingerprint: Of the list of its images; "" where it does not say.
        carriers: What brought in what somebody learnt from labels: option -> labels, weights, teacher or detector.
        every: Seconds between the frames that it took of videos; None where it does not say.
        imgsz: Side of the images, or crops, that it learnt from, pixels; None where it does not say.
    """

    folder: str
    data: tuple[str, ...]
    images: int | None
    method: str
    model: str
    steps: int | None
    seconds: float | None
    device: str
    shown: int | None = None
    search_seconds: float | None = None
    fingerprint: str = ""
    carriers: dict[str, str] = {}
    every: float | None = None
    imgsz: int | None = None


class RecipeRunFacts(Record):
    """One run of a recipe.

    Attributes:
        budget: Label budget whose list it learnt from; "" for a method without labels.
        seed: Of its cells.
        search: Whether its list was without the part that rates are chosen on.
        folder: Below the comparison's folder.
        labels_sha256: Of its list of labelled images; "" without.
        sha256: Of the start that it became; "" where it did not.
        state: ``done``, ``failed``, or ``missing`` where it was not begun or was stopped.
        error: Why it failed.
        seconds: Wall-clock time of its processes.
        pretraining: What its run folder tells; None unless it is done.
    """

    budget: str
    seed: int
    search: bool
    folder: str
    labels_sha256: str
    sha256: str
    state: Literal["done", "failed", "missing"]
    error: str
    seconds: float
    pretraining: PretrainingFacts | None


class RecipeFacts(Record):
    """A recipe that a start was made by.

    Attributes:
        file: Its YAML.
        method: As it names it; "" where pretraining chose it.
        labelled: Whether it was made anew for each list of labels, with the labels of that list.
        options: What it says.
        carriers: What else brought in what somebody learnt from labels: option -> weights, teacher or detector.
        runs: Its runs.
    """

    file: str
    method: str
    labelled: bool
    options: dict[str, Any]
    carriers: dict[str, str]
    runs: tuple[RecipeRunFacts, ...]


class LongerFacts(Record):
    """How much longer a start is fine-tuned at a budget.

    Attributes:
        budget: The budget.
        follows: The start that takes the most steps in all.
        steps: Steps of its pretraining, at the batch of the fine-tuning.
    """

    budget: str
    follows: str
    steps: int


class StartFacts(Record):
    """A start that is compared.

    Attributes:
        name: Its name.
        kind: Where its weights come from.
        weights: The file; empty for scratch.
        taken: Part of the detector -> tensors taken from the weights, tensors in all.
        parameters: Weights of the network.
        sha256: Seed -> of the initial weights.
        pretraining: What is known of it.
        leak: Test images among its pretraining images; None where nothing was pretrained.
        recipe: What it was made by; None for one that was there before.
        longer: Of a start that is fine-tuned for longer: by how much, and which start it follows, at each budget.
        foreign: Of one that is called COCO's: why its weights are not, in words; "" where nothing tells that.
        as_is: Whether it is measured as it is, without any fine-tuning.
        detects: Whether it is a detector of the user's classes before any fine-tuning.
    """

    name: str
    kind: StartKind
    weights: str
    taken: dict[str, tuple[int, int]]
    parameters: int
    sha256: dict[str, str]
    pretraining: PretrainingFacts | None
    leak: LeakFacts | None
    recipe: RecipeFacts | None = None
    longer: tuple[LongerFacts, ...] = ()
    foreign: str = ""
    as_is: bool = False
    detects: bool = False

    @property
    def base(self) -> str:
        """The name of the start that it is, where it is measured as it is; its own for the others."""
        return self.name.removesuffix(AS_IS) if self.as_is else self.name

    @property
    def fixed(self) -> bool:
        """Whether it is a file that is measured as it is: neither a seed nor a label changes anything of it."""
        return self.as_is and self.recipe is None
