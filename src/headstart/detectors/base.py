"""The contract of a detector: feature maps by level, weights grafted back, a checkpoint written and read back.

`headstart.detectors.find` says what a family of detectors is, and `headstart.detectors.finetuner` how it is fine-tuned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.handback import PARTS, HandBack, Part, shorten
from headstart.detectors.tensors import differences, not_finite
from headstart.errors import UserError
from headstart.pseudolabels.base import PseudoLabelHead


@dataclass(frozen=True)
class Advised:
    """A setting of a fine-tuning, and what it rests on."""

    value: Any
    why: str


@dataclass(frozen=True)
class Level:
    """A feature map of a detector.

    Attributes:
        layer: Index of the layer that makes it, as in the model's YAML.
        stride: Input pixels to one cell of the map, measured.
        width: Channels, measured.
    """

    layer: int
    stride: int
    width: int


class Trunk(nn.Module, ABC):
    """The layers of a detector that some of its feature maps need, and no others.

    It shares its layers with the detector: training it trains the detector. ``copy.deepcopy`` of it shares nothing.
    Its ``state_dict`` has the detector's own names ("model.0.conv.weight").
    """

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, one (B, C, H / stride, W / stride) for each requested level.

        Args:
            images: float (B, 3, H, W), RGB in [0, 1]; H and W multiples of the largest stride.
        """


