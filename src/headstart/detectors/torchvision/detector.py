"""torchvision's detectors with a feature pyramid: ``backbone.body``, ``backbone.fpn`` and a head of any kind."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.base import Detector, Level, Trunk, evaluating
from headstart.detectors.handback import PARTS, HandBack, Part, shorten
from headstart.detectors.tensors import differences, mismatches, not_finite, own_state
from headstart.detectors.torchvision import models, names
from headstart.detectors.torchvision.models import Record
from headstart.errors import UserError

_SIZE = 256
_PLACES = ("the file read back", "a fresh torchvision model", "the model of a fine-tuning")


def load(model: str, init: str | None = None) -> TorchvisionDetector:
    """See `headstart.detectors.find.load_detector`; the name was checked."""
    if names.is_ours(Path(model)):
        state, record = models.read_state(model, "model")
        assert record is not None
        module = models.build(record.model, len(record.names), empty=True)
        if wrong := differences(module.state_dict(), state, model) | differences(state, module.state_dict(), "it"):
            raise UserError(f"{model} is not a whole {record.model}: {shorten(wrong)}", where="model")
        module.load_state_dict(state)
        return TorchvisionDetector(record.model, module, record.names, began=record, init=init)
    name = names.bare(model)
    classes = models.published_names(name)
    return TorchvisionDetector(name, models.build(name, len(classes)), classes, init=init)


class TorchvisionDetector(Detector):
    """See `headstart.detectors.base.Detector`.

    Args:
        name: By which torchvision builds it.
        module: The network.
        classes: Names of its classes, the background first.
        began: What the file of its weights says of them; None for random ones.
        init: A state dict to load over them.
    """

    license = "BSD-3-Clause"

    def __init__(
        self,
        name: str,
        module: nn.Module,
        classes: Collection[str],
        began: models.Record | None = None,
        init: str | None = None,
    ) -> None:
        self.name, self.module, self.task = name, module, "detect"
        self.names = dict(enumerate(classes))
        self.trained = began is not None and not began.random
        self.from_scratch = began is not None and began.from_scratch
        self._grafted: set[str] = set()
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        module.train()
        self.backbone, self.levels = self._measure()
        if init is not None:
            state, record = models.read_state(init, "init")
            self.start_from(models.with_counters(state, module.state_dict()), init)
            self.from_scratch = record is not None and record.from_scratch

    def _measure(self) -> tuple[Level, tuple[Level, ...]]:
        """Width and stride of the body's last map and of the pyramid, from one forward pass."""
        device = next(self.module.parameters()).device
        with torch.no_grad(), evaluating(self.module):
            images = torch.zeros(1, 3, _SIZE, _SIZE, device=device)
            maps = [*self.trunk()(images), *self.trunk(neck=True)(images)]
        levels = [Level(place - 1, _SIZE // one.shape[-1], one.shape[1]) for place, one in enumerate(maps)]
        return replace(levels[0], layer=len(self._body()) - 1), tuple(levels[1:])

    def _body(self) -> Any:
        return self.module.backbone.body  # type: ignore[union-attr]

    def trunk(self, neck: bool = False) -> PyramidTrunk:
        """See `Detector.trunk`."""
        return PyramidTrunk(self.module, neck)

    def timm_backbone(self) -> tuple[str, dict[str, Tensor]]:
        """See `Detector.timm_backbone`: torchvision's ResNets are timm's, tensor by tensor; its MobileNets are not."""
        match = re.search(r"_(resnet\d+)_fpn", self.name)
        if match is None:
            what = f"timm names the tensors of the backbone of {self.name} otherwise"
            raise UserError(what, where="format", hint="use format=safetensors, or a model with a ResNet")
        return match[1], own_state(self._body())

    def part_of(self, tensor_name: str) -> Part:
        """See `Detector.part_of`."""
        return models.part_of(tensor_name)

    def graft(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.graft`."""
        super().graft(state)
        self._grafted |= set(state)

    def save(self, path: Path, info: Mapping[str, Any]) -> None:
        """See `Detector.save`."""
        parts = sorted({self.part_of(name) for name in self._grafted}, key=PARTS.index)
        plain = json.loads(json.dumps(dict(info), default=str))
        random = not (self.trained or parts)
        record = Record(self.name, list(self.names.values()), parts, random, self.began_at_random, plain)
        models.write_state(Path(path), self.module, record)

    @property
    def architecture(self) -> str:
        """See `Detector.architecture`."""
        return f"torchvision:{self.name}"

    def how_to_train(self, path: Path, settings: Path | None = None, data: str = "your.yaml") -> str:
        """See `Detector.how_to_train`."""
        build = f"torchvision.models.detection.{self.name}(weights_backbone=None, num_classes={len(self.names)})"
        return f"model = {build}; model.load_state_dict(torch.load({str(path)!r}, weights_only=True))"

    def verify(self, path: Path, trained: Collection[str]) -> HandBack:
        """See `Detector.verify`."""
        expected, classes = own_state(self.module), len(self.names)
        state, _ = models.read_state(str(path), str(path))
        lost = mismatches(expected, state, _PLACES[0])
        other = 3 if classes != 3 else 4
        fresh: dict[str, str] = {}
        if not lost and not differences(state, expected, self.name):
            with torch.random.fork_rng(devices=[]):
                strict = models.build(self.name, classes, empty=True)
                strict.load_state_dict(state)
                common: Any = {"source": str(path), "where": str(path), "empty": True}
                tuned, _ = models.fitted(self.name, classes, state, same_names=True, **common)
                retuned, _ = models.fitted(self.name, other, state, same_names=False, **common)
            lost = mismatches(expected, tuned.state_dict(), _PLACES[2])
            lost |= mismatches(expected, strict.state_dict(), _PLACES[1])  # where it is lost first is the reason
            fresh = mismatches(expected, retuned.state_dict(), f"the model of a fine-tuning with {other} classes")
        beyond = {name: why for name, why in fresh.items() if self.part_of(name) != "head" and name not in lost}
        return HandBack.compared(
            expected,
            lost | beyond,
            self.part_of,
            trained,
            places=_PLACES,
            fresh=tuple(name for name in fresh if name not in lost and name not in beyond),
            classes=(classes, other),
            not_finite=not_finite(expected),
        )


class PyramidTrunk(Trunk):
    """The body and, with `neck`, the pyramid of a torchvision detector, fed as its own transform feeds them.

    Args:
        detector: The network; its layers are shared.
        neck: Whether the pyramid's maps are returned, in the head's order, or the body's last map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Any, neck: bool) -> None:
        super().__init__()
        self.neck = neck
        parts = {"body": detector.backbone.body} | ({"fpn": detector.backbone.fpn} if neck else {})
        self.backbone = nn.ModuleDict(parts)
        device = next(detector.parameters()).device
        for name in ("mean", "std"):
            values = torch.tensor(getattr(detector.transform, f"image_{name}"), device=device)
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Trunk.forward`; any height and width will do."""
        maps = self.backbone["body"]((images - self.mean) / self.std)
        return list(self.backbone["fpn"](maps).values()) if self.neck else [list(maps.values())[-1]]
