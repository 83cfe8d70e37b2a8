"""Keep the state of an Ultralytics training, and go on from it.

Ultralytics' own ``resume`` goes on from the EMA in half precision, with a half-precision optimizer, without the
random states and the gradients that were not applied yet: another training than one that was not stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from headstart.detectors.finetuner import Arrival, FinetuneSettings
from headstart.detectors.ultralytics.arrival import holders
from headstart.detectors.under_way import UnderWay
from headstart.files import write_text
from headstart.launch.random_state import random_state, set_random_state

_OF_LOSS = ("updates", "o2m", "o2o")
"""What the loss of a detector without suppression changes from epoch to epoch."""
_NEVER = 2**62


class Continuing:
    """Callbacks of one training's trainer.

    Args:
        settings: Of the training.
    """

    def __init__(self, settings: FinetuneSettings) -> None:
        self.settings = settings
        self.kept: UnderWay | None = None
        self._gradients: Mapping[str, torch.Tensor] = {}
        self._steps = 0
        self._pending = 0  # batches whose gradients wait for a step
        self._hold: tuple[int, int] | None = None  # batches to wait, and then between two steps

    def begin(self, trainer: Any, arrival: Arrival) -> Arrival:
        """Bring back what was kept, where there is something, and say so in `arrival`."""
        loader = trainer.train_loader
        self.kept = UnderWay(self.settings, arrival.initial, arrival.versions, trainer.device, loader.num_workers)
        self.kept.go_on(lambda state: self._restore(trainer, state))
        return self.kept.told(arrival)

    def epoch_start(self, trainer: Any) -> None:
        """Put back gradients that were not applied yet: the trainer cleared them before its first epoch."""
        for name, parameter in trainer.model.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter.device)
        self._gradients = {}

    def batch_start(self, trainer: Any) -> None:
        """Let the trainer step when it would have: it takes the batches before the first as waiting since ever."""
        if self._hold is not None:
            wait, usual = self._hold
            trainer.accumulate = usual if wait <= 1 else _NEVER
            self._hold = None if wait <= 1 else (wait - 1, usual)

    def batch_end(self, trainer: Any) -> None:
        """Count the batches since the last step; the EMA counts the steps."""
        self._pending = self._pending + 1 if trainer.ema.updates == self._steps else 0
        self._steps = trainer.ema.updates

    def epoch_end(self, trainer: Any) -> None:
        """Keep the state, now and then, but not in the warm-up, nor when all is done."""
        done, batches = trainer.epoch + 1, len(trainer.train_loader)
        warm = done * batches > _warm_up(trainer, batches)
        if self.kept and warm and done < trainer.epochs and self.kept.due():
            self.kept.keep(done, self._state(trainer))

    def _state(self, trainer: Any) -> dict[str, Any]:
        module, states = holders(trainer)
        named = trainer.model.named_parameters()
        gradients = {name: one.grad for name, one in named if one.grad is not None} if self._pending else {}
        loader, criterion = trainer.train_loader, getattr(module, "criterion", None)
        return {
            "model": dict(states["model"]),
            "ema": dict(states["EMA"]),
            "updates": trainer.ema.updates,
            "optimizer": trainer.optimizer.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "loss": {name: float(getattr(criterion, name, 0)) for name in _OF_LOSS},
            "gradients": gradients,
            "pending": self._pending,
            "accumulate": trainer.accumulate,
            "best": [_number(trainer.best_fitness), _number(trainer.fitness)],
            "metrics": {name: float(value) for name, value in trainer.metrics.items()},
            "loss_names": list(trainer.loss_names),
            "csv": trainer.csv.read_text(encoding="utf-8"),
            "order": loader.generator.get_state(),
            "buffer": [int(one) for one in getattr(loader.dataset, "buffer", ())],
            "random": random_state(trainer.device),
        }

    def _restore(self, trainer: Any, state: Mapping[str, Any]) -> None:
        module, _ = holders(trainer)
        module.load_state_dict(state["model"])
        trainer.ema.ema.load_state_dict(state["ema"])
        trainer.ema.updates = self._steps = state["updates"]
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.scaler.load_state_dict(state["scaler"])
        module.criterion = getattr(module, "criterion", None) or module.init_criterion()
        for name in _OF_LOSS:
            if hasattr(module.criterion, name):
                setattr(module.criterion, name, type(getattr(module.criterion, name))(state["loss"][name]))
        trainer.start_epoch, trainer.scheduler.last_epoch = state["epoch"], state["epoch"] - 1
        trainer.best_fitness, trainer.fitness = state["best"]
        trainer.metrics, trainer.loss_names = dict(state["metrics"]), type(trainer.loss_names)(state["loss_names"])
        trainer.train_time_start -= state["seconds"]
        write_text(trainer.csv, state["csv"])
        self._gradients, self._pending = state["gradients"], state["pending"]
        usual = trainer.accumulate = state["accumulate"]
        self._hold = (usual - self._pending, usual)
        _restore_order(trainer, state)


def _warm_up(trainer: Any, batches: int) -> int:
    """Batches of the warm-up, where an epoch has so many."""
    if hasattr(trainer, "_get_warmup_iterations"):
        found: int = trainer._get_warmup_iterations(batches)
        return found
    return max(round(float(trainer.args.warmup_epochs) * batches), 100)  # before 8.4.123


def _restore_order(trainer: Any, state: Mapping[str, Any]) -> None:
    """Let images come, and be changed, as if nothing had happened, where no worker process draws for itself."""
    loader = trainer.train_loader
    for image in state["buffer"]:  # those from which mosaics are made
        loader.dataset.load_image(image)

    def order() -> None:
        # An iterator draws from the generator when it is made: it was made long before the state was kept.
        loader.iterator = loader._get_iterator()
        loader.generator.set_state(state["order"])

    if loader.num_workers:
        loader.generator.set_state(state["order"])
        loader.reset()
    elif trainer.args.close_mosaic and state["epoch"] > trainer.epochs - trainer.args.close_mosaic:
        reset = loader.reset  # the trainer closes mosaics in its first epoch, now once more, and resets the loader

        def reset_once() -> None:
            reset()
            loader.reset = reset
            order()

        loader.reset = reset_once
    else:
        order()
    set_random_state(state["random"], trainer.device)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
