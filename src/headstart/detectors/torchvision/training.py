"""One training of a torchvision detector, in the way of torchvision's references, and what it finds afterwards.

The same protocol as Ultralytics' trainings here: the user's label lists, whole epochs, a warm-up and a rate that falls
in a line, order and augmentation by the seed, no choice of an epoch by its score. There is no EMA.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.detectors.base import evaluating
from headstart.detectors.find import finetuner
from headstart.detectors.finetuner import (
    ARRIVED,
    COLUMNS,
    CURVE,
    LAST,
    Arrival,
    FinetuneSettings,
    write_json,
)
from headstart.detectors.handback import shorten
from headstart.detectors.scores import write_scores
from headstart.detectors.tensors import fingerprint, mismatches, not_finite
from headstart.detectors.torchvision import data, models
from headstart.detectors.torchvision.models import Record
from headstart.detectors.torchvision.recipe import recipe
from headstart.detectors.torchvision.scores import Scores, score
from headstart.detectors.under_way import UnderWay
from headstart.detectors.used import Used, write_used
from headstart.errors import UserError
from headstart.files import write_text
from headstart.launch.random_state import random_state, set_random_state


def train(settings: FinetuneSettings) -> None:
    """See `headstart.detectors.finetuner.Finetuner.train`."""
    torch.manual_seed(settings.seed)
    device = device_of(settings.device)
    model, record = set_up(str(settings.start), settings.imgsz)
    model.to(device)
    arrival = check_arrival(model, settings)
    training = Training(model, record, settings, device)
    write_json(settings.folder / ARRIVED, training.go_on(arrival))
    training.run()
    models.write_state(settings.folder / LAST, model, record._replace(random=False))


def set_up(start: str, imgsz: int) -> tuple[nn.Module, Record]:
    """The model of a start, filled with it.

    Raises:
        UserError: It is no start that headstart wrote, or does not fit the model that it names.
    """
    state, record = models.read_state(start, start)
    if record is None:
        raise UserError("does not say which model it is of", where=start, hint="give a file that headstart wrote")
    model = models.build(record.model, len(record.names), imgsz, empty=True)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"does not fit {record.model}: {error}", where=start) from error
    return model, record


def check_arrival(model: nn.Module, settings: FinetuneSettings) -> Arrival:
    """Compare the model, before its first step, with the file that it starts from, tensor by tensor.

    Raises:
        UserError: A tensor is missing, altered or not finite.
    """
    start, _ = models.read_state(str(settings.start), "start")
    held = model.state_dict()
    if broken := not_finite(start):
        raise UserError(f"holds NaN or infinity: {shorten(broken)}", where=str(settings.start))
    if lost := mismatches(start, held, "the model"):
        listed = shorten([f"{name} {why}" for name, why in lost.items()], "; ")
        what = f"{len(lost)} of {len(start)} tensors did not reach the model: {listed}"
        raise UserError(what, where=str(settings.start), hint="nothing was trained")
    return Arrival(
        tensors=len(start),
        model=len(start),
        ema=len(start),
        skipped=(),
        trained=len(held),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        initial=fingerprint(held),
        versions=finetuner(settings.model).versions(),
    )


def device_of(name: str) -> torch.device:
    """The device that ``device=`` means: "cpu", "0", "mps"; "" for the best one there is."""
    if name.isdigit():
        return torch.device("cuda", int(name))
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


class Training:
    """The epochs of one training.

    Args:
        model: On its device, filled with its start.
        record: What the start says of itself.
        settings: Of the training.
        device: Where it trains.
    """

    def __init__(self, model: Any, record: Record, settings: FinetuneSettings, device: torch.device) -> None:
        self.model, self.record, self.settings, self.device = model, record, settings, device
        self.recipe = recipe(settings.extra)
        train_images, test_images, keypoints = data.read_lists(settings.data)
        classes, imgsz = len(record.names) - 1, settings.imgsz
        augment = data.augmentation(imgsz, self.recipe)
        workers = 0 if device.type == "cpu" else settings.workers
        images = data.LabelledImages(train_images, classes, imgsz, augment, keypoints)
        self.batches = data.training_batches(images, settings.batch, settings.seed, workers)
        self.test = data.LabelledImages(test_images, classes, imgsz, keypoints=keypoints)
        write_used(settings.folder, Used(images.counts(), self.test.counts()))
        self.optimizer = make_optimizer(settings.optimizer, model, settings.lr0, self.recipe)
        self.step, self.steps = 0, settings.epochs * len(self.batches)
        self.done, self.last = 0, Scores(0.0, 0.0, [])
        self.kept: UnderWay | None = None

    def go_on(self, arrival: Arrival) -> Arrival:
        """Bring back what was kept of this very training when it was stopped, where there is something."""
        settings, loader = self.settings, self.batches
        self.kept = UnderWay(settings, arrival.initial, arrival.versions, self.device, loader.num_workers)
        self.kept.go_on(self._put_back)
        return self.kept.told(arrival)

    def _put_back(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.done = state["step"], state["epoch"]
        self.last = Scores(state["last"][0], state["last"][1], [])
        write_text(self.settings.folder / CURVE, state["csv"])
        self.batches.generator.set_state(state["order"])
        set_random_state(state["random"], self.device)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "last": [self.last.map50_95, self.last.map50],
            "csv": (self.settings.folder / CURVE).read_text(encoding="utf-8"),
            "order": self.batches.generator.get_state(),
            "random": random_state(self.device),
        }

    def run(self) -> None:
        """Train every epoch; measure some of them and the last; write the curve as it grows.

        Without any, the start is measured as it is.
        """
        assert self.kept is not None, "go_on comes first"
        for epoch in range(self.done + 1, self.settings.epochs + 1) if self.settings.epochs else (0,):
            losses = self._train_epoch() if epoch else {}
            if self.settings.measured(epoch):
                self.last = self._measure()
                write_scores(self.settings.folder, self.last.classes)
            row = dict(zip(COLUMNS, (epoch, round(self.kept.seconds(), 3)), strict=False))
            row |= {COLUMNS[2]: round(self.last.map50_95, 5), COLUMNS[3]: round(self.last.map50, 5)}
            self._write({**row, **losses, "lr": self.optimizer.param_groups[0]["lr"]})
            if epoch < self.settings.epochs and self.kept.due():
                self.kept.keep(epoch, self._state())

    def _train_epoch(self) -> dict[str, float]:
        """One pass over the images; the mean of each loss."""
        self.model.train()
        sums: dict[str, float] = {}
        for images, targets in self.batches:
            self._set_rate()
            losses = self.model(
                [image.to(self.device) for image in images],
                [{name: value.to(self.device) for name, value in target.items()} for target in targets],
            )
            total = sum(losses.values())
            if not math.isfinite(float(total.detach())):
                raise UserError("the training diverged (its loss is not a number)", where="lr0", hint="lower it")
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["clip"])
            self.optimizer.step()
            self.step += 1
            for name, value in losses.items():
                sums[f"train/{name}"] = sums.get(f"train/{name}", 0.0) + float(value.detach())
        return {name: round(value / len(self.batches), 6) for name, value in sums.items()}

    def _set_rate(self) -> None:
        factor = rate_factor(self.step, self.steps, self.recipe["warmup"], self.recipe["lrf"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr0 * factor

    def _measure(self) -> Scores:
        with torch.no_grad(), evaluating(self.model):
            found = (
                (self.model([image.to(self.device)])[0], target)
                for image, target in (self.test[place] for place in range(len(self.test)))
            )
            return score(found, self.record.names)

    def _write(self, row: Mapping[str, Any]) -> None:
        path = self.settings.folder / CURVE
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)


def rate_factor(step: int, steps: int, warmup: float, left: float) -> float:
    """The share of the learning rate at `step`, from 0: up over the warm-up, then down to `left`, each in a line."""
    rising = warmup * steps
    if step + 1 < rising:
        return (step + 1) / rising
    return 1 - (1 - left) * (step - rising) / max(1.0, steps - rising) if step > rising else 1.0


def make_optimizer(name: str, model: nn.Module, lr: float, recipe: Mapping[str, float]) -> torch.optim.Optimizer:
    """An optimizer of ``torch.optim`` over all parameters."""
    more: dict[str, Any] = {"lr": lr, "weight_decay": recipe["weight_decay"]}
    if name in ("SGD", "RMSprop"):
        more["momentum"] = recipe["momentum"]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(model.parameters(), **more)
    return optimizer


@torch.no_grad()
def detect(weights: Path, images: Sequence[str], *, imgsz: int, device: str, least: float) -> list[list[list[float]]]:
    """See `headstart.detectors.finetuner.Finetuner.detect`."""
    model, _ = set_up(str(weights), imgsz)
    where = device_of(device)
    model.to(where).eval()
    found = []
    for path in images:
        pixels = data.scaled(path, imgsz)
        sides = torch.tensor([pixels.shape[2], pixels.shape[1]] * 2)
        made: dict[str, Tensor] = model([pixels.to(where).float() / 255])[0]
        shares = made["boxes"].cpu() / sides
        rows = zip(made["labels"].tolist(), made["scores"].tolist(), shares.tolist(), strict=True)
        found.append([[label - 1, sure, *box] for label, sure, box in rows if sure >= least])
    return found
