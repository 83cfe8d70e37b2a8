"""Every detector that Ultralytics builds from a model YAML.

Backbone, neck and pyramid are read from the model itself: its YAML lists ``backbone`` and ``head``, each layer says
which layers it reads (``f``), and what the last layer reads is the pyramid. Widths and strides are measured.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from datetime import datetime
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.detectors.base import Advised, Detector, Level, Trunk
from headstart.detectors.handback import PARTS, HandBack, Part, shorten
from headstart.detectors.tensors import own_state, same_bits
from headstart.detectors.ultralytics import advice, model_files
from headstart.detectors.ultralytics.class_rows import class_names, found_by_name, refuse_alike
from headstart.detectors.ultralytics.handback import verify
from headstart.detectors.ultralytics.head import DetectHead, has_pseudolabel_head, proposals, why_no_class_head
from headstart.detectors.ultralytics.odd_paths import is_plain
from headstart.detectors.ultralytics.opening import (
    build,
    channels_of,
    check_trainable,
    first_layer,
    made_from_scratch,
    open_checkpoint,
    splitter,
    with_channels,
    with_classes,
)
from headstart.detectors.ultralytics.undisturbed import quiet
from headstart.errors import UserError
from headstart.files import write_atomically
from headstart.views.resize import GRAY


def load(model: Any, init: str | Path | None = None, channels: int | None = 3) -> UltralyticsDetector:
    """See `headstart.detectors.find.load_detector`; the name was checked."""
    with quiet():
        if not isinstance(model, (str, Path)):
            return UltralyticsDetector(model, _copy(model.model), init, channels)
        text = str(model)
        live = build(model_files.yaml_name(text)) if model_files.is_yaml(text) else open_checkpoint(text)
        return UltralyticsDetector(live, live.model, init, channels)


def _copy(module: nn.Module) -> nn.Module:
    """A network of our own: the user's stays as it is."""
    # After a training the loss holds the model a second time.
    criterion = getattr(module, "criterion", None)
    return deepcopy(module, {} if criterion is None else {id(criterion): None})


