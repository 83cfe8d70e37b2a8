"""The order of images of several kinds, labelled and unlabelled ones, so many of each a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.images.stream import Stream


class Balance(NamedTuple):
    """What comes of a kind for some steps, in place of all its rows.

    Attributes:
        first, last: From step `first` to before `last`.
        rows: Of the index.
        repeats: How often each comes where others come once, 1 and more.
    """

    first: int
    last: int
    rows: Sequence[int]
    repeats: Sequence[float]


class Repeats:
    """An endless order of images of which some come more often than others; a function of its arguments alone.

    In an epoch each comes as often as it should, rounded up or down by chance, so that it does on the average.

    Args:
        repeats: How often each image comes in an epoch, 1 and more.
        seed: Any integers.
    """

    def __init__(self, repeats: Sequence[float], seed: Sequence[int]) -> None:
        self._repeats, self._seed = np.asarray(repeats, np.float64), [one % 2**64 for one in seed]
        self.length = max(1, int(np.ceil(round(float(self._repeats.sum()), 6))))
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def at(self, place: int) -> int:
        """Which image stands at a place of the order."""
        epoch, at = divmod(place, self.length)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._drawn(epoch))
        return int(self._order[1][at])

    def _drawn(self, epoch: int) -> npt.NDArray[np.int64]:
        """Systematic sampling: of images in a random order the one in which each of the whole numbers falls."""
        number = len(self._repeats)
        bits = np.random.PCG64(np.random.SeedSequence([*self._seed, epoch])).random_raw(number + 1 + self.length)
        order = np.argsort(bits[:number], kind="stable")
        ends = np.cumsum(self._repeats[order])
        ends = np.floor(ends * (self.length / ends[-1]) + float(bits[number]) / 2**64).astype(np.int64)
        ends[-1] = self.length
        drawn = np.repeat(order, np.diff(ends, prepend=0))
        return drawn[np.argsort(bits[number + 1 :], kind="stable")]


class MixedStream(Stream):
    """An endless order for each of the kinds; a step takes some images of each, kind by kind.

    Args:
        kinds: Rows of the index, of each kind; a row that stands there twice comes twice as often.
        plan: Step -> how many of each kind it takes; of a kind without rows none.
        steps: Of the run; `plan` is asked for each once.
        seed: Of the orders.
        rank, world: Which share, of how many.
        repeats: Of each kind how often its rows come, as `Balance` has it; None for each once an epoch.
    """

    def __init__(
        self,
        kinds: Sequence[Sequence[int]],
        plan: Callable[[int], Sequence[int]],
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        repeats: Sequence[Sequence[float] | None] | None = None,
    ) -> None:
        super().__init__(sum(map(len, kinds)), 1, seed, rank, world)
        self._kinds = kinds
        number = len(kinds)
        self._orders = [Stream(max(1, len(rows)), 1, number * seed + kind) for kind, rows in enumerate(kinds)]
        self._repeats = {
            kind: Repeats(of, [seed, kind]) for kind, of in enumerate(repeats or ()) if of is not None and len(of)
        }
        self._balanced: dict[int, list[tuple[Balance, Repeats]]] = {}
        counts = np.array([plan(step) for step in range(steps)], dtype=np.int64).reshape(steps, number)
        self._before = np.vstack([np.zeros((1, number), np.int64), counts.cumsum(0)])

    def rows(self, step: int) -> list[int]:
        """See `Stream.rows`."""
        every = [row for kind in range(len(self._kinds)) for row in self.of_kind(kind, step, step + 1)]
        # As many in each share, whatever their kinds; where they do not go round, some come twice.
        share = -(-len(every) // self.world)
        return [every[place % len(every)] for place in range(self.rank * share, (self.rank + 1) * share)]

    def of_kind(self, kind: int, first: int, last: int) -> list[int]:
        """The rows of one kind in the steps from `first` to before `last`, in order."""
        return [self._row(kind, place) for place in range(self._start(kind, first), self._start(kind, last))]

    def balance(self, kind: int, parts: Iterable[Balance]) -> None:
        """Have a kind come otherwise for some steps; what was balanced of it before is so no more."""
        self._balanced[kind] = [(part, Repeats(part.repeats, [self.seed, kind, part.first])) for part in parts]

    def kind(self, step: int, place: int) -> int:
        """See `Stream.kind`."""
        counts = self._before[step + 1] - self._before[step]
        every = int(counts.sum())
        at = (self.rank * -(-every // self.world) + place) % every
        return int(np.searchsorted(counts.cumsum(), at, side="right"))

    def spares(self, step: int, kind: int = 0) -> Iterator[int]:
        """See `Stream.spares`; then of the other kinds, those first of which this step has images."""
        counts = self._before[step + 1] - self._before[step]
        for one in sorted(range(len(self._kinds)), key=lambda one: (one != kind, not counts[one])):
            start, rows = self._start(one, step + 1), len(self._kinds[one])
            epoch = self._repeats[one].length if one in self._repeats else rows
            yield from (self._row(one, start + place) for place in range(2 * epoch))
            yield from self._kinds[one] if self._balanced.get(one) else ()  # where not all come soon

    def _start(self, kind: int, step: int) -> int:
        return int(self._before[min(step, len(self._before) - 1), kind])

    def _row(self, kind: int, place: int) -> int:
        for part, order in self._balanced.get(kind, ()):
            start = self._start(kind, part.first)
            if start <= place < self._start(kind, part.last):
                return part.rows[order.at(place - start)]
        if kind in self._repeats:
            return self._kinds[kind][self._repeats[kind].at(place)]
        return self._kinds[kind][self._orders[kind].rows(place)[0]]
