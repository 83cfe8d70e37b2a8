"""The head of an Ultralytics detector, trained on boxes with its own loss: of clusters, or of its own classes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from headstart import ranks
from headstart.detectors.base import evaluating
from headstart.detectors.ultralytics.model_files import BOXLESS
from headstart.pseudolabels.base import PseudoLabelHead

_CLASS_BRANCHES = ("cv3", "one2one_cv3")
_BOX_BRANCHES = ("cv2", "one2one_cv2")
_WHY_NOT = {
    "obb": "its boxes are turned, and an angle cannot be told from upright boxes",
    **dict.fromkeys(BOXLESS, "it finds no boxes"),
}


def has_pseudolabel_head(task: str, layer: nn.Module) -> bool:
    """Whether `layer` is the head of an ordinary detector: boxes and classes, without text or masks."""
    from ultralytics.nn.modules.head import Detect, WorldDetect, YOLOEDetect

    return task == "detect" and isinstance(layer, Detect) and not isinstance(layer, (WorldDetect, YOLOEDetect))


def why_no_class_head(task: str, layer: nn.Module) -> str:
    """Why boxes and classes of a head cannot be trained on upright boxes; "" where they can."""
    from ultralytics.nn.modules.head import OBB, Detect, WorldDetect, YOLOEDetect

    if task in _WHY_NOT or isinstance(layer, OBB):
        return _WHY_NOT.get(task, _WHY_NOT["obb"])
    if isinstance(layer, (WorldDetect, YOLOEDetect)):
        return "its classes are texts"
    return "" if isinstance(layer, Detect) else "its loss matches queries, not places, with boxes"


class DetectHead(PseudoLabelHead):
    """See `headstart.pseudolabels.base.PseudoLabelHead`.

    Of a head that makes masks or keypoints as well, boxes and classes are trained, and the rest is left alone.

    Args:
        module: The network; the layers of its head are shared with it.
        clusters: Classes, for which the last layers of the class branches are new, and not shared; None for the
            detector's own classes and layers.
    """

    def __init__(self, module: Any, clusters: int | None) -> None:
        super().__init__()
        place = len(module.model) - 1
        layer = module.model[place]
        twin = copy.copy(layer)  # its own table of parts, the same parts
        twin._modules = dict(layer._modules)
        self._own = clusters is None
        if clusters is not None:
            _give_outputs(twin, layer, clusters)
        twin.dfl.requires_grad_(False)  # fixed numbers, as Ultralytics' own trainer has it
        self.model = nn.ModuleDict({str(place): twin})
        self._place, self._levels = place, layer.nl
        self._criterion: tuple[torch.device, Any, list[Any]] | None = None
        self._share = 0.0

    @property
    def _layer(self) -> Any:
        return self.model[str(self._place)]

    def forward(self, maps: list[Tensor], owner: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """See `headstart.pseudolabels.base.PseudoLabelHead.forward`."""
        made = self._raw(maps, apart=True)
        order = owner.argsort(stable=True)  # Ultralytics takes boxes for sorted by image
        owner, boxes, labels = owner[order], boxes[order], labels[order]
        device, sure = maps[0].device, labels >= 0
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        batch = {"batch_idx": owner.float(), "cls": labels.float()[:, None], "bboxes": torch.cat([middle, sides], 1)}
        loss_of, parts = self._loss(device)
        if not bool(sure.all()):
            batch = {name: values[sure] for name, values in batch.items()}
            spared = self._inside(maps, owner[~sure], boxes[~sure])
        else:
            spared = None
        for part in parts:
            part.bce.spared = spared
        with torch.autocast(device.type, enabled=False):
            loss, _ = loss_of(tree_map(_as_float, made), batch)
            weighted: Tensor = loss / len(maps[0])  # Ultralytics' loss is a sum over the batch
        return weighted

    def advance(self, share: float) -> None:
        """See `headstart.pseudolabels.base.PseudoLabelHead.advance`."""
        self._share = share
        if self._criterion is not None:
            _set_schedule(self._criterion[1], share)

    @torch.no_grad()
    def detections(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `headstart.pseudolabels.base.PseudoLabelHead.detections`."""
        made = self._raw(maps, apart=False)
        made = made.get("one2many", made)
        layer, places = self._layer, self._places(maps)
        with torch.autocast(maps[0].device.type, enabled=False):
            sides = layer.dfl(made["boxes"].float()).transpose(1, 2) * places[:, 2:]
            middle = places[:, :2] * places[:, 2:]
            boxes = torch.cat([middle - sides[..., :2], middle + sides[..., 2:]], 2)
            return boxes, made["scores"].float().sigmoid().transpose(1, 2)

    def handed_back(self) -> dict[str, Tensor]:
        """See `headstart.pseudolabels.base.PseudoLabelHead.handed_back`."""
        known = tuple(f"model.{self._place}.{name}." for name in (*_BOX_BRANCHES, *_CLASS_BRANCHES, "dfl"))
        if self._own:
            return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(known)}
        own = tuple(
            f"model.{self._place}.{name}.{level}.{len(branches[level]) - 1}."
            for name in _CLASS_BRANCHES
            if (branches := getattr(self._layer, name, None)) is not None
            for level in range(self._levels)
        )
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(own)}

    def _raw(self, maps: list[Tensor], *, apart: bool) -> dict[str, Any]:
        """What the branches for boxes and classes answer; `apart` keeps the one-to-one branches out of the network."""
        from ultralytics.nn.modules.head import Detect

        layer = self._layer
        made: dict[str, Any] = Detect.forward_head(layer, list(maps), layer.cv2, layer.cv3)
        if getattr(layer, "one2one_cv2", None) is not None:
            detached = [one.detach() for one in maps] if apart else list(maps)
            single = Detect.forward_head(layer, detached, layer.one2one_cv2, layer.one2one_cv3)
            made = {"one2many": made, "one2one": single}
        return made

    def _places(self, maps: list[Tensor]) -> Tensor:
        """Middle of each cell in cells, and its stride in pixels: ``(A, 3)``, in the order of the answers."""
        found = []
        for one, stride in zip(maps, self._layer.stride.tolist(), strict=True):
            height, width = one.shape[2:]
            down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            cells = torch.stack([across + 0.5, down + 0.5, torch.full((height, width), stride)], -1)
            found.append(cells.flatten(0, 1))
        return torch.cat(found).to(maps[0].device)

    def _inside(self, maps: list[Tensor], owner: Tensor, boxes: Tensor) -> Tensor:
        """bool ``(B, A)``: the middle of the cell lies in one of these boxes of its image."""
        found = []
        for one in maps:
            height, width = one.shape[2:]
            middles = boxes.float() * boxes.new_tensor([width, height] * 2).float() - 0.5  # in cells, from the first
            first, after = middles[:, :2].ceil().long(), middles[:, 2:].floor().long() + 1
            limit = first.new_tensor([width, height])
            first, after = (torch.minimum(ends.clamp_min(0), limit) for ends in (first, torch.maximum(after, first)))
            # Corners, of which the sums over all cells before are the boxes over a cell: of thousands of boxes against
            # every cell there would be billions of pairs.
            corners = torch.zeros(len(one), height + 1, width + 1, dtype=torch.int32, device=boxes.device)
            for across, down, sign in ((first, first, 1), (after, after, 1), (first, after, -1), (after, first, -1)):
                at = owner, down[:, 1], across[:, 0]
                corners.index_put_(at, torch.full_like(owner, sign, dtype=torch.int32), accumulate=True)
            over = corners.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)[:, :height, :width]
            found.append((over > 0).flatten(1))
        return torch.cat(found, 1)

    def _loss(self, device: torch.device) -> tuple[Any, list[Any]]:
        """The family's criterion for boxes and classes, which is bound to a device, and its parts, one a branch."""
        if self._criterion is None or self._criterion[0] != device:
            from ultralytics.cfg import get_cfg
            from ultralytics.nn.tasks import DetectionModel

            twin = self._layer
            twin.stride = twin.stride.to(device)
            stand_in: Any = SimpleNamespace(args=get_cfg(), model=[twin], parameters=twin.parameters)
            made = DetectionModel.init_criterion(stand_in)
            parts = [made.one2many, made.one2one] if hasattr(made, "one2many") else [made]
            for part in parts:
                part.bce = _Sparing(part.bce)
                part.loss = _over_processes(part.loss, part.bce)
            self._criterion = (device, made, parts)
            _set_schedule(made, self._share)
        return self._criterion[1:]