class UltralyticsDetector(Detector):
    """See `headstart.detectors.base.Detector`.

    Args:
        live: A YOLO, RTDETR, YOLOWorld or YOLOE object: its task and arguments are taken.
        module: Its network, or a copy of it.
        init: A checkpoint to load over it.
        channels: Of the images that it is to read; None for as many as it reads.
    """

    license = "AGPL-3.0"

    def __init__(self, live: Any, module: Any, init: str | Path | None = None, channels: int | None = 3) -> None:
        check_trainable(module, str(live.model_name), channels=channels)
        self.channels, self.trained = channels or channels_of(module), _was_trained(live.ckpt or {})
        self.from_scratch = made_from_scratch(live)
        module = self._for_channels(module, self.trained)
        for passing in ("criterion", "clip_model"):
            # Made while training or prompting: no part of the detector, and of classes that a reader may not have.
            if getattr(module, passing, None) is not None:
                setattr(module, passing, None)
        self.task, self._origin = str(live.task), dict(live.overrides)
        self.name = Path(str(module.yaml.get("yaml_file") or live.model_name)).stem
        self._hold(module)
        scales = list(self._yaml.get("scales") or ())
        if len(scales) > 1 and not self._yaml.get("scale"):
            self.notes += (f"{self.name} names no scale: Ultralytics takes {scales[0]!r}",)
        if init is not None:
            self._start_from(str(init))

    def _for_channels(self, module: Any, trained: bool) -> Any:
        """A network that reads images of as many channels, with the weights of this one."""
        if channels_of(module) == self.channels:
            return module
        made = with_channels(module, self.channels)
        if trained:
            self.notes += (f"first layer made for {self.channels} channels: {first_layer(module, made)}",)
        return made

    def _hold(self, module: Any) -> None:
        """Take `module` for the network, ready to be trained."""
        self.module = module.float()
        self._yaml: dict[str, Any] = module.yaml
        self._layers: list[nn.Module] = list(module.model)
        self.names = dict(module.names) if isinstance(module.names, dict) else dict(enumerate(module.names))
        self.backbone, self.levels = self._measure()
        self._part_of = splitter(self.module)
        self._grafted: set[str] = set()
        for parameter in self.module.parameters():
            # Trained checkpoints come with all gradients off: they were an EMA.
            parameter.requires_grad_(parameter.is_floating_point())
        self.module.train()

    def _measure(self) -> tuple[Level, tuple[Level, ...]]:
        """Width and stride of the backbone's last map and of the pyramid, from one forward pass."""
        head = self._layers[-1]
        pyramid = _sources(len(self._layers) - 1, head.f)
        stride = getattr(self.module, "stride", None)
        size = max(128, 2 * int(stride.max()) if isinstance(stride, Tensor) else 0)
        device = next(self.module.parameters()).device
        images = torch.zeros(1, self.channels, size, size, device=device)
        outputs = [len(self._yaml["backbone"]) - 1, *pyramid]
        with torch.no_grad():
            maps = self._trunk(outputs).eval()(images)
        levels = [Level(i, size // one.shape[-1], one.shape[1]) for i, one in zip(outputs, maps, strict=True)]
        return levels[0], tuple(levels[1:])

    def _trunk(self, outputs: Sequence[int]) -> LayerTrunk:
        text = getattr(self.module, "txt_feats", None)
        return LayerTrunk(self._layers, outputs, text if isinstance(text, Tensor) else None)

    def trunk(self, neck: bool = False) -> LayerTrunk:
        """See `Detector.trunk`."""
        return self._trunk([level.layer for level in (self.levels if neck else [self.backbone])])

    def pseudolabel_head(self, clusters: int) -> DetectHead:
        """See `Detector.pseudolabel_head`."""
        if not has_pseudolabel_head(self.task, self._layers[-1]):
            raise self._no_objects()
        return DetectHead(self.module, clusters)

    def class_head(self) -> DetectHead:
        """See `Detector.class_head`."""
        if why := why_no_class_head(self.task, self._layers[-1]):
            hint = "use method=pyramid, which trains backbone and neck of any model"
            what = f"the head of {self.name} ({self.task}) cannot be trained on labelled boxes: {why}"
            raise UserError(what, where="method", hint=hint)
        return DetectHead(self.module, None)

    def with_classes(self, names: Sequence[str], keypoints: Sequence[int] | None = None) -> UltralyticsDetector:
        """See `Detector.with_classes`: rebuilt as Ultralytics does it when a training begins."""
        refuse_alike(names, "labels")
        own = cast("dict[str, Any]", self.module.yaml).get("kpt_shape")
        if self.names == dict(enumerate(names)) and (keypoints is None or own is None or [*own] == [*keypoints]):
            return self
        with quiet():
            module = with_classes(self.module, names, keypoints)
            module.load(self.module, verbose=False)
        own, taken = own_state(module), own_state(self.module)
        head = [name for name in own if self.part_of(name) == "head"]
        kept = sum(name in taken and same_bits(taken[name], own[name]) for name in head)
        moved = found_by_name(own, taken, names, class_names(self.module))
        rest = f"of the rest the rows of {shorten(moved)}, by their names" if moved else "the rest random"
        made = copy(self)
        made._hold(module)
        # Handed on, it would make one class of the user's.
        made._origin = {key: value for key, value in self._origin.items() if key != "single_cls"}
        made.notes += (f"head for {len(names)} classes: {kept} of {len(head)} tensors kept, {rest}",)
        return made

    def propose(self, images: Tensor) -> Tensor:
        """See `Detector.propose`; of images that are no multiple of its own largest stride, what is missing is gray."""
        right, below = (-size % self.largest_stride for size in (images.shape[-1], images.shape[-2]))
        found = proposals(self.module, len(self.names), nn.functional.pad(images, (0, right, 0, below), value=GRAY))
        if found is None:
            raise self._no_boxes()
        return found

    def part_of(self, tensor_name: str) -> Part:
        """See `Detector.part_of`."""
        return self._part_of(tensor_name)

    def graft(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.graft`."""
        super().graft(state)
        self._grafted |= set(state)

    def _start_from(self, init: str) -> None:
        opened = open_checkpoint(init, where="init")
        check_trainable(opened.model, init, where="init", channels=self.channels)
        other = self._for_channels(opened.model, True)
        self.start_from(own_state(other), init)
        self.from_scratch = made_from_scratch(opened)
        own, given = own_state(self.module), own_state(other)
        head = [name for name in own if self.part_of(name) == "head"]
        if all(name in given and same_bits(own[name], given[name]) for name in head):  # it finds what that one finds
            self.names = dict(enumerate(class_names(other)))
            self.module.names = dict(self.names)  # type: ignore[assignment]

    def save(self, path: Path, info: Mapping[str, Any]) -> None:
        """See `Detector.save`."""
        checkpoint = self._checkpoint(info)
        write_atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def _checkpoint(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """The dictionary that Ultralytics' ``load_checkpoint`` reads; its own ``save`` would round to half floats."""
        from ultralytics import __version__

        module = deepcopy(self.module).float().cpu().eval().to(memory_format=torch.contiguous_format)
        module.args = self._train_args()  # type: ignore[assignment]
        parts = sorted({self.part_of(name) for name in self._grafted}, key=PARTS.index)
        # Said of the exception alone: the weights in a checkpoint are trained.
        began = {"random": not (self.trained or parts), "from_scratch": self.began_at_random}
        exceptions = {name: True for name, holds in began.items() if holds}
        return {
            "epoch": -1,
            "best_fitness": None,
            "model": module,
            "ema": None,
            "updates": None,
            "optimizer": None,
            "train_args": self._train_args(),
            # Plain values only, so that a machine without headstart reads the file.
            "headstart": json.loads(json.dumps({**info, "trained": parts, **exceptions}, default=str)),
            "date": datetime.now().astimezone().isoformat(),
            "version": __version__,
            "license": "AGPL-3.0 License (https://ultralytics.com/license)",
            "docs": "https://docs.ultralytics.com",
        }

    @property
    def trained_imgsz(self) -> int | None:
        """See `Detector.trained_imgsz`: its checkpoint says so; without, 640, which Ultralytics takes it for."""
        size = self._origin.get("imgsz") or 640
        return max(size) if isinstance(size, (list, tuple)) else int(size)

    def _train_args(self) -> dict[str, Any]:
        """The arguments that Ultralytics remembers of a checkpoint, and all that is done with it starts with."""
        kept = {name: self._origin[name] for name in ("imgsz", "single_cls") if self._origin.get(name) is not None}
        # A checkpoint without an image size means 640; a classifier built from its YAML trains at 224.
        size = {"imgsz": 224} if self.task == "classify" else {}
        size |= kept if self.imgsz is None else {**kept, "imgsz": self.imgsz}
        return {**size, "task": self.task}

    def finetune_settings(
        self, imgsz: int, labelled: int = 300, *, detects: bool = False, flip: float | None = None
    ) -> Mapping[str, Advised] | None:
        """See `Detector.finetune_settings`; a classifier's training knows neither boxes nor mosaics."""
        if self.task == "classify":
            return None
        return advice.settings(imgsz, labelled, measured=self.task == "detect", detects=detects, flip=flip)

    def how_to_train(self, path: Path, settings: Path | None = None, data: str = "your.yaml") -> str:
        """See `Detector.how_to_train`."""
        cfg = f"cfg={shlex.quote(str(settings))} " if settings else ""
        return f"yolo {self.task} train {cfg}model={shlex.quote(str(path))} data={shlex.quote(data)}{_first(path)}"

    def how_to_predict(self, path: Path, source: str) -> str:
        """See `Detector.how_to_predict`."""
        return f"yolo {self.task} predict model={shlex.quote(str(path))} source={shlex.quote(source)}{_first(path)}"

    def verify(self, path: Path, trained: Collection[str]) -> HandBack:
        """See `Detector.verify`."""
        return verify(Path(path), self.module, self.part_of, trained)


def _first(path: Path) -> str:
    """What to do before Ultralytics can read a checkpoint, as a comment of the shell; mostly nothing."""
    return (
        ""
        if is_plain(str(path))
        else "  # copy it to another folder first: Ultralytics does not take this path as it is"
    )


class LayerTrunk(Trunk):
    """Layers of an Ultralytics model, run as its own ``predict`` runs them, as far as `outputs` need them.

    Args:
        layers: All layers of the model; each says in ``f`` which layers it reads.
        outputs: Indices of the layers whose maps are returned.
        text: (1, classes, width) embeddings for layers that are guided by text.
    """

    text: Tensor | None

    def __init__(self, layers: Sequence[nn.Module], outputs: Sequence[int], text: Tensor | None = None) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        reads = {i: _sources(i, layer.f) for i, layer in enumerate(layers)}
        guided = [i for i, layer in enumerate(layers[:-1]) if _is_guided(layer)]
        needed = sorted(_needed(outputs, reads, guided))
        self.model = nn.ModuleDict({str(i): layers[i] for i in needed})
        self.reads = {i: reads[i] for i in needed}
        self.listed = frozenset(i for i in needed if not isinstance(layers[i].f, int))
        self.guided = frozenset(guided)
        last_use = {source: i for i in needed for source in reads[i]}
        self._spent = {i: [j for j, at in last_use.items() if at == i and j not in outputs] for i in needed}
        self.register_buffer("text", text.detach().clone() if text is not None and guided else None, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Trunk.forward`."""
        made: dict[int, Any] = {-1: images}
        text = None if self.text is None else self.text.type_as(images).expand(len(images), -1, -1)
        for key, layer in self.model.items():
            i = int(key)
            given = [made[j] for j in self.reads[i]]
            x = given if i in self.listed else given[0]
            out = layer(x, text) if i in self.guided else layer(x)
            if i in self.guided and out.ndim == 3:
                text, out = out, x  # pooled from the maps into the text; the maps pass through
            made[i] = out
            for j in self._spent[i]:
                del made[j]
        return [_as_map(made[i]) for i in self.outputs]


def _was_trained(checkpoint: Mapping[str, Any]) -> bool:
    """Whether an Ultralytics object was loaded from a checkpoint, or trained; one of ours may hold random weights."""
    return bool(checkpoint) and not (checkpoint.get("headstart") or {}).get("random", False)


def _sources(i: int, f: Any) -> list[int]:
    """Indices of the layers that layer `i` reads; -1 is the image. Negative numbers count back from the layer."""
    return [j if j >= 0 else i + j for j in ([f] if isinstance(f, int) else f)]


def _needed(outputs: Sequence[int], reads: Mapping[int, list[int]], guided: Sequence[int]) -> set[int]:
    """Layers that `outputs` depend on; a layer guided by text depends on all that may have changed the text before."""
    needed: set[int] = set()
    todo = [i for i in outputs if i >= 0]
    while todo:
        i = todo.pop()
        if i in needed:
            continue
        needed.add(i)
        todo += [j for j in reads[i] if j >= 0]
        todo += [j for j in guided if j < i] if i in guided else []
    return needed


def _is_guided(layer: nn.Module) -> bool:
    """Whether a layer takes text beside its maps: a second argument without a default."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    given = [
        p for p in signature(layer.forward).parameters.values() if p.kind in kinds and p.default is Parameter.empty
    ]
    return len(given) > 1


def _as_map(out: Any) -> Tensor:
    """The map that a layer made: the last one where it made several (stages of a network of another package)."""
    maps = [one for one in _flat(out) if one.ndim == 4]
    if not maps:
        raise UserError("the backbone of this model makes no feature map", where="model")
    return maps[-1]


def _flat(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, (list, tuple)):
        for one in out:
            yield from _flat(one)
