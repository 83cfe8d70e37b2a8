"""Each option declared once: type, range, default and what it does.

The command line, the Python function, ``cfg=file.yaml`` and the run folder's ``settings.yaml`` all read these classes.
Nothing here imports torch, so that ``--help`` and a misspelt key are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from headstart.settings.counts import is_count, range_of, refuse_many
from headstart.settings.loggers import Loggers

EVERY = (
    "seconds between two frames of a video that are looked at; one that shows the same as the last is left out; 0: all"
)
TRUST = "let code run that files bring along: pickled classes, scripts in YAMLs, Python files that a file names"
LOGGERS = (
    "csv, tensorboard, wandb, mlflow, or the path of a .py with a logger; settings of one as "
    "[csv, {wandb: {project: x}}]"
)


def _word(value: Any) -> Any:
    """YAML reads a bare ``off`` and ``on`` as truth values."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


class Options(BaseModel):
    """A frozen group of options; numbers are taken where a name is wanted (``device=0``)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, arbitrary_types_allowed=True, defer_build=True,
        allow_inf_nan=False,
    )  # fmt: skip


def split(value: Any) -> Any:
    """``"a,b"`` as ``["a", "b"]``; a single number as a list of one; anything else as it is."""
    if isinstance(value, str):
        inner = value.strip()
        inner = inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner  # a pair, as in "[runs/a[1]]"
        return [part.strip() for part in inner.split(",") if part.strip()]
    return [value] if isinstance(value, (int, float, Path)) and not isinstance(value, bool) else value


def strings(value: Any) -> Any:
    """A list of strings; paths and numbers among them are written out."""
    found = split(value)
    if not isinstance(found, list):
        return found
    return [str(one) if isinstance(one, (int, float, Path)) else one for one in found]


def which(value: Any) -> Any:
    """``[0, 2]`` as ``"0,2"``, and a list of one as ``"2,"``: the GPU 2, not two of them."""
    found = split(value) if isinstance(value, str) and "[" in value else value
    return ",".join(map(str, found)) + "," * (len(found) == 1) if isinstance(found, (list, tuple)) else found


def truth(value: Any) -> bool:
    """A truth value as the options take it: True, 1, "true", "yes"; what is none is not true, and is told elsewhere."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False


Strings = Annotated[list[str], BeforeValidator(strings)]


