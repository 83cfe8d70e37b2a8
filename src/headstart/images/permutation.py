"""A random permutation of very many things that is computed place by place, without a table of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ROUNDS = 8

Places = npt.NDArray[np.uint64]


def permuted(places: Places, number: int, key: Sequence[int]) -> Places:
    """Which thing a random permutation puts at each place.

    A Feistel network (Luby and Rackoff, 1988) permutes the numbers of just enough bits; to what it
    leads out of the things it is applied again until it leads back (cycle walking; Black and Rogaway, 2002).
    All of it is integer arithmetic: the same on every machine.

    Args:
        places: uint64, each below `number`.
        number: Of things, at least 1.
        key: Integers of 0 and more that choose the permutation.

    Returns:
        uint64 of the shape of `places`; over all places each thing once.
    """
    half = np.uint64(max(1, (int(number - 1).bit_length() + 1) // 2))
    keys: Places = np.random.PCG64(np.random.SeedSequence(key)).random_raw(ROUNDS)
    found: Places = places.copy()
    outside = np.ones(places.shape, np.bool_)
    while outside.any():
        found[outside] = _network(found[outside], half, keys)
        outside = np.greater_equal(found, np.uint64(number))
    return found


def _network(values: Places, half: np.uint64, keys: Places) -> Places:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    found: Places = left << half | right
    return found


def _mixed(values: Places) -> Places:
    """Every bit of the result depends on every bit given: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Places = values ^ (values >> np.uint64(31))
    return mixed