class _Sparing(nn.Module):
    """A loss of class scores that leaves places out: there nothing is taught, unless an object was assigned to them.

    Attributes:
        spared: bool ``(B, A)``, or None for no such place.
        taught: Sum of the targets of the last call.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.spared: Tensor | None = None

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """``(B, A, C)``, unsummed."""
        self.taught = targets.sum()
        made: Tensor = self.loss(scores, targets)
        if self.spared is None:
            return made
        taught = ~self.spared | (targets.sum(2) > 0)
        return made * taught.unsqueeze(2)


def _over_processes(loss_of: Callable[..., Any], classes: _Sparing) -> Callable[..., Any]:
    """A part of the family's loss, by the objects of all processes.

    Ultralytics divides by the sum of the targets of a batch, 1 at least. Where that is split over processes, the losses
    of all are divided by the mean of their sums: then their mean is the loss of the joined batch.
    """

    def loss(made: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
        found, shown = loss_of(made, batch)
        if ranks.world() > 1:
            found = found * classes.taught.clamp_min(1) / (ranks.total(classes.taught).clamp_min(1) / ranks.world())
        return found, shown

    return loss


def _set_schedule(criterion: Any, share: float) -> None:
    """Move from many places an object to one, as Ultralytics does by epochs, in losses that have both."""
    if hasattr(criterion, "final_o2m"):
        criterion.o2m = (1 - share) * (criterion.o2m_copy - criterion.final_o2m) + criterion.final_o2m
        criterion.o2o = max(criterion.total - criterion.o2m, 0)


def _give_outputs(twin: Any, layer: Any, clusters: int) -> None:
    """New last layers of the class branches, in `twin` alone."""
    for name in _CLASS_BRANCHES:
        if (branches := twin._modules.get(name)) is not None:
            widened = [
                nn.Sequential(*list(branch)[:-1], _outputs(branch[-1], clusters, stride))
                for branch, stride in zip(branches, layer.stride.tolist(), strict=True)
            ]
            twin._modules[name] = nn.ModuleList(widened)
    twin.nc, twin.no = clusters, clusters + 4 * layer.reg_max


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


def _upright(boxes: Tensor, angle: Tensor) -> Tensor:
    """Middle and sides of the upright boxes around turned ones, ``(..., 4)`` and radians ``(..., 1)``."""
    along, across = angle.cos().abs(), angle.sin().abs()
    width, height = boxes[..., 2:3], boxes[..., 3:4]
    return torch.cat([boxes[..., :2], width * along + height * across, width * across + height * along], -1)


@torch.no_grad()
def proposals(module: Any, classes: int, images: Tensor) -> Tensor | None:
    """See `headstart.detectors.base.Detector.propose`; None where the network gives no boxes.

    Of turned boxes it is the upright ones around them.
    """
    from ultralytics.nn.modules.head import OBB, RTDETRDecoder

    with evaluating(module):
        found = module(images)
    while isinstance(found, (list, tuple)) and found:  # beside them: what the loss takes, and what masks are made of
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 3:
        return None
    found, layer = found.float(), module.model[-1]
    turned = isinstance(layer, OBB)
    if isinstance(layer, RTDETRDecoder):  # queries, best first: middle and sides in shares, score, class
        place = found[..., :4] * found.new_tensor([images.shape[-1], images.shape[-2]] * 2)
        return torch.cat([_corners(place), found[..., 4:5]], 2)
    if getattr(layer, "end2end", False):  # x0, y0, x1, y1, score, class: best first; turned: as below
        boxes = _corners(_upright(found[..., :4], found[..., -1:])) if turned else found[..., :4]
        return torch.cat([boxes, found[..., 4:5]], 2)
    score, place = found[:, 4 : 4 + classes].amax(1), found[:, :4].transpose(1, 2)
    place = _upright(place, found[:, -1:].transpose(1, 2)) if turned else place
    boxes = torch.cat([_corners(place), score.unsqueeze(2)], 2)
    best = score.argsort(1, descending=True)[:, :300]
    return boxes.gather(1, best.unsqueeze(2).expand(-1, -1, 5))