class PretrainSettings(Options):
    """What every pretraining has, whatever the method."""

    data: str | list[str] = Field(
        description="images, videos and shards (.tar, .zip): a folder (nested), a glob, a .txt list, files, shards at "
        "s3:// and the like, or an Ultralytics dataset YAML (images of its train part); several as [a, b] or by "
        "repeating data="
    )
    model: Any = Field(
        "yolo11n.yaml", description="detector: a .yaml (random weights), a .pt, a live YOLO object, or torchvision:NAME"
    )
    method: str = Field(
        "default",
        description="a method's name, the path of a .py file with one, or auto; by default selftrain with labels=, "
        "else objects from trained weights, where the head learns boxes and the objects that are found fit the images, "
        "and dino from random ones",
    )
    preset: str | None = Field(None, description="named set of defaults of the method; by default its first")
    init: str | None = Field(None, description="a .pt whose weights the model starts from, e.g. COCO weights")
    every: float = Field(0.5, ge=0, description=EVERY)
    epochs: float | None = Field(None, gt=0, description="passes over the images (this or steps)")
    steps: int | None = Field(
        None,
        ge=1,
        description="optimizer steps (this or epochs); without either by images, start and machine",
    )
    budget: str | None = Field(
        None, description="time that pretraining may take, such as 30m, 2h or 45s: sets the steps (in place of them)"
    )
    batch: Annotated[int, Field(ge=2)] | Literal["auto"] = Field(
        64,
        description="images a step; auto: as many as memory has room for, the method's own number at most",
    )
    imgsz: int = Field(224, ge=32, le=4096, description="side of images or crops, pixels")
    local_imgsz: int = Field(96, ge=32, le=4096, description="side of the local crops, pixels")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="processes that read images; 0 reads in the main process"
    )
    cache: Annotated[Literal["auto", "ram", "disk", "device", "off"], BeforeValidator(_word)] = Field(
        "auto",
        description="where decoded images are kept: on the disk for later runs, in memory, on the training device, or "
        "nowhere; auto chooses by their size",
    )
    cache_dir: str | None = Field(None, description="folder of cache=disk; by default the user's cache folder")
    device: str = Field("auto", description="auto, cpu, cuda, mps, or the index of a GPU")
    devices: Annotated[str, BeforeValidator(which)] = Field(
        "1",
        description="how many devices of a machine train together, as 4 or all, or which GPUs, as 0,2; on a CPU: "
        "processes",
    )
    nodes: int = Field(
        1, ge=1, description="machines that train together, each with this command; torchrun and srun say it themselves"
    )
    accumulate: int = Field(
        1, ge=1, description="parts in which a device takes its share of the batch, one by one, where memory is short"
    )
    sync_bn: bool | Literal["auto"] = Field(
        "auto", description="batch norm over the images of all devices together; auto: where there are several"
    )
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(str)] = Field(
        "auto", description="arithmetic of the network (losses are float32): auto is bf16 where the hardware has it"
    )
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="memory layout of the network; auto is true on CPUs, and on GPUs in half precision"
    )
    compile: bool | Literal["auto"] = Field(
        "auto", description="try torch.compile, which takes minutes at the start; auto does not"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, image order and views")
    out: str | None = Field(None, description="run folder; by default a new one below runs/pretrain")
    export: Literal["student", "teacher"] = Field("student", description="whose weights the checkpoint gets")
    resume: bool = Field(False, description="go on with the run in out=; its settings are taken from the folder")
    overwrite: bool = Field(False, description="replace the run in out=")
    log_every: int = Field(10, ge=1, description="steps between two lines of metrics.jsonl")
    save_every: int = Field(
        500, ge=1, description="steps between two checkpoints of the run; after five minutes there is one in any case"
    )
    probe_every: int = Field(500, ge=0, description="steps between two probes of the features; 0: none")
    probe_labels: bool = Field(
        False,
        description="look at labels beside the images, for probes and for whether found objects fit; never trained on",
    )
    report: bool = Field(True, description="draw report.html at the end")
    trust: bool = Field(False, description=TRUST)
    loggers: Loggers = Field([], description=f"where measures go beside the run's folder: {LOGGERS}")

    @property
    def batch_size(self) -> int:
        """`batch` as a number: settings are resolved with one, ``auto`` is measured before."""
        assert isinstance(self.batch, int)
        return self.batch


RENAMED = {
    "colour": "color",
    "regularise": "regularize",
    "most": "max_objects",
    "least": "min_score",
    "largest": "max_area",
    "plain": "close_mosaic",
}
"""Options that had another name: old -> new. The old one is understood, with a hint."""


def seeds(value: Any) -> Any:
    """A count (3 means 0, 1, 2) or the seeds themselves."""
    return range_of(value) if is_count(value) else split(value)


Rate = Annotated[float, Field(gt=0)]
Rates = Annotated[list[Rate], BeforeValidator(split)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], BeforeValidator(refuse_many), BeforeValidator(seeds)]


