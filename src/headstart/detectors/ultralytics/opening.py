"""Build a model from its YAML, or open a checkpoint, through Ultralytics: what goes wrong is said in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.detectors.damaged import refuse_damaged
from headstart.detectors.handback import Part
from headstart.detectors.ultralytics.model_files import check_name, is_yaml
from headstart.detectors.ultralytics.safe_loading import check_words, refused, safe_loading
from headstart.errors import UserError

_LAYER = re.compile(r"model\.(\d+)\.")


def build(yaml: str) -> Any:
    """The Ultralytics object for a model YAML, random weights.

    Raises:
        UserError: Ultralytics cannot build it.
    """
    from ultralytics import RTDETR, YOLO
    from ultralytics.nn.tasks import yaml_model_load

    try:
        with safe_loading():
            # YOLO() would build an RT-DETR as if it were a YOLO, under the wrong class.
            transformer = "RTDETR" in str(yaml_model_load(yaml)["head"][-1][2])
            return RTDETR(yaml) if transformer else YOLO(yaml)
    except UserError:
        raise
    except OSError as error:
        # TorchVision backbones are built with ImageNet weights, which are fetched.
        raise UserError(
            f"{yaml} is built with weights that have to be downloaded, and that failed: {error}",
            where="model",
            hint="connect this machine once, or choose a model without a TorchVision backbone",
        ) from error
    except Exception as error:
        cannot = UserError(f"Ultralytics cannot build {yaml}: {_first_line(error)}", where="model")
        raise refused(yaml, error, "model") or cannot from error


def open_checkpoint(path: str | Path, where: str = "model", hint: str = "") -> Any:
    """The Ultralytics object for a ``.pt`` file, or for the name of published weights, which may be downloaded.

    Args:
        path: The file, or the name.
        where: The option that names it.
        hint: What to do where published weights cannot be downloaded.

    Raises:
        UserError: It does not exist, is damaged, be it by one bit, holds no Ultralytics model, or code that is not
            trusted.
    """
    if is_yaml(str(path)):
        raise UserError(f"{path} is a model YAML: it has no weights", where=where, hint="give a .pt checkpoint")
    problem = check_name(str(path))
    if problem:
        raise UserError(problem.what, where=where, hint=problem.hint)
    from ultralytics import YOLO

    on_disk = Path(path).is_file()
    if on_disk:
        refuse_damaged(path, where)
    # Ultralytics strips the name of a file, which a path from the root begins without a space.
    name = str(path) if str(path) == str(path).strip() else str(Path(path).absolute())
    try:
        with safe_loading(str(path)):
            live = YOLO(name)
    except UserError:
        raise
    except Exception as error:
        if unsafe := refused(str(path), error, where):
            raise unsafe from error
        raise (
            _unreadable(str(path), error, where) if on_disk else _not_fetched(str(path), error, where, hint)
        ) from error
    if not isinstance(live.model, nn.Module):
        raise UserError(f"{path} holds no network that can be trained", where=where)
    check_words(getattr(live.model, "yaml", None), str(path), where)
    return live


def made_from_scratch(live: Any) -> bool:
    """Whether headstart made the weights of an Ultralytics object of random ones."""
    return bool(((live.ckpt or {}).get("headstart") or {}).get("from_scratch", False))


_FIRST = "model.0.conv.weight"
"""The tensor that Ultralytics fills where channels differ."""


def channels_of(module: Any) -> int:
    """Channels of the images that a network reads."""
    return int(module.yaml.get("channels") or 3)


def check_trainable(module: Any, name: str, where: str = "model", channels: int | None = 3) -> None:
    """Raise a `UserError` where gradients cannot train `module`, or images of `channels` cannot be made fit for it."""
    if not isinstance(getattr(module, "yaml", None), dict) or not isinstance(module.model, nn.Sequential):
        raise UserError(f"{name} is not built from a model YAML", where=where, hint="give a YOLO or RT-DETR model")
    from ultralytics.nn.modules import Conv

    if any(isinstance(layer, Conv) and not hasattr(layer, "bn") for layer in module.modules()):
        raise UserError(
            f"{name} is fused for prediction: its batch norms are gone, it cannot be trained",
            where=where,
            hint="load the checkpoint again, and do not predict, validate or export with the object before",
        )
    if channels is not None and (own := channels_of(module)) not in (3, channels):
        what = f"{name} reads images of {own} channels, not of {channels}"
        hint = f"to pretrain it, give data= a dataset YAML that says channels: {own}; elsewhere detectors read RGB"
        raise UserError(what, where=where, hint=hint)


def with_channels(source: Any, channels: int) -> Any:
    """A network that reads images of so many channels, with the weights of one that reads RGB.

    As Ultralytics does it when a training begins: of the filters of the first layer those of red, green and blue are
    kept for the first channels and the others are random; for one channel they are summed.
    """
    numbers = [str(at) for at in range(len(source.names))]  # the classes are the same, each where it was
    made = with_classes(source, numbers, source.yaml.get("kpt_shape"), channels)
    made.load(source, verbose=False)
    made.names = source.names
    return made


def with_classes(
    source: Any, names: Sequence[Any], keypoints: Sequence[int] | None, channels: int | None = None
) -> Any:
    """A network of the same kind for other classes, random weights.

    It has their names before any weights are loaded, as in Ultralytics' trainer: its ``load`` puts the row of a class
    layer where the class is, by name, wherever both networks have names.

    Args:
        source: A detector's network.
        names: Of the classes.
        keypoints: ``kpt_shape`` of a pose data set, else None.
        channels: Of the images that it reads; None: as many as the network.
    """
    kind = type(source)
    more: dict[str, Any] = {}
    if "data_kpt_shape" in signature(kind.__init__).parameters and keypoints is not None:
        more["data_kpt_shape"] = list(keypoints)
    made = kind(deepcopy(source.yaml), ch=channels or channels_of(source), nc=len(names), verbose=False, **more)
    made.names = dict(enumerate(names))
    return made


def first_layer(source: Any, made: Any) -> str:
    """What became of the filters of the first layer of `source` in `made`, which reads other channels, in words."""
    own, channels = made.state_dict(), channels_of(made)
    if [name for name, tensor in source.state_dict().items() if own[name].shape != tensor.shape] != [_FIRST]:
        return "its weights are random (Ultralytics fills those of a plain convolution alone)"
    if channels == 1:
        return "its filters are the sum of those of red, green and blue (as Ultralytics)"
    kept = f"those of red, green and blue for the first {min(3, channels)}"
    return f"its filters are {kept}{', others random' if channels > 3 else ''} (as Ultralytics)"


def splitter(module: nn.Module) -> Callable[[str], Part]:
    """The function that says which part of `module` a tensor belongs to, from the model's own YAML."""
    backbone, last = len(module.yaml["backbone"]), len(module.model) - 1  # type: ignore[index, arg-type]
    return partial(_part_of, backbone, last)  # not a function of its own: a detector is sent to other processes


def _part_of(backbone: int, last: int, name: str) -> Part:
    match = _LAYER.match(name)
    if match is None or int(match[1]) == last:
        return "head"
    return "backbone" if int(match[1]) < backbone else "neck"


def _not_fetched(path: str, error: Exception, where: str, hint: str) -> UserError:
    what = f"{path} is not on disk, and Ultralytics could not download it: {_first_line(error)}"
    hint = hint or f"connect this machine, or give a path to the file; model={Path(path).stem}.yaml has random weights"
    return UserError(what, where=where, hint=hint)


def _unreadable(path: str, error: Exception, where: str) -> UserError:
    hint = "give an Ultralytics checkpoint (YOLO, RT-DETR), such as a training's weights/best.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return UserError(
            f"{path} cannot be read as an Ultralytics checkpoint: {_first_line(error)}", where=where, hint=hint
        )
    kind = "tensors only (a state dict)" if isinstance(content, dict) else f"a {type(content).__name__}"
    return UserError(f"{path} holds {kind}, not a model", where=where, hint=hint)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].replace("ERROR ❌️ ", "")
