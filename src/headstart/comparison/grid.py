"""The cells of a comparison: which trainings there are, what each is asked for, and whether one is done already."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.comparison.budgets import Budget
from headstart.comparison.longer import longer_epochs
from headstart.comparison.starts import Start
from headstart.errors import UserError
from headstart.settings.schema import CompareSettings

EPOCHS = 100
LOOK = "look into train.log of the folders below search/"


@dataclass(frozen=True)
class Cell:
    """One training of a comparison.

    Attributes:
        kind: ``main``; ``search`` for a learning rate on a validation part; ``longer`` for the one scratch run that
            gets the steps of a pretraining.
        start: The start's name.
        budget: Name of the label budget.
        seed: The seed of label list, fresh weights, order and augmentation.
        lr: Learning rate.
        epochs: Passes over its images; 0 for a start that is measured as it is.
        images: Images it trains on.
    """

    kind: str
    start: str
    budget: str
    seed: int
    lr: float
    epochs: int
    images: int

    @property
    def name(self) -> str:
        """Its folder below that of its kind."""
        rate = f"-lr{self.lr:g}" if self.kind == "search" else ""
        return f"{self.start}-{self.budget.replace('%', 'pc')}-seed{self.seed}{rate}"

    @property
    def shown(self) -> str:
        """The cell in a line for people."""
        rate = f", lr {self.lr:g}" if self.kind == "search" else ""
        return f"{'longer ' if self.kind == 'longer' else ''}{self.start}, {self.budget}, seed {self.seed}{rate}"


def epochs_for(settings: CompareSettings, images: int) -> int:
    """Epochs of a training on so many images: as given, or as many as make the steps, which are batches."""
    if settings.steps is not None:
        return max(1, math.ceil(settings.steps / math.ceil(images / settings.batch)))
    return settings.epochs or EPOCHS


def main_cells(
    settings: CompareSettings,
    starts: Sequence[Start],
    budgets: Sequence[Budget],
    pool: int,
    rates: dict[tuple[str, str], float],
    more: Mapping[str, int] | None = None,
) -> list[Cell]:
    """The grid starts x budgets x seeds; seed by seed, so that every start has been seen early.

    Args:
        settings: Of the comparison.
        starts: The starts.
        budgets: The budgets.
        pool: Labelled images in all.
        rates: (start, budget) -> learning rate; the first of the options where it is missing.
        more: Budget -> steps that a start gets on top which is fine-tuned for longer.
    """
    sizes = {budget.name: budget.images(pool) for budget in budgets}
    return [
        Cell("main", start.name, name, seed, rates.get((start.name, name), settings.lr[0]), epochs, images)
        for seed in settings.seeds
        for name, images in sizes.items()
        for start in starts
        for epochs in [_epochs_of(settings, start, images, (more or {}).get(name, 0))]
    ]


def _epochs_of(settings: CompareSettings, start: Start, images: int, more: int) -> int:
    if start.as_is:
        return 0
    epochs = epochs_for(settings, images)
    return longer_epochs(epochs, images, settings.batch, more) if start.longer else epochs


def search_cells(
    settings: CompareSettings,
    starts: Sequence[Start],
    budgets: Sequence[Budget],
    train_images: dict[str, int],
    more: Mapping[str, int] | None = None,
) -> list[Cell]:
    """The trainings that choose a learning rate, of the first seed; none where there is one rate alone.

    Args:
        settings: Of the comparison.
        starts: The starts.
        budgets: The budgets.
        train_images: Budget -> labelled images less the validation part.
        more: As for `main_cells`.
    """
    if len(settings.lr) == 1:
        return []
    return [
        Cell("search", start.name, budget.name, settings.seeds[0], rate, epochs, images)
        for budget in budgets
        for images in [train_images[budget.name]]
        for start in starts
        if start.name not in settings.start_lr and not start.as_is
        for epochs in [_epochs_of(settings, start, images, (more or {}).get(budget.name, 0))]
        for rate in settings.lr
    ]


def longer_cell(main: Cell, batch: int, steps: int) -> Cell:
    """The same training with so many steps more, as a hint beside the others."""
    return dataclasses.replace(main, kind="longer", epochs=longer_epochs(main.epochs, main.images, batch, steps))


def choose_rates(
    settings: CompareSettings, scores: Iterable[tuple[Cell, float | None]]
) -> dict[tuple[str, str], float]:
    """The best rate of every start and budget by its validation score; of equals the one named first.

    A start and budget whose rates all failed are left out.

    Args:
        settings: Of the comparison.
        scores: Search cells with their mAP50-95 on the validation part; None for one that failed.

    Raises:
        UserError: All rates of all of them failed.
    """
    best: dict[tuple[str, str], tuple[float, int, float]] = {}
    for cell, score in scores:
        key = (cell.start, cell.budget)
        ranked = (score if score is not None else -1.0, -settings.lr.index(cell.lr), cell.lr)
        if score is not None and (key not in best or ranked > best[key]):
            best[key] = ranked
    if not best:
        raise UserError("no learning rate worked for any start", where="lr", hint=LOOK)
    return {key: ranked[2] for key, ranked in best.items()}
