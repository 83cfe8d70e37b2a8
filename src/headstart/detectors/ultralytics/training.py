"""One training by Ultralytics' own trainer, and what its detector finds afterwards: the inside of a training's process.

The folder is an ordinary Ultralytics run. Ultralytics keeps and validates the epoch that scored best on the very
images that it is measured on; here that checkpoint is not kept, and figures are those of the last epoch (EMA).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.detectors.finetuner import ARRIVED, FinetuneSettings, write_json
from headstart.detectors.ultralytics.arrival import check_arrival
from headstart.detectors.ultralytics.class_scores import ScoreWriter
from headstart.detectors.ultralytics.continuing import Continuing
from headstart.detectors.ultralytics.safe_loading import refused, safe_loading
from headstart.detectors.ultralytics.untouched import leaving_data_alone
from headstart.detectors.ultralytics.used import used
from headstart.detectors.used import write_used
from headstart.errors import UserError


def arguments(settings: FinetuneSettings) -> dict[str, Any]:
    """Everything that is passed to Ultralytics' ``train``, apart from the model itself."""
    own = {name: getattr(settings, name) for name in ("epochs", "imgsz", "batch", "lr0", "seed", "device", "workers")}
    own |= {"optimizer": settings.optimizer, "plots": settings.plots, "data": str(Path(settings.data).resolve())}
    own["epochs"] = max(1, settings.epochs)  # without any, it ends before the first
    own |= {"project": str(settings.folder.parent), "name": settings.folder.name, "exist_ok": True}
    own |= {"pretrained": Path(settings.start).suffix == ".pt", "patience": 0, "val": True, "resume": False}
    # A checkpoint trained with single_cls hands that on, silently. The warm-up's bias rate of 0.1 is meant for SGD:
    # an Adam moves every bias, batch norm's too, by as much a step, and undoes what a good start brought
    # ("auto" sets it to 0 for the same reason).
    defaults = {"single_cls": False} | ({} if "SGD" in settings.optimizer else {"warmup_bias_lr": 0.0})
    return {**defaults, **dict(settings.extra), **own}


def train(settings: FinetuneSettings) -> None:
    """See `headstart.detectors.finetuner.Finetuner.train`; only the trainer's final evaluation is replaced."""
    try:
        with safe_loading(str(settings.start)):
            _train(settings)
    except UserError:
        raise
    except Exception as error:
        if unsafe := refused(str(settings.start), error, "start"):
            raise unsafe from error
        raise


def _train(settings: FinetuneSettings) -> None:
    from ultralytics import YOLO
    from ultralytics.nn.tasks import load_checkpoint

    _stay_offline()
    start, names = {}, {}
    if Path(settings.start).suffix == ".pt":
        # Read anew from the file, not taken from the YOLO object: it is the file that must arrive.
        module, _ = load_checkpoint(str(settings.start))
        start, names = {key: value.clone() for key, value in module.state_dict().items()}, module.names

    continuing, scores = Continuing(settings), ScoreWriter(settings.folder)

    def on_train_start(trainer: Any) -> None:
        arrival = continuing.begin(trainer, check_arrival(trainer, start, names, str(settings.start)))
        write_json(settings.folder / ARRIVED, arrival)
        if read := used(trainer):
            write_used(settings.folder, read)
        if settings.epochs == 0:
            _measure(trainer)
            scores.write(trainer)
            raise _AsItIs

    def on_train_epoch_start(trainer: Any) -> None:
        refuse_another_batch(trainer, settings.batch)
        trainer.args.val = settings.measured(trainer.epoch + 1)
        continuing.epoch_start(trainer)

    yolo = YOLO(str(settings.start))
    yolo.add_callback("on_train_start", on_train_start)
    yolo.add_callback("on_train_epoch_start", on_train_epoch_start)
    yolo.add_callback("on_train_batch_start", continuing.batch_start)
    yolo.add_callback("on_train_batch_end", continuing.batch_end)
    yolo.add_callback("on_fit_epoch_end", scores.write)
    yolo.add_callback("on_fit_epoch_end", continuing.epoch_end)
    with leaving_data_alone(settings.folder), suppress(_AsItIs):
        yolo.train(trainer=_without_choice(yolo.task_map[yolo.task]["trainer"]), **arguments(settings))


