"""The order of images of several kinds, labelled and unlabelled ones, so many of each a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from headstart.images.loader import Stream


class MixedStream(Stream):
    """An endless order for each of the kinds; a step takes some images of each, kind by kind.

    Args:
        kinds: Rows of the index, of each kind; a row that stands there twice comes twice as often.
        plan: Step -> how many of each kind it takes; of a kind without rows none.
        steps: Of the run; `plan` is asked for each once.
        seed: Of the orders.
        rank, world: Which share of each kind, of how many.
    """

    def __init__(
        self,
        kinds: Sequence[Sequence[int]],
        plan: Callable[[int], Sequence[int]],
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(sum(map(len, kinds)), 1, seed, rank, world)
        self._kinds = kinds
        number = len(kinds)
        self._orders = [Stream(max(1, len(rows)), 1, number * seed + kind) for kind, rows in enumerate(kinds)]
        counts = np.array([plan(step) for step in range(steps)], dtype=np.int64).reshape(steps, number)
        self._before = np.vstack([np.zeros((1, number), np.int64), counts.cumsum(0)])

    def rows(self, step: int) -> list[int]:
        """See `Stream.rows`."""
        kinds = range(len(self._kinds))
        return [row for kind in kinds for row in self.of_kind(kind, step, step + 1)[self.rank :: self.world]]

    def of_kind(self, kind: int, first: int, last: int) -> list[int]:
        """The rows of one kind in the steps from `first` to before `last`, in order."""
        return [self._row(kind, place) for place in range(self._start(kind, first), self._start(kind, last))]

    def spares(self, step: int) -> Iterator[int]:
        """See `Stream.spares`; of the kind that there is most of first."""
        for kind in sorted(range(len(self._kinds)), key=lambda kind: -len(self._kinds[kind])):
            start = self._start(kind, step + 1)
            yield from (self._row(kind, start + place) for place in range(2 * len(self._kinds[kind])))

    def _start(self, kind: int, step: int) -> int:
        return int(self._before[min(step, len(self._before) - 1), kind])

    def _row(self, kind: int, place: int) -> int:
        return self._kinds[kind][self._orders[kind].rows(place)[0]]
