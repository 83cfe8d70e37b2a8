"""Where a teacher comes from: a YOLO checkpoint, the name of a timm model, or a torch module."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.base import check_model, load_detector
from headstart.errors import UserError, did_you_mean
from headstart.teachers.base import FrozenTeacher

_ASKED = "give the .pt of a YOLO, the name of a timm model such as vit_small_patch14_dinov2.lvd142m, or a torch module"


def teacher_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for `load_teacher` from the options of a method."""
    return {"teacher": options["teacher"]} | {
        name: options.get(f"teacher_{name}") for name in ("mean", "std", "weights")
    }


def check_teacher(teacher: Any, weights: str | None = None) -> list[UserError]:
    """What is wrong with the options `teacher` and `teacher_weights`, found without loading anything."""
    if weights is not None and (isinstance(teacher, nn.Module) or _is_checkpoint(str(teacher))):
        hint = "leave it out: a YOLO's .pt and a torch module bring their weights"
        return [UserError("is for a teacher that timm makes", where="teacher_weights", hint=hint)]
    if weights is not None and not Path(weights).is_file():
        return [UserError(f"there is no file {weights}", where="teacher_weights")]
    if isinstance(teacher, nn.Module):
        return []
    if not isinstance(teacher, (str, Path)):
        return [UserError(f"a {type(teacher).__name__} is no network", where="teacher", hint=_ASKED)]
    if _is_checkpoint(str(teacher)):
        return [UserError(problem.what, where="teacher", hint=problem.hint) for problem in check_model(str(teacher))]
    if str(teacher).endswith((".yaml", ".yml")):
        return [UserError("a model YAML has random weights: nothing to learn from", where="teacher", hint=_ASKED)]
    if find_spec("timm") is None:
        hint = "pip install 'headstart[timm]', or give the .pt of a larger YOLO"
        return [UserError(f"{teacher!r} is a name for timm, which is not installed", where="teacher", hint=hint)]
    return []


def load_teacher(
    teacher: Any,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weights: str | None = None,
    neck: bool = True,
) -> FrozenTeacher:
    """Load a teacher.

    Args:
        teacher: Path of a YOLO's ``.pt`` (its pyramid teaches), the name of a timm model with published weights, or a
            torch module, of which a copy is taken.
        mean, std: Normalisation of a torch module; None: images in [0, 1]. A YOLO and a timm model know their own.
        weights: File of a timm model's weights; None: those that timm downloads.
        neck: Whether a YOLO gives its pyramid, or else the last map of its backbone.

    Raises:
        UserError: It is not found, cannot be downloaded, or gives no feature map.
    """
    problems = check_teacher(teacher, weights)
    if problems:
        raise problems[0]
    if isinstance(teacher, nn.Module) and not hasattr(teacher, "ckpt_path"):
        return FrozenTeacher(copy.deepcopy(teacher), type(teacher).__name__, mean or (0, 0, 0), std or (1, 1, 1))
    if isinstance(teacher, nn.Module) or _is_checkpoint(str(teacher)):
        detector = load_detector(teacher)
        return FrozenTeacher(detector.trunk(neck=neck), detector.name)
    return _from_timm(str(teacher), weights)


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".pt", ".pth"))


def _from_timm(name: str, weights: str | None) -> FrozenTeacher:
    import timm

    if not timm.is_model(name.split(".")[0]):
        known = timm.list_models()
        hint = did_you_mean(name.split(".")[0], known) or "timm.list_pretrained() lists the names"
        raise UserError(f"timm has no model {name!r}", where="teacher", hint=hint)
    try:
        module = _timm_module(name, weights)
    except Exception as error:  # a download fails in as many ways as there are networks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "connect this machine once, give teacher_weights= a file, or see timm.list_pretrained() for the name"
        hint = "it must hold the state dict of that network" if weights else hint
        raise UserError(f"timm cannot load {name!r}: {reason}", where="teacher", hint=hint) from error
    known = timm.data.resolve_data_config({}, model=module)
    info: Any = module.feature_info
    return FrozenTeacher(_ChannelsFirst(module), name, known["mean"], known["std"], size=int(max(info.reduction())))


class _ChannelsFirst(nn.Module):
    """A timm network whose maps are (B, C, h, w), whatever order it computes in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.last = getattr(getattr(module, "output_fmt", None), "value", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        return [one.permute(0, 3, 1, 2) if self.last else one for one in self.module(images)]


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(before)


def _checked_weights(name: str, path: str) -> dict[str, Tensor]:
    """The weights in a file; timm itself would leave at random what the file lacks."""
    import timm

    state: dict[str, Tensor] = timm.models.load_state_dict(path)
    with torch.device("meta"):
        wanted = timm.create_model(name, num_classes=0).state_dict()
    if missing := [key for key in wanted if key not in state]:
        raise ValueError(f"{path} lacks {len(missing)} of its {len(wanted)} tensors, such as {missing[0]}")
    return state


def _timm_module(name: str, weights: str | None) -> nn.Module:
    """The model as a giver of maps; transformers of a fixed size are told to take any."""
    import timm

    wanted: dict[str, Any] = {"pretrained": True, "features_only": True}
    if weights:
        wanted["pretrained_cfg_overlay"] = {"state_dict": _checked_weights(name, weights)}
    with _quiet("timm"):  # it warns of the classifier, which is left out on purpose
        try:
            module: nn.Module = timm.create_model(name, **wanted, dynamic_img_size=True)
        except TypeError:  # networks that take any size have no such option
            module = timm.create_model(name, **wanted)
    return module
