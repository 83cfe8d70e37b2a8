"""Every model YAML of the installed Ultralytics, at every scale, and every detector of torchvision: what it is made
of, and whether it is handed back.

python benchmarks/detectors.py              # writes docs/detectors.md, about a quarter of an hour on one core
python benchmarks/detectors.py yolo11 yolo26-seg
python benchmarks/detectors.py torchvision
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn

from headstart.detectors.base import Detector
from headstart.detectors.find import load_detector
from headstart.detectors.handback import PARTS, HandBack
from headstart.detectors.torchvision import names as torchvision_names
from headstart.detectors.ultralytics import model_files
from headstart.errors import UserError

PAGE = Path(__file__).parent.parent / "docs" / "detectors.md"


@dataclass
class Row:
    name: str
    task: str = ""
    detector: Detector | None = None
    handback: HandBack | None = None
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""
    line: str = ""


def every_name(stems: list[str]) -> list[str]:
    names = []
    for stem, path in model_files.shipped().items():
        if stems and stem not in stems:
            continue
        scaled = {model_files.scaled_name(stem, scale): None for scale in model_files.scales(path)}
        # A name that carries no scale (rtdetr-l) or that fixes it (yolov10n) is one model, whatever the YAML lists.
        names += list(scaled) or [stem]
    return names


def examine(name: str, most: float = math.inf) -> Row:
    """Build a detector and compare its maps; hand it back, too, if it has no more than `most` parameters."""
    row, start = Row(name), time.monotonic()
    torch.manual_seed(0)
    try:
        with without_downloads(row):
            detector = row.detector = load_detector(f"{name}.yaml")
            row.task = detector.task
            row.problems += maps_differ(detector)
            if sum(one.numel() for one in detector.module.parameters()) <= most:
                with tempfile.TemporaryDirectory() as folder:
                    row.handback = hand_back(detector, Path(folder) / "headstart.pt")
    except UserError as error:
        row.problems.append(str(error))
    if row.handback:
        row.problems += [f"{one.name} {one.reason}" for one in row.handback.dropped]
    row.seconds = time.monotonic() - start
    return row


def examine_torchvision(name: str) -> Row:
    row, start = Row(f"torchvision:{name}"), time.monotonic()
    torch.manual_seed(0)
    try:
        detector = row.detector = load_detector(row.name)
        row.problems += torchvision_maps_differ(detector)
        with tempfile.TemporaryDirectory() as folder:
            row.handback = hand_back(detector, Path(folder) / "headstart.pt")
        row.problems += [f"{one.name} {one.reason}" for one in row.handback.dropped]
    except UserError as error:
        row.problems.append(error.what)
    row.seconds = time.monotonic() - start
    return row


def torchvision_maps_differ(detector: Any) -> list[str]:
    """Compare the trunks' maps with those inside the whole model, which normalizes by itself; empty when equal."""
    seen: dict[str, list[Tensor]] = {}
    model, images = detector.module, torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    sizes = model.transform.min_size, model.transform.max_size
    model.transform.min_size, model.transform.max_size = (256,), 256
    handles = [
        part.register_forward_hook(partial(lambda key, _, __, out: seen.update({key: list(out.values())}), key))
        for key, part in (("body", model.backbone.body), ("pyramid", model.backbone))
    ]
    with torch.no_grad():
        model.eval()(list(images))
        maps = [*detector.trunk()(images), *detector.trunk(neck=True)(images)]
    for handle in handles:
        handle.remove()
    model.train()
    model.transform.min_size, model.transform.max_size = sizes
    whole = [seen["body"][-1], *seen["pyramid"]]
    equal = len(maps) == len(whole) and all(torch.equal(a, b) for a, b in zip(maps, whole, strict=True))
    return [] if equal else ["other maps than the whole model's"]


def hand_back(detector: Detector, path: Path) -> HandBack:
    """Change the weights that a pretraining changes, and hand the detector back."""
    trained = {
        name: tensor + torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 7
        for name, tensor in detector.trunk(neck=True).state_dict().items()
    }
    detector.graft(trained)
    detector.save(path, {"method": "none"})
    return detector.verify(path, trained)


