"""A network of timm as teacher, by its name, with published weights or with those of a file."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from headstart.detectors.damaged import refuse_damaged
from headstart.errors import UserError, did_you_mean
from headstart.teachers import detector, hog, own
from headstart.teachers.base import FrozenTeacher, TeacherSource
from headstart.trust import trusted

_PATIENCE = 5.0
"""Seconds in which the hub must take a connection."""


def accepts(teacher: Any) -> bool:
    """Every name that is neither a file of another kind nor offered by an installed package."""
    return isinstance(teacher, str) and not any(kind.accepts(teacher) for kind in (detector, hog, own))


def check(source: TeacherSource) -> list[UserError]:
    """See `headstart.teachers.load`."""
    problems = source.useless(("mean", "std"), "timm knows how its networks were trained")
    if source.weights is not None and not Path(source.weights).is_file():
        problems.append(UserError(f"there is no file {source.weights}", where="teacher_weights"))
    if find_spec("timm") is None:
        what = f"{source.teacher!r} is a name for timm, which is not installed"
        hint = "pip install timm, or give the .pt of a larger YOLO"
        problems.append(UserError(what, where="teacher", hint=hint))
    elif unknown := _unknown(str(source.teacher)):
        problems.append(unknown)
    return problems


def load(source: TeacherSource, neck: bool) -> FrozenTeacher:
    """See `headstart.teachers.load`."""
    return _from_timm(str(source.teacher), source.weights)


def _unknown(name: str) -> UserError | None:
    """What to say of a name that is none of timm's: nothing is built or downloaded to know it."""
    import timm

    if timm.is_model(name.split(".")[0]):
        return None
    known = timm.list_models()
    hint = did_you_mean(name.split(".")[0], known) or "timm.list_pretrained() lists the names"
    return UserError(f"timm has no model {name!r}", where="teacher", hint=hint)


def _from_timm(name: str, weights: str | None) -> FrozenTeacher:
    import timm

    if weights:
        refuse_damaged(weights, "teacher_weights")
    try:
        with nullcontext() if weights else _no_vain_wait():
            module = _timm_module(name, weights)
    except Exception as error:  # a download fails in as many ways as there are networks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "connect this machine once, give teacher_weights= a file, or see timm.list_pretrained() for the name"
        hint = "it must hold the state dict of that network" if weights else hint
        raise UserError(f"timm cannot load {name!r}: {reason}", where="teacher", hint=hint) from error
    known = timm.data.resolve_data_config({}, model=module)
    info: Any = module.feature_info
    size = int(max(info.reduction()))
    return FrozenTeacher(_ChannelsFirst(module), name, known["mean"], known["std"], size=size).quicker()


class _ChannelsFirst(nn.Module):
    """A timm network whose maps are (B, C, h, w), whatever order it computes in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.last = getattr(getattr(module, "output_fmt", None), "value", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        return [one.permute(0, 3, 1, 2) if self.last else one for one in self.module(images)]


@contextmanager
def _no_vain_wait() -> Iterator[None]:
    """Where the hub cannot be reached only what was downloaded before is looked for: its library tries for a minute."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    try:
        if not getproxies():  # a proxy may reach what this machine does not
            socket.create_connection((host.hostname or "", host.port or 443), timeout=_PATIENCE).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


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

    load = timm.models.load_state_dict
    # Versions without the option leave it to torch, whose default is the same.
    safe = {"weights_only": not trusted()} if "weights_only" in signature(load).parameters else {}
    state: dict[str, Tensor] = load(path, **safe)
    try:
        with torch.device("meta"):
            wanted = list(timm.create_model(name, num_classes=0).state_dict())
    except RuntimeError:  # before timm 1.0.21, transformers read numbers from their tensors while they are built
        wanted = list(timm.create_model(name, num_classes=0).state_dict())
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
