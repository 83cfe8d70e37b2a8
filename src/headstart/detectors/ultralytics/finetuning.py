"""How Ultralytics' detectors are fine-tuned: what is checked and looked up before; nothing here imports Ultralytics."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import yaml

from headstart.detectors.finetuner import Built, Finetuner, FinetuneSettings, StartSettings
from headstart.detectors.ultralytics import model_files
from headstart.errors import UserError, did_you_mean
from headstart.images.dataset_yaml import read_dataset_yaml

# Arguments of Ultralytics that are options of a comparison, by the name that `FinetuneSettings` has for them.
OWN = {"model": "start", "data": "data", "epochs": "epochs", "imgsz": "imgsz", "batch": "batch", "lr0": "lr0"}
OWN |= {"optimizer": "optimizer", "workers": "workers", "device": "device", "seed": "seed", "plots": "plots"}
OWN |= {"name": "name", "project": "out"}
_CHANNELS = 3
_FIXED = {
    "pretrained": "every start is read from the file it names",
    "patience": "stopping early would choose the epoch by the test score",
    "time": "a time limit would change the number of steps",
    "resume": "a training that was stopped goes on by itself",
    "val": "the figures are those of the last epoch",
    "save": "the last epoch's weights are kept",
    "exist_ok": "the folder is looked after here",
    "save_dir": "the folder is out/name",
    "cfg": "give the arguments themselves",
    "mode": "this trains",
    "task": "the start knows its task",
    "split": "the figures are those of the test images; the comparison's own split= says which these are",
}
# Arguments that have to stay as they are without being given -> what does not fit a comparison, and what to do.
_UNSET = {
    "single_cls": (
        "the starts have the classes of data, so some of their tensors would not arrive",
        "give a dataset YAML of one class, whose labels are all of class 0",
    ),
    "distill_model": (
        "a teacher beside the network is trained with it, and a start does not arrive in the two",
        "start from what a teacher made: a run or recipe with method=distill",
    ),
    "quantize": (
        "trainings and figures of a comparison are not quantized",
        "quantize the detector afterwards, when it is exported",
    ),
}


class UltralyticsFinetuner(Finetuner):
    """See `headstart.detectors.finetuner.Finetuner`."""

    optimizers = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
    # No downloads, no installs, no trackers.
    environment: ClassVar[Mapping[str, str | None]] = {
        "ULTRALYTICS_API_KEY": None,
        **{"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "WANDB_MODE": "disabled"},
    }

    def architecture(self, model: str) -> str:
        """See `Finetuner.architecture`."""
        return model if Path(model).suffix in model_files.YAML else f"{_stem(model)}.yaml"

    def check_model(self, model: str) -> list[UserError]:
        """See `Finetuner.check_model`."""
        name = self.architecture(model)
        problem = model_files.check_name(name)
        if problem is None and not model_files.is_yaml(name):
            problem = UserError(f"{model} is not a model YAML", where="model")
        if problem is None and not model_files.finds_boxes(name):
            hint = "compare it with Ultralytics itself; headstart measures detectors, segmenters and pose models"
            problem = UserError(f"{model} finds no boxes, whose mAP a comparison measures", where="model", hint=hint)
        return [problem] if problem else []

    def published(self, model: str) -> str:
        """See `Finetuner.published`."""
        return f"{_stem(model)}.pt"

    def arguments(self) -> Mapping[str, Any]:
        """See `Finetuner.arguments`."""
        return {name: default for name, default in ultralytics_arguments().items() if name not in OWN}

    def optimizer_problems(self, optimizer: str) -> list[UserError]:
        """See `Finetuner.optimizer_problems`; "auto" is explained."""
        if optimizer == "auto":
            what = "'auto' chooses optimizer and learning rate by the number of iterations, and ignores lr0"
            return [UserError(what, where="optimizer", hint="name one, e.g. optimizer=AdamW lr=0.001")]
        return super().optimizer_problems(optimizer)

    def extra_problems(self, extra: Mapping[str, Any]) -> list[UserError]:
        """Fields of our own, fixed ones, those that Ultralytics does not have, and values that it or we refuse."""
        known = ultralytics_arguments()
        problems = []
        for key, value in extra.items():
            if key in OWN:
                problems.append(UserError("has a field of its own", where=f"extra.{key}", hint=f"set {OWN[key]}"))
            elif key in _FIXED:
                problems.append(UserError(f"cannot be changed: {_FIXED[key]}", where=f"extra.{key}"))
            elif key not in known:
                hint = did_you_mean(key, known)
                problems.append(UserError("Ultralytics has no such argument", where=f"extra.{key}", hint=hint))
            elif refused := _refused(key, value):
                problems.append(UserError(refused, where=f"extra.{key}"))
            elif key in _UNSET and value != known[key]:
                what, hint = _UNSET[key]
                problems.append(UserError(what, where=f"extra.{key}", hint=hint))
        return problems

    def data_problems(self, model: str, content: Mapping[str, Any]) -> list[UserError]:
        """See `Finetuner.data_problems`: the first convolution is as wide as the images have channels."""
        given, own = content.get("channels", _CHANNELS), _channels(self.architecture(model))
        if given == own:
            return []
        what = f"has channels: {given!r}, and every start of {model} takes {own}: none would arrive whole"
        hint = f"leave channels out: images are then read with {own}"
        if own == _CHANNELS:
            hint += f"; or name a model YAML that says channels: {given}, and starts that were made with it"
        return [UserError(what, where="data", hint=hint)]

    def learns_keypoints(self, model: str) -> bool:
        """See `Finetuner.learns_keypoints`."""
        return model_files.learns_keypoints(self.architecture(model))

    def fetch_dataset(self, yaml: Path) -> None:
        """See `Finetuner.fetch_dataset`."""
        from ultralytics.data.utils import check_det_dataset

        from headstart.detectors.ultralytics.safe_loading import check_script, safe_loading

        found = read_dataset_yaml(yaml)
        try:
            check_script(found.download, str(yaml))
        except UserError as script:
            absent = found.absent("train")
            raise UserError(absent.what, where="data", hint=absent.hint) if absent else script from None
        try:
            with safe_loading():
                check_det_dataset(str(yaml))
        except Exception as error:
            raise UserError(f"its images could not be downloaded: {error}", where=str(yaml)) from error

    def rejected(self, images: Sequence[str]) -> dict[str, str]:
        """See `Finetuner.rejected`."""
        from headstart.detectors.ultralytics.rejected import rejected

        return rejected(images)

    def versions(self) -> Mapping[str, str]:
        """See `Finetuner.versions`."""
        return {name: importlib.metadata.version(name) for name in ("ultralytics", "torch")}

    def build_start(self, settings: StartSettings, path: Path) -> Built:
        """See `Finetuner.build_start`."""
        from headstart.detectors.ultralytics.starting import build_start

        return build_start(settings, path)

    def train(self, settings: FinetuneSettings) -> None:
        """See `Finetuner.train`."""
        from headstart.detectors.ultralytics.training import train

        train(settings)

    def detect(
        self, weights: Path, images: Sequence[str], *, imgsz: int, device: str, least: float
    ) -> list[list[list[float]]]:
        """See `Finetuner.detect`."""
        from headstart.detectors.ultralytics.training import detect

        return detect(weights, images, imgsz=imgsz, device=device, least=least)


def ultralytics_arguments() -> dict[str, Any]:
    """Ultralytics' arguments and their defaults, read from its own file without importing it."""
    spec = find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise UserError("ultralytics is not installed", hint="pip install ultralytics")
    text = (Path(spec.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _refused(key: str, value: Any) -> str:
    """What Ultralytics says of a value that it would end at in its first step; "" where it says nothing."""
    from ultralytics.cfg import check_cfg

    try:
        check_cfg({key: value}, hard=True)
    except (TypeError, ValueError) as error:
        return str(error).split("\n")[0]
    return ""


def _channels(architecture: str) -> int:
    """Channels of the images that a model YAML is for."""
    path = Path(architecture)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return int((content or {}).get("channels") or _CHANNELS)


def _stem(model: str) -> str:
    return Path(model).name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".pt")