class Detector(ABC):
    """A detector that can be pretrained and handed back.

    Attributes:
        name: Of the architecture, e.g. "yolo11n".
        task: As Ultralytics calls it: detect, segment, pose, obb, classify, ...
        names: Class names by index.
        module: The whole network, float32, gradients on, training mode.
        backbone: The last map of the backbone.
        levels: The pyramid that the head reads, in the head's order; a classifier's is its backbone map.
        trained: Whether it starts from trained weights (a checkpoint), not from random ones.
        from_scratch: Whether headstart made its weights of random ones; of what another program wrote nobody knows.
        notes: What a user should know about how it was loaded, a sentence each.
        channels: Of the images that it reads; 3 are RGB.
        imgsz: Side of the images that a run teaches it to detect in, pixels; a checkpoint says so to the family's own
            tools where they take that from it. None where no run does.
        license: Of the family's published weights and code, by its SPDX name; "" where it is not known.
    """

    name: str
    task: str
    names: dict[int, str]
    module: nn.Module
    backbone: Level
    levels: tuple[Level, ...]
    trained: bool
    from_scratch: bool = False
    notes: tuple[str, ...] = ()
    channels: int = 3
    imgsz: int | None = None
    license: str = ""

    @property
    def began_at_random(self) -> bool:
        """Whether its weights are random, or headstart made them of random ones."""
        return self.from_scratch or not self.trained

    @property
    def architecture(self) -> str:
        """What ``model=`` of a comparison is to name for it."""
        return self.name

    @property
    def trained_imgsz(self) -> int | None:
        """Side of the images that its weights were trained on, pixels; None where nobody knows."""
        return None

    @property
    def largest_stride(self) -> int:
        """Of its pyramid, pixels: sides of images that are no multiple of it are scaled or padded by its trainer."""
        return max(level.stride for level in self.levels)

    @abstractmethod
    def trunk(self, neck: bool = False) -> Trunk:
        """The layers up to the last backbone map, or with `neck` up to the pyramid `levels`; no weight is copied."""

    def fitting(self, side: int) -> tuple[int, str]:
        """The least side from `side` on that the maps of its pyramid fit, and what was changed, in words; mostly ""."""
        up = side + -side % self.largest_stride
        why = f"a multiple of {self.largest_stride}, the largest stride of {self.name}"
        return up, "" if up == side else f"{up} in place of {side}: {why}"

    def takes(self, side: int) -> bool:
        """Whether the layers of `trunk` up to the backbone's map take images of such a side, tried out."""
        trunk = self.trunk()
        example = next(trunk.parameters())
        try:
            with evaluating(trunk), torch.no_grad():
                trunk(torch.zeros(1, self.channels, side, side, device=example.device, dtype=example.dtype))
        except RuntimeError:
            return False
        return True

    def pseudolabel_head(self, clusters: int) -> PseudoLabelHead:
        """The head with `clusters` classes in place of its own, to be trained on objects that were found.

        Raises:
            UserError: It is not the head of an ordinary detector.
        """
        raise self._no_objects()

    def class_head(self) -> PseudoLabelHead:
        """The head as it is, with the detector's own classes for labels.

        Raises:
            UserError: Its boxes and classes cannot be trained on upright boxes.
        """
        what = f"the head of {self.name} ({self.task}) cannot be trained on labelled boxes by headstart yet"
        raise UserError(what, where="method", hint="use method=pyramid, which trains backbone and neck of any model")

    def with_classes(self, names: Sequence[str], keypoints: Sequence[int] | None = None) -> Detector:
        """The same detector for other classes: a new one, with the weights that fit; itself where they are its own.

        Args:
            names: Of the classes, by index.
            keypoints: ``kpt_shape`` of a pose data set.

        Raises:
            UserError: It cannot be rebuilt for other classes.
        """
        if self.names == dict(enumerate(names)):
            return self
        raise UserError(f"{self.name} cannot be rebuilt for other classes yet", where="labels")

    def propose(self, images: Tensor) -> Tensor:
        """Boxes that the network, as it is, takes for objects of any class, best first.

        Args:
            images: float ``(B, 3, H, W)``, RGB in [0, 1]; H and W multiples of the largest stride.

        Returns:
            float32 ``(B, N, 5)``: x0, y0, x1, y1 in pixels, score; many of them overlap.

        Raises:
            UserError: It gives no boxes.
        """
        raise self._no_boxes()

    def _no_boxes(self) -> UserError:
        what = f"{self.name} ({self.task}) finds no boxes"
        return UserError(what, where="proposals", hint="name a trained detector whose head gives boxes")

    def _no_objects(self) -> UserError:
        what = f"{self.name} ({self.task}) is not a detector whose head can be trained on boxes alone"
        return UserError(what, where="method", hint="use method=pyramid, which trains backbone and neck of any model")

    def timm_backbone(self) -> tuple[str, dict[str, Tensor]]:
        """The backbone as a model of timm: its name there, and its tensors by timm's names.

        Raises:
            UserError: timm has no such architecture, or names its tensors otherwise.
        """
        what = f"timm has no backbone of {self.name}"
        raise UserError(what, where="format", hint="use format=safetensors, or format=onnx")

    @abstractmethod
    def part_of(self, tensor_name: str) -> Part:
        """The part that a tensor of ``module.state_dict()`` belongs to."""

    @abstractmethod
    def save(self, path: Path, info: Mapping[str, Any]) -> None:
        """Write a checkpoint that the family's own tools load and train, with `info` (plain values) beside the weights.

        Raises:
            UserError: It cannot be written, e.g. a full disk; `path` is then as it was before.
        """

    def finetune_settings(
        self, imgsz: int, labelled: int = 300, *, detects: bool = False, flip: float | None = None
    ) -> Mapping[str, Advised] | None:
        """Settings of the family's own trainer with which a start from here does best, for a file that it reads.

        Args:
            imgsz: Side of the images that the run was pretrained with, pixels.
            labelled: Labelled images to fine-tune on, for what depends on their number.
            detects: Whether the start was trained on the user's classes, and detects them.
            flip: Chance with which the run mirrored what it saw, where that is the user's to say; None where it is not.

        Returns:
            By the trainer's own names; None where it reads no such file.
        """
        return None

    @abstractmethod
    def how_to_train(self, path: Path, settings: Path | None = None, data: str = "your.yaml") -> str:
        """The command, or the line of Python, by which a training starts from a checkpoint that `save` wrote.

        Args:
            path: The checkpoint.
            settings: A file with `finetune_settings`; given only where the detector has these.
            data: The dataset YAML to train on.
        """

    def how_to_predict(self, path: Path, source: str) -> str:
        """The command by which a checkpoint of trained classes finds objects in `source`; "" where there is none."""
        return ""

    @abstractmethod
    def verify(self, path: Path, trained: Collection[str]) -> HandBack:
        """Read a checkpoint back, start the family's own trainer on it, and compare every tensor with `module`.

        Args:
            path: Written by `save`.
            trained: Names of the tensors that pretraining changed.
        """

    def graft(self, state: Mapping[str, Tensor]) -> None:
        """Put the tensors of `state` into `module`, by name.

        Raises:
            UserError: A name that the detector does not have, or another shape; nothing is changed then.
        """
        own = self.module.state_dict()
        problems = differences(state, own, self.name)
        if problems:
            listed = shorten([f"{name} {reason}" for name, reason in problems.items()], "; ")
            raise UserError(f"these weights do not fit {self.name}: {listed}", hint="use the model they were made with")
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def start_from(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load the tensors of another checkpoint that fit, by name and shape; `notes` says how many did.

        Args:
            state: Of a network of the same architecture.
            source: Where it is from, for messages.

        Raises:
            UserError: The backbone does not fit completely, or a tensor holds NaN; nothing is changed then.
        """
        refuse_not_finite(state, source, where="init")
        own = self.module.state_dict()
        wrong = differences(own, state, source) | differences(state, own, self.name)
        backbone = {name: reason for name, reason in wrong.items() if self.part_of(name) == "backbone"}
        if backbone:
            total = sum(self.part_of(name) == "backbone" for name in {*own, *state})
            listed = shorten([f"{name} {reason}" for name, reason in backbone.items()], "; ")
            raise UserError(
                f"{source} is of another architecture than {self.name}: "
                f"{len(backbone)} of {total} backbone tensors do not fit ({listed})",
                where="init",
                hint=f"use a checkpoint of {self.name}",
            )
        Detector.graft(self, {name: tensor for name, tensor in state.items() if name in own and name not in wrong})
        counts = []
        for part in PARTS:
            if names := [name for name in own if self.part_of(name) == part]:
                counts.append(f"{part} {sum(name not in wrong for name in names)} of {len(names)} tensors")
        self.notes += (f"{', '.join(counts)} came from {source}",)
        self.trained, self.from_scratch = True, False


def refuse_not_finite(state: Mapping[str, Tensor], source: str, *, where: str) -> None:
    """Refuse weights that are no numbers: whatever starts from them, or learns from them, is lost.

    Args:
        state: Of a network.
        source: Where it is from, for messages.
        where: The option that names it.

    Raises:
        UserError: Tensors of it hold NaN or infinity; names them.
    """
    if broken := not_finite(state):
        what = f"{source} holds NaN or infinity in {len(broken)} of {len(state)} tensors: {shorten(broken)}"
        raise UserError(what, where=where, hint="give weights of a training that did not blow up")


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """`network` in evaluation mode for a while; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
