"""A search that the processes of a run share: each looks at a batch in every round, and the first keeps what is found.

Batches are given out in their order, and kept in that order. So what there is after a round is what one process has
after as many batches: a search may stop after any, and go on with another number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from headstart import ranks
from headstart.pseudolabels.parts import Objects


class Look(NamedTuple):
    """What is found on a batch.

    Attributes:
        objects: None where there was no image to look at.
        rows: int64 ``(N,)``: images that were looked at, each once.
        images: All that the batch has.
        skipped: See `PixelBatch`.
    """

    objects: Objects | None
    rows: Tensor
    images: int
    skipped: list[tuple[str, str]]


class _Sent(NamedTuple):
    """What a process brings from a round: its look, none after its last batch; and why it takes part in no further."""

    look: Look | None
    error: BaseException | None


def in_rounds(
    looks: Iterator[Look], take: Callable[[Look], bool], asked: Callable[[], BaseException | None]
) -> BaseException | None:
    """Look at all batches, or until it is enough, or one of the processes can not or is not to go on.

    Args:
        looks: What this process finds on its batches.
        take: Takes what was found on a batch, in the first process; whether that is enough.
        asked: What this process is asked to stop by; None as long as it is not.

    Returns:
        What ended it early, the same in all processes: what one of them raised, or was asked to stop by.
    """
    while True:
        kept = _Round(take)
        ranks.to_first(_next(looks, asked), kept.take)
        over, error = ranks.from_first((kept.over, kept.error and _sendable(kept.error)))
        if over or error:
            return error


def _next(looks: Iterator[Look], asked: Callable[[], BaseException | None]) -> _Sent:
    try:
        return _Sent(next(looks, None), asked())
    except Exception as error:  # the others are not to wait for what does not come
        return _Sent(None, _sendable(error))


def _sendable(error: BaseException) -> BaseException:
    return error if ranks.world() == 1 else ranks.portable(error)


class _Round:
    """What the processes bring from a round, as the first one takes it."""

    def __init__(self, take: Callable[[Look], bool]) -> None:
        self._take = take
        self.over = False
        self.error: BaseException | None = None

    def take(self, sent: _Sent) -> None:
        """Never raises: the others are heard out."""
        if self._failed:  # what comes after a gap is looked at again
            return
        error = sent.error
        try:
            self.over |= sent.look is None or self._take(sent.look)
        except Exception as raised:
            error = raised
        if error and (self.error is None or not isinstance(error, KeyboardInterrupt)):
            self.error = error

    @property
    def _failed(self) -> bool:
        return self.error is not None and not isinstance(self.error, KeyboardInterrupt)
