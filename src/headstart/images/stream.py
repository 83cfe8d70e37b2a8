"""The order of the images of a run, which depends on the seed and the step alone.

They are an endless stream: one random permutation of the index after the other, one an epoch. Step s takes the s-th
`batch` of them and rank r its share of that, whatever was loaded before; so a resumed run goes on with exactly the
images that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from headstart.images.permutation import permuted

WINDOW = 8
"""Shards at addresses whose images are mixed with one another."""
SORTED = 2**24
"""Images up to which an epoch's order is a table, 4 bytes an image in each loader process; beyond, it is computed."""


class Stream:
    """The endless order of images; `rows` is a pure function of the arguments, without memory of earlier calls.

    Args:
        images: Number of images in the index.
        batch: Images a step over all ranks.
        seed: Any integer.
        rank: Whose share.
        world: Number of shares.
        shards: Of each image the number of its shard, where it is quicker to read of few of them at a time: they come
            in a random order, and the images of `WINDOW` of them are mixed. Else those of all are.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shards: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        self.images, self.batch, self.seed, self.rank, self.world = images, batch, seed, rank, world
        self.shards = shards
        self._order: tuple[int, npt.NDArray[np.uint32]] | None = None
        self._tableless = shards is None and images > SORTED

    def rows(self, step: int) -> list[int]:
        """Positions in the index of this rank's images of `step`."""
        share = self.batch // self.world
        first = step * self.batch + self.rank * share
        if self._tableless:
            return self._computed(range(first, first + share))
        return [self._at(position) for position in range(first, first + share)]

    def kind(self, step: int, place: int) -> int:
        """Which kind of image stands at a place of `rows`; here all are of one."""
        return 0

    def spares(self, step: int, kind: int = 0) -> Iterator[int]:
        """What may replace an unreadable image of `step`: the stream from the next step on, until all have come by.

        Args:
            step: Of the batch.
            kind: Of the image; others of its kind come first.
        """
        first = (step + 1) * self.batch + self.rank * (self.batch // self.world)
        return (self._at(position) for position in range(first, first + 2 * self.images))

    def _computed(self, positions: range) -> list[int]:
        epochs, places = np.divmod(np.array(positions, np.uint64), np.uint64(self.images))
        for epoch in np.unique(epochs):
            there = epochs == epoch
            places[there] = permuted(places[there], self.images, [self.seed % 2**64, int(epoch)])
        found: list[int] = places.tolist()
        return found

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.images)
        if self._tableless:
            return self._computed(range(position, position + 1))[0]
        if self._order is None or self._order[0] != epoch:
            # Sorting raw bits, not Generator.permutation: NumPy keeps only the bits the same in all its versions.
            order = np.argsort(self._drawn(self.images, epoch), kind="stable").astype(np.uint32)  # half the memory
            if self.shards is not None:
                turns = np.argsort(self._drawn(int(self.shards.max()) + 1, epoch, 1), kind="stable")
                windows = np.empty(len(turns), np.uint32)
                windows[turns] = np.arange(len(turns)) // WINDOW
                order = order[np.argsort(windows[self.shards[order]], kind="stable")]
            self._order = (epoch, order)
        return int(self._order[1][place])

    def _drawn(self, number: int, *of: int) -> npt.NDArray[np.uint64]:
        return np.random.PCG64(np.random.SeedSequence([self.seed % 2**64, *of])).random_raw(number)
