"""What the classes of a data set are called, where each needs a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes as keys of what is counted by class: those that several classes share get their number.

    ``bolt, nut, bolt`` are ``bolt (0), nut, bolt (2)``; under one key the last class would take the others' place.
    """
    often = Counter(names)
    taken = {name for name, number in often.items() if number == 1}
    found = []
    for at, name in enumerate(names):
        own = name
        if often[name] > 1:
            own = f"{name} ({at})"
            while own in taken:  # another class is called so
                own += f" ({at})"
            taken.add(own)
        found.append(own)
    return tuple(found)