class _AsItIs(Exception):  # noqa: N818 - nothing is wrong: there is nothing to train
    """The start was measured as it is."""


def _measure(trainer: Any) -> None:
    """Measure a trainer's EMA before its first step, exactly as it is measured after an epoch, and keep the weights."""
    import torch
    from ultralytics.utils.torch_utils import strip_optimizer

    with torch.no_grad():  # the validation asks what the losses of the last step were
        batch = trainer.preprocess_batch(next(iter(trainer.test_loader)))
        trainer.loss, trainer.loss_items = trainer.ema.ema(batch)
    trainer.epoch = -1
    trainer.metrics, trainer.fitness = trainer.validate()
    trainer.save_metrics(metrics=trainer.metrics)
    trainer.save_model()
    trainer.best.unlink(missing_ok=True)
    strip_optimizer(trainer.last)


def refuse_another_batch(trainer: Any, batch: int) -> None:
    """Raise where the trainer goes on with another batch than it was given.

    Out of memory in the first epoch, Ultralytics halves the batch and begins that epoch again, with a warning alone:
    such a training is no longer the same as the others but for its start.
    """
    if trainer.batch_size != batch:
        what = (
            f"there is too little memory for {batch} images in a batch; with {trainer.batch_size} it would be another"
        )
        hint = "give a smaller batch= or imgsz= for all trainings, or fewer at once with jobs=1"
        raise UserError(f"{what} training than the rest", where="batch", hint=hint)


def _without_choice(trainer: Any) -> Any:
    """The trainer, except that it ends with the last epoch's weights and does not keep the epoch that scored best.

    Ultralytics ends by validating best.pt, chosen by its score on the images that it is measured on.
    """

    class LastEpochTrainer(trainer):  # type: ignore[misc]  # which trainer it is depends on the task
        best: Path

        def final_eval(self) -> None:
            self.best.unlink(missing_ok=True)
            if self.args.plots:  # the plots of precision, recall and confusion are made here
                self.best = self.last
            super().final_eval()

    return LastEpochTrainer


def _stay_offline() -> None:
    """No trackers, no telemetry, and no look for a font on the network, which can hang where a firewall drops packets.

    Ultralytics' settings are changed in memory alone: the user's file keeps what it says.
    """
    from ultralytics.utils import SETTINGS, downloads

    trackers = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")
    dict.update(SETTINGS, {**dict.fromkeys(trackers, False), "api_key": ""})
    look = downloads.is_url
    downloads.is_url = lambda url, check=False: not check and look(url)


def detect(weights: Path, images: Sequence[str], *, imgsz: int, device: str, least: float) -> list[list[list[float]]]:
    """See `headstart.detectors.finetuner.Finetuner.detect`."""
    from ultralytics import YOLO

    with safe_loading(str(weights)):
        yolo = YOLO(str(weights))
    found: list[list[list[float]]] = []
    for image in images:
        made = yolo.predict(image, imgsz=imgsz, device=device, conf=least, verbose=False)
        if not made:  # it could not be read
            found.append([])
            continue
        (result,) = made
        boxes = result.boxes if result.boxes is not None else result.obb
        rows = zip(boxes.cls.tolist(), boxes.conf.tolist(), _shares(boxes, result.orig_shape), strict=True)
        found.append([[int(label), sure, *box] for label, sure, box in rows])
    return found


def _shares(boxes: Any, shape: Sequence[int]) -> list[list[float]]:
    height, width = shape
    return [[x0 / width, y0 / height, x1 / width, y1 / height] for x0, y0, x1, y1 in boxes.xyxy.tolist()]
