"""How torchvision's detectors are fine-tuned: what is checked and looked up before; nothing here imports torch."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from headstart.detectors.finetuner import Built, Finetuner, FinetuneSettings, StartSettings
from headstart.detectors.torchvision import names
from headstart.detectors.torchvision.recipe import ARGUMENTS, recipe
from headstart.errors import UserError


class TorchvisionFinetuner(Finetuner):
    """See `headstart.detectors.finetuner.Finetuner`."""

    optimizers = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop")
    suffixes = names.SUFFIXES
    environment: ClassVar[Mapping[str, str | None]] = {}

    def architecture(self, model: str) -> str:
        """See `Finetuner.architecture`."""
        return f"{names.FAMILY}:{names.bare(model)}"

    def check_model(self, model: str) -> list[UserError]:
        """See `Finetuner.check_model`."""
        problem = names.check_name(model)
        problems = [problem] if problem else []
        if find_spec("pycocotools") is None or find_spec("torchmetrics") is None:
            what = "torchvision's detectors are measured with torchmetrics and pycocotools, which are not installed"
            problems.append(UserError(what, where="model", hint="pip install 'headstart[torchvision]'"))
        return problems

    def published(self, model: str) -> str:
        """See `Finetuner.published`: the COCO weights that torchvision names DEFAULT."""
        return f"{self.architecture(model)}:coco"

    def arguments(self) -> Mapping[str, Any]:
        """See `Finetuner.arguments`."""
        return {name: argument.default for name, argument in ARGUMENTS.items()}

    def extra_problems(self, extra: Mapping[str, Any]) -> list[UserError]:
        """See `Finetuner.extra_problems`; values that are out of their range as well."""
        problems = super().extra_problems(extra)
        for name in [name for name in extra if name in ARGUMENTS]:
            _, least, most = ARGUMENTS[name]
            value = extra[name]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                what = f"must be a number from {least:g} to {most:g}, not {value!r}"
                problems.append(UserError(what, where=f"extra.{name}"))
        if not problems and recipe(extra)["scale_min"] > recipe(extra)["scale_max"]:
            problems.append(UserError("is larger than scale_max", where="extra.scale_min"))
        return problems

    def rejected(self, images: Sequence[str]) -> dict[str, str]:
        """See `Finetuner.rejected`: those that cannot be decoded."""
        from headstart.detectors.torchvision.rejected import rejected

        return rejected(images)

    def versions(self) -> Mapping[str, str]:
        """See `Finetuner.versions`."""
        return {name: importlib.metadata.version(name) for name in ("torchvision", "torch")}

    def build_start(self, settings: StartSettings, path: Path) -> Built:
        """See `Finetuner.build_start`."""
        from headstart.detectors.torchvision.starting import build_start

        return build_start(settings, path)

    def train(self, settings: FinetuneSettings) -> None:
        """See `Finetuner.train`."""
        from headstart.detectors.torchvision.training import train

        train(settings)

    def detect(
        self, weights: Path, images: Sequence[str], *, imgsz: int, device: str, least: float
    ) -> list[list[list[float]]]:
        """See `Finetuner.detect`."""
        from headstart.detectors.torchvision.training import detect

        return detect(weights, images, imgsz=imgsz, device=device, least=least)