class CompareSettings(Options):
    """What a comparison needs to know. Every fine-tuning in it differs from its neighbours in the start alone."""

    data: str = Field(description="Ultralytics dataset YAML: train is the labelled pool that the budgets are cut from")
    model: str = Field("yolo11n", description="the detector of every start: the name of its YAML, or torchvision:NAME")
    starts: Strings = Field(
        ["scratch", "coco"],
        description="what to compare: scratch, coco, coco-backbone, checkpoints, run folders, or recipes (a .yaml of "
        "pretraining options, made anew for each list of labels); coco-longer: COCO fine-tuned for as many steps in "
        "all, mine-longer: likewise mine; mine-as-is: mine without any fine-tuning; name=path names one, coco=path.pt "
        "says where the COCO weights are",
    )
    reference: str | None = Field(
        None, description="the start that others are measured against first, own weights, say (default: coco)"
    )
    labels: Strings = Field(["10%", "100%"], description="label budgets: shares of the labelled images, or counts")
    seeds: Seeds = Field([0, 1, 2], description="how many seeds, or the seeds themselves as [0, 1, 2]")
    epochs: int | None = Field(None, ge=1, description="epochs of every fine-tuning (this or steps; default: 100)")
    steps: int | None = Field(
        None,
        ge=1,
        description="least batches of every fine-tuning, rounded up to whole epochs, as many at each budget; "
        "Ultralytics makes an update of nbs (64) images, so of several batches where these are smaller",
    )
    imgsz: int = Field(640, ge=32, le=4096, description="side of the images, pixels")
    batch: int = Field(16, ge=1, description="images a batch")
    optimizer: str = Field("AdamW", description="SGD, Adam, AdamW, or another optimizer of the detector's own trainer")
    lr: Rates = Field(
        [1e-3, 3e-4, 3e-3],
        description="learning rates; of several, each start gets the one that does best on a validation part of its "
        "labelled images (the first where they are equal); one alone saves the search",
    )
    lr_val: float = Field(0.2, gt=0, lt=1, description="share of the labelled images that the rate is chosen on")
    start_lr: dict[str, Rate] = Field(
        {},
        description="rates of single starts by their names, chosen elsewhere and not searched for, such as a "
        'finetune.yaml advises: {"mine": 0.0001}',
    )
    split: Literal["val", "test"] = Field("val", description="part of the dataset that the figures are measured on")
    unlabelled: str | list[str] | None = Field(
        None,
        description="images without labels that recipes learn from, by default the labelled pool; or that starts were "
        "pretrained on, where no run folder says so: looked at for leaks",
    )
    longer: Annotated[Literal["auto", "true", "false"], BeforeValidator(lambda v: str(v).lower())] = Field(
        "auto",
        description="one longer scratch run that gets the steps that pretraining took: auto where these are known",
    )
    device: str = Field("auto", description="auto (every GPU, else CPU), cpu, mps, a GPU's index, or several as 0,1")
    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="fine-tunings side by side: auto is one a GPU, and on a CPU as many as cores and memory carry",
    )
    launcher: Literal["local", "ray"] = Field("local", description="run on this machine, or on those of a Ray cluster")
    ray: str | None = Field(
        None, description="the cluster's address, HOST:6379, or auto; by default RAY_ADDRESS, else Ray runs here alone"
    )
    workers: int = Field(4, ge=0, description="processes that load images, each fine-tuning (none on a CPU)")
    out: str | None = Field(None, description="folder of the comparison; by default runs/compare/<data>-<model>")
    plan: bool = Field(False, description="print the cells, their cost and time from a short probe, and train nothing")
    overwrite: bool = Field(False, description="replace the comparison in out=")
    pictures: int = Field(6, ge=0, le=24, description="test images on which the detections of all starts are shown")
    report: bool = Field(True, description="draw report.html at the end")
    loggers: Loggers = Field([], description=f"where each training is logged, as a run of a group: {LOGGERS}")
    trust: bool = Field(False, description=TRUST)
    extra: dict[str, Any] = Field(
        {}, description="more arguments of the detector's own trainer (Ultralytics' train); single ones as key=value"
    )


class ProbeSettings(Options):
    """What ``headstart probe`` needs to know."""

    source: str = Field(description="a finished run's folder, a .pt, or a model YAML (random weights, to compare with)")
    data: str | list[str] = Field(description="images to look at, as for pretrain")
    every: float = Field(0.5, ge=0, description=EVERY)
    images: int = Field(256, ge=2, description="how many of them")
    imgsz: int = Field(224, ge=32, multiple_of=32, description="side to which they are stretched, pixels")
    labels: bool = Field(True, description="use labels that lie beside the images for a kNN of boxes")
    device: str = Field("cpu", description="auto, cpu, cuda, mps, or the index of a GPU")
    trust: bool = Field(False, description=TRUST)


class ReportSettings(Options):
    """What ``headstart report`` needs to know."""

    run: list[str] = Field(min_length=1, description="folders of pretrainings and comparisons")
    out: str | None = Field(
        None,
        description="the page: by default report.html in the folder, and side-by-side.html here of several comparisons",
    )


class DemoSettings(Options):
    """What ``headstart demo`` needs to know."""

    out: str = Field("runs/demo", description="a new or empty folder")
    overwrite: bool = Field(False, description="replace the demo in out=")
    seed: int = Field(0, ge=0, lt=2**31, description="of the drawn images: another one draws others of the same kind")


class CacheSettings(Options):
    """What ``headstart cache`` needs to know."""

    cache_dir: str | None = Field(
        None, description="cache folder; none: HEADSTART_CACHE, or headstart in the user's cache folder"
    )
    clear: bool = Field(False, description="remove what is listed, but for what a run uses")
    unused: float = Field(0.0, ge=0, description="only stores that no run has used for so many days")


class CompletionSettings(Options):
    """What ``headstart completion`` needs to know."""

    shell: Literal["bash", "zsh", "fish"] = Field(description="the shell that completes the command")
    install: bool = Field(False, description="write the script where the shell finds it, and say what is left to do")