def maps_differ(detector: Detector) -> list[str]:
    """Compare the trunks' maps with what flows through the whole model, in evaluation mode; empty when equal."""
    levels = (detector.backbone, *detector.levels)
    size = 2 * max(level.stride for level in levels)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    whole = full_model_maps(detector.module, images, [level.layer for level in levels])
    with torch.no_grad():
        maps = [one for neck in (False, True) for one in detector.trunk(neck).eval()(images)]
    detector.module.train()
    problems = []
    for level, one, other in zip(levels, maps, whole, strict=True):
        if not torch.equal(one, other):
            problems.append(f"layer {level.layer}: another map than the whole model's")
        if one.shape != (2, level.width, size // level.stride, size // level.stride):
            problems.append(f"layer {level.layer}: {tuple(one.shape)} is not the measured width and stride")
    return problems


class HeadReached(Exception):  # noqa: N818
    pass


def full_model_maps(module: Any, images: Tensor, layers: list[int]) -> list[Tensor]:
    """What the named layers put out while the model's own forward runs, up to its head."""
    seen: dict[int, Tensor] = {}

    def stop(*_: Any) -> None:
        raise HeadReached

    handles = [
        module.model[i].register_forward_hook(partial(lambda i, _, __, out: seen.__setitem__(i, out.clone()), i))
        for i in layers
    ]
    handles.append(module.model[-1].register_forward_pre_hook(stop))
    head_asked = [mock.patch.object(module.model[-1], "get_tpe", stop)] if hasattr(module.model[-1], "get_tpe") else []
    try:
        module.eval()
        with torch.no_grad():
            for patch in head_asked:
                patch.start()
            module.predict(images)
    except HeadReached:
        pass
    finally:
        for patch in head_asked:
            patch.stop()
        for handle in handles:
            handle.remove()
    return [seen[i] for i in layers]


@contextmanager
def without_downloads(row: Row | None = None) -> Iterator[None]:
    """Build TorchVision backbones with random weights; Ultralytics would fetch ImageNet weights for them."""
    build = torchvision.models.get_model

    def random_weights(name: str, weights: Any = None, **options: Any) -> nn.Module:
        if row is not None and weights is not None:
            row.note = "Ultralytics downloads ImageNet weights to build it; checked here without them"
        made: nn.Module = build(name, weights=None, **options)
        return made

    with mock.patch.object(torchvision.models, "get_model", random_weights):
        yield


def table(rows: list[Row]) -> str:
    head = (
        "| model | task | backbone: width / stride | pyramid: widths / strides | tensors: backbone + neck + head "
        "| handed back | start fresh with own classes |\n|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(row.line for row in rows)


def line(row: Row) -> str:
    d, h = row.detector, row.handback
    if d is None or h is None:
        return f"| {row.name} | | | | | no: {'; '.join(row.problems)} | |"
    widths, strides = ("·".join(str(getattr(level, key)) for level in d.levels) for key in ("width", "stride"))
    tensors = " + ".join(str(h.parts[part].total) for part in PARTS)
    arrived = sum(count.arrived for count in h.parts.values())
    verdict = "no: " + "; ".join(row.problems[:3]) if row.problems else f"all {arrived}"
    cells = [
        row.name, d.task, f"{d.backbone.width} / {d.backbone.stride}", f"{widths} / {strides}", tensors, verdict,
        f"{len(h.fresh)}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def page(rows: list[Row]) -> str:
    import ultralytics

    bad = [row for row in rows if row.problems]
    tasks = Counter(row.task for row in rows if row.task)
    reasons = section("Not pretrained, with the reason:", [f"{row.name}: {'; '.join(row.problems)}" for row in bad])
    notes = section("Notes:", [f"{row.name}: {row.note}." for row in rows if row.note])
    return f"""# Detectors

Every model YAML that Ultralytics {ultralytics.__version__} ships, at every scale it defines: {len(rows)} models from
{len(model_files.shipped())} YAMLs ({", ".join(f"{count} {task}" for task, count in sorted(tasks.items()))}).
{len(rows) - len(bad)} of {len(rows)} can be pretrained and handed back. Made by `python benchmarks/detectors.py`.

For each one: it is built from its YAML; width and stride of its maps are measured; the trunk's maps are compared with
those inside the whole model; backbone and neck get other weights; the checkpoint is written, read by `YOLO(path)`, and
given to the task's own Ultralytics trainer. "Handed back" counts the tensors that were bitwise equal in all three
places: the file read back, the trainer's model and the trainer's EMA. The last column counts the tensors that start
from random weights in a training with another number of classes. They are all in the head: the last layer of its class
branches, and in the smallest YOLOE the encoder of visual prompts, whose width follows the number of classes.

Open-vocabulary models (YOLO-World, YOLOE) train on text embeddings, for which Ultralytics needs a CLIP model once.
The neck of YOLO-World is guided by them: pretraining its neck runs it with the model's own embeddings (random numbers
until classes are set); its backbone is not affected.

Checkpoints are read without running code that they hold; one with a layer of your own needs `trust=true`
([security](security.md)).

torchvision's detectors are [at the end of this page](#torchvision).
{reasons}{notes}
{table(rows)}

{torchvision_section()}"""


def torchvision_section() -> str:
    rows = []
    for name in torchvision_names.known_names():
        row = examine_torchvision(name)
        row.line, row.detector = line(row), None
        rows.append(row)
    good = sum(not row.problems for row in rows)
    return f"""## torchvision

Every detector that torchvision {torchvision.__version__} registers: {good} of {len(rows)} can be pretrained and handed
back, those that have a feature pyramid (`backbone.body` and `backbone.fpn`).

    headstart pretrain data=my/images model=torchvision:retinanet_resnet50_fpn out=runs/a
    headstart compare data=my.yaml model=torchvision:retinanet_resnet50_fpn starts=scratch,coco,ssl=runs/a

- `model=torchvision:NAME` has random weights; `init=weights.pth` is a state dict to start from, read without running
  code (`weights_only`). Nothing is downloaded unless a comparison asks for `coco`; `coco=path.pth` takes a file.
- `headstart.pt` is a state dict: `model.load_state_dict(torch.load("headstart.pt", weights_only=True))` takes it
  strictly, for `model = torchvision.models.detection.NAME(weights_backbone=None, num_classes=91)`. The name, the
  classes (the background first) and the run's facts are a JSON string in its `_metadata["headstart"]["record"]`, where
  torch keeps the versions of the modules: it is one file, and `headstart probe` and `init=` know what it is.
- Backbone and pyramid are fed as the model's own transform feeds them: RGB in [0, 1], less its mean, over its standard
  deviation. All methods but `objects` can be used.
- "Handed back" compares the file read back, a fresh torchvision model that loaded it strictly, and the model of a
  fine-tuning; the last column counts the tensors that start fresh in one with another number of classes.
- A comparison fine-tunes in the way of torchvision's references: images scaled to a longer side of `imgsz`, mirrored,
  zoomed by `scale_min` to `scale_max` and placed on a square; `optimizer`, `lr`, `warmup`, `lrf`, `weight_decay`,
  `momentum`, `clip`; no EMA; float32. Scores are COCO's, by torchmetrics and pycocotools
  (`pip install 'headstart[torchvision]'`). Masks and keypoints cannot be compared.
- Batch norms are trained, for every start alike. torchvision itself freezes them in a model that it loads published
  weights into, some with another epsilon: `coco` here is not quite what torchvision's own fine-tuning starts from.

{table(rows)}
"""


def section(title: str, items: list[str]) -> str:
    return "\n" + "\n".join([title, "", *(f"- {item}" for item in items), ""]) if items else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("yaml", nargs="*", help="names of model YAMLs, without suffix; all when none is given")
    given = parser.parse_args().yaml
    if given == ["torchvision"]:
        print(torchvision_section())
        return 0
    rows = []
    for name in every_name(given):
        row = examine(name)
        row.line = line(row)
        row.detector = None  # 246 of them do not fit into memory
        rows.append(row)
        print(f"{row.line} {row.seconds:.1f} s", flush=True)
    if not given:
        PAGE.write_text(page(rows), encoding="utf-8")
    return int(any(row.problems for row in rows))


if __name__ == "__main__":
    sys.exit(main())
