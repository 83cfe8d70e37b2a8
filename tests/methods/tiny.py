"""A student small enough for a test, a teacher to go with it, and real-looking images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel

from headstart.detectors.ultralytics.head import DetectHead
from headstart.errors import UserError
from headstart.images.loader import PixelBatch
from headstart.jobs.scenes import CLASSES, draw_scenes
from headstart.methods import find
from headstart.methods.base import Context, GivenLabels, Method, Needs
from headstart.methods.schedules import Progress
from headstart.pseudolabels.base import PseudoLabels
from headstart.settings.resolve import Resolved, collect, resolve_pretrain
from headstart.teachers.base import TeacherSource
from headstart.teachers.load import load_teacher
from headstart.views.render import make_views
from headstart.views.spec import View

WIDTHS = (16, 24, 32)
IMAGES, BATCH = 48, 8


class Trunk(nn.Module):
    """Three maps of strides 8, 16 and 32, or the last of them alone."""

    def __init__(self, neck: bool, channels: int = 3) -> None:
        super().__init__()
        self.neck = neck
        widths = [channels, 8, 12, *WIDTHS]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU())
            for a, b in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps[2:] if self.neck else maps[-1:]


class Net:
    """The head of an Ultralytics detector, as `DetectHead` looks for it."""

    init_criterion = DetectionModel.init_criterion

    def __init__(self) -> None:
        detect = Detect(nc=len(CLASSES), ch=WIDTHS)
        detect.stride = torch.tensor([8.0, 16.0, 32.0])
        self.model = [detect]


@lru_cache(maxsize=1)
def found() -> PseudoLabels:
    """The drawn objects of `scenes`, with their classes for labels."""
    drawn = draw_scenes("unlabelled", IMAGES, imgsz=128)
    rows, boxes, classes = [], [], []
    for row, scene in enumerate(drawn):
        rows += [row] * len(scene.boxes)
        boxes.append(torch.from_numpy(scene.boxes) / 128)
        classes.append(torch.from_numpy(scene.classes))
    parts = torch.tensor(rows), torch.cat(boxes), torch.ones(len(rows)), torch.cat(classes)
    return PseudoLabels.gather(IMAGES, *parts)


def cases() -> list[tuple[str, str | None]]:
    """Every method that is found, with every preset it has."""
    return [(name, preset) for name in find.names() for preset in (find.find(name).presets or {None: {}})]


def resolve(options: dict[str, Any], trained: bool = False) -> Resolved:
    """Complete settings, without a look at files and devices."""
    problems: list[UserError] = []
    given = collect(options, problems)
    declared = find.find(str(given.setdefault("method", "dino")))
    return resolve_pretrain(
        given, declared.settings, declared.presets, method=declared.name, problems=problems, trained=trained
    )


def build(name: str, preset: str | None = None, channels: int = 3, **options: Any) -> Method:
    """A method on a tiny student that reads images of so many channels, in training mode."""
    torch.manual_seed(0)
    declared = find.find(name)
    needs = declared.method.needs
    given: dict[str, Any] = {"data": "x", "method": name, "imgsz": 128, "local_imgsz": 64, "batch": BATCH, **options}
    if "hidden_dim" in declared.settings.model_fields:
        given.setdefault("hidden_dim", 64)
    given |= {} if preset is None else {"preset": preset}
    if needs.teacher:
        given.setdefault("teacher", Trunk(neck=True))
    resolved = resolve(given)
    run, neck = resolved.run, needs.trains != "backbone"
    student = Trunk(neck, channels)
    context = Context(
        student=student,
        widths=WIDTHS if neck else WIDTHS[-1:],
        imgsz=run.imgsz,
        local_imgsz=run.local_imgsz,
        batch=run.batch,
        seed=run.seed,
        teacher=load_teacher(TeacherSource(given["teacher"]))
        if needs.teacher and given["teacher"] is not None
        else None,
        pseudolabels=found() if needs.pseudolabels else None,
        head=_head(needs, resolved) if needs.trains == "all" else None,
        given=given_labels() if needs.labels else None,
        read=lambda rows, area: read(rows, area, channels),
        export=run.export,
    )
    return declared.method(resolved.method, context).train()


def _head(needs: Needs, resolved: Resolved) -> DetectHead:
    return DetectHead(Net(), None if needs.labels else resolved.method.model_dump()["clusters"])


def given_labels() -> GivenLabels:
    """Labels of every third image."""
    labelled = torch.arange(0, IMAGES, 3)
    owner, boxes, classes = found().of(labelled)
    own = PseudoLabels.gather(IMAGES, labelled[owner], boxes, torch.ones(len(owner)), classes)
    return GivenLabels(tuple(CLASSES), labelled, own)


def read(rows: Sequence[int], area: int, channels: int = 3) -> Iterator[PixelBatch]:
    """The drawn images at some rows."""
    for start in range(0, len(rows), BATCH):
        few = list(rows[start : start + BATCH])
        yield PixelBatch(scenes(channels)[few], torch.tensor([(128, 128)] * len(few)), torch.tensor(few), [])


@lru_cache(maxsize=3)
def scenes(channels: int = 3) -> Tensor:
    """Drawn images, uint8 (IMAGES, channels, 128, 128); of other channels than RGB their red, green, blue, red, ..."""
    drawn = [scene.image for scene in draw_scenes("unlabelled", IMAGES, imgsz=128)]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    return images[:, [place % 3 for place in range(channels)]].contiguous()


def views(method: Method, step: int = 0, channels: int = 3) -> list[View]:
    """The method's views of the images of a step."""
    rows = [(step * BATCH + place) % IMAGES for place in range(BATCH)]
    sizes, random = torch.tensor([(128, 128)] * BATCH), torch.Generator().manual_seed(step)
    return make_views(scenes(channels)[rows], sizes, method.view_specs(), random, torch.tensor(rows))


def progress(step: int, steps: int = 40) -> Progress:
    return Progress(step, steps, step * BATCH / IMAGES)
