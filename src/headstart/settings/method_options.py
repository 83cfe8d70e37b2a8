"""Options that methods share: each declared once, and a method's own ``Settings`` add to them.

Nothing here imports torch, so that ``--help`` and a misspelt key are answered at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from headstart.settings.schema import Options


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise PydanticCustomError("order", "must be the smaller number and then the larger one")
    return pair


Share = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[tuple[Share, Share], AfterValidator(_in_order)]
"""The least and the largest share of something, above 0 and up to 1."""

Positive = Annotated[float, Field(gt=0)]
Ratio = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]
"""The least and the largest width over height."""


class MethodSettings(Options):
    """What every method has: how its weights are optimized. Methods add their own."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer")
    lr: float = Field(
        1e-3, gt=0, description="peak learning rate; from trained weights times init_rate, unless you give one"
    )
    init_rate: float = Field(0.2, gt=0, le=1, description="from trained weights: factor on lr, unless you give lr")
    lr_for: Annotated[int, Field(ge=1)] | None = Field(
        None, description="batch that lr is meant for: it is scaled to the real one in proportion; none: not scaled"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay; biases and norms have none")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; beta1 of adam")
    warmup: float = Field(0.0, ge=0, le=1, description="share of the steps over which the learning rate rises")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant",
        description="learning rate after the warm-up; cosine: to 0, linear: in a straight line to a hundredth",
    )
    clip: float | None = Field(None, gt=0, description="largest gradient norm; none: not clipped")
    anchor: float = Field(
        0.0,
        ge=0,
        description="from trained weights: weight of the distance from the features that the run started with",
    )


class AdamWSettings(MethodSettings):
    """The optimizer of headstart's own recipes: AdamW, a short warm-up, a cosine to 0."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adamw", description="optimizer")
    weight_decay: float = Field(0.01, ge=0, description="weight decay; biases and norms have none")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps over which the learning rate rises")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "cosine", description="learning rate after the warm-up; cosine: to 0, linear: in a straight line to a hundredth"
    )
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm; none: not clipped")


class DetectionSettings(AdamWSettings):
    """Of a method that trains a whole detector on boxes: its views are those of a detector's own training."""

    init_rate: float = Field(1.0, gt=0, le=1, description="from trained weights: factor on lr, unless you give lr")
    clip: float | None = Field(10.0, gt=0, description="largest gradient norm; none: not clipped")
    view_scale: Scale = Field((0.8, 1.0), description="share of the image's area that a view covers")
    flip: float = Field(
        0.5, ge=0, le=1, description="chance that a view is mirrored; 0 where left and right tell classes apart"
    )
    letterbox: float = Field(
        0.5,
        ge=0,
        le=1,
        description="images too wide or tall for a crop of view_scale: share of their views that show the whole image "
        "in a gray square; the others are crops anywhere in it",
    )
    jitter: float = Field(1.0, ge=0, le=1, description="probability of changed colors")
    mosaic: float = Field(1.0, ge=0, le=1, description="share of the steps with mosaics of four images")
    zoom: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="mosaics are magnified by 1 - zoom to 1 + zoom; none: 0.5, or for selftrain 0 where labelled "
        "objects of one class differ less in size than that",
    )
    close_mosaic: float = Field(0.2, ge=0, le=1, description="share of the steps, at the end, without mosaics")


class TeacherOptions(Options):
    """Options of a method that has a teacher: a trained network, given or not."""

    teacher: Any = Field(None, description="trained network: a YOLO's .pt, the name of a timm model, or a torch module")
    teacher_weights: str | None = Field(
        None, description="file with the weights of a timm model as teacher; none: timm's own, downloaded once"
    )
    teacher_mean: tuple[float, float, float] | None = Field(
        None, description="mean of each color that a torch module as teacher was trained with; none: 0"
    )
    teacher_std: tuple[float, float, float] | None = Field(
        None, description="standard deviation of each color, likewise; none: 1"
    )


class ProposalOptions(TeacherOptions):
    """Options of a method that learns from objects which a trained detector finds: how they are found and clustered."""

    teacher: Any = Field(
        None,
        description="network whose features are clustered: a YOLO's .pt, the name of a timm model, or a torch module; "
        "none: the backbone of the detector that finds the objects",
    )
    proposals: str | None = Field(
        None, description="trained detector that finds the objects (a .pt); none: the run's own start, init= or model="
    )
    proposal_imgsz: int = Field(320, ge=64, description="longer side at which images are searched for objects, pixels")
    max_objects: int = Field(10, ge=1, description="objects that are kept an image at most")
    min_score: float = Field(0.4, gt=0, le=1, description="least score of an object, as a share of the image's best")
    max_area: float = Field(0.8, gt=0, le=1, description="largest object, as a share of the image's area")
    clusters: int = Field(
        64, ge=2, le=50_000, description="clusters into which the objects are divided by how they look"
    )
    components: int = Field(64, ge=1, description="principal components of the features that are clustered")


class LabellerOptions(TeacherOptions):
    """Options of a method that labels images: by the detector that learns, another one, and a network that names."""

    teacher: Any = Field(
        "auto",
        description="trained network whose features tell the classes of what is found, e.g. a timm model's name; auto: "
        "tf_efficientnet_lite0, if it is on this machine or can be downloaded; none: the detector names them itself",
    )
    naming: Literal["auto", "network", "both"] = Field(
        "auto",
        description="who tells the class of what is found where there is a teacher=: the network, or both it and the "
        "detector; auto: whichever names the held-out labels better, from 30 boxes on, else the network (both with "
        "proposals= of your classes)",
    )
    proposals: str | None = Field(
        None,
        description="trained detector (a .pt) that labels images at once, in place of burn-in; one of other classes "
        "finds the objects, and teacher= names them; none: the detector that learns labels them, after burn-in",
    )
    proposal_imgsz: int | None = Field(
        None,
        ge=32,
        description="longer side at which proposals= looks at images, pixels; none: that of its own training",
    )
    calibrate: bool = Field(
        True, description="move the teacher's boxes by what its boxes on labelled images end beside the labels"
    )
    max_objects: int | None = Field(None, ge=1, description="labels an image at most; none: 100, or twice your most")


class LabelOptions(Options):
    """Options of a method that learns from labels of the user as well."""

    labels: str | None = Field(
        None,
        description="dataset YAML: train are the labelled images (among data or not), names the classes",
    )
    export_labels: str | None = Field(
        None,
        description="new folder for the labels that the teacher gave in the end, as an Ultralytics dataset, with their "
        "scores in a file beside",
    )
