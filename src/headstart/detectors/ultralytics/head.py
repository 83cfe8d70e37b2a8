"""The head of an Ultralytics detector, trained on objects that were found: its own loss, with clusters for classes."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from headstart.detectors.base import evaluating
from headstart.pseudolabels.base import PseudoLabelHead

_CLASS_BRANCHES = ("cv3", "one2one_cv3")


def has_pseudolabel_head(task: str, layer: nn.Module) -> bool:
    """Whether `layer` is the head of an ordinary detector: boxes and classes, without text or masks."""
    from ultralytics.nn.modules.head import Detect, WorldDetect, YOLOEDetect

    return task == "detect" and isinstance(layer, Detect) and not isinstance(layer, (WorldDetect, YOLOEDetect))


class DetectHead(PseudoLabelHead):
    """See `headstart.pseudolabels.base.PseudoLabelHead`.

    Args:
        module: The network; the layers of its head are shared with it, its last ones of the class branches are not.
        clusters: Classes.
    """

    def __init__(self, module: Any, clusters: int) -> None:
        super().__init__()
        place = len(module.model) - 1
        layer = module.model[place]
        twin = copy.copy(layer)  # its own table of parts, the same parts
        twin._modules = dict(layer._modules)
        for name in _CLASS_BRANCHES:
            if (branches := twin._modules.get(name)) is not None:
                widened = [
                    nn.Sequential(*list(branch)[:-1], _outputs(branch[-1], clusters, stride))
                    for branch, stride in zip(branches, layer.stride.tolist(), strict=True)
                ]
                twin._modules[name] = nn.ModuleList(widened)
        twin.dfl.requires_grad_(False)  # fixed numbers, as Ultralytics' own trainer has it
        twin.nc, twin.no = clusters, clusters + 4 * layer.reg_max
        self.model = nn.ModuleDict({str(place): twin})
        self._place, self._levels = place, layer.nl
        self._kind = type(module)
        self._criterion: tuple[torch.device, Any] | None = None

    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, clusters: Tensor) -> Tensor:
        """See `headstart.pseudolabels.base.PseudoLabelHead.forward`."""
        made = self.model[str(self._place)](list(maps))
        device = maps[0].device
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        batch = {"batch_idx": owner.float(), "cls": clusters.float()[:, None], "bboxes": torch.cat([middle, sides], 1)}
        with torch.autocast(device.type, enabled=False):
            loss, _ = self._loss(device)(tree_map(_as_float, made), batch)
            parts: Tensor = loss / len(maps[0])  # Ultralytics' loss is a sum over the batch
        return parts

    def handed_back(self) -> dict[str, Tensor]:
        """See `headstart.pseudolabels.base.PseudoLabelHead.handed_back`."""
        own = tuple(
            f"model.{self._place}.{name}.{level}.{len(branches[level]) - 1}."
            for name in _CLASS_BRANCHES
            if (branches := getattr(self.model[str(self._place)], name, None)) is not None
            for level in range(self._levels)
        )
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(own)}

    def _loss(self, device: torch.device) -> Any:
        """The family's criterion, which is bound to a device."""
        if self._criterion is None or self._criterion[0] != device:
            from ultralytics.cfg import get_cfg

            twin = self.model[str(self._place)]
            twin.stride = twin.stride.to(device)
            stand_in = SimpleNamespace(args=get_cfg(), model=[twin], parameters=twin.parameters)
            self._criterion = (device, self._kind.init_criterion(stand_in))
        return self._criterion[1]


def _outputs(layer: Any, clusters: int, stride: float) -> nn.Conv2d:
    """A last layer for `clusters` classes, whose answers begin as Ultralytics begins them: about 5 objects an image."""
    made = nn.Conv2d(layer.in_channels, clusters, 1)
    assert made.bias is not None
    nn.init.normal_(made.weight, std=0.01)  # near 0, or random answers would pull at trained features first
    nn.init.constant_(made.bias, math.log(5 / clusters / (640 / stride) ** 2))
    return made


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _corners(boxes: Tensor) -> Tensor:
    middle, sides = boxes[..., :2], boxes[..., 2:]
    return torch.cat([middle - sides / 2, middle + sides / 2], -1)


@torch.no_grad()
def proposals(module: Any, classes: int, images: Tensor) -> Tensor | None:
    """See `headstart.detectors.base.Detector.propose`; None where the network's answer is not understood."""
    from ultralytics.nn.modules.head import RTDETRDecoder

    with evaluating(module):
        made = module(images)
    found = made[0] if isinstance(made, (list, tuple)) else made
    if not isinstance(found, Tensor) or found.ndim != 3:
        return None
    found = found.float()
    if isinstance(module.model[-1], RTDETRDecoder):  # queries, best first: middle and sides in shares, score, class
        place = found[..., :4] * found.new_tensor([images.shape[-1], images.shape[-2]] * 2)
        return torch.cat([_corners(place), found[..., 4:5]], 2)
    if getattr(module.model[-1], "end2end", False):
        return found[..., :5]  # x0, y0, x1, y1, score, class: best first
    score = found[:, 4 : 4 + classes].amax(1)
    boxes = torch.cat([_corners(found[:, :4].transpose(1, 2)), score.unsqueeze(2)], 2)
    best = score.argsort(1, descending=True)[:, :300]
    return boxes.gather(1, best.unsqueeze(2).expand(-1, -1, 5))
