"""What the classes of a data set are called, where each needs a name of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
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


def spelling(name: str) -> str:
    """What two names of one class have in common, as Ultralytics compares them: neither case nor spaces around."""
    return name.strip().lower()


def unnamed(names: Sequence[str]) -> bool:
    """Whether these are no names, but the numbers that the classes of a network from its YAML have."""
    return all(name == str(at) for at, name in enumerate(names))


def alike(names: Sequence[str]) -> list[str]:
    """Classes that are one to Ultralytics' trainer, in words: ``'Bolt' (0) and 'bolt' (1)``; none as a rule.

    It looks for the rows of a head by name when a training begins, and each of these gets the row of the last.
    """
    of: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(names):
        of[spelling(name)].append(at)
    return [" and ".join(f"{names[at]!r} ({at})" for at in same) for same in of.values() if len(same) > 1]
