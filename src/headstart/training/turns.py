"""What the processes of a run agree on before each step: whether they take it, and what was found on the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart import ranks
from headstart.errors import UserError
from headstart.images.loader import PixelBatch

Listed = list[tuple[str, str]]


@dataclass(frozen=True)
class Turn:
    """One turn of the loop, the same in all processes but for the batch.

    Attributes:
        batch: This process's share of the images; None where no further step is taken.
        fault: Why a process has no images.
        skipped, notes: Of `PixelBatch`, those of all processes.
    """

    batch: PixelBatch | None
    fault: UserError | None = None
    skipped: Listed = field(default_factory=list)
    notes: Listed = field(default_factory=list)


def next_turn(batches: Iterator[PixelBatch], stop: bool) -> Turn:
    """The next turn; none, where any process is to stop.

    Args:
        batches: Of this process.
        stop: Whether it was asked to stop.
    """
    batch, fault = None, None
    if not stop:
        try:
            batch = next(batches)
        except UserError as error:
            fault = error
    found = batch is not None and bool(batch.skipped or batch.notes)
    stopping, failing, telling = ranks.any_of_all(stop, fault is not None, found)
    if failing:
        return Turn(None, next(one for one in ranks.of_all(fault) if one))
    if stopping or batch is None:
        return Turn(None)
    if not telling:
        return Turn(batch)
    every = ranks.of_all((batch.skipped, batch.notes))
    return Turn(
        batch, None, [one for skipped, _ in every for one in skipped], [one for _, notes in every for one in notes]
    )
