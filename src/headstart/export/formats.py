"""The formats that a backbone is exported in, and the check of each: what was written gives what the detector gives."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.detectors.base import Detector, evaluating
from headstart.detectors.tensors import own_state
from headstart.errors import RunError, UserError
from headstart.files import write_atomically

Format = Literal["safetensors", "onnx", "timm"]
NEEDED: dict[str, tuple[str, ...]] = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxruntime"),
    "timm": ("safetensors", "timm"),
}
"""Packages of each format."""
TOLERANCE = 1e-3
"""Greatest difference of two maps, as a share of their greatest value: other kernels, another order of sums."""
OPSET = 17


def missing(kind: Format) -> UserError | None:
    """Which packages a format lacks here; None for none."""
    absent = [name for name in NEEDED[kind] if find_spec(name) is None]
    if not absent:
        return None
    return UserError(
        f"format={kind} needs {' and '.join(absent)}", where="format", hint=f"pip install {' '.join(absent)}"
    )


def write_safetensors(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, and read them back: each must be there bit by bit.

    Raises:
        RunError: One is not.
    """
    from safetensors.torch import load_file, save

    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    strings = {"format": "pt", "headstart": json.dumps(dict(about))}
    # As bytes: of a full disk safetensors' own writing raises an error of its own, without a number.
    write_atomically(path, lambda temporary: temporary.write_bytes(save(held, metadata=strings)))
    back = load_file(path)
    if wrong := [name for name in held if name not in back or not _same(held[name], back[name])]:
        raise RunError(f"{len(wrong)} tensors are not what was written, such as {wrong[0]}", where=str(path))


def _same(one: Tensor, other: Tensor) -> bool:
    bits = (one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)) if one.ndim else (one, other)
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


# ---------------------------------------------------------------------------------------------------------------------
# ONNX
# ---------------------------------------------------------------------------------------------------------------------


def write_onnx(path: Path, trunk: nn.Module, imgsz: int, stride: int, channels: int = 3) -> float:
    """Write the backbone for images of any number, height and width, and compare onnxruntime with torch.

    Args:
        path: Where to.
        trunk: Gives one map.
        imgsz: Side of the image that it is traced with, pixels.
        stride: Images are multiples of it.
        channels: Of the images that it reads.

    Returns:
        The greatest difference that was found, as a share of the maps' greatest value.

    Raises:
        RunError: The two differ; the file is removed.
        UserError: Torch cannot export this network.
    """
    images = torch.rand(1, channels, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "features": {0: "batch", 2: "rows", 3: "columns"}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["features"], "dynamic_axes": axes}
    only = _Only(trunk)

    def write(temporary: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer's own: what it gets wrong the comparison finds
            torch.onnx.export(only, (images,), str(temporary), opset_version=OPSET, dynamo=False, **names)

    with evaluating(only):
        try:
            write_atomically(path, write)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"torch cannot export this backbone as ONNX: {reason}", where="format") from error
        sizes = [(1, channels, imgsz, imgsz), (2, channels, imgsz + stride, imgsz + 2 * stride)]
        worst = max(_difference(path, only, size) for size in sizes)
    if not worst <= TOLERANCE:
        path.unlink(missing_ok=True)
        what = f"onnxruntime's maps differ from torch's by {worst:.2g} of their greatest value (at most {TOLERANCE:g})"
        raise RunError(what, where=str(path), hint="use format=safetensors")
    return worst


class _Only(nn.Module):
    """The last map of a trunk, not in a list."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        last: Tensor = self.trunk(images)[-1]
        return last


@torch.no_grad()
def _difference(path: Path, network: nn.Module, size: Sequence[int]) -> float:
    """Of onnxruntime and torch on a random image, as a share of the greatest value."""
    import onnxruntime

    images = torch.rand(*size, generator=torch.Generator().manual_seed(1))
    expected = network(images)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    except Exception as error:  # whatever onnxruntime raises: classes of its own, without a common one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        path.unlink(missing_ok=True)
        what = f"onnxruntime cannot run it on images of {' x '.join(map(str, size))}: {reason}"
        raise RunError(what, where=str(path), hint="use format=safetensors") from error
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


# ---------------------------------------------------------------------------------------------------------------------
# timm
# ---------------------------------------------------------------------------------------------------------------------


def write_timm(path: Path, detector: Detector, about: Mapping[str, Any]) -> str:
    """Write the backbone as weights of a timm model, load them into one, and compare the two.

    Returns:
        The name of the model in timm.

    Raises:
        UserError: timm has no such model.
        RunError: It does not take the weights, or gives other maps.
    """
    import timm

    name, state = detector.timm_backbone()
    write_safetensors(path, state, {**about, "timm": name})
    try:
        model = timm.create_model(name, num_classes=0, checkpoint_path=str(path)).eval()
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        what = f"timm's {name} does not take these weights: {str(error).splitlines()[0]}"
        raise RunError(what, where=str(path), hint="use format=safetensors") from error
    trunk = detector.trunk()
    images = torch.rand(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad(), evaluating(trunk):
        expected, found = trunk(images)[-1], model.forward_features((images - mean) / std)
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max())):
        path.unlink(missing_ok=True)
        raise RunError(f"timm's {name} gives other maps with these weights", where=str(path))
    return name


def backbone_state(detector: Detector) -> dict[str, Tensor]:
    """The tensors of the backbone, by the detector's own names."""
    return {name: tensor for name, tensor in own_state(detector.module).items() if detector.part_of(name) == "backbone"}
