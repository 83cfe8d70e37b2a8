"""What arrived of a detector that was handed back, tensor by tensor. Nothing here needs torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

Part = Literal["backbone", "neck", "head"]


PARTS: tuple[Part, ...] = get_args(Part)


_NAMED = 5


"""How many tensors a message names before it counts the rest."""


def shorten(items: Iterable[str], between: str = ", ") -> str:
    """`items` in one line, at most five of them and the number of the others."""
    listed = list(items)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return between.join(listed[:_NAMED]) + more


class PartCount(NamedTuple):
    """Tensors of one part of a detector: all, those that pretraining changed, those that arrived unaltered."""

    total: int
    trained: int
    arrived: int


@dataclass(frozen=True)
class Dropped:
    """A tensor that did not arrive.

    Attributes:
        name: As in ``module.state_dict()``.
        part: backbone, neck or head.
        trained: Whether pretraining had changed it.
        reason: What happened to it, in words.
    """

    name: str
    part: Part
    trained: bool
    reason: str


@dataclass(frozen=True)
class HandBack:
    """What arrived of a pretrained detector, tensor by tensor.

    Attributes:
        parts: Counts for backbone, neck and head.
        dropped: Tensors that did not arrive; empty when all is well.
        places: Where every tensor was compared, bit by bit.
        fresh: Tensors that start from random weights when the classes are others.
        classes: Number of classes of the checkpoint, and the one with which `fresh` was found; None where not tried.
        not_finite: Tensors that hold a NaN or an infinity: they may have arrived bit by bit and are worth nothing.
        of_user: Whether its classes are the user's own already.
        alike: Classes that the family's trainer takes for one, in words.
        shared: Tensors that arrived but for their rows, which the trainer puts in each other's place.
    """

    parts: Mapping[Part, PartCount]
    dropped: tuple[Dropped, ...] = ()
    places: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    classes: tuple[int, int] | None = None
    not_finite: tuple[str, ...] = ()
    of_user: bool = False
    alike: tuple[str, ...] = ()
    shared: int = 0

    @classmethod
    def compared(
        cls,
        names: Collection[str],
        lost: Mapping[str, str],
        part_of: Callable[[str], Part],
        trained: Collection[str],
        **facts: Any,
    ) -> HandBack:
        """Count what a comparison of tensors found.

        Args:
            names: All tensors of the detector.
            lost: Those that did not arrive, and why, in words.
            part_of: The part that a tensor belongs to.
            trained: Those that pretraining changed.
            facts: The other attributes.
        """
        total = Counter(part_of(name) for name in names)
        changed = Counter(part_of(name) for name in names if name in trained)
        arrived = Counter(part_of(name) for name in names if name not in lost)
        parts = {part: PartCount(total[part], changed[part], arrived[part]) for part in PARTS}
        dropped = tuple(Dropped(name, part_of(name), name in trained, reason) for name, reason in lost.items())
        return cls(parts, dropped, **facts)

    @property
    def ok(self) -> bool:
        """Whether every tensor arrived, and holds numbers."""
        return not self.dropped and not self.not_finite

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``handback.json``."""
        return {
            "ok": self.ok,
            "parts": {name: count._asdict() for name, count in self.parts.items()},
            "dropped": [vars(one) for one in self.dropped],
            "not_finite": list(self.not_finite),
            "compared": list(self.places),
            "fresh": list(self.fresh),
            "classes": list(self.classes) if self.classes else None,
            "alike": list(self.alike),
            "lines": self.lines(),
        }

    def lines(self) -> list[str]:
        """The same in words, e.g. ``backbone 207 of 207 tensors, neck 0 of 180 (not trained), ...``."""
        lines = [", ".join(self._part(name) for name in PARTS if name in self.parts and self.parts[name].total)]
        if self.not_finite:
            lines.append(f"NOT FINITE, {len(self.not_finite)} with NaN or infinity: {shorten(self.not_finite)}")
        if self.places and self.ok:
            # Those tried with other classes are fresh in that trial alone, and arrived here.
            total = sum(count.total for count in self.parts.values()) - len(self.fresh) * (self.classes is None)
            total -= self.shared
            lines.append(f"all {total} tensors bitwise equal in {', '.join(self.places)}")
        if self.shared:
            lines.append(
                f"{self.shared} tensors arrive with one row for classes called alike, {'; '.join(self.alike)}: "
                "a training begins these with the same weights, for Ultralytics finds rows by name"
            )
        for one in self.dropped[:_NAMED]:
            trained = "pretrained" if one.trained else "not pretrained"
            lines.append(f"DROPPED {one.name} ({one.part}, {trained}): {one.reason}")
        if len(self.dropped) > _NAMED:
            lines.append(f"DROPPED {len(self.dropped) - _NAMED} more tensors")
        if self.classes:
            lines.append(self._own_classes(*self.classes))
        return lines

    def lost(self) -> str:
        """What is wrong with one that is not `ok`, in a few words."""
        dropped, broken = len(self.dropped), len(self.not_finite)
        words = [f"{dropped} tensors did not arrive"] if dropped or not broken else []
        return ", ".join([*words, *([f"{broken} tensors hold NaN or infinity"] if broken else [])])

    def _part(self, name: Part) -> str:
        count = self.parts[name]
        lost = sum(one.part == name and one.trained for one in self.dropped)
        tensors = " tensors" if name == next(part for part in PARTS if part in self.parts) else ""
        return f"{name} {count.trained - lost} of {count.total}{tensors}{'' if count.trained else ' (not trained)'}"

    def _own_classes(self, classes: int, other: int) -> str:
        if not self.fresh:
            return f"with {other} classes in place of {classes} every tensor is still taken"
        fresh = f"({other} tried in place of {classes}) {len(self.fresh)} tensors start fresh: {shorten(self.fresh)}"
        if self.of_user:  # a training on them takes all: what is fresh with others is for who changes the list
            return f"your {classes} classes are its own: a training on them takes every tensor; with others {fresh}"
        return f"with your own classes {fresh}"
